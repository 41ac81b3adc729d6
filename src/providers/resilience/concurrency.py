"""How many calls may be under way at once, learned from the backend: more while all is well, half after a refusal."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from types import TracebackType

from ..exceptions import LLMProviderConfigurationError, LLMProviderOverloadedError, LLMProviderQuotaError
from ..exceptions import LLMProviderRateLimitError as RateLimitError
from ..headroom import Headroom


class Concurrency:
    """A bound that finds itself: additive increase, multiplicative decrease.

    As many good answers as the bound allows calls raise it by one. The first refusal ("too many requests",
    "overloaded") halves it; further ones count only when a call that began after that is refused too. And the bound is
    never above the number of requests that the backend says are left. First come, first served, from however many event
    loops and threads.

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
        self._most = most
        self._least = least
        self._lock = threading.RLock()  # The garbage collector may end a call while this thread holds it.
        self._queue: OrderedDict[asyncio.Future[None], asyncio.AbstractEventLoop] = OrderedDict()
        self._generation = 0
        self.under_way = 0

    @property
    def bound(self) -> int:
        """How many calls may be under way now."""
        return max(self._least, min(int(self._bound), self._left))

    def hear(self, left: Headroom) -> None:
        """Take note of what the backend says is left; `LimitLayer` passes it on from the wire."""
        if left.requests is not None:
            self._left = left.requests
            self._admit()

    def call(self) -> _Place:
        """What to make one call in: `async with concurrency.call():`."""
        return _Place(self)

    async def _enter(self) -> int:
        with self._lock:
            if not self._queue and self.under_way < self.bound:
                self.under_way += 1
                return self._generation
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            self._queue[future] = loop
        try:
            await future
        except BaseException:
            with self._lock:
                if self._queue.pop(future, None) is None:
                    self.under_way -= 1  # It was let in already.
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
                future, loop = self._queue.popitem(last=False)
                self.under_way += 1
            try:
                loop.call_soon_threadsafe(_go, future)
            except RuntimeError:  # Its loop is closed, so it never goes.
                with self._lock:
                    self.under_way -= 1


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
