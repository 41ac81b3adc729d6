"""Calls on their way between event loops and worker threads: a fair queue, pieces in batches, an end at any time."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import Any, Final

from providers.exceptions import LLMProviderTimeoutError, ProviderClosedError

from .settings import NAME

_STARTED: Final = object()
_END: Final = object()


class Work:
    """One call: made on an event loop, done in a worker thread, its pieces read on that loop again.

    Args:
        task: does it, in the worker thread; hands its pieces to `push` and stops where `push` gives true.
        quiet: whether the loop is woken only at the end, and not for each piece.
        timeout: seconds without a new piece, or for all of it where `quiet`; `None` is no limit. Waiting for a free
            worker does not count.
    """

    __slots__ = (
        *("_cancelled", "_items", "_loop", "_quiet", "_stopped", "_task", "_timeout", "_waiter", "_woken"),
        "_workers",
    )

    def __init__(self, task: Callable[[Work], None], *, quiet: bool, timeout: float | None) -> None:
        self._task = task
        self._quiet = quiet
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._items: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._woken = False
        self._cancelled = False
        self._stopped = False
        self._workers: Workers | None = None

    # --- in the worker thread

    def push(self, piece: Any) -> bool:
        """Hand one piece to the loop; true where nobody wants more."""
        self._items.append(piece)
        if not self._quiet:
            self._wake()
        return self.unwanted

    @property
    def unwanted(self) -> bool:
        """Whether the caller went away, or the workers are to stop."""
        if self._cancelled:
            return True
        workers = self._workers
        if workers is not None and workers.stopping:
            self._stopped = True
        return self._stopped

    def perform(self, workers: Workers) -> None:
        """Do it, whatever comes."""
        self._workers = workers
        if not self.unwanted:
            self._tell(_STARTED)
            try:
                self._task(self)
            except BaseException as error:
                self._items.append(error)
        if workers.silent:
            return
        if self._stopped:
            self._items.append(ProviderClosedError("the provider was closed during this call", provider=NAME))
        self._tell(_END)

    def _tell(self, word: object) -> None:
        self._items.append(word)
        self._wake()

    def _wake(self) -> None:
        # One wake-up serves all pieces that come until the loop has run: a wake-up is a system call.
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._awake)
            except RuntimeError:
                self._cancelled = True  # the loop is closed, so nobody reads

    # --- on the event loop

    def _awake(self) -> None:
        self._woken = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def cancel(self) -> None:
        """Nobody wants more: the worker stops at its next piece, or does not begin."""
        self._cancelled = True

    async def pieces(self) -> AsyncIterator[Any]:
        """All pieces, as they come.

        Raises:
            LLMProviderTimeoutError: none came in time; the worker is told to stop.
            ProviderClosedError: the provider was closed meanwhile.
            Exception: what the task raised.
        """
        deadline: float | None = None
        try:
            while True:
                while not self._items:
                    await self._more(deadline)
                item = self._items.popleft()
                if item is _END:
                    return
                if isinstance(item, BaseException):
                    raise item
                if self._timeout is not None and (item is _STARTED or not self._quiet):
                    deadline = self._loop.time() + self._timeout
                if item is not _STARTED:
                    yield item
        finally:
            self._cancelled = True

    async def _more(self, deadline: float | None) -> None:
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, _expire, waiter) if deadline is not None else None
        try:
            await waiter
        except TimeoutError:
            what = "whole answer" if self._quiet else "new piece"
            raise LLMProviderTimeoutError(
                f"no {what} within {self._timeout:g} s, so the model was stopped; raise timeout, or lower max_tokens",
                provider=NAME,
                retryable=False,
            ) from None
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


class Workers:
    """Threads that do calls in the order in which they come.

    They are daemons, so that none keeps the interpreter alive; `stop` has to be called before it ends, since a thread
    that comes back from llama.cpp into an interpreter that is gone ends the process with a crash.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self.stopping = False
        self.silent = False
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=_serve, args=(self, self._queue), name=f"{NAME}-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work) -> None:
        """Put a call at the end of the queue."""
        self._queue.put(work)

    def stop(self, *, wait: bool = True, silent: bool = False) -> None:
        """End what runs and what waits, and the threads with it; harmless when repeated.

        Args:
            wait: whether to return only when all is over. What runs ends with its next piece.
            silent: whether callers are told nothing: at the end of the process an error would only reach threads that
                end with it, and be printed there.
        """
        self.silent = self.silent or silent
        self.stopping = True
        for _ in self._threads:
            self._queue.put(None)
        if wait:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join()


def _serve(workers: Workers, queue: SimpleQueue[Work | None]) -> None:
    while (work := queue.get()) is not None:
        work.perform(workers)
        del work  # it holds the model; waiting for the next one must not keep that alive
