"""A layer's stream that costs its later pieces next to nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ..types import StreamEvent


class HandingOver:
    """A layer's events, by an object that does something at their beginning and then steps aside. No generator: once
    `_next` is what gives the inner events, each of them costs next to nothing more.

    Subclasses set `_next` to a method of their own first, and with `_hand_over` to the inner events.
    """

    # No `AsyncIterator` above it: to ask whether something is of an abstract class is slow.
    __slots__ = ("_aside", "_next")

    _next: Callable[[], Awaitable[StreamEvent]]

    def __init__(self, first: Callable[[], Awaitable[StreamEvent]]) -> None:
        self._next = first
        self._aside = False

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    def __anext__(self) -> Awaitable[StreamEvent]:
        return self._next()

    def _hand_over(self, events: Any) -> None:
        # Of one that has stepped aside itself, what it has stepped aside for.
        self._next = events._next if isinstance(events, HandingOver) and events._aside else events.__anext__
        self._aside = True
