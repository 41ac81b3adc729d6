"""The fakes: Echo and Scripted pass the kit themselves, and do what their docstrings say."""

from __future__ import annotations

from typing import Any

import pytest

from providers import (
    LLMProvider,
    LLMProviderRateLimitError,
    LLMProviderUnsupportedOperationError,
    LLMResponse,
    StreamEvent,
    StreamEventType,
    ToolCall,
    Usage,
)
from providers.testing import EchoProvider, ProviderConformance, ScriptedProvider


class TestEchoConformance(ProviderConformance):
    def make_provider(self, **options: Any) -> LLMProvider:
        return EchoProvider(**options)


def _play(request: Any) -> Any:
    if request.output is not None:
        return '{"answer": "cold"}'
    if request.tools:
        return LLMResponse(tool_calls=[ToolCall("", "get_weather", '{"city": "Paris"}')])
    words = ["Red,", " green", " and", " blue."]
    most = request.params.get("max_tokens", 99)
    answer = "".join(words[:most])
    return LLMResponse(answer, response_id="r-1", finish_reason="stop" if most >= 4 else "length")


class TestScriptedConformance(ProviderConformance):
    supports_structured_output = True
    supports_tool_calls = True
    supports_responses_api = True

    def make_provider(self, **options: Any) -> LLMProvider:
        return ScriptedProvider(_play, **options)


@pytest.mark.parametrize("text", ["", " ", "one", "one two", " one\n\ntwo  ", "\n", "ü €\t\U0001f600 x "])
async def test_echo_gives_back_every_character(text: str) -> None:
    """White space and line ends belong to the answer."""
    provider = EchoProvider()
    response = await provider.complete([{"role": "user", "content": text}])
    assert response.content == text


async def test_echo_counts_words_cuts_and_stops() -> None:
    """Usage is in words; max_tokens and stop are honoured."""
    provider = EchoProvider()
    response = await provider.complete("one two three four", max_tokens=2)
    assert (response.content, response.finish_reason) == ("one two", "length")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (4, 2)
    assert (await provider.complete("one two three", stop=["thr"])).content == "one two "


async def test_echo_refuses_what_it_would_ignore() -> None:
    """No tool, no schema: an echo can honour neither."""
    with pytest.raises(LLMProviderUnsupportedOperationError, match="tools"):
        await EchoProvider().execute("hi", tools=[{"name": "f", "parameters": {}}])


async def test_a_script_of_everything() -> None:
    """Texts, answers, errors, events, lists, callables; one entry a call, and every request is kept."""
    limit = LLMProviderRateLimitError("slow down", retry_after=0.0)
    provider = ScriptedProvider(
        [
            "plain text",
            limit,  # tried again: the next entry answers
            LLMResponse("whole", usage=Usage(7, 8), reasoning="because"),
            [StreamEvent.token("a"), StreamEvent.token("b"), StreamEvent.finish("stop")],
            lambda request: request.messages.last_text.upper(),
        ]
    )
    assert (await provider.complete("1")).content == "plain text"
    whole = await provider.complete("2")
    assert (whole.content, whole.reasoning, whole.usage.total_tokens) == ("whole", "because", 15)
    assert (await provider.complete("3")).content == "ab"
    assert (await provider.complete("shout")).content == "SHOUT"
    assert [request.messages.last_text for request in provider.requests] == ["1", "2", "2", "3", "shout"]
    with pytest.raises(AssertionError, match="no entry for call 6"):
        await provider.complete("4")


async def test_a_script_breaks_off_where_it_says() -> None:
    """An exception among events is raised at its place: the stream ends with ERROR and keeps the text so far."""
    provider = ScriptedProvider([[StreamEvent.token("half"), LLMProviderRateLimitError("cut")]])
    events = [event async for event in provider.stream("go")]
    assert [event.type for event in events] == [StreamEventType.TOKEN, StreamEventType.ERROR]
    assert events[-1].data["content"] == "half"


async def test_pushed_entries_go_first(scripted_provider: ScriptedProvider) -> None:
    """The fixture's provider answers what a test pushes."""
    scripted_provider.push("one", "two")
    assert (await scripted_provider.complete("x")).content == "one"
    assert (await scripted_provider.complete("x")).content == "two"
