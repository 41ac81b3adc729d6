"""Streams: the same as whole answers, no replay after the first piece, and what replay means where it is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from providers import LLMResponse, StreamEvent, StreamEventType, ToolCall, Usage, total_usage
from providers.exceptions import LLMProviderError, LLMProviderServerError, LLMProviderStreamError
from providers.routing import FallbackProvider
from providers.testing import Fault, LoopbackServer, ScriptedProvider

from .backend import OUTAGE, PATH, USAGE, answer, ask, chunk, last_event, streamed

Pair = Callable[..., FallbackProvider]


async def test_whole_and_streamed_are_the_same(one: LoopbackServer, two: LoopbackServer, pair: Pair) -> None:
    one.script(PATH, OUTAGE, repeat=True)
    fallback = pair()
    two.script(PATH, answer("Hello there"))
    whole = await ask(fallback)
    for how in (ask(fallback, streaming=True), last_event(fallback)):
        two.script(PATH, streamed("Hello ", "there"))
        found = await how
        assert (found.content, found.usage, found.finish_reason) == (whole.content, whole.usage, whole.finish_reason)
        assert (found.provider_type, found.model, found.api_type) == ("openai", "gpt-4", whole.api_type)
        assert found.metadata["attempts"] == whole.metadata["attempts"]
        assert found.metadata["target"] == whole.metadata["target"] == "openai/second"


async def test_a_stream_that_breaks_before_its_first_piece_is_told_by_another(
    one: LoopbackServer, two: LoopbackServer, pair: Pair
) -> None:
    """What the first one said of itself until then is no part of the answer; what it used is kept."""
    head = [chunk(role="assistant", content=""), chunk(usage={**USAGE, "prompt_tokens": 3, "total_tokens": 8})]
    from providers.testing import Reply

    one.script(PATH, Fault.cut(Reply.sse([*head, chunk(content="x")]), after_events=2))
    two.script(PATH, streamed("Hello ", "there"))
    events = [event async for event in pair().stream("Hi")]
    response = events[-1].data
    assert response.content == "Hello there"
    assert [event.data for event in events if event.type is StreamEventType.TOKEN] == ["Hello ", "there"]
    assert len([event for event in events if event.type is StreamEventType.USAGE]) == 1
    [attempt] = response.metadata["attempts"]
    assert attempt["usage"].input_tokens == 3
    assert total_usage(response).input_tokens == 17


async def test_after_the_first_piece_a_break_is_an_error(one: LoopbackServer, two: LoopbackServer, pair: Pair) -> None:
    one.script(PATH, Fault.cut(streamed("Hello ", "there"), after_events=2), repeat=True)
    fallback = pair(max_retries=3)
    with pytest.raises(LLMProviderStreamError) as caught:
        await ask(fallback, streaming=True)
    assert caught.value.response.content == "Hello "
    assert caught.value.target == "openai/first"
    assert (one.count(PATH), two.count(PATH)) == (1, 0)
    data = await last_event(fallback)
    assert (data["type"], data["content"]) == ("LLMProviderStreamError", "Hello ")
    for _ in range(3):
        await last_event(fallback)
    two.script(PATH, streamed("two"))
    assert (await last_event(fallback)).content == "two", "five breaks in a row are an outage"


PIECES: list[Any] = [
    StreamEvent.token("a"),
    StreamEvent.reasoning("hm"),
    StreamEvent.tool_start(0, "t", "call_1"),
    StreamEvent.tool_delta(0, "{"),
    StreamEvent.tool_call(ToolCall("call_1", "t", "{}")),
]


@pytest.mark.parametrize("piece", PIECES, ids=lambda event: event.type.value)
@pytest.mark.parametrize("replay", [False, True])
async def test_any_piece_counts(piece: StreamEvent, replay: bool) -> None:
    first = ScriptedProvider([[StreamEvent.usage(Usage(2, 1)), piece, LLMProviderStreamError("cut")]], "a")
    second = ScriptedProvider(["whole answer"], "b")
    fallback = FallbackProvider([first, second], replay=replay)
    response = await last_event(fallback)
    if not replay:
        assert response["type"] == "LLMProviderStreamError"
        assert second.requests == []
        return
    assert (response.content, response.reasoning, response.tool_calls) == ("whole answer", None, None)
    assert response.metadata["restarted"] == {"from": "scripted/a", "error": "LLMProviderStreamError"}
    assert response.metadata["target"] == "scripted/b"
    assert response.metadata["attempts"][0]["usage"] == Usage(2, 1)
    assert response.usage.input_tokens == 1
    assert total_usage(response).input_tokens == 3


async def test_replay_tells_the_consumer_of_events_where_the_answer_begins_anew(
    one: LoopbackServer, two: LoopbackServer, pair: Pair
) -> None:
    one.script(PATH, Fault.cut(streamed("Hello ", "there"), after_events=2), repeat=True)
    two.script(PATH, streamed("Good ", "day"), repeat=True)
    fallback = pair(replay=True)
    shown = ""
    async for event in fallback.stream("Hi"):
        if event.type is StreamEventType.META and "restarted" in event.data:
            assert shown == "Hello "
            assert event.data["target"] == "openai/second"
            shown = ""
        elif event.type is StreamEventType.TOKEN:
            shown += event.data
    assert shown == "Good day"
    text = await fallback.execute("Hi", stream_mode="enabled")
    assert "".join([piece async for piece in text]) == "Hello Good day"
    assert text.response is not None
    assert text.response.content == "Good day"


async def test_each_attempt_is_told_once_over_a_replay() -> None:
    targets = [
        ScriptedProvider([LLMProviderServerError("down")], "a"),
        ScriptedProvider([[StreamEvent.token("half"), LLMProviderStreamError("cut")]], "b"),
        ScriptedProvider([LLMProviderServerError("down")], "c"),
        ScriptedProvider(["whole"], "d"),
    ]
    response = await last_event(FallbackProvider(targets, replay=True))
    assert response.content == "whole"
    assert [item["model"] for item in response.metadata["attempts"]] == ["a", "b", "c"]
    assert response.metadata["restarted"]["from"] == "scripted/b"


@pytest.mark.parametrize("again", [False, True])
async def test_where_replay_finds_no_answer_the_broken_one_stands(again: bool) -> None:
    broken: list[Any] = [StreamEvent.token("half"), StreamEvent.usage(Usage(5, 1)), LLMProviderStreamError("cut")]
    more: list[Any] = [StreamEvent.token("other"), StreamEvent.usage(Usage(7, 1)), LLMProviderStreamError("cut")]
    targets = [
        ScriptedProvider([broken], "a"),
        ScriptedProvider([more if again else LLMProviderServerError("down")], "b"),
        ScriptedProvider([LLMProviderServerError("down")], "c"),
    ]
    with pytest.raises(LLMProviderStreamError) as caught:
        await ask(FallbackProvider(targets, replay=True), streaming=True)
    error = caught.value
    assert isinstance(error.response, LLMResponse)
    assert error.response.content == ("other" if again else "half")
    assert error.target == ("scripted/b" if again else "scripted/a")
    assert total_usage(error).input_tokens == (12 if again else 5)
    assert "down" in "".join(error.__notes__)


async def test_a_mistake_after_the_first_piece_is_never_replayed() -> None:
    from providers.exceptions import LLMProviderBadRequestError

    first = ScriptedProvider([[StreamEvent.token("a"), LLMProviderBadRequestError("odd")]])
    second = ScriptedProvider(["b"])
    with pytest.raises(LLMProviderBadRequestError):
        await ask(FallbackProvider([first, second], replay=True), streaming=True)
    assert second.requests == []


async def test_an_answer_of_descriptions_only_is_an_answer() -> None:
    first = ScriptedProvider([[StreamEvent.usage(Usage(1, 0)), StreamEvent.finish("stop")]])
    response = await ask(FallbackProvider([first, ScriptedProvider([])]), streaming=True)
    assert (response.content, response.usage.input_tokens) == ("", 1)


async def test_a_pure_stream_of_errors_ends_in_one(one: LoopbackServer, two: LoopbackServer, pair: Pair) -> None:
    one.script(PATH, OUTAGE, repeat=True)
    two.script(PATH, OUTAGE, repeat=True)
    with pytest.raises(LLMProviderError) as caught:
        await ask(pair(), streaming=True)
    assert [item["target"] for item in caught.value.failed_attempts or ()] == ["openai/first"]
    assert caught.value.target == "openai/second"
    assert "no capacity" in "".join(caught.value.__notes__)
