"""The life of a provider: opened before its first call, counted while calls run, put to rest, closed."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, Final, TypeAlias
from weakref import WeakSet

from .exceptions import ProviderClosedError

logger = logging.getLogger("providers.life")

Shut: TypeAlias = Callable[[], Awaitable[None]]


class _Change:
    """An opening, the shutting of one that may be opened again, or new settings: what others wait for."""

    def __init__(self, *, shutting: bool = False, settling: bool = False) -> None:
        self.shutting = shutting
        self.settling = settling
        self.error: BaseException | None = None
        self.done: Future[None] = Future()
        # One that runs cannot be cancelled, so who waits and is cancelled disturbs nobody.
        self.done.set_running_or_notify_cancel()


class Life:
    """Opens and shuts one provider, whoever asks, from whatever thread or loop.

    A slow opening has a thread of its own and belongs to nobody: all who need it wait for the same one, those who are
    cancelled leave it to the others, and what it has opened is shut where nobody may use it any more.

    Args:
        provider: the provider's name.
        open: gets the provider ready; called before the first call, and again after a failure or a rest.
        slow_open: whether `open` must not run on the event loop's thread.
        shut: gives back what `open` took; after a slow opening it may run on a loop of its own.

    Attributes:
        closed: whether it was closed, for good.
        under_way: calls that have begun and not ended; those that wait for the opening are among them.
    """

    def __init__(self, provider: str, open: Callable[[], None], slow_open: bool, shut: Shut) -> None:
        self._provider = provider
        self._open = open
        self._slow_open = slow_open
        self._shut = shut
        self._opened = False
        self._cut_off = False  # a shutting was, in the middle
        self._rest_with: Shut | None = None
        self._heir: Life | None = None
        self.closed = False
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        # Also in a forked child, where another thread may have held a lock, and the calls are the parent's.
        self._lock = threading.RLock()  # the collector may end a call anywhere, also in here
        self._change: _Change | None = None
        self._close_when_idle = False
        self._rest_when_idle = False
        self._then: list[Shut] = []
        self._holders = 0  # former lives, with calls that may come to use what this one has opened
        self._holding = False  # whether this is such a former life
        self.under_way = 0

    async def begin(self) -> None:
        """A call begins: open the provider where it is not, and count.

        Raises:
            ProviderClosedError: the provider was closed.
            LLMProviderError: what `open` raises.
        """
        if self.count():
            return
        with self._lock:
            self.under_way += 1
        try:
            await self._get_open()
        except BaseException:
            await self.end()
            raise

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
            return self.under_way == 0 and bool(self._close_when_idle or self._rest_when_idle or self._then)

    async def ensure_open(self) -> None:
        """Open the provider where that has not been done; many threads and loops may ask at once.

        Raises:
            ProviderClosedError: the provider was closed.
            LLMProviderError: what `open` raises.
        """
        await self.begin()
        await self.end()

    async def _get_open(self) -> None:
        while True:
            with self._lock:
                heir = self._heir
                if self.closed and heir is None:
                    raise self._gone()
                if self._opened:
                    return
                change, mine = self._change, self._change is None and heir is None
                if mine:
                    change = self._change = _Change()
            if heir is not None:
                await self._use(heir)
                return
            assert change is not None
            if mine and self._slow_open:
                self._start(change)
            elif mine and not self._try_open(change):
                await self._take_down(change)
            await asyncio.wrap_future(change.done)
            if change.error is not None:
                raise change.error

    async def _use(self, heir: Life) -> None:
        """Have the life after this one opened, and keep it open until no call is under way here."""
        self._hold(heir)
        await heir._get_open()

    def _hold(self, heir: Life) -> None:
        with self._lock:
            held, self._holding, self._heir = self._holding, True, heir
        if not held:
            with heir._lock:
                heir._holders += 1

    async def _release(self) -> None:
        with self._lock:
            self._holders -= 1
        await self.settle()

    def _start(self, change: _Change) -> None:
        # Not one of the loop's own workers: asyncio.run() would wait for it although its caller is gone. No daemon
        # either: that must not come back from native code into an interpreter that has ended.
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(self._open_apart, change), name=f"opening {self._provider}")
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more of them
            change.error = error
            self._end_change(change)

    def _open_apart(self, change: _Change) -> None:
        if self._try_open(change):
            return
        try:
            # At the end of the process no worker thread starts any more; it takes with it what was opened.
            if threading.main_thread().is_alive():
                asyncio.run(self._shut_and_end(None))
        except Exception as error:  # nobody waits for it
            logger.warning("%s could not be shut: %s: %s", self._provider, type(error).__name__, error)
        finally:
            self._end_change(change)

    def _try_open(self, change: _Change) -> bool:
        """Open; false where it was opened and nobody may use it, so that it is to be taken down."""
        try:
            self._open()
        except BaseException as error:
            change.error = error
        else:
            with self._lock:
                # Who was cancelled does not count any more. Where one waits, the last call sees to the rest.
                if self.closed or (self._rest_when_idle and not self.under_way and not self._holders):
                    self._rest_when_idle, change.shutting = False, True
                    return False
                self._opened = True
        self._end_change(change)
        return True

    async def _take_down(self, change: _Change | None = None) -> None:
        # Who is cancelled meanwhile leaves it to itself: the half that is not shut would stay for ever.
        await _undisturbed(self._shut_and_end(change))

    async def _shut_and_end(self, change: _Change | None) -> None:
        shut, self._rest_with = self._rest_with or self._shut, None
        try:
            await shut()
            self._cut_off = False
        except asyncio.CancelledError:  # its loop has ended
            self._cut_off = True
            raise
        finally:
            if change is not None:
                self._end_change(change)

    def _end_change(self, change: _Change) -> None:
        with self._lock:
            if self._change is change:
                self._change = None
                if change.error is not None and not self.under_way:
                    self._rest_when_idle = False
        change.done.set_result(None)

    def _gone(self) -> ProviderClosedError:
        return ProviderClosedError("this provider was closed; create a new one", provider=self._provider)

    async def close(self) -> None:
        """Shut the provider, once, and for good; again, where a loop ended in the middle of that.

        Calls that are under way are not waited for. Nor is a slow opening: what it takes is given back when it is over.
        """
        with self._lock:
            self.closed, self._rest_with = True, None
            opened, self._opened, self._cut_off = self._opened or self._cut_off, False, False
        if opened:
            await self._take_down()

    async def close_when_idle(self) -> None:
        """Close the provider once no call is under way."""
        with self._lock:
            self._close_when_idle = True
        await self.settle()

    async def take_turn(self) -> _Change:
        """Wait until nobody opens or shuts it, and keep everybody from that until `end_turn`."""
        while True:
            with self._lock:
                if (change := self._change) is None:
                    mine = self._change = _Change(settling=True)
                    return mine
            await asyncio.wrap_future(change.done)

    def end_turn(self, turn: _Change) -> None:
        """Let others open and shut it again; what had to wait for that is done by the next `settle`."""
        self._end_change(turn)

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not shut since."""
        return self._opened

    def hand_over(self, shut: Shut) -> bool:
        """Give back with that function what was opened; false where nothing is open, so that this life may go on.

        Calls that wait for the opening are part of this life, and no other one would count them.
        """
        with self._lock:
            if not self._opened and (self.under_way or not self._cut_off):
                return False
            self._shut, self._rest_with = shut, None
        return True

    async def retire(self, heir: Life) -> None:
        """Close once no call is under way; what it holds was handed over.

        A call of this life may take what the next one has opened, if it comes to that only then: so the next one stays
        open until this one ends.
        """
        self._hold(heir)
        if self._close_when_idle:  # somebody has asked for the end of the provider, not of this life
            await heir.close_when_idle()
        await self.close_when_idle()

    async def rest_when_idle(self, shut: Shut | None = None) -> None:
        """Shut the provider once no call is under way, this time with that function; a later call opens it again."""
        with self._lock:
            self._rest_when_idle, self._rest_with = True, shut
        await self.settle()

    async def afterwards(self, do: Shut) -> None:
        """Do something once no call is under way, after all else that waits for that."""
        with self._lock:
            self._then.append(do)
        await self.settle()

    async def settle(self) -> None:
        """Do what waits for the last call to end, if it has ended."""
        change, released = None, None
        with self._lock:
            if self.under_way or (self._change is not None and self._change.settling):
                return
            if self._holders:
                return
            if self._holding and not self._holders:
                released, self._holding = self._heir, False
            close, then, self._then = self._close_when_idle, self._then, []
            if self._rest_when_idle and self._opened and not close:
                self._opened, self._rest_when_idle = False, False
                change = self._change = _Change(shutting=True)
            elif self._change is None or self._change.shutting:
                self._rest_when_idle = False  # It rests. An opening whose callers are gone sees to that itself.
        try:
            if close:
                await self.close()
            elif change is not None:
                await self._take_down(change)
        finally:
            if then:
                await _undisturbed(self._do(then))
            if released is not None:
                await _undisturbed(released._release())

    async def _do(self, then: Iterable[Shut]) -> None:
        for one in then:
            try:
                await one()
            except Exception as error:  # an answer must not be lost over it
                logger.warning("%s: %s: %s", self._provider, type(error).__name__, error)


async def _undisturbed(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    _shutting.add(task)
    task.add_done_callback(_shutting.discard)
    await asyncio.shield(task)


_all: Final[WeakSet[Life]] = WeakSet()
_shutting: Final[set[asyncio.Future[None]]] = set()


def _after_fork() -> None:
    for life in tuple(_all):
        life._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
