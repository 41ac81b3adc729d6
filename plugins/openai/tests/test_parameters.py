"""Every parameter, with its falsy values too: in the body on the wire, or named in a warning or error."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import pytest

from providers.exceptions import LLMProviderConfigurationError, UnsupportedParameterError
from providers.parameters import UnsupportedParameterWarning
from providers.testing.server import LoopbackServer, Reply
from providers.types import GenerationConfig, LLMConfig, LLMResponse
from providers.types.config import PARAMETERS

from . import bodies
from .conftest import Make

VALUES: dict[str, list[Any]] = {
    "temperature": [0, 0.0, 0.7, 2],
    "top_p": [0, 0.0, 0.5],
    "max_tokens": [1, 10**12],
    "frequency_penalty": [0, 0.0, -2.0],
    "presence_penalty": [0, 0.0, 1.5],
    "stop": ["END", [], ["a", "b"]],
    "seed": [0, 42],
    "reasoning_effort": ["low"],
}
CASES = [(name, value) for name, values in VALUES.items() for value in values]
WIRE = {"chat_completion": {"max_tokens": "max_tokens"}, "responses": {"max_tokens": "max_output_tokens"}}


def script(server: LoopbackServer) -> None:
    server.script("/v1/chat/completions", Reply.json(bodies.chat()), repeat=True)
    server.script("/v1/responses", Reply.json(bodies.response(bodies.said("Hello"))), repeat=True)


def test_no_parameter_is_forgotten_here() -> None:
    assert VALUES.keys() == set(PARAMETERS)
    others = {"model_name", "api_type", "token_limit", "stream_mode", "timeout", "max_retries", "retry_delay"}
    others |= {"extra_params", "system", "on_unsupported"}
    assert {item.name for item in fields(LLMConfig)} == VALUES.keys() | others
    assert {item.name for item in fields(GenerationConfig)} <= VALUES.keys() | {"extra"}


@pytest.mark.parametrize("api_type", ["chat_completion", "responses"])
@pytest.mark.parametrize("way", ["config", "call", "overlay", "extra"])
@pytest.mark.parametrize(("name", "value"), CASES)
async def test_a_parameter_is_sent_or_reported(
    make: Make, server: LoopbackServer, api_type: str, way: str, name: str, value: Any
) -> None:
    """F-006, F-007, F-042, F-067, F-133, C-04"""
    script(server)
    if way == "overlay" and name not in {item.name for item in fields(GenerationConfig)}:
        way = "extra"
    model = "a-reasoner" if name == "reasoning_effort" else "a-model"
    provider = make(model, api_type=api_type, **({name: value} if way == "config" else {}))
    options: dict[str, Any] = {
        "config": {},
        "call": {name: value},
        "overlay": {"config": GenerationConfig(**{name: value})} if way == "overlay" else {},
        "extra": {"config": {"extra": {name: value}}},
    }[way]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = await provider.execute("Hi", **options)
    assert isinstance(answer, LLMResponse)
    [sent] = [request.json for request in server.requests]
    params = answer.metadata["params"]
    wire = WIRE[api_type].get(name, name)
    if name == "reasoning_effort" and api_type == "responses":
        assert sent["reasoning"] == params["sent"]["reasoning"] == {"effort": value}
    elif wire in sent:
        assert sent[wire] == params["sent"][wire] == value
        assert type(sent[wire]) is type(value)
        assert name not in params["left_out"]
        assert not caught
    else:
        assert api_type == "responses"
        assert name in ("stop", "seed", "frequency_penalty", "presence_penalty")
        assert name in params["left_out"]
        [warning] = [item for item in caught if item.category is UnsupportedParameterWarning]
        assert f"{name}={value!r}" in str(warning.message)
    talk = "messages" if api_type == "chat_completion" else "input"
    assert sent.keys() == {"model", talk} | params["sent"].keys()


@pytest.mark.parametrize(
    ("name", "value"), [case for case in CASES if case[0] not in ("max_tokens", "seed", "reasoning_effort")]
)
@pytest.mark.parametrize("api_type", ["chat_completion", "responses"])
async def test_a_reasoning_model_refuses_by_name(
    make: Make, server: LoopbackServer, api_type: str, name: str, value: Any
) -> None:
    """F-042, F-133, C-04"""
    script(server)
    provider = make("gpt-5", api_type=api_type)
    with pytest.warns(UnsupportedParameterWarning, match=f"{name}="):
        answer = await provider.execute("Hi", **{name: value})
    assert isinstance(answer, LLMResponse)
    assert name not in server.requests[-1].json
    assert name in answer.metadata["params"]["left_out"]
    with pytest.raises(UnsupportedParameterError, match=f"{name}="):
        await provider.execute("Hi", on_unsupported="error", **{name: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dropped = await provider.execute("Hi", on_unsupported="drop", **{name: value})
    assert isinstance(dropped, LLMResponse)
    assert name in dropped.metadata["params"]["left_out"]
    assert len(server.requests) == 2


async def test_a_default_is_left_out_without_a_word(make: Make, server: LoopbackServer) -> None:
    """C-04"""
    script(server)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = await make("gpt-5").execute("Hi")
    assert isinstance(answer, LLMResponse)
    assert "temperature" not in server.requests[-1].json
    assert "temperature" in answer.metadata["params"]["left_out"]
    await make("gpt-4").execute("Hi")
    assert server.requests[-1].json["temperature"] == 0.7


async def test_nothing_that_is_none_is_sent(make: Make, server: LoopbackServer) -> None:
    """F-006"""
    script(server)
    provider = make("a-model", temperature=None)
    await provider.execute("Hi", **dict.fromkeys(VALUES))
    await provider.execute("Hi", config=GenerationConfig())
    await provider.execute("Hi", config={"temperature": None, "seed": None})
    assert [request.json for request in server.requests] == [
        {"model": "a-model", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.7}
    ] * 3


async def test_other_parameters_of_the_backend(make: Make, server: LoopbackServer) -> None:
    """F-007, F-133"""
    script(server)
    provider = make("a-model", extra_params={"user": "u", "logit_bias": {}})
    answer = await provider.execute("Hi", extra={"store": False, "top_k": 0})
    assert isinstance(answer, LLMResponse)
    sent = server.requests[-1].json
    assert (sent["user"], sent["logit_bias"], sent["store"], sent["top_k"]) == ("u", {}, False, 0)
    assert {"user", "logit_bias", "store", "top_k"} <= answer.metadata["params"]["sent"].keys()
    await provider.execute("Hi", config={"top_k": 7})
    assert server.requests[-1].json["top_k"] == 7


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "/v1/responses"),
        ({"temperature": 0, "max_tokens": 5, "reasoning_effort": "low"}, "/v1/responses"),
        ({"stop": []}, "/v1/chat/completions"),
        ({"seed": 0}, "/v1/chat/completions"),
        ({"frequency_penalty": 0.0}, "/v1/chat/completions"),
        ({"presence_penalty": 1}, "/v1/chat/completions"),
        ({"extra": {"logit_bias": {}}}, "/v1/chat/completions"),
        ({"extra": {"n": 1}}, "/v1/chat/completions"),
        ({"extra": {"store": False}}, "/v1/responses"),
        ({"schema": {"type": "object", "properties": {}}}, "/v1/chat/completions"),
    ],
)
async def test_auto_takes_the_interface_that_can_carry_the_call(
    make: Make, server: LoopbackServer, options: dict[str, Any], path: str
) -> None:
    """F-016, F-130, C-24"""
    server.script("/v1/chat/completions", Reply.json(bodies.chat("{}")))
    server.script("/v1/responses", Reply.json(bodies.response(bodies.said("{}"))))
    answer = await make("a-model", api_type="auto").execute("Hi", **options)
    assert [request.path for request in server.requests] == [path]
    assert isinstance(answer, LLMResponse)
    assert answer.api_type.value == ("responses" if "responses" in path else "chat_completion")


async def test_use_responses_api(make: Make, server: LoopbackServer) -> None:
    """F-061, F-132"""
    script(server)
    provider = make("a-model", use_responses_api=True)
    await provider.execute("Hi")
    await provider.complete("Hi")
    await provider.execute_chat_completion("Hi")
    await make("a-model").execute_responses_api("Hi", instructions="S", previous_response_id="resp_0")
    paths = [request.path.removeprefix("/v1") for request in server.requests]
    assert paths == ["/responses", "/responses", "/chat/completions", "/responses"]
    assert server.requests[-1].json["previous_response_id"] == "resp_0"
    assert server.requests[-1].json["instructions"] == "S"


async def test_update_config_is_for_the_next_call(make: Make, server: LoopbackServer) -> None:
    """F-139"""
    script(server)
    provider = make("a-model")
    provider.update_config(temperature=0.9, max_tokens=1000)
    await provider.execute("Hi")
    provider.update_config(model_name="gpt-5", temperature=0.1)
    with pytest.warns(UnsupportedParameterWarning):
        await provider.execute("Hi")
    one, two = [request.json for request in server.requests]
    assert (one["temperature"], one["max_tokens"]) == (0.9, 1000)
    assert "temperature" not in two
    assert two["max_completion_tokens"] == 1000


@pytest.mark.parametrize("name", ["model", "messages", "input", "stream"])
async def test_extras_cannot_replace_the_prompt(make: Make, server: LoopbackServer, name: str) -> None:
    provider = make("a-model")
    for api_type in ("chat_completion", "responses"):
        with pytest.raises(LLMProviderConfigurationError, match=name):
            await provider.execute("Hi", api_type=api_type, extra={name: []})
    with pytest.raises(LLMProviderConfigurationError, match=name):
        await provider.embed("Hi", extra={name: []})
    assert server.requests == []


async def test_names_of_speakers_are_reported_where_there_are_none(make: Make, server: LoopbackServer) -> None:
    named = [{"role": "user", "content": "Hi", "name": "ann"}]
    server.script("/v1/responses", Reply.json(bodies.response(bodies.said("x"))), repeat=True)
    provider = make("a-model", api_type="responses")
    with pytest.warns(UnsupportedParameterWarning, match="name was not sent"):
        answers = [await provider.execute(named)]
    with pytest.raises(UnsupportedParameterError, match="name was not sent"):
        await provider.execute(named, on_unsupported="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers.append(await provider.execute(named, on_unsupported="drop"))
    for answer in answers:
        assert isinstance(answer, LLMResponse)
        assert "messages[].name" in answer.metadata["params"]["left_out"]
    assert server.count("/v1/responses") == 2
