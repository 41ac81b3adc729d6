"""A fallback under sight: each attempt is counted once, over walks that fail and answers that begin anew."""

from __future__ import annotations

from typing import Any

import pytest

from providers import (
    LLMProvider,
    LLMProviderError,
    LLMProviderServerError,
    LLMProviderStreamError,
    LLMResponse,
    StreamEvent,
    Usage,
)
from providers.layers import retry
from providers.routing import FallbackProvider
from providers.testing import ScriptedProvider


def failing(tokens: int, cls: type[LLMProviderError] = LLMProviderServerError) -> LLMProviderError:
    error = cls("down")
    error.usage = Usage(tokens, 1)
    return error


def begun(tokens: int, *more: Any) -> list[Any]:
    return [StreamEvent.usage(Usage(tokens, 1)), StreamEvent.token("half"), *more]


class Silent(LLMProvider):
    """Says nothing of its usage."""

    name = "silent"

    async def generate(self, request: Any) -> Any:
        yield StreamEvent.token("whole")
        yield StreamEvent.finish("stop")


def seen_by(sight: Any, targets: list[LLMProvider], **options: Any) -> FallbackProvider:
    settings: dict[str, Any] = {"max_retries": 2, "retry_delay": 0.0005, **options}
    return FallbackProvider(targets, layers=(sight.observe(), retry), **settings)


def read(sight: Any) -> float:
    return float(sight.samples("tokens_total", type="input"))


@pytest.mark.parametrize("streaming", [False, True])
async def test_attempts_of_all_walks_are_counted(sight: Any, streaming: bool) -> None:
    first = ScriptedProvider([failing(1), failing(10)], "a")
    fallback = seen_by(sight, [first, ScriptedProvider([failing(100), "ok"], "b")])
    if streaming:
        response = [event async for event in fallback.stream("x")][-1].data
    else:
        response = await fallback.execute("x")
    assert isinstance(response, LLMResponse)
    assert len(response.metadata["attempts"]) == 3
    assert sight.samples("failed_attempts_total") == 3
    assert read(sight) == 1 + 10 + 100 + response.usage.input_tokens
    assert sight.span().attributes["llm_provider.attempts"] == 4


async def test_a_stream_that_breaks_behind_earlier_walks(sight: Any) -> None:
    first = ScriptedProvider([failing(1), failing(10)], "a")
    second = ScriptedProvider([failing(100), begun(1000, LLMProviderStreamError("cut"))], "b")
    last = [event async for event in seen_by(sight, [first, second]).stream("x")][-1]
    assert last.data["type"] == "LLMProviderStreamError"
    assert read(sight) == 1111
    assert sight.samples("failed_attempts_total") == 3


@pytest.mark.parametrize("second", [Silent("b"), ScriptedProvider([begun(100, StreamEvent.finish("stop"))], "b")])
async def test_what_a_broken_stream_used_is_counted_once_where_another_one_answers(
    sight: Any, second: LLMProvider
) -> None:
    first = ScriptedProvider([begun(7, LLMProviderStreamError("cut"))], "a")
    last = [event async for event in seen_by(sight, [first, second], replay=True).stream("x")][-1]
    assert isinstance(last.data, LLMResponse)
    assert read(sight) == 7 + (last.data.usage.input_tokens or 0)
    assert sight.span().attributes["gen_ai.usage.input_tokens"] == read(sight)


async def test_where_no_replay_answers_the_broken_one_is_counted_once(sight: Any) -> None:
    targets = [
        ScriptedProvider([failing(1)], "a"),
        ScriptedProvider([begun(10, LLMProviderStreamError("cut"))], "b"),
        ScriptedProvider([failing(100)], "c"),
    ]
    last = [event async for event in seen_by(sight, targets, replay=True, max_retries=0).stream("x")][-1]
    assert last.data["type"] == "LLMProviderStreamError"
    assert read(sight) == 111
    assert sight.samples("failed_attempts_total") == 2
