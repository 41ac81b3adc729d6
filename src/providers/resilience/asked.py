"""What is asked of the limits of one key, and what comes of it, wherever their state lies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .cooldown import Cooldown
from .levels import Amounts, Levels, Rate

Chore = list[Any]
"""`["t", amounts]` takes, `["c", seen, seconds or 0]` begins a cooldown, `["p", seen]` notes a call that went well."""


def give_back(amounts: Amounts) -> Chore:
    """What puts amounts back."""
    return ["t", [-amount for amount in amounts]]


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


def answer(ask: Ask, levels: Levels, cooldown: Cooldown, now: float) -> Reply:
    """Change a key's state as it is asked, at a time by the state's clock."""
    if levels.rates != ask.rates:
        levels.reshape(ask.rates)
    levels.refill(now)
    for word, *values in ask.chores:
        if word == "t":
            levels.take(values[0])
        elif word == "c":
            cooldown.begin(now, values[0], values[1] or None)
            levels.drain(cooldown.remaining(now))
        else:
            cooldown.passed(values[0])
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
            # It pays now, so that no other process can take its turn, and goes when its time has come.
            levels.take(amounts)
            if left > 0:
                waits = True
                break
            granted += 1
    return Reply(freed, granted, left, waits, pause, cooldown.generation, cooldown.streak)


class Spare:
    """The state of one key in this process, for as long as the other place cannot be used.

    Args:
        rates: the buckets' shapes.
        generation: the cooldown's, as the other place last told it.
    """

    def __init__(self, rates: Sequence[Rate], generation: int) -> None:
        self._levels = Levels(rates, time.monotonic())
        self._cooldown = Cooldown()
        self._cooldown.generation = generation

    def say(self, ask: Ask) -> Reply:
        """What the other place would do."""
        return answer(ask, self._levels, self._cooldown, time.monotonic())
