"""Chat streams without a network: any cutting of an answer spells the same answer."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_provider_openai.chat_stream import ChatStream
from providers.exceptions import (
    LLMProviderError,
    LLMProviderOverloadedError,
    LLMProviderRateLimitError,
    LLMProviderResponseError,
    LLMProviderStreamError,
)
from providers.pipeline import Assembler
from providers.request_builder import RequestBuilder
from providers.types import LLMConfig, LLMResponse, StreamEvent, StreamEventType
from providers.wire import error_from_event

from . import bodies
from .bodies import delta, piece

REQUEST = RequestBuilder("openai", LLMConfig("gpt-4")).build("Hi", None, {}, True)
KINDS = StreamEventType


def refuse(payload: dict[str, Any], request_id: str | None) -> LLMProviderError:
    return error_from_event(payload, provider="openai", request_id=request_id)


def events_of(chunks: list[Any], *, done: bool = True, several: bool = False) -> list[StreamEvent]:
    stream = ChatStream({}, refuse, several=several)
    stream.begin("req_1")
    events: list[StreamEvent] = []
    for chunk in chunks:
        data = chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()
        events += stream.feed(None, data)
    if done:
        events += stream.feed(None, b"[DONE]")
        assert stream.done
    return [*events, *stream.finish()]


def fold(events: list[StreamEvent]) -> LLMResponse:
    assembler = Assembler(REQUEST, "openai")
    shown = [event for given in events for event in assembler.push(given)]
    shown += assembler.flush()
    check_order(shown)
    return assembler.response()


def check_order(events: list[StreamEvent]) -> None:
    """F-073: START, DELTAs, END for each call."""
    state: dict[str, str] = {}
    for event in events:
        if event.type is KINDS.TOOL_CALL_START:
            assert event.data.id
            assert event.data.id not in state
            state[event.data.id] = "open"
        elif event.type is KINDS.TOOL_CALL_DELTA:
            assert state[event.data.id] == "open"
        elif event.type is KINDS.TOOL_CALL_END:
            assert state[event.data.id] == "open"
            state[event.data.id] = "closed"
    assert set(state.values()) <= {"closed"}


def whole(chunks: list[Any], **options: Any) -> LLMResponse:
    return fold(events_of(chunks, **options))


def test_text_usage_and_facts() -> None:
    answer = whole(bodies.chat_stream("Hel", "lo"))
    assert (answer.content, answer.finish_reason, answer.response_id) == ("Hello", "stop", "chatcmpl-1")
    assert (answer.model, answer.total_tokens, answer.usage.input_tokens_cached) == ("gpt-4", 19, 8)
    assert answer.metadata["system_fingerprint"] == "fp_1"
    assert answer.metadata["request_id"] == "req_1"


@given(
    st.text(min_size=1, max_size=40).flatmap(lambda text: st.tuples(st.just(text), st.lists(st.integers(0, len(text)))))
)
def test_any_cutting_of_a_text(cutting: tuple[str, list[int]]) -> None:
    text, cuts = cutting
    edges = [0, *sorted(cuts), len(text)]
    texts = [text[a:b] for a, b in itertools.pairwise(edges)]
    answer = whole(bodies.chat_stream(*texts))
    assert answer.content == text


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["get_weather", "f", "now"]),
        st.dictionaries(st.text(max_size=6), st.integers() | st.text(max_size=8), max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def cut_calls(draw: st.DrawFn) -> tuple[list[tuple[str, str, str]], list[Any]]:
    """Calls, and their deltas: cut anywhere, interleaved, with ids once, always or never, several to a chunk."""
    ids = draw(st.sampled_from(["once", "always", "never"]))
    calls = [
        ("" if ids == "never" else f"call_{at}", name, json.dumps(arguments))
        for at, (name, arguments) in enumerate(draw(CALLS))
    ]
    queues: list[list[Any]] = []
    for at, (id, name, arguments) in enumerate(calls):
        cuts = sorted(draw(st.lists(st.integers(0, len(arguments)), max_size=5)))
        edges = [0, *cuts, len(arguments)]
        parts = [arguments[a:b] for a, b in itertools.pairwise(edges)]
        pieces = [piece(at, id or None, name, "")]
        pieces += [piece(at, id if ids == "always" else None, None, part) for part in parts]
        queues.append(pieces)
    chunks: list[Any] = [delta(role="assistant", content=None)]
    # Calls begin in order; from then on their pieces mix as they like.
    waiting = [queue.pop(0) for queue in queues]
    chunks += [delta(tool_calls=[first]) for first in waiting]
    while any(queues):
        at = draw(st.sampled_from([at for at, queue in enumerate(queues) if queue]))
        taken = [queues[at].pop(0)]
        if queues[at] and draw(st.integers(0, 1)):
            taken.append(queues[at].pop(0))
        chunks.append(delta(tool_calls=taken))
    return calls, [*chunks, delta("tool_calls")]


@settings(max_examples=200)
@given(cut_calls())
def test_any_cutting_of_tool_calls(cutting: tuple[list[tuple[str, str, str]], list[Any]]) -> None:
    """bad inputs 53"""
    calls, chunks = cutting
    answer = whole(chunks)
    found = answer.tool_calls or []
    assert [(call.name, call.arguments) for call in found] == [(name, arguments) for _, name, arguments in calls]
    assert all(call.id == (id or call.id) for call, (id, _, _) in zip(found, calls, strict=True))
    assert len({call.id for call in found} - {""}) == len(calls)
    assert answer.finish_reason == "tool_calls"


def summary(answer: LLMResponse) -> list[tuple[str, str]]:
    calls = answer.tool_calls or []
    assert len({call.id for call in calls}) == len(calls)
    assert all(call.id for call in calls)
    return [(call.name, call.arguments) for call in calls]


EXPECTED = [("f", '{"a": 1}'), ("g", '{"b": 2}')]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([piece(0, "x", "f", '{"a": 1}'), piece(0, "y", "g", '{"b": 2}')], id="all numbered 0, with ids"),
        pytest.param([piece(0, None, "f", '{"a": 1}'), piece(0, None, "g", '{"b": 2}')], id="all numbered 0, no ids"),
        pytest.param([piece(None, None, "f", '{"a": 1}'), piece(None, None, "g", '{"b": 2}')], id="no numbers, no ids"),
        pytest.param([piece(None, "x", "f", '{"a": 1}'), piece(None, "y", "g", '{"b": 2}')], id="no numbers, ids"),
        pytest.param([piece(1, "x", "f", '{"a": 1}'), piece(2, "y", "g", '{"b": 2}')], id="numbered from 1"),
        pytest.param(
            [
                piece(0, "x", "f", '{"a"'),
                piece(0, None, None, ": 1}"),
                piece(0, "y", "g", '{"b"'),
                piece(0, None, None, ": 2}"),
            ],
            id="all numbered 0, pieces without ids",
        ),
        pytest.param(
            [
                piece(0, None, "f", '{"a"'),
                piece(0, None, None, ": 1}"),
                piece(0, None, "g", '{"b"'),
                piece(0, None, None, ": 2}"),
            ],
            id="all numbered 0, no ids, in pieces",
        ),
        pytest.param(
            [
                piece(0, "", "f", '{"a"'),
                piece(0, "", "f", ": 1}"),
                piece(1, "", "g", '{"b"'),
                piece(1, "", "g", ": 2}"),
            ],
            id="the name in each piece, empty ids",
        ),
        pytest.param(
            [piece(None, None, "f", '{"a"'), piece(None, None, None, ": 1}"), piece(None, None, "g", '{"b": 2}')],
            id="neither number nor id, in pieces",
        ),
        pytest.param(
            [piece(0, "x"), piece(0, None, "f"), piece(0, None, None, '{"a": 1}'), piece(1, "y", "g", '{"b": 2}')],
            id="the id before the name",
        ),
    ],
)
def test_servers_disagree_on_how_calls_are_numbered(pieces: list[Any]) -> None:
    """bad inputs 53"""
    chunks = [delta(role="assistant"), *(delta(tool_calls=[one]) for one in pieces), delta("tool_calls")]
    assert summary(whole(chunks)) == EXPECTED
    together = [delta(role="assistant", tool_calls=pieces), delta("tool_calls")]
    assert summary(whole(together)) == EXPECTED


def test_a_call_without_arguments() -> None:
    answer = whole([delta(tool_calls=[piece(0, "x", "now")]), delta("tool_calls")])
    assert summary(answer) == [("now", "{}")]
    assert (answer.tool_calls or [])[0].parse_arguments() == {}


def test_what_a_server_puts_beside_a_call_is_kept() -> None:
    extra = {"google": {"thought_signature": "abc"}}
    first = {**piece(0, "x", "f", "{"), "extra_content": extra}
    answer = whole([delta(tool_calls=[first]), delta(tool_calls=[piece(0, None, None, "}")]), delta("tool_calls")])
    [call] = answer.tool_calls or []
    assert (call.arguments, call.provider_data) == ("{}", {"openai": {"extra_content": extra}})


def test_reasoning_refusal_logprobs_and_choices() -> None:
    reasoned = whole([delta(reasoning_content="Let "), delta(reasoning="me"), delta(content="42"), delta("stop")])
    assert (reasoned.reasoning, reasoned.content) == ("Let me", "42")
    refused = whole([delta(refusal="I "), delta(refusal="won't"), delta("stop")])
    assert refused.metadata["refusal"] == "I won't"
    scored = [delta(content="a"), delta(content="b"), delta("stop")]
    scored[0]["choices"][0]["logprobs"] = {"content": [{"token": "a"}]}
    scored[1]["choices"][0]["logprobs"] = {"content": [{"token": "b"}], "refusal": None}
    answer = whole(scored)
    assert (answer.content, answer.metadata["logprobs"]) == ("ab", {"content": [{"token": "a"}, {"token": "b"}]})
    second = delta(content="other")
    second["choices"][0]["index"] = 1
    mixed = whole([delta(content="one"), second, delta(content="!"), delta("stop")], several=True)
    assert mixed.content == "one!"
    assert [choice["message"]["content"] for choice in mixed.metadata["choices"]] == ["one!", "other"]


def test_usage_in_every_chunk_counts_once() -> None:
    chunks = bodies.chat_stream("a", "b")
    for at, chunk in enumerate(chunks):
        chunk["usage"] = {"prompt_tokens": 10, "completion_tokens": at, "total_tokens": 10 + at}
    answer = whole(chunks)
    assert (answer.content, answer.usage.output_tokens, answer.total_tokens) == ("ab", len(chunks) - 1, 9 + len(chunks))


def test_a_whole_answer_where_a_stream_was_asked_for() -> None:
    answer = whole([bodies.chat("Hello")], done=False)
    assert (answer.content, answer.finish_reason, answer.total_tokens) == ("Hello", "stop", 19)


@pytest.mark.parametrize(
    "chunks",
    [
        [b"null"],
        [b"[1]"],
        [b'"text"'],
        [b"{"],
        [delta(content="a"), b'{"choices": [{"del'],
        [delta(content="a"), b"oops"],
    ],
)
def test_data_that_is_no_chunk(chunks: list[Any]) -> None:
    with pytest.raises(LLMProviderResponseError):
        events_of(chunks)


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": {"a": 1}},
        {"choices": [None]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": 3, "tool_calls": [None, {"function": None, "index": "x"}]}}]},
        {"choices": [{"delta": {"content": "", "tool_calls": None}, "index": None}]},
        {"usage": {"prompt_tokens": "x"}},
        {"error": None},
        {},
    ],
)
def test_strange_chunks_are_survived(chunk: dict[str, Any]) -> None:
    answer = whole([delta(content="a"), chunk, delta(content="b"), delta("stop")])
    assert answer.content == "ab"


def test_how_a_stream_may_end() -> None:
    """bad inputs 48"""
    assert whole([delta(content="a"), delta("stop")], done=False).content == "a"
    assert whole([delta(content="a")]).finish_reason is None
    for chunks in ([delta(content="a")], []):
        with pytest.raises(LLMProviderStreamError):
            events_of(chunks, done=False)
    with pytest.raises(LLMProviderStreamError):
        events_of([])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}, LLMProviderRateLimitError),
        ({"message": "busy", "type": "overloaded_error"}, LLMProviderOverloadedError),
        ({"message": "busy", "code": 503}, LLMProviderOverloadedError),
        ("just a text", LLMProviderError),
    ],
)
def test_an_error_inside_a_stream(error: Any, kind: type[LLMProviderError]) -> None:
    """bad inputs 40"""
    with pytest.raises(kind) as caught:
        events_of([delta(content="a"), {"error": error}])
    assert caught.value.request_id == "req_1"
    with pytest.raises(kind):
        events_of([delta(content="a"), {**delta("error", content=""), "error": error}])
    stream = ChatStream({}, refuse)
    with pytest.raises(LLMProviderError, match="no JSON at all"):
        stream.feed("error", b"no JSON at all")
