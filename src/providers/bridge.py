"""One long-lived event loop on a thread of its own, for callers that are not asynchronous."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")


class Bridge:
    """Runs coroutines for sync callers, from any thread, also inside a running event loop (a notebook).

    The loop starts with the first call and ends with the interpreter; connections stay open from call to call. A forked
    child starts a loop of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._closing: set[asyncio.Task[Any]] = set()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for what it gives; Ctrl-C cancels it.

        Raises:
            RuntimeError: called from the loop's own thread, which would wait for itself for ever.
        """
        try:
            loop = self._running()
        except RuntimeError:
            # The interpreter is ending and starts no more threads: this one has to do.
            return asyncio.run(coroutine)
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a sync call from inside a coroutine of the sync face; await the async one there")
        context = contextvars.copy_context()
        future = asyncio.run_coroutine_threadsafe(_in_context(coroutine, context), loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
            if not threading.main_thread().is_alive() and threading.current_thread().daemon:
                # The interpreter ends and takes this thread with it, in silence as Python does for every daemon: our
                # error, raised into a program that is over, would only print a traceback.
                threading.Event().wait()
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """Go through an asynchronous iterator; leaving early closes it."""
        close = getattr(source, "aclose", None)
        try:
            while True:
                try:
                    item = self.run(_next(source))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            # Where the interpreter is at its end, `stop` has closed the source before.
            if close is not None and not sys.is_finalizing():
                if threading.current_thread() is self._thread:  # the garbage collector passed by on the loop's thread
                    self._leave(close())
                else:
                    self.run(close())

    def _leave(self, closing: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid() or self._thread is None or not self._thread.is_alive():
                ready = threading.Event()
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                self._thread = threading.Thread(target=_serve, args=(self._loop, ready), name="providers", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    self._loop.close()
                    self._loop = self._thread = None
                    raise
                ready.wait()
            return self._loop

    def stop(self) -> None:
        """End the loop and close what it holds; the next call starts another one."""
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None or self._pid != os.getpid() or not thread.is_alive():
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5)


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source)


async def _in_context(coroutine: Coroutine[Any, Any, T], context: contextvars.Context) -> T:
    """Await with the caller's context variables, so that a trace or a retry owner reaches the call."""
    return await asyncio.get_running_loop().create_task(coroutine, context=context)


def _serve(loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
    asyncio.set_event_loop(loop)
    # Our own, so that it can be shut down below without a further thread: when the interpreter ends there is none.
    executor = ThreadPoolExecutor(thread_name_prefix="providers")
    loop.set_default_executor(executor)
    loop.call_soon(ready.set)
    try:
        loop.run_forever()
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        # Sessions close in here: each hangs on an asynchronous generator of its loop.
        loop.run_until_complete(loop.shutdown_asyncgens())
        executor.shutdown(wait=True)
        loop.close()


bridge: Final = Bridge()
atexit.register(bridge.stop)


def _forget_in_child() -> None:
    # The parent's lock may have been held, and its loop's descriptors (epoll, wake-up pipe) belong to both processes:
    # closing them quietly here keeps the parent's loop whole and leaves nothing for a ResourceWarning.
    bridge._lock = threading.Lock()
    loop, bridge._loop, bridge._thread = bridge._loop, None, None
    if loop is not None:
        _abandoned.append(loop)


_abandoned: Final[list[asyncio.AbstractEventLoop]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
