"""Event streams from a real server on loopback: cut, stalled, abandoned, damaged (bad input 43 to 51)."""

# ruff: noqa: ASYNC109 (the timeouts under test are parameters)
from __future__ import annotations

import asyncio
import gc
import json
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from providers import exceptions as e
from providers.wire import Event, Events, HttpClient

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"),
]

KEY = "sk-canary-0123456789"
TEXT = 'data: {"t": "Grüße \U0001f600"}\r\n\r\nevent: x\ndata: a\ndata: b\n\n: ping\n\ndata:[DONE]\n\n'.encode()
EVENTS: list[Event] = [
    (None, '{"t": "Grüße \U0001f600"}'.encode()),
    ("x", b"a\nb"),
    (None, b"[DONE]"),
]


def client_of(server: Any, **options: Any) -> HttpClient:
    headers = {"Authorization": f"Bearer {KEY}"}
    return HttpClient(server.url, **{"headers": headers, "provider": "test", "proxy": "", **options})


async def events_of(server: Any, timeout: float | None = 10, **options: Any) -> list[Event]:
    client = client_of(server)
    try:
        return [event async for event in client.stream("/stream", b"{}", timeout=timeout, **options)]
    finally:
        await client.close()


class Noting(Events):
    """Gives each event as it is, and notes the ids of requests."""

    def __init__(self) -> None:
        self.ids: list[str | None] = []

    def begin(self, request_id: str | None) -> None:
        self.ids.append(request_id)


class Once(Events):
    """Holds the first event for the stream's last word."""

    def feed(self, name: str | None, data: bytes) -> tuple[Event, ...]:
        self.done = True
        return super().feed(name, data)


async def collect(stream: AsyncIterator[Event], seen: list[Event]) -> None:
    async for event in stream:
        seen.append(event)


def streaming(serve: Any, body: Any, **head: str) -> Any:
    """A server that sends the head of an event stream and then what `body(connection)` sends."""

    def script(connection: Any) -> None:
        while connection.request() is not None:
            connection.send(serve.stream_head(**head))
            body(connection)

    return serve(script)


def whole(connection: Any) -> None:
    connection.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(TEXT), TEXT))


async def test_events_and_what_was_sent(serve: Any) -> None:
    server = streaming(serve, whole, X_Request_Id="r5")
    decoder = Noting()
    assert await events_of(server, decoder=decoder, headers={"X-More": "1"}) == EVENTS
    [sent] = server.requests
    assert (sent.method, sent.body) == ("POST", b"{}")
    assert sent.headers["accept"] == "text/event-stream"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["x-more"] == "1"
    assert decoder.ids == ["r5"]


async def test_every_byte_in_its_own_packet(serve: Any) -> None:
    """Bad input 46, 47."""

    def body(connection: Any) -> None:
        for byte in TEXT:
            connection.chunk(bytes([byte]))
            time.sleep(0.0005)
        connection.send(b"0\r\n\r\n")

    assert await events_of(streaming(serve, body)) == EVENTS


@pytest.mark.parametrize("head", ["close", "length", "no type", "charset", "large letters"])
async def test_streams_of_every_framing(serve: Any, head: str) -> None:
    def script(connection: Any) -> None:
        connection.request()
        fields: dict[str, str] = {
            "close": {"Connection": "close", "Transfer_Encoding": ""},
            "length": {"Content_Length": str(len(TEXT)), "Transfer_Encoding": ""},
            "no type": {"Content_Type": "", "Transfer_Encoding": "", "Connection": "close"},
            "charset": {"Content_Type": "text/event-stream; charset=latin-1", "Transfer_Encoding": ""},
            "large letters": {"Content_Type": "Text/Event-Stream", "Transfer_Encoding": ""},
        }[head]
        connection.send(serve.stream_head(**fields) + TEXT)

    assert await events_of(serve(script)) == EVENTS


async def test_the_last_blank_line_may_be_missing(serve: Any) -> None:
    def body(connection: Any) -> None:
        connection.chunk(b"data: a\n\ndata: b")
        connection.send(b"0\r\n\r\n")

    assert await events_of(streaming(serve, body)) == [(None, b"a"), (None, b"b")]


async def test_the_connection_serves_the_next_call(serve: Any) -> None:
    server = streaming(serve, whole)
    client = client_of(server)
    for _ in range(3):
        assert [event async for event in client.stream("/s", b"", timeout=5)] == EVENTS
    # Stopping at the last event is no loss either, where the end of the body came with it.
    stream = client.stream("/s", b"", timeout=5)
    async for event in stream:
        if event == EVENTS[-1]:
            break
    await stream.aclose()
    assert [event async for event in client.stream("/s", b"", timeout=5)] == EVENTS
    await client.close()
    assert len(server.connections) == 1


async def test_an_answer_as_one_json_document(serve: Any) -> None:
    """Some servers ignore `"stream": true`."""
    document = json.dumps({"text": "x" * 300_000}).encode()
    assert await events_of(serve.answering(serve.reply(document))) == [(None, document)]


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/octet-stream", "application/x-ndjson"])
async def test_anything_else_is_a_response_error(serve: Any, kind: str) -> None:
    """Bad input 32: a sign-in page is no answer."""

    def script(connection: Any) -> None:
        connection.request()
        connection.send(serve.stream_head(Content_Type=kind))
        connection.chunk(f"<h1>Please sign in, {KEY}</h1>".encode())
        connection.server.note("gone", connection.gone_after())

    server = serve(script)
    with pytest.raises(e.LLMProviderResponseError, match="Please sign in") as caught:
        await events_of(server)
    assert kind in str(caught.value)
    assert KEY not in str(caught.value)
    assert caught.value.status_code == 200
    assert await server.noticed("gone") < 1.0


@pytest.mark.parametrize("status", [307, 400, 401, 429, 500, 503])
async def test_refusals(serve: Any, status: int) -> None:
    server = serve.answering(serve.reply(b'{"error": {"message": "no"}}', status, Retry_After="3", X_Request_Id="r"))
    with pytest.raises(e.LLMProviderError) as caught:
        await events_of(server)
    assert (caught.value.status_code, caught.value.retry_after, caught.value.request_id) == (status, 3.0, "r")
    assert len(server.requests) == 1


async def test_a_packed_refusal(serve: Any) -> None:
    body = serve.gzip(b'{"error": {"message": "no", "code": "insufficient_quota"}}')
    with pytest.raises(e.LLMProviderQuotaError, match="no"):
        await events_of(serve.answering(serve.reply(body, 429, Content_Encoding="gzip")))


@pytest.mark.parametrize("how", ["end inside chunks", "reset", "reset without length", "short length", "bad chunk"])
async def test_a_cut_in_the_middle_is_a_stream_error(serve: Any, how: str) -> None:
    """Bad input 48: what had arrived is given out first, then comes the error, never a normal end."""

    def script(connection: Any) -> None:
        connection.request()
        if how == "short length":
            connection.send(serve.stream_head(Transfer_Encoding="", Content_Length="1000") + b"data: a\n\ndata: hal")
            return
        if how == "reset without length":
            connection.send(serve.stream_head(X_Request_Id="r1", Transfer_Encoding="") + b"data: a\n\ndata: hal")
        else:
            connection.send(serve.stream_head(X_Request_Id="r1"))
            connection.chunk(b"data: a\n\n")
            connection.chunk(b"data: hal")
        time.sleep(0.1)
        if how.startswith("reset"):
            connection.reset()
        elif how == "bad chunk":  # aiohttp's fast parser closes the connection and forgets to tell the reader
            connection.send(b"zz\r\nno chunk\r\n")
            connection.gone_after()

    client = client_of(serve(script))
    seen: list[Event] = []
    with pytest.raises(e.LLMProviderStreamError) as caught:
        await collect(client.stream("/s", b"", timeout=None), seen)
    assert seen == [(None, b"a")]
    assert caught.value.__cause__ is not None
    assert caught.value.retryable is True
    assert caught.value.request_id == (None if how == "short length" else "r1")
    assert (await client_of(serve.answering(serve.reply())).post("/a", b"", timeout=5)).status == 200
    await client.close()


async def test_a_break_before_the_reply_is_a_connection_error(serve: Any) -> None:
    def script(connection: Any) -> None:
        connection.request()

    server = serve(script)
    with pytest.raises(e.LLMProviderConnectionError):
        await events_of(server)
    server.stop()
    with pytest.raises(e.LLMProviderConnectionError):
        await events_of(server)


async def test_packed_streams(serve: Any) -> None:
    def flushed(connection: Any) -> None:
        packer = zlib.compressobj(wbits=31)
        for at in range(0, len(TEXT), 7):
            connection.chunk(packer.compress(TEXT[at : at + 7]) + packer.flush(zlib.Z_SYNC_FLUSH))
        connection.chunk(packer.flush())
        connection.send(b"0\r\n\r\n")

    assert await events_of(streaming(serve, flushed, Content_Encoding="gzip")) == EVENTS


@pytest.mark.parametrize("damage", ["cut", "garbage"])
async def test_damaged_compression_is_a_stream_error(serve: Any, damage: str) -> None:
    """Bad input 45."""

    def body(connection: Any) -> None:
        packer = zlib.compressobj(wbits=31)
        connection.chunk(packer.compress(b"data: a\n\n") + packer.flush(zlib.Z_SYNC_FLUSH))
        if damage == "garbage":
            connection.chunk(b"\xff" * 50)
        connection.send(b"0\r\n\r\n")

    client = client_of(streaming(serve, body, Content_Encoding="gzip"))
    seen: list[Event] = []
    with pytest.raises(e.LLMProviderStreamError) as caught:
        await collect(client.stream("/s", b"", timeout=5), seen)
    assert isinstance(caught.value.__cause__, zlib.error)
    if damage == "cut":
        assert seen == [(None, b"a")]
    await client.close()


async def test_f144_a_stall_ends_with_the_timeout(serve: Any) -> None:
    """F-144, bad input 49: the timeout is the longest silence, before the first byte as well as later."""

    def silent(connection: Any) -> None:
        connection.request()
        connection.server.note("gone", connection.gone_after())

    def stalls(connection: Any) -> None:
        connection.request()
        connection.send(serve.stream_head())
        for _ in range(4):
            connection.chunk(b"data: a\n\n")
            time.sleep(0.2)
        connection.server.note("gone", connection.gone_after())

    for script, expected in ((silent, 0), (stalls, 4)):
        server = serve(script)
        client = client_of(server)
        seen: list[Event] = []
        began = time.monotonic()
        with pytest.raises(e.LLMProviderTimeoutError, match=r"0\.4 s"):
            await collect(client.stream("/s", b"", timeout=0.4), seen)
        assert len(seen) == expected, "a stream that keeps moving may take longer than the timeout"
        assert time.monotonic() - began < expected * 0.2 + 1.0
        assert await server.noticed("gone") < 1.0
        await client.close()


async def stalled(serve: Any) -> tuple[HttpClient, Any, asyncio.Task[None], list[Event]]:
    """A stream that gave one event and waits for the next: its client, its call, its task and what it gave."""
    client = client_of(streaming(serve, lambda connection: connection.chunk(b"data: a\n\n")))
    seen: list[Event] = []
    task = asyncio.create_task(collect(client.stream("/s", b"", timeout=60), seen))
    while not seen:  # noqa: ASYNC110 (the list knows no event)
        await asyncio.sleep(0.005)
    [call] = next(iter(client._pools.values())).calls
    return client, call, task, seen


@pytest.mark.parametrize("why", ["timeout", "closed"])
@pytest.mark.parametrize("first", ["stop", "cancel"])
async def test_a_cancellation_in_the_moment_of_a_stop_stays_one(serve: Any, why: str, first: str) -> None:
    """Who cancels a task sees it cancelled, also where the stream was stopped in the same turn of the loop."""
    client, call, task, _ = await stalled(serve)
    for step in (first, "cancel" if first == "stop" else "stop"):
        if step == "cancel":
            task.cancel()
        else:
            call.stop(why)
    with pytest.raises(asyncio.CancelledError):
        await task
    await client.close()


@pytest.mark.parametrize("why", ["timeout", "closed"])
async def test_a_stop_in_the_moment_in_which_something_comes(serve: Any, why: str) -> None:
    """What came is given out, and then the reason; no event of a stopped stream is waited for."""
    client, call, task, seen = await stalled(serve)
    call.response.content.feed_data(b"data: b\n\n")
    call.stop(why)
    with pytest.raises(e.LLMProviderTimeoutError if why == "timeout" else e.ProviderClosedError):
        await task
    assert seen == [(None, b"a"), (None, b"b")]
    await client.close()


async def test_f144_a_slow_consumer_is_no_stall(serve: Any) -> None:
    """F-144, bad input 51: the time that the consumer takes does not count, and nothing is lost."""

    def body(connection: Any) -> None:
        for number in range(5):
            connection.chunk(b"data: %d\n\n" % number)
        connection.send(b"0\r\n\r\n")

    client = client_of(streaming(serve, body))
    seen = []
    async for _, data in client.stream("/s", b"", timeout=0.2):
        seen.append(data)
        await asyncio.sleep(0.3)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    await client.close()


def endless(connection: Any) -> None:
    connection.chunk(b"data: first\n\n")
    began = time.monotonic()
    connection.sock.settimeout(0.01)
    while time.monotonic() - began < 5:
        try:
            if not connection.sock.recv(1):
                break
        except TimeoutError:
            connection.chunk(b"data: more\n\n")
        except OSError:
            break
    connection.server.note("gone", time.monotonic() - began)


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("way", ["break", "aclose", "cancel", "raise", "close the client"])
async def test_leaving_a_stream_closes_its_connection(
    serve: Any, way: str, secure: bool, silent: bool, request: pytest.FixtureRequest
) -> None:
    """Bad input 50: the server sees it within a second, whether it is speaking or thinking."""

    def quiet(connection: Any) -> None:
        connection.chunk(b"data: first\n\n")
        connection.server.note("gone", connection.gone_after())

    def script(connection: Any) -> None:
        connection.request()
        connection.send(serve.stream_head())
        (quiet if silent else endless)(connection)

    if secure:
        certificate: Path = request.getfixturevalue("certificate")
        server = serve(script, request.getfixturevalue("tls"))
        client = client_of(server, ca_file=str(certificate))
    else:
        server = serve(script)
        client = client_of(server)
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async def consume() -> None:
        async for _ in client.stream("/s", b"", timeout=30):
            if way == "break":
                break
            if way == "raise":
                raise LookupError
            if way == "cancel":
                await asyncio.sleep(0)

    if way == "aclose":
        stream = client.stream("/s", b"", timeout=30)
        assert await anext(stream) == (None, b"first")
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    elif way == "close the client":
        stream = client.stream("/s", b"", timeout=30)
        assert await anext(stream) == (None, b"first")
        await client.close()
        with pytest.raises(e.ProviderClosedError):
            await collect(stream, [])
    elif way == "cancel":
        task = asyncio.create_task(consume())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif way == "raise":
        with pytest.raises(LookupError):
            await consume()
    else:
        await consume()
    gc.collect()
    assert await server.noticed("gone") < 1.0
    await client.close()
    assert told == [], "no task or generator complains in the background"


async def test_breaking_and_starting_anew_does_not_mix(serve: Any) -> None:
    """Bad input 51."""

    def script(connection: Any) -> None:
        while (request := connection.request()) is not None:
            connection.send(serve.stream_head())
            for number in range(100):
                connection.chunk(b"data: %s %d\n\n" % (request.body, number))
            connection.send(b"0\r\n\r\n")

    client = client_of(serve(script))
    for turn in range(20):
        name = b"%d" % turn
        async for _, data in client.stream("/s", name, timeout=5):
            assert data == name + b" 0"
            break
    seen = [data async for _, data in client.stream("/s", b"last", timeout=5)]
    assert seen == [b"last %d" % number for number in range(100)]
    await client.close()


async def test_200000_events_in_bounded_memory(serve: Any) -> None:
    """Bad input 43: a consumer that is slower than the server holds the server up, not the memory."""
    import tracemalloc

    block = b"".join(b'data: {"delta": "hello hello hello %d"}\n\n' % number for number in range(1000))

    def body(connection: Any) -> None:
        for _ in range(200):
            connection.chunk(block)
        connection.send(b"0\r\n\r\n")

    client = client_of(streaming(serve, body))
    count = peak = 0
    tracemalloc.start()
    try:
        async for _ in client.stream("/s", b"", timeout=20):
            count += 1
            if count % 20_000 == 0:
                await asyncio.sleep(0.02)
                peak = max(peak, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert count == 200_000
    assert peak < 8 << 20
    await client.close()


async def test_a_reply_that_was_paused_goes_on(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp is asked to go on in a reply that was paused, where nothing is lost, and in no other one."""
    from aiohttp.client_proto import ResponseHandler

    paused = resumed = 0
    pause, resume = ResponseHandler.pause_reading, ResponseHandler.resume_reading

    def count_pause(self: Any) -> None:
        nonlocal paused
        paused += 1
        pause(self)

    def count_resume(self: Any, *how: Any) -> None:
        nonlocal resumed
        resumed += 1
        resume(self, *how)

    monkeypatch.setattr(ResponseHandler, "pause_reading", count_pause)
    monkeypatch.setattr(ResponseHandler, "resume_reading", count_resume)

    def body(connection: Any) -> None:
        if connection.requests[-1].body == b"small":
            connection.chunk(b"data: 1\n\n")
            time.sleep(0.02)
            connection.chunk(b"data: 2\n\n")
        else:
            connection.send(b"".join(b"%x\r\ndata: %06d\n\n\r\n" % (14, number) for number in range(20_000)))
        connection.send(b"0\r\n\r\n")

    client = client_of(streaming(serve, body))
    for _ in range(2):
        seen: list[bytes] = []
        async for _, data in client.stream("/s", b"", timeout=20):
            seen.append(data)
            if len(seen) % 5_000 == 1:
                await asyncio.sleep(0.05)
        assert seen == [b"%06d" % number for number in range(20_000)]
    assert paused
    assert resumed
    so_far = resumed
    assert [data async for _, data in client.stream("/s", b"small", timeout=20)] == [b"1", b"2"]
    assert resumed == so_far
    await client.close()


async def test_a_parser_that_was_stopped_behind_its_last_byte_goes_on(serve: Any) -> None:
    """aiohttp stops its parser at so many unread chunks, and the parser may keep that in mind when reading goes on."""
    small = b"2\r\n:\n\r\n"

    def body(connection: Any) -> None:
        connection.chunk(b"data: first\n\n")
        time.sleep(0.05)
        for _ in range(160):
            connection.send(small * 102)
        time.sleep(0.2)
        for _ in range(160):  # somewhere among these reading stops, at the end of what has come
            connection.send(small)
            time.sleep(0.001)
        connection.chunk(b"data: last\n\n")
        connection.send(b"0\r\n\r\n")

    client = client_of(streaming(serve, body))
    seen: list[bytes] = []
    async for _, data in client.stream("/s", b"", timeout=5):
        seen.append(data)
        if data == b"first":
            await asyncio.sleep(1.5)
    assert seen == [b"first", b"last"]
    await client.close()


async def test_one_event_of_50_mb(serve: Any) -> None:
    def body(connection: Any) -> None:
        connection.chunk(b"data: ")
        for _ in range(50):
            connection.chunk(b"x" * 1_000_000)
        connection.chunk(b"\n\n")
        connection.send(b"0\r\n\r\n")

    began = time.monotonic()
    [(_, data)] = await events_of(streaming(serve, body), timeout=20)
    assert len(data) == 50_000_000
    assert time.monotonic() - began < 10


async def test_50_streams_at_once_keep_to_themselves(serve: Any) -> None:
    def script(connection: Any) -> None:
        request = connection.request()
        connection.send(serve.stream_head())
        for number in range(20):
            connection.chunk(b"data: %s %d\n\n" % (request.body, number))
            time.sleep(0.002)
        connection.send(b"0\r\n\r\n")

    client = client_of(serve(script))

    async def one(name: bytes) -> None:
        seen = [data async for _, data in client.stream("/s", name, timeout=10)]
        assert seen == [b"%s %d" % (name, number) for number in range(20)]

    await asyncio.gather(*(one(b"s%d" % number) for number in range(50)))
    await client.close()


async def test_a_stream_may_change_its_task(serve: Any) -> None:
    """Layers above may read ahead in a task of their own; the timeout wakes whoever waits now."""

    def script(connection: Any) -> None:
        connection.request()
        connection.send(serve.stream_head())
        connection.chunk(b"data: a\n\n")
        time.sleep(0.05)
        connection.chunk(b"data: b\n\n")
        connection.gone_after()

    client = client_of(serve(script))
    stream = client.stream("/s", b"", timeout=0.3)
    assert await asyncio.create_task(anext(stream)) == (None, b"a")
    assert await asyncio.create_task(anext(stream)) == (None, b"b")
    with pytest.raises(e.LLMProviderTimeoutError):
        await asyncio.create_task(anext(stream))
    await client.close()


async def test_a_server_that_leaves_behind_each_stream_is_found_out() -> None:
    """It closes without a word, some time after the last piece: that costs one call at most, which need not wait."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"b\r\ndata: one\n\n\r\n0\r\n\r\n")
        await asyncio.sleep(0.002)
        writer.close()
        await writer.wait_closed()
        left.append(writer)

    left: list[Any] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", headers={}, provider="test")
    failures = []
    for _ in range(20):
        try:
            assert [data async for _, data in client.stream("/s", b"{}", timeout=5)] == [b"one"]
        except e.LLMProviderConnectionError as error:
            failures.append(error.retry_after)
    assert failures in ([], [0.0])
    assert client._distrusted_until
    await client.close()
    server.close()
    await server.wait_closed()
    for _ in range(100):
        if len(left) < 20:
            await asyncio.sleep(0.01)


async def test_a_server_that_never_ends_its_streams_costs_one_short_wait(serve: Any) -> None:
    def script(connection: Any) -> None:
        while connection.request() is not None:
            connection.send(serve.stream_head())
            connection.chunk(b"data: [DONE]\n\n")
            connection.gone_after()

    server = serve(script)
    client = client_of(server)
    waits = []
    for _ in range(3):
        seen: list[bytes] = []
        began = time.monotonic()
        async for _, data in client.stream("/s", b"", timeout=10, decoder=Once()):
            seen.append(data)
        waits.append(time.monotonic() - began)
    assert 0.2 < waits[0] < 0.8
    assert max(waits[1:]) < 0.15
    assert len(server.connections) == 3, "and none of them serves another call"
    await client.close()


async def test_a_known_end_keeps_its_connection_even_then(serve: Any) -> None:
    """Whether the end is there already can be seen without waiting for it."""

    def script(connection: Any) -> None:
        while connection.request() is not None:
            connection.send(serve.stream_head() + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    server = serve(script)
    client = client_of(server)
    client._endless_until = time.perf_counter() + 60
    for _ in range(5):
        seen: list[bytes] = []
        async for _, data in client.stream("/s", b"", timeout=10, decoder=Once()):
            seen.append(data)
    assert len(server.connections) == 1
    await client.close()
