"""One connection of the loopback server: reads requests, and plays the answers that are scripted for them."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from inspect import isawaitable
from typing import NamedTuple

from .recorded import Headers, RecordedRequest
from .replies import How, Reply, ScriptError, Stream
from .stage import Stage

_READ_LIMIT = 1 << 20
_RESET_ON_CLOSE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_RESET_AFTER = 0.01
_LAST_CHUNK = b"0\r\n\r\n"
_MALFORMED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 17\r\nConnection: close\r\n\r\nmalformed request"


class Connection(asyncio.Protocol):
    """Serves requests one after the other, until client or script end it.

    A task plays the answer, so that the protocol hears at once of a client that leaves, whatever the answer waits
    for. A client that closes only its sending side counts as gone, too.
    """

    def __init__(self, stage: Stage, living: set[Connection]) -> None:
        self._stage = stage
        self._living = living
        self._reader = asyncio.StreamReader(limit=_READ_LIMIT)
        self._writable = asyncio.Event()
        self._writable.set()
        self._current: RecordedRequest | None = None
        self._task: asyncio.Task[None] | None = None

    # --- what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts to serve, or refuses."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._stage.take_refusal():
            self._reset()
            return
        self._living.add(self)
        transport.set_write_buffer_limits(high=0)  # Writable means then: everything has left.
        self._reader.set_transport(transport)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        """Hands bytes to the reader."""
        self._reader.feed_data(data)

    def eof_received(self) -> bool:
        """Ends the answer that is under way, or the wait for the next request."""
        self._reader.feed_eof()
        if self._current is not None:
            self._note_leaving()
            self._transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops whatever is under way."""
        if self._task is None:
            return
        self._note_leaving()
        self._task.cancel()
        self._living.discard(self)
        self._stage.connection_lost()

    def pause_writing(self) -> None:
        """Bytes wait in the buffer."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The buffer is empty."""
        self._writable.set()

    def abort(self) -> None:
        """Ends the connection at the server's wish."""
        self._current = None
        self._transport.abort()

    def _note_leaving(self) -> None:
        if self._current is not None:
            self._stage.client_left(self._current)
            self._current = None

    def _reset(self) -> None:
        self._current = None
        if (sock := self._transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    # --- serving

    async def _serve(self) -> None:
        try:
            while await self._exchange():
                pass
        except asyncio.IncompleteReadError:
            pass  # The client closed the connection between two requests, or in the middle of one.
        except (ValueError, asyncio.LimitOverrunError):
            self._transport.write(_MALFORMED)
        finally:
            self._transport.close()

    async def _exchange(self) -> bool:
        """Reads a request and answers it; whether another one may follow."""
        request = self._current = await read_request(self._reader)
        answer = self._stage.take(request)
        try:
            if not isinstance(answer, Reply):
                made = answer(request)
                answer = await made if isawaitable(made) else made
                if not isinstance(answer, Reply):
                    raise ScriptError(f"a scripted function must return a Reply, not {type(answer).__name__}")
        except Exception as error:
            self._stage.failed(error)
            answer = Reply.json({"error": {"message": f"the scripted function raised {type(error).__name__}"}}, 500)
        try:
            return await self._play(answer, request)
        except Exception as error:
            self._stage.failed(error)
            self._reset()
            return False

    async def _play(self, reply: Reply, request: RecordedRequest) -> bool:
        """Sends an answer and ends it as scripted; whether the connection may go on."""
        if reply.delay:
            await asyncio.sleep(reply.delay)
        how, keep = await self._send(reply, request)
        if how == "stall":
            await asyncio.Event().wait()
        if how == "end":
            await self._writable.wait()  # Does not yield where all has left: the client's next step finds us done.
            self._current = None
            self._stage.answered(request)
            return keep
        self._current = None
        if how == "reset":
            await self._writable.wait()
            await asyncio.sleep(_RESET_AFTER)  # Some systems drop at a reset what the other side has not read yet.
            self._reset()
        return False

    async def _send(self, reply: Reply, request: RecordedRequest) -> tuple[How, bool]:
        if reply.cut is not None and reply.cut.unit == "nothing":
            return reply.cut.how, False
        head = _head(reply, request)
        if isinstance(reply.body, bytes) and reply.cut is None and reply.chunk_size is None:
            self._transport.write(head.wire + (b"" if head.only else reply.body))
            return "end", head.keep
        self._transport.write(head.wire)
        if head.only:
            return "end", head.keep
        how = await self._send_body(reply, head.chunked)
        if how == "end" and head.chunked:
            self._transport.write(_LAST_CHUNK)
        return how, head.keep

    async def _send_body(self, reply: Reply, chunked: bool) -> How:
        how, last_event, last_byte = _stop(reply)
        if last_event == 0:
            return how
        events = sent = 0
        async with aclosing(_pieces(reply)) as pieces:
            async for piece in pieces:
                if events and reply.pause:
                    await asyncio.sleep(reply.pause)
                for packet in _packets(piece, reply.chunk_size):
                    if sent and reply.chunk_pause:
                        await asyncio.sleep(reply.chunk_pause)
                    if sent + len(packet) >= last_byte:
                        self._transport.write(_part(packet, last_byte - sent, how, chunked))
                        return how
                    self._transport.write(_chunk(packet) if chunked else packet)
                    sent += len(packet)
                    if reply.chunk_size is not None:
                        _hold_apart()
                    await self._flush()
                events += 1
                if events == last_event:
                    return how
        if reply.cut is not None and sent < last_byte:
            raise ScriptError(f"the stream ended after {events} events, {sent} bytes: before the place to cut it")
        return how

    async def _flush(self) -> None:
        """Waits for a slow client; gives way to the other connections in any case."""
        await asyncio.sleep(0)
        await self._writable.wait()


class _Head(NamedTuple):
    """What goes before a body, and how the body is framed."""

    wire: bytes
    chunked: bool
    only: bool
    keep: bool


def _head(reply: Reply, request: RecordedRequest) -> _Head:
    if reply.verbatim:
        return _Head(b"", chunked=False, only=False, keep=False)
    own = Headers(reply.headers)
    framed = "Content-Length" in own or "Transfer-Encoding" in own
    bodiless = reply.status < 200 or reply.status in {204, 304}
    persistent = request.http_version == "HTTP/1.1"
    lines = [f"HTTP/1.1 {reply.status} {_reason(reply.status)}", *(f"{name}: {value}" for name, value in reply.headers)]
    chunked = False
    if isinstance(reply.body, Stream):
        chunked = persistent and not framed and not bodiless
        if chunked:
            lines.append("Transfer-Encoding: chunked")
    elif not framed and not bodiless:
        lines.append(f"Content-Length: {reply.cut.after if reply.cut and reply.cut.how == 'end' else len(reply.body)}")
    # The client finds the end of the body in our framing or in the end of the connection.
    told = chunked or bodiless or (not framed and not isinstance(reply.body, Stream))
    keep = persistent and told and not _says_close(request.headers) and not _says_close(own)
    if not keep and "Connection" not in own:
        lines.append("Connection: close")
    wire = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return _Head(wire, chunked, bodiless or request.method == "HEAD", keep)


def _says_close(headers: Headers) -> bool:
    return "close" in headers.get("Connection", "").lower()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _stop(reply: Reply) -> tuple[How, int, int]:
    """How the body ends, after which event, and after which byte."""
    if reply.cut is None:
        return "end", sys.maxsize, sys.maxsize
    if reply.cut.unit == "events":
        return reply.cut.how, reply.cut.after, sys.maxsize
    return reply.cut.how, sys.maxsize, reply.cut.after


async def _pieces(reply: Reply) -> AsyncGenerator[bytes, None]:
    if isinstance(reply.body, bytes):
        yield reply.body
        return
    async with aclosing(reply.body.pieces()) as pieces:
        async for piece in pieces:
            yield piece


def _packets(piece: bytes, size: int | None) -> list[bytes]:
    if size is None or size >= len(piece):
        return [piece] if piece else []
    return [piece[start : start + size] for start in range(0, len(piece), size)]


def _hold_apart() -> None:
    """Gives the client the time to read a packet: kernel or client would join it with the next one.

    It blocks, for asyncio sleeps at least a millisecond, which is long where every byte is a packet.
    """
    time.sleep(0.00005)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _part(packet: bytes, room: int, how: How, chunked: bool) -> bytes:
    """The start of a packet; in a chunk that promises the whole, where the end shall not look like one."""
    if not chunked:
        return packet[:room]
    if how == "end" or room == len(packet):
        return _chunk(packet[:room]) if room else b""
    return b"%x\r\n%b" % (len(packet), packet[:room])


async def read_request(reader: asyncio.StreamReader) -> RecordedRequest:
    """The next request, whole.

    Raises:
        asyncio.IncompleteReadError: the client closed the connection before its end.
        ValueError: this is not HTTP/1.x.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *fields = head[:-4].split("\r\n")
    method, target, version = first.split(" ")
    if version not in {"HTTP/1.0", "HTTP/1.1"}:
        raise ValueError("not HTTP/1.x")
    headers = Headers(_field(line) for line in fields)
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("Content-Length", "0")))
    return RecordedRequest(method, target, version, headers, body, received_at=time.monotonic())


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError("a header without a colon")
    return name, value.strip()


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # Trailers.
    return bytes(body)
