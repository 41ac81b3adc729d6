"""The state of limits in Redis, changed by a script: `providers.resilience.asked` for many machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from providers.resilience.asked import Ask, Reply

from .address import Address
from .codec import SCHEMA, safe
from .front import connect, redis_failed
from .part import Part, PartError, Stale

_SCRIPT: Final = Path(__file__).with_name("script.lua")


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
