"""Connections as this room needs them: sockets that are probed, cut at once, and closed even without their loop.

aiohttp and asyncio have no public way for some of this. Whatever private part of theirs is touched, is touched here
and in `LoopSession`; the tests of this room pin each of them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

    import aiohttp
    from aiohttp.client_proto import ResponseHandler

_PROBE = 60  # seconds of silence before the kernel probes a connection that a router may have dropped

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


def our_types() -> tuple[type[aiohttp.ClientResponse], type[ResponseHandler]]:
    """Give the classes of replies and protocols that our sessions use, made when aiohttp is first needed."""
    global _types
    if _types is None:
        import aiohttp
        from aiohttp.client_proto import ResponseHandler

        class CutResponse(aiohttp.ClientResponse):
            """A reply whose connection is cut at once where waiting for its head fails or is cancelled."""

            async def start(self, connection: Any) -> aiohttp.ClientResponse:
                try:
                    return await super().start(connection)
                except BaseException:
                    transport = connection.transport
                    if transport is not None:
                        transport.abort()
                    raise

        class TellingHandler(ResponseHandler):
            """A protocol that tells the reader of a body what broke it.

            aiohttp forgets to in two cases: after broken chunks (its fast parser only closes the connection, and the
            reader waits for ever), and after a reset of a reply that ends with its connection (which then looks whole).
            """

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
