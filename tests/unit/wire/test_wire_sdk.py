"""Bodies over a vendor's SDK: the same answers and errors as over our own client, and one client for each loop."""

from __future__ import annotations

import asyncio
import gc
import gzip
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from providers import (
    LLMProviderAPIError,
    LLMProviderAuthenticationError,
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    LLMProviderError,
    LLMProviderResponseError,
    LLMProviderStreamError,
    LLMProviderTimeoutError,
    ProviderClosedError,
)
from providers.testing import Fault, LoopbackServer, Reply
from providers.wire import Events, HttpTransport, hidden, sdk

from .small_sdk import Lost, Refused, SmallTransport

KEY = "sk-of-the-tests-123"
EVENTS = [{"n": 1}, {"n": 2}, {"n": 3}]


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as started:
        yield started


def wiring(**headers: str) -> dict[str, Any]:
    return {
        "headers": headers,
        "provider": "acme",
        "secrets": hidden([KEY]),
        "classify": None,
        "prompt": ("messages",),
    }


@pytest.fixture
def small(server: LoopbackServer) -> SmallTransport:
    return SmallTransport(server.url, **wiring(Authorization=f"Bearer {KEY}"))


async def streamed(transport: Any, ends: Callable[[int], bool] = lambda seen: False, limit: float | None = 20) -> Any:
    found: list[Any] = []
    noting = Noting(lambda: ends(len(found)))
    async for event in transport.stream("/x", {"a": 1}, limit, noting):
        found.append(event)
    return found, noting.ids


class Noting(Events):
    """Gives each event as it is, and notes the ids of requests."""

    def __init__(self, ends: Callable[[], bool] = lambda: False) -> None:
        self._ends = ends
        self.ids: list[str | None] = []

    @property
    def done(self) -> bool:  # type: ignore[override]
        return self._ends()

    def begin(self, request_id: str | None) -> None:
        self.ids.append(request_id)


# --- both transports say the same


@pytest.mark.parametrize(
    "reply",
    [
        Reply.json({"a": "ü"}, headers={"x-request-id": "r-1"}),
        Reply.json({"a": 1}).gzipped(),
        Reply.json({"a": 1}, status=201),
        Reply(status=204),
        Reply(status=200),
        Reply.json([1]),
        Fault.not_json("<p>no</p>"),
        Fault.status(401, {"error": {"message": f"bad key {KEY}"}}, {"x-request-id": "r-2"}),
        Fault.status(429, {"error": {"message": "slow"}}, {"Retry-After": "7"}),
        Fault.status(503, b"\xff\xfe"),
        Fault.redirect("http://127.0.0.1:9/elsewhere"),
        Reply.json({"error": {"message": "many"}}, status=300),
        Fault.hang_up(),
        Fault.short_body({"a": "long enough to be cut"}),
        Fault.silence(),
        Reply.bytes(
            gzip.compress(b'{"a": "' + bytes(range(32, 126)) * 40)[:60],
            headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
        ),
    ],
)
async def test_whole_replies(server: LoopbackServer, small: SmallTransport, reply: Reply) -> None:
    server.script("/x", reply, repeat=True)
    said: list[Any] = []
    limit = 0.4 if reply == Fault.silence() else 20
    for transport in (HttpTransport(server.url, **wiring(Authorization=f"Bearer {KEY}")), small):
        try:
            said.append(transport.read(await transport.post("/x", {"a": 1}, limit)))
        except LLMProviderError as error:
            quoted = KEY in str(error) + repr(error.__cause__)
            said.append((type(error), error.status_code, error.retryable, error.retry_after, error.request_id, quoted))
        await transport.close()
    assert said[0] == said[1]
    assert said[0][-1] is not True
    assert [request.json for request in server.requests] == [{"a": 1}] * len(server.requests)


@pytest.mark.parametrize(
    "reply",
    [
        Reply.sse(EVENTS, headers={"x-request-id": "r-1"}),
        Reply.sse([("named", {"a": 1}), "words"], chunk_size=3),
        Reply.json({"whole": True}),
        Reply.text("<html>", headers={"Content-Type": "text/html"}),
        Reply.bytes(b"data: 1\n\n", headers={"Content-Type": ""}),
        Fault.status(500, {"error": {"message": "down"}}),
        Fault.redirect("http://127.0.0.1:9/elsewhere"),
        Fault.cut(Reply.sse(EVENTS), after_events=2, how="close"),
        Fault.cut(Reply.sse(EVENTS), after_events=2, how="reset"),
        Fault.hang_up(),
    ],
)
async def test_streams(server: LoopbackServer, small: SmallTransport, reply: Reply) -> None:
    server.script("/x", reply, repeat=True)
    said = []
    for transport in (HttpTransport(server.url, **wiring()), small):
        try:
            said.append(await streamed(transport))
        except LLMProviderError as error:
            said.append((type(error), error.status_code, error.retryable))
        await transport.close()
    assert said[0] == said[1]
    assert await server.eventually(lambda: server.open_connections == 0, within=10)


async def test_any_method(server: LoopbackServer, small: SmallTransport) -> None:
    server.script("/x", Reply.json({"a": 1}), Reply(status=204))
    assert small.read(await small.request("GET", "/x?page=2", None, 20)).data == {"a": 1}
    assert small.read(await small.request("DELETE", "/x", None, 20, {"X-One": "1"})).data == {}
    sent = [(request.method, request.target, request.body) for request in server.requests]
    assert sent == [("GET", "/x?page=2", b""), ("DELETE", "/x", b"")]
    assert server.requests[1].headers["X-One"] == "1"
    await small.close()


async def test_a_body_that_json_has_no_words_for_is_not_sent(server: LoopbackServer, small: SmallTransport) -> None:
    with pytest.raises(LLMProviderConfigurationError):
        await small.post("/x", {"temperature": float("nan")}, 20)
    server.script("/x", Reply.json({}))
    await small.post("/x", {"messages": ["half \ud83d"]}, 20)
    assert server.count() == 1
    await small.close()


@pytest.mark.parametrize("spelling", ["x-small-key", "X-SMALL-KEY", None])
async def test_the_sdk_adds_no_key_of_its_own(server: LoopbackServer, spelling: str | None) -> None:
    server.script("/x", Reply.json({}))
    transport = SmallTransport(server.url, **wiring(**({spelling: "ours"} if spelling else {})))
    assert transport.unsaid == ([] if spelling else ["X-Small-Key"])
    await transport.post("/x", {}, 20)
    assert server.requests[0].headers.all("X-Small-Key") == (["ours"] if spelling else [])
    await transport.close()


# --- the end of a stream


async def test_a_stream_that_does_not_end_is_left_behind_its_last_word(
    server: LoopbackServer, small: SmallTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is known then: the next stream does not wait at all, another transport's does."""
    server.script("/x", Fault.stall(Reply.sse(EVENTS, done=None), after_events=3), repeat=True)
    found, _ = await streamed(small, lambda seen: seen == 3)
    assert len(found) == 3
    monkeypatch.setattr(sdk, "_LINGER", 3600.0)
    async with asyncio.timeout(20):
        assert (await streamed(small, lambda seen: seen == 3))[0] == found
    with pytest.raises(LLMProviderTimeoutError):
        await streamed(small, limit=0.3)
    await small.close()
    assert await server.eventually(lambda: server.open_connections == 0, within=10)


async def test_what_breaks_behind_the_last_word_costs_no_more_than_the_connection(
    server: LoopbackServer, small: SmallTransport
) -> None:
    server.script(
        "/x", Fault.cut(Reply.sse(EVENTS, done=None), after_events=3, how="reset"), Reply.sse(EVENTS), Reply.sse(EVENTS)
    )
    assert len((await streamed(small, lambda seen: seen == 3))[0]) == 3
    # Nothing is known of a server whose stream broke: the next ones are read to their ends, over one connection.
    for _ in range(2):
        assert len((await streamed(small, lambda seen: seen >= 3))[0]) == 3
    assert server.connections == 2
    await small.close()


@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_a_stream_that_is_left_gives_its_connection_back(
    server: LoopbackServer, small: SmallTransport, how: str
) -> None:
    server.script("/x", Fault.stall(Reply.sse(EVENTS), after_events=1))
    pieces = small.stream("/x", {}, None, Noting())
    assert await anext(pieces)
    if how == "cancelled":
        task = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await pieces.aclose()
    assert await server.eventually(lambda: server.open_connections == 0, within=10)
    await small.close()


# --- errors


class Broken(SmallTransport):
    """One whose SDK raises what a test says."""

    error: Exception = Exception()
    cause: Exception | None = None

    async def send(self, *args: Any) -> Any:
        if isinstance(self.error, RuntimeError):
            await self.close()
        raise self.error from self.cause


@pytest.mark.parametrize(
    ("error", "cause", "kind", "text"),
    [
        (Lost(""), httpx2.ConnectError("nobody"), LLMProviderConnectionError, "ConnectError: nobody"),
        (Lost(""), OSError(f"key {KEY}"), LLMProviderConnectionError, "OSError: key ***"),
        (Lost(""), httpx2.DecodingError("bad zip"), LLMProviderStreamError, "DecodingError: bad zip"),
        (Lost("words"), None, LLMProviderConnectionError, "Lost: words"),
        (httpx2.ConnectTimeout("x"), None, LLMProviderTimeoutError, "no answer from http://h within 5 s"),
        (TimeoutError(), httpx2.ConnectTimeout("x"), LLMProviderConnectionError, "does not accept a connection"),
        (httpx2.InvalidURL("odd"), None, LLMProviderConnectionError, "InvalidURL: odd"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), None, LLMProviderResponseError, "a body that is no text"),
        (RuntimeError("client closed"), None, ProviderClosedError, "closed while this call was under way"),
    ],
)
async def test_what_an_sdk_may_raise(
    error: Exception, cause: Exception | None, kind: type[LLMProviderError], text: str
) -> None:
    transport = Broken("http://h", **wiring())
    transport.error, transport.cause = error, cause
    for call in (transport.post("/x", {}, 5.0), streamed(transport, limit=5.0)):
        with pytest.raises(LLMProviderError) as caught:
            await call
        assert type(caught.value) is kind
        if kind is not ProviderClosedError:
            assert text in str(caught.value)
            assert caught.value.__cause__ is (None if KEY in repr(cause) else error)
    await transport.close()


async def test_mistakes_in_the_code_are_not_dressed_up() -> None:
    for error in (ValueError("a bug"), KeyError("k"), LLMProviderAPIError("ours", provider="acme")):
        transport = Broken("http://h", **wiring())
        transport.error = error
        for call in (transport.post("/x", {}, 5.0), streamed(transport)):
            with pytest.raises(type(error)) as caught:
                await call
            assert caught.value is error
        await transport.close()


async def test_a_refusal_shows_its_cause_unless_that_quotes_the_key(
    server: LoopbackServer, small: SmallTransport
) -> None:
    """F-144"""
    for told, shown in (("no", Refused), (f"not {KEY}", type(None))):
        server.script("/x", Fault.status(401, {"error": {"message": told}}))
        with pytest.raises(LLMProviderAuthenticationError) as caught:
            await small.post("/x", {}, 20)
        assert type(caught.value.__cause__) is shown
        assert KEY not in str(caught.value)
    await small.close()


def test_an_address_that_accepts_nobody_does_not_take_all_of_the_time(small: SmallTransport) -> None:
    assert [small.patience(limit).connect for limit in (None, 600.0, 5.0)] == [30.0, 30.0, 5.0]
    assert small.patience(600.0).read is None


# --- clients and loops


def test_each_loop_has_a_client_that_ends_with_it(server: LoopbackServer, small: SmallTransport) -> None:
    server.script("/x", Reply.json({}), repeat=True)

    async def twice() -> None:
        for _ in range(2):
            await small.post("/x", {}, 20)

    for number in (1, 2):
        asyncio.run(twice())
        assert [client.closed for client in small.made] == [True] * number
        assert len(small._clients) == 1  # those of loops that ended are not kept
        assert server.wait_until(lambda: server.open_connections == 0, timeout=10)
    assert server.connections == 2
    asyncio.run(small.close())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_clients_of_loops_that_were_closed_without_a_word_are_let_go(
    server: LoopbackServer, small: SmallTransport
) -> None:
    """`loop.close()` alone ends no generator: whoever makes a loop for each job must not keep all their sockets."""
    server.script("/x", Reply.json({}), repeat=True)
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(small.post("/x", {}, 20))
        loop.close()
    assert len(small._clients) == 1
    asyncio.run(small.close())
    assert not small._clients
    small.made.clear()
    gc.collect()


async def test_closing_reaches_a_loop_in_another_thread(server: LoopbackServer, small: SmallTransport) -> None:
    server.script("/x", Reply.json({}))
    called, end = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        await small.post("/x", {}, 20)
        called.set()
        await asyncio.to_thread(end.wait, 30)

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    assert await asyncio.to_thread(called.wait, 30)
    await small.close()
    assert await server.eventually(lambda: server.open_connections == 0, within=10)
    end.set()
    await asyncio.to_thread(thread.join)
    with pytest.raises(ProviderClosedError):
        await small.post("/x", {}, 20)


async def test_one_that_another_thread_closes_in_the_moment_of_its_first_call(small: SmallTransport) -> None:
    class Racing(SmallTransport):
        def make(self) -> Any:
            thread = threading.Thread(target=lambda: asyncio.run(self.close()))
            thread.start()
            thread.join()
            return super().make()

    transport = Racing("http://h", **wiring())
    with pytest.raises(ProviderClosedError):
        await transport.post("/x", {}, 20)
    assert not transport._clients
    gc.collect()
