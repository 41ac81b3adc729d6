"""Usage against a server that keeps a ledger: what it billed for each request, and what it said of that on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from providers.exceptions import LLMProviderError, OutputTruncatedError, StructuredOutputError
from providers.testing.server import Fault, LoopbackServer, RecordedRequest, Reply
from providers.types import LLMResponse, StreamEvent, StreamEventType, Usage

from . import bodies
from .conftest import Make

PATH = "/v1/messages"
PIECES = ["Rome ", "is ", "warmer ", "than ", "Paris."]
TOKEN, USAGE = StreamEventType.TOKEN, StreamEventType.USAGE
Answer = Callable[[RecordedRequest], Awaitable[Reply]]


@dataclass
class Bill:
    """One request: `output` is what was made so far; the other figures are `None` until the wire has said them."""

    fresh: int
    output: int = 0
    said_input: int | None = None
    said_cached: int | None = None
    said_written: int | None = None
    said_output: int | None = None

    def expect(self, usage: Usage) -> None:
        """The usage says what was said here, and nothing else."""
        both = None not in (self.said_input, self.said_output)
        total = (self.said_input or 0) + (self.said_output or 0) if both else None
        assert usage.without_costs() == Usage(
            self.said_input, self.said_output, total, self.said_cached, self.said_written
        )


@dataclass
class Ledger:
    """A server of this dialect that bills one token for each letter of a prompt and for each piece of an answer.

    Attributes:
        read: tokens of each prompt from the vendor's cache, or `None` where the server has no word for it.
        written: the same of what goes into the cache.
        dumb: whether it says no usage at all.
        texts: the pieces of its answers.
        stop: why they end.
    """

    read: int | None = 70
    written: int | None = 30
    dumb: bool = False
    texts: list[str] = field(default_factory=lambda: list(PIECES))
    stop: str = "end_turn"
    bills: list[Bill] = field(default_factory=list)

    def _open(self, request: RecordedRequest) -> Bill:
        self.bills.append(Bill(sum(len(message["content"]) for message in request.json["messages"])))
        return self.bills[-1]

    def _say(self, bill: Bill, *, output: bool) -> dict[str, Any]:
        """The `usage` that goes out, noted as said."""
        if self.dumb:
            return {}
        bill.said_cached, bill.said_written = self.read, self.written
        bill.said_input = bill.fresh + (self.read or 0) + (self.written or 0)
        told: dict[str, Any] = {"input_tokens": bill.fresh, "output_tokens": 1, "service_tier": "standard"}
        for name, figure in (("cache_read_input_tokens", self.read), ("cache_creation_input_tokens", self.written)):
            if figure is not None:
                told[name] = figure
        if output:
            bill.said_output = told["output_tokens"] = bill.output
        return {"usage": told}

    async def whole(self, request: RecordedRequest) -> Reply:
        bill = self._open(request)
        bill.output = len(self.texts)
        reply = bodies.said("".join(self.texts), stop=self.stop)
        del reply["usage"]
        return Reply.json({**reply, **self._say(bill, output=True)})

    def stream(self, pieces: int | None = None, then: str = "end", error: str = "overloaded_error") -> Answer:
        """A stream that goes wrong behind so many pieces: it may `"stall"`, `"break"` off, or end with an `"error"`."""

        async def answer(request: RecordedRequest) -> Reply:
            return Reply.sse(self._events(self._open(request), pieces, then, error), done=None)

        return answer

    async def _events(self, bill: Bill, pieces: int | None, then: str, error: str) -> AsyncIterator[bodies.Event]:
        head = bodies.message(stop=None)
        del head["usage"]
        yield "message_start", {"type": "message_start", "message": {**head, **self._say(bill, output=False)}}
        yield "ping", {"type": "ping"}
        block = {"type": "text", "text": ""}
        yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}
        for text in self.texts[:pieces]:
            bill.output += 1
            delta = {"type": "text_delta", "text": text}
            yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
        if then == "stall":
            await asyncio.Event().wait()
        elif then == "error":
            yield "error", bodies.error(error)
        elif then == "end":
            yield "content_block_stop", {"type": "content_block_stop", "index": 0}
            end = {"stop_reason": self.stop, "stop_sequence": None}
            yield "message_delta", {"type": "message_delta", "delta": end, **self._say(bill, output=True)}
            yield "message_stop", {"type": "message_stop"}


async def last_usage(provider: Any, *, until: int = 10**6, prompt: str = "Hi") -> Usage:
    """The usage that a reader of the events knows who leaves behind so many pieces."""
    found, seen = Usage(), 0
    stream = provider.stream(prompt)
    async for event in stream:
        if event.type is USAGE:
            found = event.data
        seen += event.type is TOKEN
        if seen == until:
            break
    await stream.aclose()
    return found


async def read(provider: Any, prompt: str = "Hi") -> LLMResponse:
    """A streamed answer, whole."""
    found = [event async for event in provider.stream(prompt)]
    assert found[-1].type is StreamEventType.DONE, found[-1]
    answer: LLMResponse = found[-1].data
    assert [event.data for event in found if event.type is USAGE][-1:] in ([answer.usage], [])
    return answer


async def failure(provider: Any, **options: Any) -> LLMProviderError:
    """The error of a stream of text."""
    with pytest.raises(LLMProviderError) as caught:
        async for _ in await provider.execute("Hi", stream_mode="enabled", **options):
            pass
    assert isinstance(caught.value.response, LLMResponse)
    return caught.value


@pytest.mark.parametrize(("cached", "written"), [(70, 30), (0, 0), (None, None), (70, None)])
async def test_whole_and_streamed_say_what_the_ledger_says(
    make: Make, server: LoopbackServer, transport: str, cached: int | None, written: int | None
) -> None:
    """F-068, F-163: the cache's figures are part of the prompt; those that nobody said are unknown, and never 0."""
    ledger = Ledger(cached, written)
    server.script(PATH, ledger.whole, ledger.stream(), ledger.whole)
    provider = make(transport=transport)
    one = await provider.execute("Hi")
    two = await read(provider)
    three = await provider.complete([{"role": "user", "content": "Hi"}])
    assert isinstance(one, LLMResponse)
    for bill, answer in zip(ledger.bills, (one, two, three), strict=True):
        bill.expect(answer.usage)
        assert (bill.said_output, bill.said_input) == (5, 2 + (cached or 0) + (written or 0))
    assert one.usage == two.usage == three.usage


async def test_a_server_that_says_nothing_of_it(make: Make, server: LoopbackServer, transport: str) -> None:
    ledger = Ledger(dumb=True)
    server.script(PATH, ledger.whole, ledger.stream())
    provider = make(transport=transport)
    for answer in (await provider.execute("Hi"), await read(provider)):
        assert isinstance(answer, LLMResponse)
        assert answer.usage == Usage()
        assert (answer.prompt_tokens, answer.completion_tokens, answer.total_tokens) == (None, None, None)


@pytest.mark.parametrize("pieces", [1, 3, 5])
async def test_left_half_way(make: Make, server: LoopbackServer, transport: str, pieces: int) -> None:
    """The prompt was said, what the answer had cost by then was not."""
    ledger = Ledger()
    server.script(PATH, ledger.stream(pieces, "stall"))
    usage = await last_usage(make(transport=transport), until=pieces)
    assert await server.eventually(lambda: server.disconnects == 1)
    [bill] = ledger.bills
    bill.expect(usage)
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (102, None, None)
    assert bill.output == pieces


async def test_a_reader_that_is_cancelled(make: Make, server: LoopbackServer, transport: str) -> None:
    ledger, seen, there = Ledger(), list[StreamEvent](), asyncio.Event()
    server.script(PATH, ledger.stream(2, "stall"))
    provider = make(transport=transport)

    async def work() -> None:
        async for event in provider.stream("Hi"):
            seen.append(event)
            if sum(event.type is TOKEN for event in seen) == 2:
                there.set()

    task = asyncio.create_task(work())
    await there.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.eventually(lambda: server.disconnects == 1)
    ledger.bills[0].expect([event.data for event in seen if event.type is USAGE][-1])


@pytest.mark.parametrize(
    ("then", "options", "name"),
    [
        ("break", {}, "LLMProviderStreamError"),
        ("error", {}, "LLMProviderOverloadedError"),
        ("stall", {"timeout": 0.3}, "LLMProviderTimeoutError"),
    ],
)
async def test_streams_that_fail_half_way(
    make: Make, server: LoopbackServer, transport: str, then: str, options: dict[str, Any], name: str
) -> None:
    """F-068: the error's partial answer bills what was said until then."""
    ledger = Ledger()
    server.script(PATH, ledger.stream(2, then))
    error = await failure(make(transport=transport, **options))
    assert type(error).__name__ == name
    assert isinstance(error.response, LLMResponse)
    assert error.response.content == "Rome is "
    [bill] = ledger.bills
    bill.expect(error.response.usage)
    assert (bill.said_input, bill.said_output) == (102, None)


@pytest.mark.parametrize("then", ["break", "error"])
@pytest.mark.parametrize("retries", [0, 1])
async def test_streams_that_fail_before_their_first_piece(
    make: Make, server: LoopbackServer, transport: str, then: str, retries: int
) -> None:
    """F-068: the last attempt had its prompt billed, and says so."""
    ledger = Ledger()
    server.script(PATH, ledger.stream(0, then), repeat=True)
    error = await failure(make(transport=transport, max_retries=retries))
    assert error.attempts == len(ledger.bills) == retries + 1
    assert isinstance(error.response, LLMResponse)
    assert (error.response.content, error.response.response_id) == ("", "msg_1")
    ledger.bills[-1].expect(error.response.usage)
    assert error.response.usage.input_tokens == 102


async def test_tried_again(make: Make, server: LoopbackServer, transport: str) -> None:
    """The answer's usage is that of the request which gave it: what was refused before was not billed to anybody."""
    ledger = Ledger()
    busy = [Fault.status(429, bodies.error("rate_limit_error")), Fault.status(529, bodies.error("overloaded_error"))]
    early = ledger.stream(0, "error")
    server.script(PATH, *busy, ledger.whole, *busy, early, ledger.stream())
    provider = make(transport=transport)
    one = await provider.execute("Hi")
    assert isinstance(one, LLMResponse)
    two = await read(provider, "Hello")
    assert server.count() == 7
    first, void, last = ledger.bills
    first.expect(one.usage)
    last.expect(two.usage)
    assert (two.usage.input_tokens, two.usage.output_tokens) == (105, 5)
    assert (void.output, void.said_output) == (0, None)


class City(BaseModel):
    """What is asked for."""

    name: str


@pytest.mark.parametrize(("stop", "kind"), [("max_tokens", OutputTruncatedError), ("end_turn", StructuredOutputError)])
@pytest.mark.parametrize("streamed", [False, True])
async def test_answers_that_were_paid_for_and_do_not_fit(
    make: Make, server: LoopbackServer, transport: str, stop: str, kind: type[LLMProviderError], streamed: bool
) -> None:
    ledger = Ledger(texts=['{"name', '": 5', "}"], stop=stop)
    server.script(PATH, ledger.stream() if streamed else ledger.whole)
    provider = make("claude-sonnet-4-5", transport=transport)
    if streamed:
        error = await failure(provider, schema=City)
    else:
        with pytest.raises(LLMProviderError) as caught:
            await provider.execute("Hi", schema=City)
        error = caught.value
    assert type(error) is kind
    assert isinstance(error.response, LLMResponse)
    ledger.bills[0].expect(error.response.usage)
    assert error.response.usage.output_tokens == 3


async def test_the_sum_of_many_at_once_is_the_ledgers(make: Make, server: LoopbackServer, transport: str) -> None:
    ledger = Ledger()

    async def answer(request: RecordedRequest) -> Reply:
        return await (ledger.stream() if request.json.get("stream") else ledger.whole)(request)

    server.script(PATH, answer, repeat=True)
    provider = make(transport=transport)
    calls = [read(provider, "x" * size) if size % 2 else provider.execute("x" * size) for size in range(1, 25)]
    answers = await asyncio.gather(*calls)
    assert all(isinstance(answer, LLMResponse) for answer in answers)
    total = sum((answer.usage for answer in answers[1:]), answers[0].usage)
    assert total.input_tokens == sum(bill.said_input or 0 for bill in ledger.bills) == 24 * 100 + sum(range(1, 25))
    assert total.output_tokens == sum(bill.output for bill in ledger.bills) == 24 * 5
