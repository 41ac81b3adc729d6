"""streamGenerateContent: the events of each chunk, and the same answer however the bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_provider_gemini import GeminiProvider
from llm_provider_gemini.generate import decode
from llm_provider_gemini.generate_stream import GenerateStream
from providers.exceptions import LLMProviderError, LLMProviderOverloadedError, LLMProviderStreamError
from providers.pipeline import fold
from providers.testing.server import Fault, LoopbackServer, Reply
from providers.types import LLMResponse, Messages, Request, StreamEvent, StreamEventType, Usage
from providers.wire import SSEParser, error_from_event

from . import bodies
from .conftest import Make

REQUEST = Request("m", Messages.of("Hi"), stream=True)


def read(chunks: list[Any], cuts: list[int] | None = None) -> list[StreamEvent]:
    """What a stream of these chunks spells, its bytes cut at these places."""
    data = "".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\n" for chunk in chunks).encode()
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts or ()}), len(data)]
    decoder = GenerateStream({}, lambda payload, id: error_from_event(payload, request_id=id))
    parser = SSEParser()
    decoder.begin("req-1")
    events: list[StreamEvent] = []
    for start, end in pairwise(places):
        for name, piece in parser.feed(data[start:end]):
            events.extend(decoder.feed(name, piece))
    for name, piece in parser.close():
        events.extend(decoder.feed(name, piece))
    return [*events, *decoder.finish()]


def said(answer: LLMResponse) -> tuple[Any, ...]:
    calls = [(call.name, call.arguments, (call.provider_data or {}).get("gemini")) for call in answer.tool_calls or ()]
    return (
        *(answer.content, answer.reasoning, calls, answer.finish_reason, answer.usage, answer.provider_data),
        *(answer.model, answer.response_id, answer.metadata.get("raw_finish_reason")),
    )


async def drain(provider: GeminiProvider) -> str:
    """A streamed text, to its end."""
    return "".join([chunk async for chunk in await provider.execute("Hi", stream_mode="enabled")])


texts = st.text(max_size=12).map(lambda text: text.encode("utf-8", "replace").decode())
parts = st.one_of(
    texts.map(lambda text: bodies.text(text or "x")),
    texts.map(lambda text: bodies.thought(text or "y")),
    texts.map(lambda text: bodies.text(text, thoughtSignature="QUJD")),
    st.dictionaries(texts, st.one_of(st.integers(-(2**53), 2**53), texts, st.none()), max_size=2).map(
        lambda args: bodies.call("f", args, thoughtSignature="QUJD")
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(parts, min_size=1, max_size=3), min_size=1, max_size=5), st.lists(st.integers(0, 4000)))
def test_any_cut_gives_the_same_answer(chunks: list[list[dict[str, Any]]], cuts: list[int]) -> None:
    stream = bodies.stream(*chunks)
    whole, cut = fold(read(stream), REQUEST), fold(read(stream, cuts), REQUEST)
    assert said(cut) == said(whole)


@settings(max_examples=150, deadline=None)
@given(st.lists(parts, min_size=1, max_size=6), st.integers(1, 5))
def test_a_stream_says_what_the_whole_says(several: list[dict[str, Any]], size: int) -> None:
    """F-129: texts cut into pieces come together as the one part that a whole reply has."""
    # In a whole reply two plain texts do not follow one another.
    kept: list[dict[str, Any]] = []
    for part in several:
        alike = kept and part.keys() == kept[-1].keys() and "text" in part and "thoughtSignature" not in part
        if not (alike and part.keys() <= {"text", "thought"}):
            kept.append(part)
    pieces: list[list[dict[str, Any]]] = []
    for part in kept:
        if part.keys() <= {"text", "thought"}:
            text = part["text"]
            pieces += [[{**part, "text": text[at : at + size]}] for at in range(0, len(text), size)]
        else:
            pieces.append([part])
    whole = fold(decode(bodies.reply(*kept), {}, "req-1"), REQUEST)
    assert said(fold(read(bodies.stream(*pieces)), REQUEST)) == said(whole)


async def test_events_of_a_stream(make: Make, server: LoopbackServer, transport: str, version: str) -> None:
    """F-072, F-073: START, DELTA and END of each call; usage when it is first told, and the last of it before DONE."""
    chunks = bodies.stream(
        [bodies.thought("Hm.")],
        [bodies.text("Let me ")],
        [bodies.text("see.")],
        [bodies.call("f", {"x": 1}, "c1", thoughtSignature="QUJD"), bodies.call("f", {"x": 2}, "c2")],
    )
    server.script(f"/{version}/models/gemini-3.8-flash:streamGenerateContent", Reply.sse(chunks, done=None))
    events = [event async for event in make(transport=transport, api_version=version).stream("Hi")]
    assert server.requests[-1].target.endswith(":streamGenerateContent?alt=sse")
    kinds = [event.type.name for event in events if event.type is not StreamEventType.META]
    call = ["TOOL_CALL_START", "TOOL_CALL_DELTA", "TOOL_CALL_END"]
    assert kinds == ["REASONING", "USAGE", "TOKEN", "TOKEN", *call, *call, "USAGE", "DONE"]
    done = events[-1].data
    assert (done.content, done.reasoning, done.finish_reason) == ("Let me see.", "Hm.", "tool_calls")
    assert [(call.id, call.arguments) for call in done.tool_calls] == [("c1", '{"x": 1}'), ("c2", '{"x": 2}')]
    assert done.usage.without_costs() == Usage(14, 5, 19, 8, None, 2)
    kept = done.provider_data["gemini"]["parts"]
    assert kept == [bodies.thought("Hm."), bodies.text("Let me see."), *chunks[3]["candidates"][0]["content"]["parts"]]


async def test_a_reason_in_every_chunk(make: Make, server: LoopbackServer) -> None:
    """Older models name one in each; the usage may come behind it."""
    chunks: list[dict[str, Any]] = [bodies.reply(bodies.text(word)) for word in ("a", "b")]
    for chunk in chunks:
        del chunk["usageMetadata"]
    server.script("*", Reply.sse([*chunks, {"usageMetadata": bodies.USAGE, **bodies.HEAD}], done=None))
    done = [event async for event in make().stream("Hi")][-1].data
    assert (done.content, done.finish_reason, done.total_tokens) == ("ab", "stop", 19)


async def test_a_reason_by_itself(make: Make, server: LoopbackServer) -> None:
    chunks = bodies.stream([bodies.text("a")])
    del chunks[0]["candidates"][0]["finishReason"]
    server.script("*", Reply.sse([*chunks, {"candidates": [{"finishReason": "MAX_TOKENS"}]}], done=None))
    done = [event async for event in make().stream("Hi")][-1].data
    assert (done.content, done.finish_reason) == ("a", "length")


async def test_a_list_in_place_of_events(make: Make, server: LoopbackServer, transport: str) -> None:
    """What the vendor sends without `alt=sse`, and gateways that lose it."""
    server.script("*", Reply.json(bodies.stream([bodies.text("a")], [bodies.text("b")])))
    done = [event async for event in make(transport=transport).stream("Hi")][-1].data
    assert (done.content, done.finish_reason) == ("ab", "stop")


async def test_a_gateways_last_word(make: Make, server: LoopbackServer, transport: str) -> None:
    chunks = bodies.stream([bodies.text("a")])
    del chunks[0]["candidates"][0]["finishReason"]
    server.script("*", Reply.sse(chunks, done="[DONE]"))
    done = [event async for event in make(transport=transport).stream("Hi")][-1].data
    assert (done.content, done.finish_reason) == ("a", None)


@pytest.mark.parametrize("how", ["end", "close", "reset"])
async def test_a_stream_that_is_cut(make: Make, server: LoopbackServer, transport: str, how: Any) -> None:
    """bad inputs: an answer that breaks off is no answer, and what had come is on the error."""
    whole = Reply.sse(bodies.stream([bodies.text("a")], [bodies.text("b")], [bodies.text("c")]), done=None)
    server.script("*", Fault.cut(whole, after_events=2, how=how), repeat=True)
    provider = make(transport=transport, max_retries=0)
    events = [event async for event in provider.stream("Hi")]
    assert events[-1].type is StreamEventType.ERROR
    assert (events[-1].data["type"], events[-1].data["content"]) == ("LLMProviderStreamError", "ab")
    with pytest.raises(LLMProviderError) as caught:
        await drain(provider)
    assert caught.value.response.usage.without_costs() == Usage(14, 2, 16)  # what the backend had said until then


async def test_an_error_inside_a_stream(make: Make, server: LoopbackServer, transport: str) -> None:
    chunks: list[Any] = [bodies.stream([bodies.text("a")], [bodies.text("b")])[0], bodies.UNAVAILABLE]
    server.script("*", Reply.sse(chunks, done=None))
    with pytest.raises(LLMProviderOverloadedError, match="overloaded") as caught:
        await drain(make(transport=transport, max_retries=0))
    assert (caught.value.status_code, caught.value.code) == (503, "UNAVAILABLE")
    assert caught.value.response.content == "a"


@pytest.mark.parametrize(
    "event", [b"data: 3\n\n", b'data: ["x"]\n\n', b"data: {\n\n", b"event: error\ndata: oh no\n\n", b"data: {}\n\n"]
)
async def test_events_that_are_none(make: Make, server: LoopbackServer, event: bytes) -> None:
    server.script("*", Reply.sse([event], done=None))
    last = [event async for event in make(max_retries=0).stream("Hi")][-1]
    assert last.type is StreamEventType.ERROR


odd = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "candidates",
                        "content",
                        "parts",
                        "text",
                        "thought",
                        "functionCall",
                        "name",
                        "args",
                        "id",
                        "index",
                    ),
                    *("finishReason", "usageMetadata", "promptTokenCount", "totalTokenCount", "promptFeedback"),
                    *("blockReason", "modelVersion", "responseId", "safetyRatings", "thoughtSignature"),
                ]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=25,
)


@settings(max_examples=400, deadline=None)
@given(odd, odd, st.lists(odd, max_size=3))
def test_no_reply_is_too_odd(first: Any, second: Any, content: list[Any]) -> None:
    """Whatever a server sends is an answer or an error of ours, whole and streamed, and JSON can hold it."""
    inner = {"content": {"parts": content}, "finishReason": second}
    chunk = {"candidates": [first, inner], "promptFeedback": second, "usageMetadata": first, "modelVersion": first}
    for made in (
        lambda: decode(chunk, {}, "req-1"),
        lambda: decode(first if isinstance(first, dict) else {}, {}),
        lambda: read([chunk, first]),
        lambda: read([{"candidates": content}, chunk]),
    ):
        try:
            answer = fold(made(), REQUEST)
        except LLMProviderError as error:
            str(error)
            continue
        json.dumps(answer.to_dict())
        assert isinstance(answer.content, str)


def test_nothing_at_all() -> None:
    with pytest.raises(LLMProviderStreamError, match="without a single event"):
        read([])


def test_other_candidates_are_kept_apart() -> None:
    chunks = bodies.stream([bodies.text("a")], [bodies.text("b")])
    for chunk, word in zip(chunks, ("x", "y"), strict=True):
        chunk["candidates"].append(bodies.candidate(bodies.text(word), index=1))
    answer = fold(read(chunks), REQUEST)
    assert answer.content == "ab"
    assert [item["content"]["parts"] for item in answer.metadata["choices"]] == [[{"text": "ab"}], [{"text": "xy"}]]
