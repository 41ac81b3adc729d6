"""A scripted HTTP server on 127.0.0.1 that answers, and fails, exactly as a test tells it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType

from .connection import Connection
from .faults import Fault
from .recorded import Headers, RecordedRequest
from .replies import Reply, ScriptError
from .stage import Answer, Stage

__all__ = ["Answer", "Fault", "Headers", "LoopbackServer", "RecordedRequest", "Reply", "ScriptError"]


async def _settle() -> None:
    """Lets the event loop finish what it began: a new or closed connection is known to its protocol turns later."""
    for _ in range(5):
        await asyncio.sleep(0)


class LoopbackServer:
    """An HTTP/1.1 server on a thread and an event loop of its own, for one test or many.

        with LoopbackServer() as server:
            server.script("/v1/chat", Fault.status(429, headers={"Retry-After": "0"}), Reply.json({"text": "hi"}))
            ...                                   # let the client call f"{server.url}/v1/chat"
            assert server.count("/v1/chat") == 2  # it tried again

    Works as `with` and as `async with`. The end of the block raises the first exception that a scripted function or
    generator raised, so that an `assert` in there fails the test; the client gets a 500, or a reset, at that moment.
    All methods may be called from any thread, while the server serves.
    """

    def __init__(self) -> None:
        self._stage = Stage()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._port: int | None = None

    # --- life

    def start(self) -> LoopbackServer:
        """Binds a free port and serves; a server starts once.

        Raises:
            OSError: no port is to be had.
            RuntimeError: it was started before.
        """
        if self._thread is not None or self._port is not None:
            raise RuntimeError("a LoopbackServer starts once: make another one")
        started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="loopback-server", daemon=True)
        self._thread.start()
        try:
            self._port = started.result()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Ends every connection and the thread; does nothing the second time."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # The loop is closed already.
                self._loop.call_soon_threadsafe(self._stop.set)
        thread.join()

    def __enter__(self) -> LoopbackServer:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if errors := self.errors:
            if exc is None:
                raise errors[0]
            exc.add_note(f"the server's script had raised before: {errors[0]!r}")

    async def __aenter__(self) -> LoopbackServer:
        return self.start()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def _run(self, started: Future[int]) -> None:
        try:
            # One kind of event loop, whatever policy the test has set: the others cannot stop accepting only.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve(started))
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: Future[int]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        living: set[Connection] = set()
        server = await self._loop.create_server(lambda: Connection(self._stage, living), "127.0.0.1", 0, backlog=1024)
        [listener] = server.sockets
        started.set_result(listener.getsockname()[1])
        await self._stop.wait()
        # asyncio accepts in two steps, and forgets a new socket, open as it is, when the server closes in between.
        self._loop.remove_reader(listener)
        await _settle()
        server.close()
        for connection in tuple(living):
            connection.abort()
        await _settle()

    # --- the script

    @property
    def url(self) -> str:
        """`"http://127.0.0.1:PORT"`; after `close` an address where nobody listens.

        Raises:
            RuntimeError: the server was not started.
        """
        if self._port is None:
            raise RuntimeError("the server has no address before it is started")
        return f"http://127.0.0.1:{self._port}"

    def script(self, route: str, *answers: Answer, repeat: bool = False) -> None:
        """Queues answers, each for one request.

        Args:
            route: a path (`"/v1/chat"`), a method and a path (`"GET /v1/models"`), or `"*"`: every request that no
                narrower route has an answer left for.
            answers: replies, faults, or functions (async ones too) that take a `RecordedRequest` and return one of
                these. Functions run on the server's event loop: one that blocks stops every connection.
            repeat: the last of them answers every further request, until more is scripted for the route.

        A request without an answer gets a 404 with a JSON error that names its path.

        Raises:
            ValueError: the route is none, or there is no answer.
            TypeError: an answer is neither a `Reply` nor callable.
        """
        if route != "*" and not route.rpartition(" ")[2].startswith("/"):
            raise ValueError(f'a route is "*", "/path" or "METHOD /path", not {route!r}')
        if not answers:
            raise ValueError("script at least one answer")
        for answer in answers:
            if not isinstance(answer, Reply) and not callable(answer):
                raise TypeError(f"an answer is a Reply or a function that returns one, not {type(answer).__name__}")
        self._stage.script(route, answers, repeat)

    def clear(self) -> None:
        """Forgets scripts, requests, errors and the count of connections; what is under way goes on."""
        self._stage.clear()

    # --- what was seen

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request so far, in the order of their last bytes, answered or not; a new list."""
        return self._stage.requests

    def count(self, route: str = "*") -> int:
        """How many requests came for a route, as `script` takes it; all of them by default."""
        return sum(request.matches(route) for request in self._stage.requests)

    @property
    def connections(self) -> int:
        """Connections so far, refused ones too: fewer than requests where the client keeps them alive."""
        return self._stage.accepted

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return self._stage.open

    @property
    def disconnects(self) -> int:
        """Requests whose client left before it had the whole answer."""
        return sum(request.client_disconnected for request in self._stage.requests)

    @property
    def errors(self) -> list[Exception]:
        """What scripted functions and generators raised, in order; a new list."""
        return self._stage.errors

    # --- waiting

    def wait_until(self, check: Callable[[], object], timeout: float = 1.0) -> bool:
        """Blocks until `check()` is true of what was seen, at most `timeout` seconds; whether it is.

        Raises:
            RuntimeError: called on the thread of a running event loop, which it would block, clients and all.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._stage.wait_until(check, timeout)
        raise RuntimeError("this would block the running event loop: use `await server.eventually(check)` here")

    def wait_for_disconnect(self, timeout: float = 1.0) -> bool:
        """Blocks until a client has left before it had its whole answer, as `wait_until` does; whether one has."""
        return self.wait_until(lambda: self.disconnects, timeout)

    async def eventually(self, check: Callable[[], object], within: float = 1.0) -> bool:
        """Waits for `check()` without blocking the event loop: `await server.eventually(lambda: server.disconnects)`.

        Args:
            check: asked at each request, answer, disconnect and new or closed connection.
            within: seconds to wait at most.

        Returns:
            Whether it is true.
        """
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        with self._stage.watched(lambda: loop.call_soon_threadsafe(woken.set)), suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not check():
                    await woken.wait()
                    woken.clear()
        return bool(check())
