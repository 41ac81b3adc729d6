"""Levels of token buckets: how they refill, when an amount may be taken; no lock, no clock, no waiting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..exceptions import LLMProviderConfigurationError

Clock = Callable[[], float]
Amounts = Sequence[float]
Figures = tuple[float, float]

# What refilling in floating point may lack: a billionth of a unit must not cost another wait.
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Rate:
    """One bucket's shape.

    Attributes:
        capacity: most units that may be taken at once after a pause.
        per_second: units that come back each second.

    Raises:
        LLMProviderConfigurationError: a figure is not above 0, or not finite.
    """

    capacity: float
    per_second: float

    def __post_init__(self) -> None:
        for name, value in (("capacity", self.capacity), ("refill_rate", self.per_second)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise LLMProviderConfigurationError(
                    f"{name} of a bucket must be a finite number above 0, not {value!r}"
                )


UNLIMITED: Final = Rate(1e12, 1e12)
"""The shape of a bucket that nobody waits for."""


def known_rates(known: Sequence[Rate], asked: Sequence[Rate]) -> tuple[Rate, ...]:
    """The shapes that count where somebody asks with others: who knows no limit takes none away from those who do."""
    return tuple(old if new == UNLIMITED else new for old, new in zip(known, asked, strict=True))


class Levels:
    """How full some buckets are that are always taken from together. No lock and no clock of its own.

    Args:
        rates: the buckets' shapes.
        now: the time, in seconds of any clock.

    Attributes:
        rates: as given.
        levels: units in each bucket; below 0 where more was taken than was there.
        stamp: when they were last refilled.
    """

    __slots__ = ("_aside", "levels", "rates", "stamp")

    def __init__(self, rates: Sequence[Rate], now: float) -> None:
        self.rates = tuple(rates)
        self.levels = [float(rate.capacity) for rate in rates]
        self.stamp = now
        self._aside: dict[int, Figures] = {}  # buckets that have no limit now, as those with one left them

    def reshape(self, rates: Sequence[Rate]) -> None:
        """Take other shapes; a bucket that is new begins full, and none holds more than its capacity.

        A bucket whose limit is not known any more is put aside as it is, for whoever knows one later.
        """
        old = self.figures()
        self.rates, self.levels, self._aside = tuple(rates), [], {}
        for at, rate in enumerate(rates):
            level = rate.capacity
            if at < len(old):
                if rate == UNLIMITED:
                    self._aside[at] = old[at]
                else:
                    units, stamp = old[at]
                    level = min(level, units + max(0.0, self.stamp - stamp) * rate.per_second)
            self.levels.append(level)

    def figures(self) -> list[Figures]:
        """Of each bucket its level, and when that was so."""
        return [self._aside.get(at, (level, self.stamp)) for at, level in enumerate(self.levels)]

    @classmethod
    def of(cls, figures: Sequence[Figures], stamp: float) -> Levels:
        """Levels as `figures` gave them at the time `stamp`; they want shapes, by `reshape`."""
        found = cls((), stamp)
        found.levels = [level for level, _ in figures]
        found._aside = dict(enumerate(figures))
        return found

    def refill(self, now: float) -> None:
        """Let the time since the last refill count. A clock that was set back counts as no time at all."""
        passed, self.stamp = now - self.stamp, now
        if passed > 0:
            self.levels = [
                min(rate.capacity, level + passed * rate.per_second)
                for rate, level in zip(self.rates, self.levels, strict=True)
            ]

    def wait(self, amounts: Amounts, now: float) -> float:
        """Seconds until the amounts may be taken, 0 for now.

        An amount above a bucket's capacity may go once the bucket is full, and leaves it in debt.
        """
        self.refill(now)
        longest = 0.0
        for rate, level, amount in zip(self.rates, self.levels, amounts, strict=True):
            lacks = min(amount, rate.capacity) - level
            if lacks > _ROUNDING * max(1.0, rate.capacity):
                longest = max(longest, lacks / rate.per_second)
        return longest

    def take(self, amounts: Amounts) -> None:
        """Take amounts, whether they are there or not; negative ones are given back."""
        self.levels = [
            min(rate.capacity, level - amount)
            for rate, level, amount in zip(self.rates, self.levels, amounts, strict=True)
        ]

    def drain(self, seconds: float) -> None:
        """Have next to nothing left in so many seconds, so that what begins then begins at the pace of the refill."""
        self.levels = [
            # Without a limit there is no pace, and a debt would be one for whoever knows a limit later.
            level if rate == UNLIMITED else min(level, min(1.0, rate.capacity) - rate.per_second * seconds)
            for rate, level in zip(self.rates, self.levels, strict=True)
        ]
