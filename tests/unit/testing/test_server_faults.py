"""Each fault of the loopback server, as a client meets it on the wire."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import aiohttp
import pytest

from providers.testing.replies import How
from providers.testing.server import Fault, LoopbackServer, Reply

VALUE = {"text": "a longer answer, ünïcode too", "n": 1}
BODY = json.dumps(VALUE, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as started:
        yield started


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        yield session


def connect(server: LoopbackServer) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def ask(server: LoopbackServer, path: str = "/x") -> socket.socket:
    sock = connect(server)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return sock


def read_to_the_end(sock: socket.socket, seconds: float = 5) -> tuple[bytes, str]:
    """All bytes, and how they ended: "close", "reset" or "silence"."""
    sock.settimeout(seconds)
    wire = b""
    with sock:
        while True:
            try:
                data = sock.recv(65536)
            except ConnectionResetError:
                return wire, "reset"
            except TimeoutError:
                return wire, "silence"
            if not data:
                return wire, "close"
            wire += data


# --- whole answers


async def test_status_with_any_headers_and_body(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    server.script("/x", Fault.status(429, {"error": {"code": "slow"}}, [("Retry-After", "1"), ("Retry-After", "soon")]))
    server.script("/x", Fault.status(503, "busy"), Fault.status(529, b"\xff\xfe", {"X-Should-Retry": "false"}))
    async with client.get(f"{server.url}/x") as answer:
        assert (answer.status, await answer.json()) == (429, {"error": {"code": "slow"}})
        assert answer.headers.getall("Retry-After") == ["1", "soon"]
    async with client.get(f"{server.url}/x") as answer:
        assert (answer.status, answer.reason, await answer.text()) == (503, "Service Unavailable", "busy")
    async with client.get(f"{server.url}/x") as answer:
        assert (answer.status, await answer.read()) == (529, b"\xff\xfe")
        assert answer.headers["x-should-retry"] == "false"
    assert server.connections == 1


async def test_bodies_that_are_no_json(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    server.script("/x", Fault.empty(), Fault.not_json(), Fault.truncated_json(VALUE), Reply.json(VALUE))
    for expected in (b"", b"<html><body>It works!</body></html>", BODY[: len(BODY) // 2]):
        async with client.get(f"{server.url}/x") as answer:
            body = await answer.read()
            assert (answer.status, answer.content_type, body) == (200, "application/json", expected)
            assert answer.headers["Content-Length"] == str(len(expected))
        with pytest.raises(ValueError, match=r"."):
            json.loads(body)
    async with client.get(f"{server.url}/x") as answer:
        assert await answer.json() == VALUE
    assert server.connections == 1


async def test_gzip_whole_and_cut(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    server.script("/x", Reply.json(VALUE).gzipped(), Fault.cut_gzip(VALUE), Fault.cut_gzip(VALUE))
    async with client.get(f"{server.url}/x") as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert await answer.json() == VALUE
    async with aiohttp.ClientSession(auto_decompress=False) as plain, plain.get(f"{server.url}/x") as answer:
        cut = await answer.read()
    assert cut == gzip.compress(BODY, mtime=0)[: len(cut)]
    with pytest.raises(EOFError):
        gzip.decompress(cut)
    assert BODY.startswith(zlib.decompressobj(wbits=31).decompress(cut))
    with pytest.raises((aiohttp.ClientError, ValueError)):
        async with client.get(f"{server.url}/x") as answer:
            json.loads(await answer.read())


def test_a_short_body_ends_the_connection(server: LoopbackServer) -> None:
    server.script("/x", Fault.short_body(VALUE), Fault.cut(Reply.json(VALUE), after_bytes=0, how="reset"))
    wire, end = read_to_the_end(ask(server))
    head, _, body = wire.partition(b"\r\n\r\n")
    assert (body, end) == (BODY[: len(BODY) // 2], "close")
    assert f"Content-Length: {len(BODY)}".encode() in head
    wire, end = read_to_the_end(ask(server))
    assert (wire.partition(b"\r\n\r\n")[2], end) == (b"", "reset")


def test_headers_that_lie_and_bytes_that_are_no_http(server: LoopbackServer) -> None:
    server.script("/x", Reply.text("hello", headers={"content-length": "3"}), Reply.raw(b"garbage\r\n\r\n"))
    wire, end = read_to_the_end(ask(server))
    assert wire.lower().count(b"content-length") == 1
    assert wire.endswith(b"\r\n\r\nhello")
    assert end == "close"
    assert read_to_the_end(ask(server)) == (b"garbage\r\n\r\n", "close")


@pytest.mark.parametrize(("status", "method"), [(302, "GET"), (307, "POST")])
async def test_redirect(server: LoopbackServer, client: aiohttp.ClientSession, status: int, method: str) -> None:
    with LoopbackServer() as other:
        server.script("/x", Fault.redirect(f"{other.url}/y", status))
        other.script("/y", lambda request: Reply.text(request.method))
        async with client.post(f"{server.url}/x") as answer:
            assert await answer.text() == method
            assert [hop.status for hop in answer.history] == [status]


# --- cut streams

EVENTS = ["one", "two", "three"]
WIRE = b"data: one\n\ndata: two\n\ndata: three\n\ndata: [DONE]\n\n"


def chunk(data: bytes, promised: int | None = None) -> bytes:
    whole = b"%x\r\n" % (len(data) if promised is None else promised) + data
    return whole + b"\r\n" if promised is None else whole


@pytest.mark.parametrize("how", ["end", "close", "reset", "stall"])
@pytest.mark.parametrize("place", ["event", "middle of an event", "before all", "after all"])
def test_a_stream_cut(server: LoopbackServer, how: How, place: str) -> None:
    first, second = chunk(b"data: one\n\n"), chunk(b"data: two\n\n")
    reply = Reply.sse(EVENTS)
    fault, body = {
        "event": (Fault.cut(reply, after_events=2, how=how), first + second),
        "middle of an event": (
            Fault.cut(reply, after_bytes=15, how=how),
            first + (chunk(b"data") if how == "end" else chunk(b"data", promised=11)),
        ),
        "before all": (Fault.cut(reply, after_events=0, how=how), b""),
        "after all": (
            Fault.cut(reply, after_bytes=len(WIRE), how=how),
            first + second + chunk(b"data: three\n\n") + chunk(b"data: [DONE]\n\n"),
        ),
    }[place]
    server.script("/x", fault)
    wire, end = read_to_the_end(ask(server), 0.1 if how in {"stall", "end"} else 5)
    head, _, sent = wire.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent == body + (b"0\r\n\r\n" if how == "end" else b"")
    # What looks whole keeps the connection.
    assert end == {"end": "silence", "stall": "silence"}.get(how, how)
    answered = server.requests[0].answered_at is not None
    assert answered == (how == "end")


async def test_what_a_client_library_makes_of_a_cut(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    async def read() -> bytes:
        got = b""
        async with client.post(f"{server.url}/x") as answer:
            try:
                async for part in answer.content.iter_any():
                    got += part
            except aiohttp.ClientPayloadError:
                return got + b"!"
            except aiohttp.ClientOSError:
                return got + b"!!"
        return got

    hows: list[How] = ["end", "close", "reset"]
    for how in hows:
        server.script("/x", Fault.cut(Reply.sse(EVENTS), after_bytes=13, how=how))
    ends = [await read() for _ in range(3)]
    assert ends[0] == WIRE[:13]
    assert ends[1] == WIRE[:13] + b"!"
    assert ends[2].rstrip(b"!") == WIRE[:13] != ends[2]


def test_a_cut_inside_of_a_character(server: LoopbackServer) -> None:
    whole = 'data: {"t":"grün"}\n\n'.encode()
    inside = whole.index("ü".encode()) + 1
    server.script("/x", Fault.cut(Reply.sse([{"t": "grün"}]), after_bytes=inside))
    wire, end = read_to_the_end(ask(server))
    assert wire.partition(b"\r\n\r\n")[2] == chunk(whole[:inside], promised=len(whole))
    assert end == "close"
    with pytest.raises(UnicodeDecodeError):
        whole[:inside].decode()


def test_cuts_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="one place"):
        Fault.cut(Reply.sse([]))
    with pytest.raises(ValueError, match="one place"):
        Fault.cut(Reply.sse([]), after_bytes=1, after_events=1)
    with pytest.raises(ValueError, match="needs a stream"):
        Fault.cut(Reply.json({}), after_events=1)
    with pytest.raises(ValueError, match="2 bytes"):
        Fault.stall(Reply.json({}), after_bytes=3)
    with pytest.raises(ValueError, match="before its start"):
        Fault.stall(Reply.json({}), after_bytes=-1)


# --- time


def test_delay_slow_and_silence(server: LoopbackServer) -> None:
    server.script("/x", Fault.delay(0.1, Reply.text("late")), Fault.slow(Reply.text("drops"), pause=0.02))
    server.script("/x", Fault.silence())
    with ask(server) as sock:
        began = time.monotonic()
        assert sock.recv(1) == b"H"
        assert time.monotonic() - began >= 0.09
    with ask(server) as sock:
        reads: list[bytes] = []
        began = time.monotonic()
        while not b"".join(reads).endswith(b"\r\n\r\ndrops"):
            reads.append(sock.recv(65536))
        assert time.monotonic() - began >= 0.08
        assert len(reads) >= 2
    assert read_to_the_end(ask(server), 0.1) == (b"", "silence")


def test_a_stall_lasts_until_the_server_closes(server: LoopbackServer) -> None:
    server.script("/x", Fault.stall(Reply.sse(itertools.count()), after_events=2))
    with ask(server) as sock:
        sock.settimeout(0.15)
        wire = b""
        while not wire.endswith(chunk(b"data: 0\n\n") + chunk(b"data: 1\n\n")):
            wire += sock.recv(65536)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert server.open_connections == 1
        server.close()
        assert sock.recv(1) == b""
        assert server.disconnects == 0


# --- connections


@pytest.mark.parametrize(("how", "end"), [("close", "close"), ("reset", "reset")])
def test_hang_up(server: LoopbackServer, how: Literal["close", "reset"], end: str) -> None:
    server.script("/x", Fault.hang_up(how))
    assert read_to_the_end(ask(server)) == (b"", end)
    assert server.count("/x") == 1


async def test_refusals_stand_in_a_queue(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    server.script("*", Fault.status(503), Fault.refuse(), Fault.refuse(), Reply.json(1), Fault.refuse())
    outcomes: list[object] = []
    for _ in range(5):
        try:
            async with client.post(server.url, headers={"Connection": "close"}) as answer:
                outcomes.append(answer.status)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            outcomes.append("refused")
    assert outcomes == [503, "refused", "refused", 200, "refused"]
    assert (server.count(), server.connections, server.open_connections) == (2, 5, 0)


async def test_a_refusal_on_an_open_connection_or_path(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    server.script("*", Reply.json(1))
    async with client.post(server.url) as answer:
        assert answer.status == 200
    server.script("*", Fault.refuse())
    server.script("/x", Reply.json(2), Fault.refuse())
    async with client.post(f"{server.url}/x") as answer:
        assert answer.status == 200
    for path in ("", "/x"):
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await client.post(server.url + path)
    assert server.count() == 4
    assert server.connections == 2
