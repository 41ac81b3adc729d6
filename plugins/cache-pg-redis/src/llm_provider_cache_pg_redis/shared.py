"""The state of limits: in Redis, changed by a script, and the same in this process for as long as Redis is down."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from providers.resilience.cooldown import Cooldown
from providers.resilience.levels import Amounts, Levels, Rate
from providers.resilience.lines import Chore, do_chores

from .address import Address
from .codec import SCHEMA, safe
from .front import connect, redis_failed
from .part import Part, PartError, Stale

_SCRIPT: Final = Path(__file__).with_name("script.lua")


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of the state of one key; done as a whole.

    Attributes:
        rates: the buckets' shapes.
        chores: to be done first.
        held: what the one has paid who waits for its time, or `None`.
        ripe: whether that time has come.
        queue: amounts of those behind, in their order.
    """

    rates: tuple[Rate, ...]
    chores: list[Chore]
    held: Amounts | None
    ripe: bool
    queue: list[list[float]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of it.

    Attributes:
        freed: whether the held one may go.
        granted: how many of the queue may go.
        left: seconds that the one who waits now still has to.
        waits: whether there is one: the held one, or the next of the queue, which has paid now.
        pause: seconds of the cooldown that are left.
        generation: the cooldown's generation.
        streak: how many cooldowns there were since a call went well.
    """

    freed: bool
    granted: int
    left: float
    waits: bool
    pause: float
    generation: int
    streak: int


class SharedState(Part):
    """The state of all keys, in Redis.

    Args:
        address: where Redis is.
        prefix: what all keys begin with.
        timeout: seconds for one word.
    """

    def __init__(self, address: Address, prefix: str, timeout: float) -> None:
        super().__init__("Redis", address)
        self._prefix = f"{prefix}:{SCHEMA}:"
        self._timeout = timeout
        self._client: Any = None
        self._script: Any = None

    def say(self, key: str, ask: Ask) -> Reply | None:
        """Run the script; `None` where Redis cannot be used."""
        try:
            return self.ask(self._say, key, ask)
        except PartError:
            return None

    def _say(self, key: str, ask: Ask) -> Reply:
        script = self._connected()
        body: dict[str, Any] = {
            "rates": [(rate.capacity, rate.per_second) for rate in ask.rates],
            "chores": ask.chores,
            "ripe": ask.ripe,
            "queue": ask.queue,
        }
        if ask.held is not None:
            body["held"] = ask.held
        found = script(keys=[self._prefix + safe(key)], args=[json.dumps(body)])
        freed, granted, left, waits, pause, generation, streak = found
        return Reply(bool(freed), granted, float(left), bool(waits), float(pause), generation, streak)

    def _connected(self) -> Any:
        # The import takes a while; so not before the first use.
        if self._script is None:
            self._client = connect(self.address, self._timeout, 4)
            self._script = self._client.register_script(_SCRIPT.read_text(encoding="utf-8"))
        return self._script

    def probe(self) -> None:
        """See `Part`."""
        self._connected()
        self._client.ping()

    def remove(self, stale: list[Stale]) -> None:
        """See `Part`; nothing is noted here."""

    def failed(self, error: Exception) -> PartError:
        """See `Part`. Refused is no better than down: the script cannot run."""
        found = redis_failed(self, error)
        return PartError(str(found) if found else f"{self.name} cannot be used ({self.address.describe(error)})")

    def close(self) -> None:
        """Give the connections back; a later word makes others."""
        if self._client is not None:
            self._client.close()


class Spare:
    """The state of one key in this process, for as long as Redis is down.

    Args:
        rates: the buckets' shapes.
        generation: the cooldown's, as Redis last told it.
    """

    def __init__(self, rates: Sequence[Rate], generation: int) -> None:
        self._levels = Levels(rates, time.monotonic())
        self._cooldown = Cooldown()
        self._cooldown.generation = generation

    def say(self, ask: Ask) -> Reply:
        """What the script does."""
        levels, cooldown, now = self._levels, self._cooldown, time.monotonic()
        if levels.rates != ask.rates:
            levels.reshape(ask.rates)
        levels.refill(now)
        do_chores(ask.chores, levels, cooldown)
        pause, left, granted = cooldown.remaining(now), 0.0, 0
        freed = waits = False
        if ask.held is not None:
            paid, levels.levels = levels.levels, [a + b for a, b in zip(levels.levels, ask.held, strict=True)]
            left = 0.0 if ask.ripe else levels.wait(ask.held, now)
            levels.levels = paid
            waits = left > 0 or pause > 0
            freed = not waits
        if not waits:
            for amounts in ask.queue:
                left = max(levels.wait(amounts, now), pause)
                levels.take(amounts)
                if left > 0:
                    waits = True
                    break
                granted += 1
        return Reply(freed, granted, left, waits, pause, cooldown.generation, cooldown.streak)
