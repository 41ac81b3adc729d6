"""How much a cache may hold, and what goes first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from providers.caches import StoreSize

from .engine import Engine

MOST_HERE: Final = 20_000
"""Most answers in memory or in a folder: Qdrant's own advice for its local engine, which looks at each question."""

# What is swept away at once, as a part of the bound.
_SWEPT: Final = 0.1


class Bound:
    """The bound of one store.

    Args:
        most: most bytes of texts, or `None`.
        local: whether Qdrant's local engine keeps them, which has a bound of its own.

    Attributes:
        counted: bytes when all were last counted.
        written: bytes that this process has written since.
    """

    def __init__(self, most: int | None, local: bool) -> None:
        self._most = most
        self._local = local
        self.counted: int | None = None
        self.written = 0

    def is_reached(self, engine: Engine, names: Sequence[str], written: int) -> bool:
        """Whether all have to be counted, now that so many bytes were written.

        Args:
            engine: where.
            names: the collections of answers.
            written: bytes.
        """
        self.written += written
        if self._local and sum(map(engine.count, names)) > MOST_HERE:
            return True
        if self._most is None:
            return False
        if self.counted is None or self.written > self._most * _SWEPT:
            return True  # for all we know
        return self.counted + self.written > self._most

    def is_passed(self, size: StoreSize) -> bool:
        """Whether that is too much."""
        return self._most is not None and size.bytes > self._most

    @staticmethod
    def measure(engine: Engine, names: Sequence[str]) -> StoreSize:
        """How much there is."""
        sizes = [figures.get("size", 0) for name in names for _, figures in engine.figures(name)]
        return StoreSize(len(sizes), sum(sizes))

    def sweep(self, engine: Engine, names: Sequence[str]) -> None:
        """Count, and remove what was not used for the longest time, with its questions, where it is too much."""
        self.written = 0
        found = [
            (figures.get("used", 0.0), figures.get("size", 0), name, id)
            for name in names
            for id, figures in engine.figures(name)
        ]
        total, goal = sum(size for _, size, _, _ in found), math.inf if self._most is None else self._most
        entries, most = len(found), MOST_HERE if self._local else math.inf
        if total > goal:
            goal *= 1 - _SWEPT
        if entries > most:
            most *= 1 - _SWEPT
        leaving: dict[str, list[str]] = {}
        for _, size, name, id in sorted(found):
            if total <= goal and entries <= most:
                break
            leaving.setdefault(name, []).append(id)
            total, entries = total - size, entries - 1
        for name, ids in leaving.items():
            engine.erase(name, ids)
            for questions in engine.names():
                if questions.startswith(f"{name}~"):
                    engine.erase(questions, ids)
        self.counted = total
