"""Connections as this room needs them: sockets that are probed, cut at once, and closed even without their loop.

aiohttp and asyncio have no public way for some of this. Whatever private part of theirs is touched, is touched here
and in `LoopSession`; the tests of this room pin each of them.
"""

from __future__ import annotations

from contextlib import suppress
from functools import wraps
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .arrival import Arriving

if TYPE_CHECKING:
    import asyncio
    import socket

    import aiohttp
    from aiohttp.client_proto import ResponseHandler

_PROBE = 60  # seconds of silence before the kernel probes a connection that a router may have dropped

_READ = 64 * 1024
"""Bytes that one read of a socket may take. asyncio's own 256 KiB are above the size from which the C library asks the
system for memory, and gives it back, at each read: up to 20 us of them."""

_RIGHT_BEHIND = 1.0  # seconds; servers that keep connections at all keep them for longer

_types: tuple[type[aiohttp.ClientResponse], type[ResponseHandler]] | None = None


def drop_transport(transport: Any, loop: Any) -> None:
    """Close a transport's socket without the loop's help, and without a word to the other side.

    Args:
        transport: asyncio's or another loop's transport, or `None`.
        loop: the loop, where it stands still but is open; `None` where it is closed or must not be touched.
    """
    if transport is None:
        return
    inner = transport
    tls = getattr(transport, "_ssl_protocol", None)
    if tls is not None:
        transport._closed = True
        inner = tls._transport
    sock = getattr(inner, "_sock", None)
    if sock is None:
        # Another kind of loop. It closes its own sockets with itself; a closed one refuses this.
        if loop is not None:
            transport.abort()
        return
    inner._closing = True
    inner._conn_lost = 1
    inner._sock = None
    if loop is not None:
        for forget in ("_remove_reader", "_remove_writer"):
            with suppress(AttributeError, OSError, ValueError):
                getattr(loop, forget)(sock.fileno())
    # Closing sends nothing that TLS would say: in a forked child the parent goes on speaking.
    sock.close()


def make_socket(info: tuple[Any, ...]) -> socket.socket:
    """Make the socket of a new connection, from one item of `getaddrinfo`."""
    import socket

    sock = socket.socket(info[0], info[1], info[2])
    # An answer may take minutes. Without probes a connection that a router forgot would look alive all that time.
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL"):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), _PROBE)
    return sock


def watch(transport: Any) -> Any:
    """Something to ask whether the other side has closed a connection, or `None` where the system cannot tell.

    Some servers close a connection right behind a stream without saying so before. The loop learns of it a turn later,
    which is too late for a call that follows at once.
    """
    import select

    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(select, "POLLRDHUP"):
        return None
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return poll


def our_types() -> tuple[type[aiohttp.ClientResponse], type[ResponseHandler]]:
    """Give the classes of replies and protocols that our sessions use, made when aiohttp is first needed."""
    global _types
    if _types is None:
        import aiohttp
        from aiohttp.client_proto import ResponseHandler

        class CutResponse(aiohttp.ClientResponse):
            """A reply whose connection is cut at once where waiting for its head fails or is cancelled."""

            protocol: Any = None  # kept: the connection itself is let go as soon as the body has come

            async def start(self, connection: Any) -> aiohttp.ClientResponse:
                protocol = self.protocol = connection.protocol
                if self.request_info.headers.get("Connection") == "close":
                    protocol.force_close()  # whatever the server says of it
                try:
                    return await super().start(connection)
                except BaseException as error:
                    if protocol.used and isinstance(error, (aiohttp.ClientError, OSError)):
                        # The server was about to close it: nothing is wrong with the server, so nobody has to wait.
                        error.lost_idle = True  # type: ignore[union-attr]
                        protocol.left()
                    transport = connection.transport
                    if transport is not None:
                        transport.abort()
                    raise

        class TellingHandler(Arriving, ResponseHandler):
            """A protocol that tells the reader of a body what broke it.

            aiohttp forgets to in two cases: after broken chunks (its fast parser only closes the connection, and the
            reader waits for ever), and after a reset of a reply that ends with its connection (which then looks whole).
            """

            # Whether a call has gone over this connection before.
            used = False
            # Who last read a stream from it and when the stream ended, until the next call takes the connection.
            streamed: tuple[Any, float] | None = None
            _before: tuple[Any, float] | None = None
            # Whether the parser was stopped since the last request, for a reader that is slower than the server.
            _paused_once = False
            _watch: Any = None

            def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
                super().__init__(loop)
                self.loop = loop

            def connection_made(self, transport: Any) -> None:
                if hasattr(transport, "max_size"):
                    transport.max_size = _READ
                self._watch = watch(transport)
                super().connection_made(transport)

            @wraps(ResponseHandler.set_response_params)  # whose parameters are looked at
            def set_response_params(self, **params: Any) -> None:  # type: ignore[override]
                self._paused_once = False
                super().set_response_params(**params)

            def pause_reading(self) -> None:
                self._paused_once = True
                super().pause_reading()

            def resume_reading(self, *how: Any, **more: Any) -> None:
                # Asked for after each piece that was read. aiohttp then gives its parser an empty piece: as much work
                # as a piece of a stream itself, and of use only where the parser was stopped. It may be stopped still
                # when reading goes on, so it is asked until the reply has ended.
                if self._paused_once:
                    super().resume_reading(*how, **more)

            def is_connected(self) -> bool:
                # Asked before an idle connection is used again.
                self.used = True
                self._before, self.streamed = self.streamed, None
                if super().is_connected() and not (
                    self._before is not None and self._watch is not None and self._watch.poll(0)
                ):
                    return True
                self.left()
                return False

            def left(self) -> None:
                """The server closed the connection: where that was right behind a stream, it may do so always."""
                if self._before is not None and perf_counter() - self._before[1] < _RIGHT_BEHIND:
                    self._before[0].distrust()

            def set_exception(self, exc: BaseException, *cause: Any) -> None:
                self._tell(exc)
                super().set_exception(exc, *cause)

            def connection_lost(self, exc: BaseException | None) -> None:
                if exc is not None:
                    self._tell(exc)
                super().connection_lost(exc)

            def _tell(self, exc: BaseException) -> None:
                body = self._payload
                if body is not None and not body.is_eof() and body.exception() is None:
                    cause = aiohttp.ClientPayloadError(f"the body is damaged: {exc!r}")
                    cause.__cause__ = exc
                    body.set_exception(cause)

        _types = CutResponse, TellingHandler
    return _types
