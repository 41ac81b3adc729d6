"""Usage against a server that keeps a ledger: what it billed for each request, and what it said of that on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from providers.exceptions import LLMProviderError, OutputTruncatedError, StructuredOutputError
from providers.testing.server import Fault, LoopbackServer, RecordedRequest, Reply
from providers.types import APIType, LLMResponse, StreamEvent, StreamEventType, Usage

from . import bodies
from .conftest import Make

PATHS = {APIType.CHAT_COMPLETION: "/v1/chat/completions", APIType.RESPONSES: "/v1/responses"}
PIECES = ["Rome ", "is ", "warmer ", "than ", "Paris."]
TOKEN, USAGE = StreamEventType.TOKEN, StreamEventType.USAGE
BUSY = {"error": {"message": "The server is overloaded", "type": "server_error", "code": "overloaded"}}
Answer = Callable[[RecordedRequest], Awaitable[Reply]]


@pytest.fixture(params=list(PATHS), ids=lambda api: api.value)
def api(request: pytest.FixtureRequest) -> APIType:
    """Each of the two interfaces."""
    found: APIType = request.param
    return found


@dataclass
class Bill:
    """One request: `output` is what was made so far, `said` is what the wire has said of it."""

    input: int
    output: int = 0
    said: Usage = field(default_factory=Usage)


@dataclass
class Ledger:
    """A server of both interfaces that bills one token for each letter of a prompt and for each piece of an answer.

    Attributes:
        api: the interface it speaks.
        cached: tokens of each prompt from the vendor's cache, or `None` where the server has no word for it.
        reasoned: tokens of each answer that nobody sees, or `None`.
        dumb: whether it says no usage at all.
        chatty: whether it says the usage with each piece, as vLLM does where it is asked to.
        texts: the pieces of its answers.
        stop: why they end.
    """

    api: APIType
    cached: int | None = 1
    reasoned: int | None = 2
    dumb: bool = False
    chatty: bool = False
    texts: list[str] = field(default_factory=lambda: list(PIECES))
    stop: str = "stop"
    bills: list[Bill] = field(default_factory=list)

    def _open(self, request: RecordedRequest) -> Bill:
        asked = request.json.get("messages") or request.json["input"]
        told = asked if isinstance(asked, str) else "".join(message["content"] for message in asked)
        self.bills.append(Bill(len(told), self.reasoned or 0))
        return self.bills[-1]

    def _say(self, bill: Bill) -> dict[str, Any] | None:
        """The `usage` that goes out, noted as said."""
        if self.dumb:
            return None
        total = bill.input + bill.output
        bill.said = Usage(bill.input, bill.output, total, self.cached, output_tokens_reasoning=self.reasoned)
        names = ("prompt", "completion") if self.api is APIType.CHAT_COMPLETION else ("input", "output")
        told: dict[str, Any] = {f"{names[0]}_tokens": bill.input, f"{names[1]}_tokens": bill.output}
        # A server may break a figure down without the part that is meant here.
        details = ((names[0], "cached_tokens", self.cached), (names[1], "reasoning_tokens", self.reasoned))
        for side, name, figure in details:
            told[f"{side}_tokens_details"] = {"audio_tokens": 0} if figure is None else {name: figure}
        return {**told, "total_tokens": total}

    def _response(self, bill: Bill) -> dict[str, Any]:
        status = "completed" if self.stop == "stop" else "incomplete"
        cut = None if self.stop == "stop" else {"reason": "max_output_tokens"}
        item = bodies.said("".join(self.texts))
        return bodies.response(item, status=status, incomplete_details=cut, usage=self._say(bill))

    async def whole(self, request: RecordedRequest) -> Reply:
        bill = self._open(request)
        bill.output += len(self.texts)
        if self.api is APIType.RESPONSES:
            return Reply.json(self._response(bill))
        return Reply.json({**bodies.chat("".join(self.texts), finish=self.stop), "usage": self._say(bill)})

    def stream(self, pieces: int | None = None, then: str = "end") -> Answer:
        """A stream that goes wrong behind so many pieces: it may `"stall"`, `"break"` off, or end with an `"error"`."""
        play = self._chat if self.api is APIType.CHAT_COMPLETION else self._responses

        async def answer(request: RecordedRequest) -> Reply:
            done = "[DONE]" if self.api is APIType.CHAT_COMPLETION and then == "end" else None
            return Reply.sse(play(self._open(request), pieces, then), done=done)

        return answer

    async def _chat(self, bill: Bill, pieces: int | None, then: str) -> AsyncIterator[Any]:
        yield bodies.delta(role="assistant", content="")
        for text in self.texts[:pieces]:
            bill.output += 1
            yield {**bodies.delta(content=text), "usage": self._say(bill) if self.chatty else None}
        if then == "stall":
            await asyncio.Event().wait()
        elif then == "error":
            yield BUSY
        elif then == "end":
            yield bodies.delta(self.stop)
            yield {**bodies.HEAD, "object": "chat.completion.chunk", "choices": [], "usage": self._say(bill)}

    async def _responses(self, bill: Bill, pieces: int | None, then: str) -> AsyncIterator[Any]:
        begun = {**bodies.response(), "status": "in_progress", "output": [], "usage": None}
        yield "response.created", {"type": "response.created", "response": begun}
        place = {"item_id": "msg_1", "output_index": 0}
        item = {**bodies.said(""), "content": [], "status": "in_progress"}
        added = "response.output_item.added"
        yield added, {"type": added, "output_index": 0, "item": item}
        for text in self.texts[:pieces]:
            bill.output += 1
            name = "response.output_text.delta"
            yield name, {"type": name, **place, "content_index": 0, "delta": text}
        if then == "stall":
            await asyncio.Event().wait()
        elif then == "error":
            yield "error", {"type": "error", **BUSY}
        elif then == "failed":
            # What was made is billed, and the response that failed says so.
            name, told = "response.failed", {"code": "server_error", "message": "no"}
            yield (
                name,
                {"type": name, "response": {**begun, "status": "failed", "error": told, "usage": self._say(bill)}},
            )
        elif then == "end":
            whole = self._response(bill)
            yield f"response.{whole['status']}", {"type": f"response.{whole['status']}", "response": whole}


async def last_usage(provider: Any, api: APIType, *, until: int) -> Usage | None:
    """The usage that a reader of the events knows who leaves behind so many pieces; `None` where there was none."""
    found, seen = None, 0
    stream = provider.stream("Hi", api_type=api)
    async for event in stream:
        if event.type is USAGE:
            found = event.data
        seen += event.type is TOKEN
        if seen == until:
            break
    await stream.aclose()
    return found


async def read(provider: Any, api: APIType, prompt: str = "Hi") -> LLMResponse:
    """A streamed answer, whole."""
    found = [event async for event in provider.stream(prompt, api_type=api)]
    assert found[-1].type is StreamEventType.DONE, found[-1]
    answer: LLMResponse = found[-1].data
    assert [event.data for event in found if event.type is USAGE][-1:] in ([answer.usage], [])
    return answer


async def failure(provider: Any, api: APIType, **options: Any) -> LLMProviderError:
    """The error of a stream of text."""
    with pytest.raises(LLMProviderError) as caught:
        async for _ in await provider.execute("Hi", stream_mode="enabled", api_type=api, **options):
            pass
    assert isinstance(caught.value.response, LLMResponse)
    return caught.value


@pytest.mark.parametrize(("cached", "reasoned"), [(1, 2), (0, 0), (None, None)])
async def test_whole_and_streamed_say_what_the_ledger_says(
    make: Make, server: LoopbackServer, transport: str, api: APIType, cached: int | None, reasoned: int | None
) -> None:
    """F-068, F-163: figures that nobody said are unknown, and never 0."""
    ledger = Ledger(api, cached, reasoned)
    server.script(PATHS[api], ledger.whole, ledger.stream(), ledger.whole)
    provider = make(transport=transport)
    one = await provider.execute("Hi", api_type=api)
    two = await read(provider, api)
    three = await provider.complete([{"role": "user", "content": "Hi"}], api_type=api)
    assert isinstance(one, LLMResponse)
    for bill, answer in zip(ledger.bills, (one, two, three), strict=True):
        assert answer.usage.without_costs() == bill.said
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 5 + (reasoned or 0))
    assert one.usage == two.usage == three.usage


async def test_a_server_that_says_nothing_of_it(
    make: Make, server: LoopbackServer, transport: str, api: APIType
) -> None:
    ledger = Ledger(api, dumb=True)
    server.script(PATHS[api], ledger.whole, ledger.stream())
    provider = make(transport=transport)
    for answer in (await provider.execute("Hi", api_type=api), await read(provider, api)):
        assert isinstance(answer, LLMResponse)
        assert answer.usage == Usage()
        assert (answer.prompt_tokens, answer.completion_tokens, answer.total_tokens) == (None, None, None)


@pytest.mark.parametrize("pieces", [1, 3, 5])
async def test_left_half_way(make: Make, server: LoopbackServer, transport: str, api: APIType, pieces: int) -> None:
    """Both interfaces tell the usage at the end: until then all of it is unknown."""
    ledger = Ledger(api)
    server.script(PATHS[api], ledger.stream(pieces, "stall"))
    assert await last_usage(make(transport=transport), api, until=pieces) is None
    assert await server.eventually(lambda: server.disconnects == 1)
    assert [(bill.output, bill.said) for bill in ledger.bills] == [(2 + pieces, Usage())]


@pytest.mark.parametrize("pieces", [1, 3])
async def test_left_half_way_where_each_piece_tells(
    make: Make, server: LoopbackServer, transport: str, pieces: int
) -> None:
    """The figures of the last piece before the reader left; the one behind a token is said with that token."""
    api = APIType.CHAT_COMPLETION
    ledger = Ledger(api, chatty=True)
    server.script(PATHS[api], ledger.stream(pieces, "stall"), ledger.stream(pieces, "break"), ledger.stream())
    provider = make(transport=transport)
    seen: list[StreamEvent] = []
    stream = provider.stream("Hi", api_type=api)
    async for event in stream:
        seen.append(event)
        if sum(event.type is USAGE for event in seen) == pieces:
            break
    await stream.aclose()
    assert seen[-1].data.without_costs() == ledger.bills[0].said
    assert seen[-1].data.output_tokens == 2 + pieces
    error = await failure(provider, api)
    assert isinstance(error.response, LLMResponse)
    assert error.response.usage.without_costs() == ledger.bills[1].said != Usage()
    assert (await read(provider, api)).usage.without_costs() == ledger.bills[2].said


@pytest.mark.parametrize(
    ("then", "options", "name"),
    [
        ("break", {}, "LLMProviderStreamError"),
        ("error", {}, "LLMProviderOverloadedError"),
        ("stall", {"timeout": 0.3}, "LLMProviderTimeoutError"),
    ],
)
async def test_streams_that_fail_half_way(
    make: Make, server: LoopbackServer, transport: str, api: APIType, then: str, options: dict[str, Any], name: str
) -> None:
    """F-068: the error has what came until then, and makes up no figure."""
    ledger = Ledger(api)
    server.script(PATHS[api], ledger.stream(2, then))
    error = await failure(make(transport=transport, **options), api)
    assert type(error).__name__ == name
    assert isinstance(error.response, LLMResponse)
    assert error.response.content == "Rome is "
    assert error.response.usage.without_costs() == ledger.bills[0].said == Usage()


async def test_a_response_that_failed_and_was_billed(make: Make, server: LoopbackServer, transport: str) -> None:
    api = APIType.RESPONSES
    ledger = Ledger(api)
    server.script(PATHS[api], ledger.stream(2, "failed"))
    error = await failure(make(transport=transport), api)
    assert type(error).__name__ == "LLMProviderServerError"
    assert isinstance(error.response, LLMResponse)
    assert error.response.content == "Rome is "
    assert error.response.usage.without_costs() == ledger.bills[0].said != Usage()


async def test_a_response_that_failed_before_its_first_piece(
    make: Make, server: LoopbackServer, transport: str
) -> None:
    api = APIType.RESPONSES
    ledger = Ledger(api)
    server.script(PATHS[api], ledger.stream(0, "failed"), repeat=True)
    error = await failure(make(transport=transport, max_retries=1), api)
    assert error.attempts == len(ledger.bills) == 2
    assert isinstance(error.response, LLMResponse)
    assert error.response.usage.without_costs() == ledger.bills[-1].said != Usage()


async def test_a_whole_response_that_failed_and_was_billed(make: Make, server: LoopbackServer, transport: str) -> None:
    api = APIType.RESPONSES
    ledger = Ledger(api)

    async def failed(request: RecordedRequest) -> Reply:
        reply = await ledger.whole(request)
        assert isinstance(reply.body, bytes)
        told = {"code": "server_error", "message": "no"}
        return Reply.json({**json.loads(reply.body), "status": "failed", "error": told})

    server.script(PATHS[api], failed, failed)
    provider = make(transport=transport, max_retries=0)
    with pytest.raises(LLMProviderError) as caught:
        await provider.execute("Hi", api_type=api)
    assert isinstance(caught.value.response, LLMResponse)
    assert caught.value.response.usage.without_costs() == ledger.bills[0].said != Usage()
    answer = await provider.complete([{"role": "user", "content": "Hi"}], api_type=api)
    assert (answer.ok, answer.usage.without_costs()) == (False, ledger.bills[1].said)


async def test_tried_again(make: Make, server: LoopbackServer, transport: str, api: APIType) -> None:
    """The answer's usage is that of the request which gave it: what was refused before was not billed to anybody."""
    ledger = Ledger(api)
    busy = [Fault.status(429, {"error": {"message": "slow down"}}), Fault.status(529, BUSY)]
    early = ledger.stream(0, "error")
    server.script(PATHS[api], *busy, ledger.whole, *busy, early, ledger.stream())
    provider = make(transport=transport)
    one = await provider.execute("Hi", api_type=api)
    assert isinstance(one, LLMResponse)
    two = await read(provider, api, "Hello")
    assert server.count() == 7
    first, void, last = ledger.bills
    assert (one.usage.without_costs(), two.usage.without_costs()) == (first.said, last.said)
    assert (two.usage.input_tokens, two.usage.output_tokens) == (5, 7)
    assert void.said == Usage()


class City(BaseModel):
    """What is asked for."""

    name: str


@pytest.mark.parametrize(("stop", "kind"), [("length", OutputTruncatedError), ("stop", StructuredOutputError)])
@pytest.mark.parametrize("streamed", [False, True])
async def test_answers_that_were_paid_for_and_do_not_fit(
    make: Make,
    server: LoopbackServer,
    transport: str,
    api: APIType,
    stop: str,
    kind: type[LLMProviderError],
    streamed: bool,
) -> None:
    ledger = Ledger(api, texts=['{"name', '": 5', "}"], stop=stop)
    server.script(PATHS[api], ledger.stream() if streamed else ledger.whole)
    provider = make("gpt-4o", transport=transport)
    if streamed:
        error = await failure(provider, api, schema=City)
    else:
        with pytest.raises(LLMProviderError) as caught:
            await provider.execute("Hi", schema=City, api_type=api)
        error = caught.value
    assert type(error) is kind
    assert isinstance(error.response, LLMResponse)
    assert error.response.usage.without_costs() == ledger.bills[0].said
    assert error.response.usage.output_tokens == 5


async def test_the_sum_of_many_at_once_is_the_ledgers(
    make: Make, server: LoopbackServer, transport: str, api: APIType
) -> None:
    ledger = Ledger(api)

    async def answer(request: RecordedRequest) -> Reply:
        return await (ledger.stream() if request.json.get("stream") else ledger.whole)(request)

    server.script(PATHS[api], answer, repeat=True)
    provider = make(transport=transport)
    calls = [
        read(provider, api, "x" * size) if size % 2 else provider.execute("x" * size, api_type=api)
        for size in range(1, 25)
    ]
    answers = await asyncio.gather(*calls)
    assert all(isinstance(answer, LLMResponse) for answer in answers)
    total = sum((answer.usage for answer in answers[1:]), answers[0].usage)
    assert total.input_tokens == sum(bill.input for bill in ledger.bills) == sum(range(1, 25))
    assert total.output_tokens == sum(bill.output for bill in ledger.bills) == 24 * 7
