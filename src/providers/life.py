"""The life of a provider: opened before its first call, counted while calls run, put to rest, closed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakSet

from .exceptions import ProviderClosedError


class Life:
    """Opens and shuts one provider, whoever asks, from whatever thread or loop.

    Args:
        provider: the provider's name.
        open: gets the provider ready; called before the first call, and again after a failure or a rest.
        slow_open: whether `open` must not run on the event loop's thread.
        shut: gives back what `open` took.
    """

    def __init__(
        self, provider: str, open: Callable[[], None], slow_open: bool, shut: Callable[[], Awaitable[None]]
    ) -> None:
        self._provider = provider
        self._open = open
        self._slow_open = slow_open
        self._shut = shut
        self._opened = False
        self.closed = False
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        # Also in a forked child, where another thread may have held a lock, and the calls are the parent's.
        self._lock = threading.Lock()
        self._open_lock = threading.Lock()
        self._close_when_idle = False
        self._rest_when_idle = False
        self.under_way = 0

    async def begin(self) -> None:
        """A call begins: open the provider where it is not, and count.

        Raises:
            ProviderClosedError: the provider was closed.
            LLMProviderError: what `open` raises.
        """
        while not self.count():
            await self.ensure_open()

    def count(self) -> bool:
        """Count a call that begins, where the provider is open; `begin` without its coroutine."""
        with self._lock:
            if self._opened and not self.closed:
                self.under_way += 1
                return True
        return False

    async def end(self) -> None:
        """A call ends; the last one closes a provider that waits for that."""
        if self.discount():
            await self.settle()

    def discount(self) -> bool:
        """Count a call that ends; whether there is something to `settle` then."""
        with self._lock:
            self.under_way -= 1
            return (self._close_when_idle or self._rest_when_idle) and self.under_way == 0

    async def ensure_open(self) -> None:
        """Open the provider where that has not been done; many threads and loops may ask at once.

        Raises:
            ProviderClosedError: the provider was closed.
            LLMProviderError: what `open` raises.
        """
        late = await asyncio.to_thread(self._open_once) if self._slow_open else self._open_once()
        if late:
            # It was closed while it opened: close() could not shut what was not there yet.
            await self._shut()
            raise self._gone()

    def _open_once(self) -> bool:
        with self._open_lock:
            if self.closed:
                raise self._gone()
            if not self._opened:
                self._open()
                with self._lock:
                    self._opened = not self.closed
            return not self._opened

    def _gone(self) -> ProviderClosedError:
        return ProviderClosedError("this provider was closed; create a new one", provider=self._provider)

    async def close(self) -> None:
        """Shut the provider, once, and for good. Calls that are under way are not waited for."""
        with self._lock:
            self.closed = True
            opened, self._opened = self._opened, False
        if opened:
            await self._shut()

    async def close_when_idle(self) -> None:
        """Close the provider once no call is under way."""
        with self._lock:
            self._close_when_idle = True
        await self.settle()

    async def rest_when_idle(self) -> None:
        """Shut the provider once no call is under way; a later call opens it again."""
        with self._lock:
            self._rest_when_idle = True
        await self.settle()

    async def settle(self) -> None:
        """Do what waits for the last call to end, if it has ended."""
        with self._lock:
            if self.under_way:
                return
            close = self._close_when_idle
            rest, self._rest_when_idle = self._rest_when_idle, False
            opened = self._opened
            if rest and not close:
                self._opened = False
        if close:
            await self.close()
        elif rest and opened:
            await self._shut()


_all: Final[WeakSet[Life]] = WeakSet()


def _after_fork() -> None:
    for life in tuple(_all):
        life._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
