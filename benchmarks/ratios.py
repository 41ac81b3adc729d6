"""From figures to verdicts: ratios inside a round, then their median."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.measures import MEASURES, Measure

Round = dict[str, dict[str, dict[str, Any]]]
"""One round's figures: slice name, row name, key."""


@dataclass(frozen=True)
class Spread:
    """A median, the quartiles around it, and how many values they come from."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Promise:
    """What is promised of a measure; fields as promises.toml explains them."""

    measure: str
    row: str = "ours"
    over: str | None = None
    max: float | None = None
    min: float | None = None

    def __post_init__(self) -> None:
        if (self.max is None) == (self.min is None):
            raise ValueError(f"promise on {self.measure}: give max or min")
        if self.measure not in {measure.name for measure in MEASURES}:
            raise ValueError(f"promise on {self.measure}: there is no such measure")

    @property
    def bound(self) -> float:
        """The number that must not be crossed."""
        bound = self.min if self.max is None else self.max
        assert bound is not None
        return bound

    def kept(self, value: float) -> bool:
        """Whether a median keeps it."""
        return value <= self.bound if self.max is not None else value >= self.bound


@dataclass(frozen=True)
class Verdict:
    """A promise beside what was measured; `spread` is None where a row gave nothing."""

    promise: Promise
    spread: Spread | None

    @property
    def kept(self) -> bool | None:
        """None: not measured."""
        return None if self.spread is None else self.promise.kept(self.spread.median)


def spread(values: Sequence[float]) -> Spread | None:
    """Median and quartiles; None of nothing."""
    if not values:
        return None
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(median(values), low, high, len(values))


def values(rounds: Sequence[Round], measure: Measure, row: str) -> list[float]:
    """A row's values of all rounds in which it has one."""
    found = (_value(one, measure, row) for one in rounds)
    return [value for value in found if value is not None]


def ratios(rounds: Sequence[Round], measure: Measure, row: str, over: str) -> list[float]:
    """A row's value divided by another's of the same round, for all rounds in which both have one."""
    pairs = ((_value(one, measure, row), _value(one, measure, over)) for one in rounds)
    return [value / base for value, base in pairs if value is not None and base]


def judge(rounds: Sequence[Round], measure: Measure, promise: Promise) -> Verdict:
    """Whether a promise on this measure is kept."""
    over = promise.over
    found = ratios(rounds, measure, promise.row, over) if over else values(rounds, measure, promise.row)
    return Verdict(promise, spread(found))


def read_promises(path: Path) -> tuple[Promise, ...]:
    """The promises of a file.

    Raises:
        ValueError: an entry names no known measure, or not exactly one bound.
        TypeError: an entry has an unknown field.
    """
    return tuple(Promise(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["promise"])


def _value(one: Round, measure: Measure, row: str) -> float | None:
    value = one.get(measure.slice, {}).get(row, {}).get(measure.key)
    return None if value is None else float(value)
