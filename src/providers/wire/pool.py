"""One HTTP session for each running event loop, shared by all clients: ends with its loop, is forgotten by a fork."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from .connections import drop_transport, make_socket, our_types
from .exchange import exchange_of

if TYPE_CHECKING:
    import socket

    import aiohttp

_CONNECT = 30.0  # seconds until an address that does not even accept a connection is given up
_KEEP_ALIVE = 30.0  # seconds that an idle connection is kept for the next call
GRACE = 1.0  # seconds that closing waits for sessions of loops in other threads
NEVER = float("inf")

_lock = threading.RLock()  # a lock that can be taken again: a finalizer may close a client while we hold it
_sessions: dict[asyncio.AbstractEventLoop, LoopSession] = {}
_hooked = False


class StoppedError(Exception):
    """What whoever reads a body gets when the call is stopped meanwhile."""


class Call:
    """One request under way: who waits for it, until when, and why it was stopped, if it was."""

    __slots__ = ("cancelling", "deadline", "owner", "response", "task", "why")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.task: asyncio.Task[Any] | None = None
        self.cancelling = 0
        self.deadline = NEVER
        self.response: aiohttp.ClientResponse | None = None
        self.why: str | None = None  # "timeout" or "closed"

    def stop(self, why: str) -> None:
        """End the call. A task that waits is woken by a cancellation, which `stopped` then tells from a real one; a
        reader of the body, who is known by having no task, by an error."""
        if self.why is None:
            self.why = why
            if self.task is not None:
                self.task.cancel()
                return
            if self.response is not None:
                self.response.content.set_exception(StoppedError(why))
            self.hang_up()

    def stopped(self) -> bool:
        """Whether the cancellation that was just caught is ours alone; takes it back from the task if so."""
        if self.why is None or self.task is None:
            return self.why is not None
        return self.task.uncancel() <= self.cancelling

    def hang_up(self) -> None:
        """Give the connection back if the whole body was read, else cut it at once."""
        response = self.response
        if response is None or response.closed:
            return
        connection = response.connection
        if connection is not None and connection.transport is not None and not response.content.is_eof():
            # close() alone would wait for what is still to be written, and for the peer's end of TLS.
            connection.transport.abort()
        response.close()


class LoopSession:
    """The HTTP session of one event loop, its calls, and one timer for all their deadlines.

    A timer of its own for every call costs several microseconds; here the one timer stands at the nearest deadline
    and looks at all calls when it fires, which with the usual timeouts happens about once a minute.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        import aiohttp

        self.loop = loop
        self.open = True
        self.clients: WeakSet[Any] = WeakSet()
        self.calls: set[Call] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        response_class, handler = our_types()
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE, socket_factory=self._make_socket)
        self._connector._factory = partial(handler, loop=loop)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT)
        self.session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
            response_class=response_class,
            auto_decompress=False,
        )
        # GET would be sent twice after a lost connection. Retrying has one owner, and it is not this room.
        self.session._retry_connection = False
        self.request = exchange_of(self.session, loop, response_class, handler, timeout)
        # The loop closes every generator that was started in it (asyncio.run does so through shutdown_asyncgens):
        # this one's `finally` is our only notice that the loop is about to end.
        self._keeper = self._keep()
        with suppress(StopIteration):
            self._keeper.__anext__().send(None)

    def _make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        sock = make_socket(info)
        self._sockets.add(sock)
        return sock

    async def _keep(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self._retire():
                await self.session.close()

    def _retire(self) -> bool:
        with _lock:
            if _sessions.get(self.loop) is self:
                del _sessions[self.loop]
            was_open, self.open = self.open, False
        if was_open:
            if self._timer is not None:
                self._timer.cancel()
            for call in tuple(self.calls):
                call.stop("closed")
        return was_open

    def start(self, owner: object) -> Call:
        """Begin a call; the caller sees to it that `calls.discard` ends it."""
        call = Call(owner)
        self.calls.add(call)
        return call

    def wait(self, call: Call, timeout: float | None) -> None:
        """From now on the running task waits for the call, for at most `timeout` seconds."""
        task = call.task = asyncio.current_task(self.loop)
        if task is not None:
            call.cancelling = task.cancelling()
        self.expect(call, timeout)

    def expect(self, call: Call, timeout: float | None) -> None:
        """The call ends unless something comes within `timeout` seconds.

        Raises:
            StoppedError: it has ended already.
        """
        if call.why is not None:
            raise StoppedError(call.why)
        if timeout is not None:
            deadline = call.deadline = self.loop.time() + timeout
            if deadline < self._timer_at:
                if self._timer is not None:
                    self._timer.cancel()
                self._look_at(deadline)

    def _look_at(self, when: float) -> None:
        self._timer = self.loop.call_at(when, self._look)
        self._timer_at = when

    def _look(self) -> None:
        self._timer, self._timer_at = None, NEVER
        now = self.loop.time()
        nearest = NEVER
        for call in tuple(self.calls):
            if call.deadline <= now:
                call.deadline = NEVER
                call.stop("timeout")
            elif call.deadline < nearest:
                nearest = call.deadline
        if nearest < NEVER:
            # Thousands of calls that began one after another must not mean thousands of looks.
            self._look_at(max(nearest, now + 0.01))

    async def release(self, client: object | None) -> None:
        """Let go of a client (`None`: of all), inside the loop: its calls end, and with the last client the session."""
        self._leave(client)
        if not self.clients and self.open:
            await self._keeper.aclose()

    def release_soon(self, client: object | None) -> threading.Event:
        """Let go of a client (`None`: of all) from anywhere, without waiting.

        Returns:
            An event that is set when all is done.
        """
        done = threading.Event()
        loop = self.loop
        with suppress(RuntimeError):  # the loop was closed a moment ago
            if loop.is_running():
                loop.call_soon_threadsafe(self._release_task, client, done)
                return done
        if not loop.is_closed():
            self._leave(client)
        if loop.is_closed() or not self.clients:
            self.drop()
        done.set()
        return done

    def _release_task(self, client: object | None, done: threading.Event) -> None:
        task = self.loop.create_task(self.release(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: done.set())

    def _leave(self, client: object | None) -> None:
        if client is None:
            self.clients.clear()
        else:
            self.clients.discard(client)
        for call in tuple(self.calls):
            if client is None or call.owner is client:
                call.stop("closed")

    def drop(self, *, touch_loop: bool = True) -> None:
        """Close the sockets without the loop: it is closed, stands still, or belongs to the parent of a fork.

        Args:
            touch_loop: `False` after a fork, where the loop's selector is still shared with the parent.
        """
        with _lock:
            if _sessions.get(self.loop) is self:
                del _sessions[self.loop]
            self.open = False
        idle = touch_loop and not self.loop.is_closed()
        for transport in tuple(self._transports()):
            drop_transport(transport, self.loop if idle else None)
        if not idle:  # connections that were still being made
            for sock in tuple(self._sockets):
                sock.close()
        for call in tuple(self.calls):
            response = call.response
            connection = response.connection if response is not None else None
            if idle:
                call.stop("closed")
            elif response is not None and connection is not None:
                connection._protocol = None
                response._connection = None
                response._closed = True
        self.calls.clear()
        if self._timer is not None and idle:
            self._timer.cancel()
        self._timer, self._timer_at = None, NEVER
        connector = self._connector
        connector._conns.clear()
        connector._acquired.clear()
        connector._closed = True  # so the session counts as closed, and says nothing when it is collected
        # The keeper finds `open` false, so it runs to its end without waiting for anything.
        with suppress(StopIteration, StopAsyncIteration):
            self._keeper.aclose().send(None)

    def _transports(self) -> Iterator[Any]:
        for idle in self._connector._conns.values():
            for protocol, _ in idle:
                yield protocol.transport
        for protocol in self._connector._acquired:
            yield getattr(protocol, "transport", None)


def join(client: object) -> LoopSession:
    """Give a client the session of the running loop.

    Args:
        client: whoever makes the calls; held weakly.

    Returns:
        The session that all clients share in this loop.
    """
    global _hooked
    loop = asyncio.get_running_loop()
    with _lock:
        if not _hooked:
            _hooked = True
            atexit.register(_at_exit)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_after_fork)
        _sweep()
        session = _sessions.get(loop)
        if session is None or not session.open:
            session = _sessions[loop] = LoopSession(loop)
        session.clients.add(client)
    return session


def _sweep() -> None:
    # Loops that were closed without a shutdown of their generators told us nothing.
    for loop, session in tuple(_sessions.items()):
        if loop.is_closed():
            session.drop()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it at the fork, and is not here to let it go
    for session in tuple(_sessions.values()):
        session.drop(touch_loop=False)
    _sessions.clear()


def _at_exit() -> None:
    for session in tuple(_sessions.values()):
        # A loop that runs now runs in a daemon thread, which ends with the process and without a word. To end its calls
        # here would wake the thread, and what it does not catch would be a traceback of a program that is over.
        if not session.loop.is_running():
            session.release_soon(None)
