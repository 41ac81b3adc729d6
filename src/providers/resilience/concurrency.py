"""How many calls may be under way at once, learned from the backend: more while all is well, half after a refusal."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from time import monotonic
from types import TracebackType
from typing import Final

from ..exceptions import LLMProviderConfigurationError, LLMProviderOverloadedError, LLMProviderQuotaError
from ..exceptions import LLMProviderRateLimitError as RateLimitError
from ..headroom import Headroom

_FRESH: Final = 60.0  # seconds after which a figure counts no more: limits are mostly those of a minute


class Concurrency:
    """A bound that finds itself: additive increase, multiplicative decrease.

    As many good answers as the bound allows calls raise it by one. The first refusal ("too many requests",
    "overloaded") halves it; further ones count only when a call that began after that is refused too. And the bound is
    never above the number of requests that the backend said to be left, for a minute. First come, first served, from
    however many event loops and threads.

    Args:
        start: the bound at first.
        most: the greatest bound.
        least: the smallest, at least 1.

    Raises:
        LLMProviderConfigurationError: not `1 <= least <= start <= most`.
    """

    def __init__(self, start: int = 8, most: int = 256, least: int = 1) -> None:
        if not 1 <= least <= start <= most:
            raise LLMProviderConfigurationError("Concurrency needs 1 <= least <= start <= most")
        self._bound = float(start)
        self._left = most  # what the backend last said
        self._left_until = 0.0
        self._most = most
        self._least = least
        self._lock = threading.RLock()  # The garbage collector may end a call while this thread holds it.
        self._queue: OrderedDict[_Waiter, None] = OrderedDict()
        self._generation = 0
        self.under_way = 0

    @property
    def bound(self) -> int:
        """How many calls may be under way now."""
        known = self._left if monotonic() < self._left_until else self._most
        return max(self._least, min(int(self._bound), known))

    def hear(self, left: Headroom) -> None:
        """Take note of what the backend says is left; `LimitLayer` passes it on from the wire."""
        if left.requests is not None:
            self._left, self._left_until = left.requests, monotonic() + _FRESH
            self._admit()

    def call(self) -> _Place:
        """What to make one call in: `async with concurrency.call():`."""
        return _Place(self)

    async def _enter(self) -> int:
        with self._lock:
            if not self._queue and self.under_way < self.bound:
                self.under_way += 1
                return self._generation
            waiter = _Waiter()
            self._queue[waiter] = None
        try:
            await waiter.future
        except BaseException:
            self._queue.pop(waiter, None)
            self._take_back(waiter)
            self._admit()
            raise
        return self._generation

    def _leave(self, seen: int, error: BaseException | None) -> None:
        with self._lock:
            self.under_way -= 1
            if error is None:
                self._bound = min(self._most, self._bound + 1.0 / self._bound)
            elif _refuses(error) and seen == self._generation:
                self._generation += 1
                self._bound = max(self._least, self._bound / 2)
        self._admit()

    def _admit(self) -> None:
        while True:
            with self._lock:
                if not self._queue or self.under_way >= self.bound:
                    return
                waiter, _ = self._queue.popitem(last=False)
                waiter.let_in = True
                self.under_way += 1
            try:
                waiter.loop.call_soon_threadsafe(_go, waiter.future)
            except RuntimeError:  # Its loop is closed, so it never goes.
                self._take_back(waiter)

    def _take_back(self, waiter: _Waiter) -> None:
        # Once: a waiter of a closed loop is thrown away later, and then gives up what it has.
        with self._lock:
            if waiter.let_in:
                waiter.let_in = False
                self.under_way -= 1


class _Waiter:
    __slots__ = ("future", "let_in", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.let_in = False


class _Place:
    __slots__ = ("_owner", "_seen")

    def __init__(self, owner: Concurrency) -> None:
        self._owner = owner
        self._seen = 0

    async def __aenter__(self) -> None:
        self._seen = await self._owner._enter()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owner._leave(self._seen, exc)


def _go(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _refuses(error: BaseException) -> bool:
    if isinstance(error, RateLimitError):
        return not isinstance(error, LLMProviderQuotaError)
    return isinstance(error, LLMProviderOverloadedError)
