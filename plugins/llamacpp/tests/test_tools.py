"""Tools and reasoning, with chat templates that know them, by the real model."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_provider_llamacpp import LlamaCppProvider
from providers.exceptions import (
    LLMProviderConfigurationError,
    LLMProviderUnsupportedOperationError,
    UnsupportedParameterError,
)
from providers.parameters import UnsupportedParameterWarning
from providers.types import LLMResponse, Message, Role, StreamEventType, ToolCall

from .conftest import REASONING_TEMPLATE, SHORT, TOOL_TEMPLATE, Make, model_file

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def calls_before(*cities: str) -> list[Message]:
    """Turns in which the tool was called, for this small model to do the same."""
    turns: list[Message] = []
    for place, city in enumerate(cities):
        call = ToolCall(f"call{place}", "get_weather", f'{{"city": "{city}"}}')
        turns += [Message.user(f"What is the weather in {city}?"), Message.assistant("", [call])]
    return turns


TALK = [*calls_before("Paris", "Oslo"), Message.user("What is the weather in Rome?")]


@pytest.fixture(scope="module")
def tooled() -> Iterator[LlamaCppProvider]:
    """The model with a template that knows tools."""
    found = LlamaCppProvider(model_path=str(model_file()), chat_template=TOOL_TEMPLATE, **{**SHORT, "max_tokens": 48})
    yield found
    asyncio.run(found.close())


@pytest.mark.parametrize("choice", [None, "auto", "required", "get_weather"])
async def test_a_tool_is_called(tooled: LlamaCppProvider, choice: str | None) -> None:
    """F-065, F-068"""
    response = await tooled.execute(TALK, tools=[WEATHER], tool_choice=choice)
    assert isinstance(response, LLMResponse)
    [call] = response.tool_calls or []
    assert (call.name, call.parse_arguments()) == ("get_weather", {"city": "Rome"})
    assert call.id
    assert (response.finish_reason, response.content) == ("tool_calls", "")


async def test_a_streamed_tool_call(tooled: LlamaCppProvider) -> None:
    """F-072, F-073: start, pieces and end of the same call."""
    events = [event async for event in tooled.stream(TALK, tools=[WEATHER])]
    kinds = [event.type for event in events]
    deltas = [event.data for event in events if event.type is StreamEventType.TOOL_CALL_DELTA]
    [end] = [event.data for event in events if event.type is StreamEventType.TOOL_CALL_END]
    assert kinds.index(StreamEventType.TOOL_CALL_START) < kinds.index(StreamEventType.TOOL_CALL_DELTA)
    assert "".join(delta.arguments for delta in deltas) == end.arguments == '{"city": "Rome"}'
    assert {delta.id for delta in deltas} == {end.id}
    assert events[-1].data.tool_calls == [end]


async def test_a_result_goes_back(tooled: LlamaCppProvider) -> None:
    """F-072: the answer's own message and the tool's result make the next prompt."""
    response = await tooled.execute(TALK, tools=[WEATHER])
    assert isinstance(response, LLMResponse)
    [call] = response.tool_calls or []
    talk = [*TALK, response.to_message(), Message.tool_result(call.id, "Sunny.", "get_weather")]
    counted = await tooled.count_tokens(talk, tools=[WEATHER])
    after = await tooled.execute(talk, tools=[WEATHER], tool_choice="none")
    assert isinstance(after, LLMResponse)
    assert after.tool_calls is None
    assert after.prompt_tokens == counted > (response.prompt_tokens or 0)


async def test_tools_that_cannot_be_told(tooled: LlamaCppProvider) -> None:
    """Bad inputs 26 and 28: refused by name, before the model is asked."""
    with pytest.raises(LLMProviderConfigurationError, match="'get_wether', which is not among the tools: get_weather"):
        await tooled.execute(TALK, tools=[WEATHER], tool_choice="get_wether")
    with pytest.raises(LLMProviderConfigurationError, match="no tools"):
        await tooled.execute(TALK, tool_choice="required")
    with pytest.raises(LLMProviderUnsupportedOperationError, match="web_search"):
        await tooled.execute(TALK, tools=[{"type": "web_search"}])
    impossible = {"type": "object", "properties": {"a": {"type": "string", "minLength": 9, "maxLength": 1}}}
    with pytest.raises(LLMProviderConfigurationError, match="minLength is 9"):
        await tooled.execute(TALK, tools=[{"name": "f", "parameters": impossible}])
    assert (await tooled.complete("Hi", max_tokens=1, tool_choice="none")).ok


async def test_a_model_without_tools_says_so(provider: LlamaCppProvider) -> None:
    """F-042: the template of the small model leaves tools out silently; this package does not."""
    with pytest.warns(UnsupportedParameterWarning, match="no place for tools"):
        response = await provider.execute("Weather in Rome?", tools=[WEATHER], max_tokens=2)
    assert isinstance(response, LLMResponse)
    assert "no place for tools" in response.metadata["params"]["left_out"]["tools"]
    with pytest.raises(UnsupportedParameterError, match="no place for tools"):
        await provider.execute("Weather in Rome?", tools=[WEATHER], on_unsupported="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await provider.execute("Weather in Rome?", tools=[WEATHER], on_unsupported="drop", max_tokens=2)


async def test_reasoning_arrives_as_reasoning(make: Make, tmp_path: Path) -> None:
    """F-067, F-072, F-075: and an effort is passed on where the template knows it; the template stands in a file."""
    file = tmp_path / "template.jinja"
    file.write_text(REASONING_TEMPLATE, encoding="utf-8")
    thinker = make(chat_template=str(file))
    talk = [
        Message(Role.USER, "2+2?"),
        Message(Role.ASSISTANT, "4", reasoning="I add two and two."),
        Message(Role.USER, "3+3?"),
        Message(Role.ASSISTANT, "6", reasoning="I add three and three."),
        Message(Role.USER, "4+4?"),
    ]
    response = await thinker.execute(talk)
    assert isinstance(response, LLMResponse)
    assert response.reasoning
    assert response.content
    assert "think>" not in response.reasoning + response.content
    events = [event async for event in thinker.stream(talk)]
    pieces = [event.data for event in events if event.type is StreamEventType.REASONING]
    assert len(pieces) > 1
    assert "".join(pieces) == response.reasoning
    assert events[-1].data.content == response.content
    hard = await thinker.execute(talk, reasoning_effort="high", on_unsupported="error")
    assert isinstance(hard, LLMResponse)
    assert hard.metadata["params"]["sent"]["chat_template_kwargs"] == {"reasoning_effort": "high"}
    assert (hard.prompt_tokens or 0) > (response.prompt_tokens or 0)
