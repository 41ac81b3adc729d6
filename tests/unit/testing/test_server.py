"""The loopback server's scripts, records and streams."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from providers.testing.server import Fault, LoopbackServer, RecordedRequest, Reply, ScriptError


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


def exchange(server: LoopbackServer, request: bytes) -> bytes:
    """Sends bytes, and gives everything that comes until the server closes."""
    with connect(server) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


# --- requests and replies


async def test_a_request_is_recorded_whole_and_answered(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    server.script("/v1/chat", Reply.json({"text": "grüß"}, 201, {"X-Request-Id": "r1"}))
    before = time.monotonic()
    async with client.post(f"{server.url}/v1/chat?a=1&b=", json={"n": 0}, headers={"X-Tag": "t"}) as answer:
        assert answer.status == 201
        assert answer.headers["x-request-id"] == "r1"
        assert answer.content_type == "application/json"
        assert await answer.read() == '{"text":"grüß"}'.encode()
    [request] = server.requests
    assert (request.method, request.path, request.target) == ("POST", "/v1/chat", "/v1/chat?a=1&b=")
    assert request.query == {"a": "1", "b": ""}
    assert request.headers["X-TAG"] == request.headers["x-tag"] == "t"
    assert request.json == {"n": 0}
    assert request.text == '{"n": 0}'
    assert await server.eventually(lambda: request.answered_at)
    assert request.answered_at is not None
    assert before <= request.received_at <= request.answered_at <= time.monotonic()
    assert not request.client_disconnected


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD"])
async def test_every_method_over_one_connection(
    server: LoopbackServer, client: aiohttp.ClientSession, method: str
) -> None:
    server.script("/x", Reply.text("body"), repeat=True)
    for _ in range(20):
        async with client.request(method, f"{server.url}/x") as answer:
            assert answer.headers["Content-Length"] == "4"
            assert await answer.text() == ("" if method == "HEAD" else "body")
    assert {request.method for request in server.requests} == {method}
    assert (server.count(), server.connections) == (20, 1)


async def test_chunked_request_bodies_are_joined(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    async def body() -> AsyncIterator[bytes]:
        for part in (b"one ", b"x" * 200_000, b" two"):
            yield part

    server.script("/up", lambda request: Reply.text(str(len(request.body))), repeat=True)
    for _ in range(2):
        async with client.post(f"{server.url}/up", data=body()) as answer:
            assert await answer.text() == "200008"
    assert server.requests[0].headers["transfer-encoding"] == "chunked"
    assert server.requests[1].body == b"one " + b"x" * 200_000 + b" two"
    assert server.connections == 1


def test_trailers_pipelines_and_old_clients(server: LoopbackServer) -> None:
    server.script("*", lambda request: Reply.text(request.path + request.text), repeat=True)
    first = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=1\r\nhi\r\n0\r\nTrailer: t\r\n\r\n"
    wire = exchange(server, first + b"GET /b%20c HTTP/1.0\r\n\r\n")
    assert wire.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b"\r\n\r\n/ahiHTTP/1.1" in wire
    assert wire.endswith(b"Connection: close\r\n\r\n/b c")
    server.clear()
    server.script("/s", Reply.sse(["x"], done=None))
    wire = exchange(server, b"GET /s HTTP/1.0\r\n\r\n")
    assert b"chunked" not in wire
    assert wire.endswith(b"Connection: close\r\n\r\ndata: x\n\n")


def test_a_whole_url_as_target_is_a_proxy_request(server: LoopbackServer) -> None:
    server.script("GET /v1/models", Reply.json([]))
    wire = exchange(server, b"GET http://api.example:80/v1/models?x=1 HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert wire.startswith(b"HTTP/1.1 200 ")
    [request] = server.requests
    assert (request.path, request.query) == ("/v1/models", {"x": "1"})
    assert request.target == "http://api.example:80/v1/models?x=1"


@pytest.mark.parametrize(
    "head", ["BREW", "GET / SPDY/3", "GET / HTTP/1.1\r\nno colon", "GET / HTTP/1.1\r\nContent-Length: -1"]
)
def test_what_is_not_http_gets_a_400(server: LoopbackServer, head: str) -> None:
    assert exchange(server, f"{head}\r\n\r\n".encode()).startswith(b"HTTP/1.1 400 ")
    assert server.count() == 0


def test_headers_may_come_twice_and_replace_ours(server: LoopbackServer) -> None:
    server.script(
        "/x", Reply.json({}, 204), Reply.bytes(b"ab", headers=[("A", "1"), ("A", "2"), ("content-type", "b")])
    )
    assert exchange(server, get("/x")) == (
        b"HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    )
    assert exchange(server, get("/x")) == (
        b"HTTP/1.1 200 OK\r\nA: 1\r\nA: 2\r\ncontent-type: b\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab"
    )


# --- scripts


async def status_of(client: aiohttp.ClientSession, url: str, method: str = "GET") -> int:
    async with client.request(method, url) as answer:
        await answer.read()
        return answer.status


async def test_a_script_is_a_queue_and_the_narrowest_route_wins(
    server: LoopbackServer, client: aiohttp.ClientSession
) -> None:
    server.script("*", Fault.status(500), repeat=True)
    server.script("/x", Fault.status(429), Fault.status(503))
    server.script("POST /x", Reply.json({}))
    assert await status_of(client, f"{server.url}/x") == 429
    assert await status_of(client, f"{server.url}/x", "POST") == 200
    assert [await status_of(client, f"{server.url}/x") for _ in range(3)] == [503, 500, 500]
    assert (server.count(), server.count("/x"), server.count("POST /x"), server.count("/y")) == (5, 5, 1, 0)


async def test_a_repeated_answer_gives_way_to_the_next(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    server.script("/x", Fault.status(429), Reply.json({}), repeat=True)
    assert [await status_of(client, f"{server.url}/x") for _ in range(4)] == [429, 200, 200, 200]
    server.script("/x", Fault.status(500), repeat=True)
    server.script("/x", Fault.status(503))
    assert [await status_of(client, f"{server.url}/x") for _ in range(3)] == [500, 503, 404]


async def test_no_answer_is_a_404_that_names_the_path(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    server.script("/once", Reply.json({}))
    assert await status_of(client, f"{server.url}/once") == 200
    for path, word in (("/once", "used up"), ("/never", "no answer is scripted")):
        async with client.get(server.url + path) as answer:
            error = (await answer.json())["error"]
        assert answer.status == 404
        assert word in error["message"]
        assert error["path"] == path
        assert error["scripted"] == ["/once"]
    assert server.count() == 3


async def test_functions_compute_answers_from_requests(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    async def later(request: RecordedRequest) -> Reply:
        await asyncio.sleep(0.01)
        return Reply.json({"late": request.json})

    server.script("/x", lambda request: Reply.json({"echo": request.json}), later)
    for expected in ({"echo": 7}, {"late": 7}):
        async with client.post(f"{server.url}/x", json=7) as answer:
            assert await answer.json() == expected


async def test_what_a_script_raises_fails_the_test(client: aiohttp.ClientSession) -> None:
    def picky(request: RecordedRequest) -> Reply:
        assert request.json == 1, "wrong body"
        return Reply.json({})

    async def call_and(error: Exception | None) -> None:
        async with LoopbackServer() as server:
            server.script("/x", picky)
            async with client.post(f"{server.url}/x", json=2) as answer:
                assert answer.status == 500
                assert "AssertionError" in await answer.text()
            if error is not None:
                raise error

    with pytest.raises(AssertionError, match="wrong body"):
        await call_and(None)
    with pytest.raises(KeyError) as caught:
        await call_and(KeyError("the test's own"))
    assert "wrong body" in "".join(caught.value.__notes__)


async def test_a_script_that_cannot_be_played_is_reported(client: aiohttp.ClientSession) -> None:
    def broken() -> Iterator[object]:
        yield "one"
        raise LookupError("script bug")

    server = LoopbackServer().start()
    try:
        server.script("/x", lambda _: "no reply", Reply.sse(broken), Reply.sse(iter(["a"])))  # type: ignore[arg-type, return-value]
        spent = Reply.sse(iter(["a"]))
        server.script("/x", spent, spent, Fault.cut(Reply.sse(["a"], done=None), after_events=2))
        outcomes: list[object] = []
        for _ in range(6):
            try:
                async with client.get(f"{server.url}/x") as answer:
                    outcomes.append(await answer.text())
            except aiohttp.ClientError as error:
                outcomes.append(type(error))
        assert [type(error) for error in server.errors] == [ScriptError, LookupError, ScriptError, ScriptError]
        assert "once" in str(server.errors[2])
        assert "after 1 events" in str(server.errors[3])
        assert outcomes[2:4] == ["data: a\n\ndata: [DONE]\n\n"] * 2
        assert all(isinstance(outcomes[i], type) for i in (1, 4, 5))
        assert server.disconnects == 0
    finally:
        server.close()


def test_scripting_is_checked_at_once() -> None:
    server = LoopbackServer()
    with pytest.raises(ValueError, match="route"):
        server.script("v1", Reply.json({}))
    with pytest.raises(ValueError, match="at least one"):
        server.script("/v1")
    with pytest.raises(TypeError, match="dict"):
        server.script("/v1", {"text": "hi"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="str"):
        Reply.sse("one string")
    with pytest.raises(ValueError, match="chunk_size"):
        Reply.sse([], chunk_size=0)
    with pytest.raises(ValueError, match="stream"):
        Reply.sse([]).gzipped()


# --- streams


def dechunk(wire: bytes) -> list[bytes]:
    """The HTTP chunks of a response, strictly read; the last one is empty."""
    rest, chunks = wire.partition(b"\r\n\r\n")[2], []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(rest[:length])
        assert rest[length : length + 2] == b"\r\n"
        rest = rest[length + 2 :]
    return chunks


def test_events_on_the_wire(server: LoopbackServer) -> None:
    events = [{"a": "ü"}, "two\nlines", ("delta", [1]), ("end", ""), b": ping\n\n", [None, 0]]
    expected = [
        'data: {"a":"ü"}\n\n'.encode(),
        b"data: two\ndata: lines\n\n",
        b"event: delta\ndata: [1]\n\n",
        b"event: end\ndata: \n\n",
        b": ping\n\n",
        b"data: [null,0]\n\n",
    ]
    crlf = [part.replace(b"\n", b"\r\n") if part[:1] != b":" else part for part in expected]
    server.script(
        "/x", Reply.sse(events), Reply.sse(events, done=None, newline="\r\n"), Reply.sse(events, chunk_size=1)
    )
    wire = exchange(server, get("/x"))
    assert b"\r\nContent-Type: text/event-stream\r\n" in wire
    assert dechunk(wire) == [*expected, b"data: [DONE]\n\n", b""]
    assert dechunk(exchange(server, get("/x"))) == [*crlf, b""]
    single = dechunk(exchange(server, get("/x")))
    assert b"".join(single) == b"".join(expected) + b"data: [DONE]\n\n"
    assert {len(chunk) for chunk in single[:-1]} == {1}


@pytest.mark.skipif(sys.platform != "linux", reason="counts segments with Linux's TCP_INFO")
def test_chunk_size_one_sends_and_delivers_every_byte_alone(server: LoopbackServer) -> None:
    server.script("/x", Reply.sse(["x" * 92], done=None), Reply.sse(["x" * 92], done=None, chunk_size=1))
    segments, reads = [], []
    for _ in range(2):
        with connect(server) as sock:
            sock.sendall(get("/x"))
            reads.append(len(list(iter(lambda: sock.recv(65536), b""))))
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
        segments.append(int.from_bytes(info[152:156], sys.byteorder))
    if not any(segments):
        pytest.skip("this kernel does not count segments")
    # The body of 100 bytes; a busy machine may join a few.
    assert segments[0] <= 4
    assert segments[1] >= 90
    assert reads[1] >= 50 > 4 >= reads[0]


async def test_sources_of_events(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    async def paced() -> AsyncIterator[object]:
        for n in range(3):
            yield {"n": n}
            await asyncio.sleep(0.001)

    for source in (paced, paced(), lambda: ({"n": n} for n in range(3)), [{"n": 0}, {"n": 1}, {"n": 2}]):
        server.script("/x", Reply.sse(source))
        async with client.get(f"{server.url}/x") as answer:
            lines = [line async for line in answer.content if line.strip()]
        assert [json.loads(line[6:])["n"] for line in lines[:-1]] == [0, 1, 2]
        assert lines[-1] == b"data: [DONE]\n"
    assert server.connections == 1


async def test_pause_between_events(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    server.script("/x", Reply.stream([b"a", b"b", b"c"], pause=0.05))
    began, times = time.monotonic(), []
    async with client.get(f"{server.url}/x") as answer:
        async for _ in answer.content.iter_any():
            times.append(time.monotonic() - began)
    assert len(times) >= 2
    assert times[0] < times[-1]
    assert times[-1] >= 0.1
