"""What reaches a target: the request that its own builder would have made of what the call gives."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers import APIType, LLMConfig, LLMProviderUnsupportedOperationError, Request, StreamMode, StructuredOutput
from providers.routing import FallbackProvider
from providers.testing import ScriptedProvider

from .backend import ask

PARAMETERS = {
    "temperature": st.sampled_from([0.0, 0.7, 1.5]),
    "top_p": st.sampled_from([0.0, 1.0]),
    "max_tokens": st.sampled_from([1, 50]),
    "stop": st.sampled_from([["x"], "y", []]),
    "seed": st.sampled_from([0, 7]),
    "reasoning_effort": st.sampled_from(["low", "high"]),
}
ANYWHERE = {
    **PARAMETERS,
    "timeout": st.sampled_from([5, 60, 60.0]),
    "on_unsupported": st.sampled_from(["warn", "drop"]),
}
CONFIGURED = {
    **ANYWHERE,
    "api_type": st.sampled_from(list(APIType)),
    "extra_params": st.sampled_from([{}, {"a": 1}, {"system": "be extra"}, {"seed": 9, "b": 2}]),
    "system": st.sampled_from(["be good", "be bad"]),
}
SAID = {
    **ANYWHERE,
    "api_type": st.sampled_from([APIType.CHAT_COMPLETION, APIType.RESPONSES]),
    "extra": st.sampled_from([{"a": 3}, {"system": "now"}, {"seed": 11}]),
    "config": st.sampled_from([{"temperature": 0.1}, {"max_tokens": 9, "c": 4}]),
    "system_prompt": st.just("be quick"),
    "tools": st.just([{"name": "t", "description": "d", "parameters": {"type": "object", "properties": {}}}]),
    "tool_choice": st.sampled_from(["auto", "none"]),
    "schema": st.just(StructuredOutput.coerce("json_object")),
    "previous_response_id": st.just("resp_1"),
}
# What has no second way to say a parameter.
PLAIN = {**SAID, "extra": st.sampled_from([{"a": 3}, {"system": "now"}])}
del PLAIN["config"]
TALKS = st.sampled_from(
    [
        "Hi",
        [{"role": "system", "content": "be talkative"}, {"role": "user", "content": "Hi"}],
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    ]
)


def optional(choices: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=choices)


def seen(provider: ScriptedProvider) -> dict[str, Any]:
    request = provider.requests[-1]
    found = {item.name: getattr(request, item.name) for item in fields(Request)}
    del found["retry"]  # the fallback's, which is the owner
    return {name: (type(value).__name__, value) if name == "system" else value for name, value in found.items()}


def target(options: dict[str, Any]) -> ScriptedProvider:
    return ScriptedProvider(lambda request: '{"a": 1}', "m", **options)


def call(provider: Any, prompt: Any, said: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(ask(provider, prompt, **said))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(optional(CONFIGURED), optional(SAID), TALKS, st.integers(1, 2))
def test_it_is_the_request_of_the_target_alone(
    configured: dict[str, Any], said: dict[str, Any], prompt: Any, depth: int
) -> None:
    alone, inside = target(configured), target(configured)
    fallback: Any = inside
    for _ in range(depth):
        fallback = FallbackProvider([fallback])
    call(alone, prompt, said)
    call(fallback, prompt, said)
    assert seen(inside) == seen(alone)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(optional(CONFIGURED), optional(ANYWHERE), optional(PLAIN), st.booleans())
def test_the_fallbacks_own_configuration_goes_between(
    configured: dict[str, Any], own: dict[str, Any], said: dict[str, Any], later: bool
) -> None:
    """What is given there is to the target as if the call had given it, where the call says nothing."""
    alone, inside = target(configured), target(configured)
    fallback = FallbackProvider([inside], **({} if later else own))
    if later:
        fallback.update_config(**own)
    call(alone, "Hi", {**own, **said})
    call(fallback, "Hi", said)
    assert seen(inside) == seen(alone)


async def test_what_equals_a_default_of_the_configuration_is_the_targets() -> None:
    inside = target({"timeout": 5, "temperature": 0.1, "on_unsupported": "drop", "api_type": "responses"})
    await ask(FallbackProvider([inside], config=LLMConfig(timeout=60, on_unsupported="warn")))
    request = inside.requests[-1]
    assert (request.timeout, request.on_unsupported, request.api_type) == (5, "drop", APIType.RESPONSES)
    assert dict(request.params) == {"temperature": 0.1}
    await ask(FallbackProvider([inside], timeout=60, on_unsupported="warn"))
    assert (inside.requests[-1].timeout, inside.requests[-1].on_unsupported) == (60, "warn")


async def test_the_chat_verb_means_chat_and_the_other_one_the_other() -> None:
    inside = target({"api_type": "responses"})
    fallback = FallbackProvider([inside])
    response = await fallback.execute_chat_completion("Hi")
    assert inside.requests[-1].api_type is response.api_type is APIType.CHAT_COMPLETION
    await fallback.execute_responses_api("Hi")
    assert inside.requests[-1].api_type is APIType.RESPONSES
    assert (await fallback.execute("Hi")).api_type is APIType.RESPONSES


async def test_a_model_is_no_argument_of_a_call_and_the_fallbacks_own_is_only_shown() -> None:
    inside = target({})
    fallback = FallbackProvider([inside], config="my-pair")
    assert fallback.config.model_name == "my-pair"
    assert (await ask(fallback)).model == "m"
    assert inside.requests[-1].model == "m"
    with pytest.raises(TypeError, match="model_name"):
        await fallback.execute("Hi", model_name="other")


async def test_two_targets_get_each_their_own() -> None:
    from providers import LLMProviderServerError

    first = ScriptedProvider([LLMProviderServerError("x")], "one", temperature=0.1, system="first")
    second = ScriptedProvider(["fine"], "two", max_tokens=5, stop=["z"], system="second")
    fallback = FallbackProvider([first, second], max_retries=0)
    response = await ask(fallback, seed=3, stream_mode=StreamMode.DISABLED)
    assert dict(first.requests[0].params) == {"temperature": 0.1, "seed": 3}
    assert dict(second.requests[0].params) == {"temperature": 0.7, "max_tokens": 5, "stop": ["z"], "seed": 3}
    assert second.requests[0].given == {"max_tokens", "stop", "seed"}
    assert [first.requests[0].system, second.requests[0].system] == ["first", "second"]
    assert response.metadata["params"]["sent"]["max_tokens"] == 5


@pytest.mark.parametrize("streaming", [False, True])
async def test_what_no_target_can_is_refused_by_the_name_of_each(streaming: bool) -> None:
    from providers.testing import EchoProvider

    fallback = FallbackProvider([EchoProvider("a"), FallbackProvider([EchoProvider("b")])], labels=["x", "y"])
    assert fallback.capabilities == frozenset()
    tool = {"name": "t", "description": "d", "parameters": {"type": "object", "properties": {}}}
    with pytest.raises(LLMProviderUnsupportedOperationError, match=r"x: it does not do tools; y: it does not do tools"):
        await ask(fallback, tools=[tool], streaming=streaming)
    able = FallbackProvider([EchoProvider("a"), FallbackProvider([EchoProvider("b"), target({})])])
    response = await ask(able, tools=[tool], streaming=streaming)
    assert response.content == '{"a": 1}'
    assert [item["reason"] for item in response.metadata["attempts"]] == ["it does not do tools"] * 2
