"""What the founding document promises of each verb, in tests of our own that need no document: F-126 to F-146."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

import providers
from providers import (
    APIType,
    GenerationConfig,
    LLMConfig,
    LLMProvider,
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderRateLimitError,
    LLMProviderTimeoutError,
    LLMProviderTokenLimitError,
    LLMProviderUnsupportedOperationError,
    LLMResponse,
    StreamMode,
    TextStream,
    clear_provider_cache,
    create_llm_provider,
    get_cached_provider,
    register_provider,
    unregister_provider,
)
from providers.testing import EchoProvider, Fault, LoopbackServer, Reply

from ..scenarios.vendor import CHAT, RESPONSES
from .conftest import KEY

pytestmark = pytest.mark.usefixtures("vendor")


def whole(answer: Any) -> LLMResponse:
    """The answer of a verb that did not stream."""
    assert isinstance(answer, LLMResponse)
    return answer


async def test_the_provider_and_its_model_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-126: by keyword, by position, and by `DEFAULT_LLM_PROVIDER`/`DEFAULT_MODEL_NAME`."""
    chosen = [
        create_llm_provider(provider_type="openai", model_name="model-a"),
        create_llm_provider("openai", "model-a"),
        create_llm_provider("openai", model_name="model-a"),
        create_llm_provider(),
    ]
    assert [(one.name, one.config.model_name) for one in chosen] == [("openai", "model-a")] * 3 + [("openai", "gpt-4")]
    monkeypatch.setenv("DEFAULT_MODEL_NAME", "model-b")  # the environment comes before `.env`
    assert create_llm_provider().config.model_name == "model-b"
    async with chosen[0] as provider:
        assert whole(await provider.execute("Hi")).model == "model-a"


def test_configuration_and_keywords() -> None:
    """F-127: a configuration, fields by keyword, and both, where keywords win and the caller's object stays."""
    config = LLMConfig("model-a", temperature=0.2, max_tokens=5)
    provider = create_llm_provider(
        "openai", config=config, temperature=0.0, api_type=APIType.RESPONSES, stream_mode="auto", stop=["x"]
    )
    assert provider.config == dataclasses.replace(
        config, temperature=0.0, api_type=APIType.RESPONSES, stream_mode=StreamMode.AUTO, stop=["x"]
    )
    assert config == LLMConfig("model-a", temperature=0.2, max_tokens=5)


async def test_execute(vendor: LoopbackServer) -> None:
    """F-128: prompt and system prompt in, a whole answer out."""
    async with create_llm_provider("openai", "model-a") as provider:
        response = whole(await provider.execute(prompt="Hi", system_prompt="Be kind."))
    assert (response.content, response.finish_reason) == ("You said: Hi", "stop")
    assert [message["role"] for message in vendor.requests[0].json["messages"]] == ["system", "user"]


@pytest.mark.parametrize("api_type", list(APIType))
async def test_execute_streams(api_type: APIType) -> None:
    """F-129: an asynchronous iterator of texts, which joined are the answer; through each interface."""
    async with create_llm_provider("openai", "m", api_type=api_type, stream_mode=StreamMode.ENABLED) as provider:
        stream = await provider.execute("one two three")
        assert isinstance(stream, TextStream)
        chunks = [chunk async for chunk in stream]
    assert all(type(chunk) is str for chunk in chunks)
    assert len(chunks) > 3
    assert "".join(chunks) == "You said: one two three" == whole(stream.response).content


async def test_modes_and_interfaces(vendor: LoopbackServer) -> None:
    """F-130: members and their strings, in any case; AUTO can be iterated (it streams) or awaited (it does not)."""
    assert [mode.value for mode in StreamMode] == ["disabled", "enabled", "auto"]
    assert {"chat_completion", "responses"} <= {api.value for api in APIType}
    for api in (APIType.CHAT_COMPLETION, "chat_completion", "CHAT_COMPLETION"):
        assert LLMConfig("m", api_type=api).api_type is APIType.CHAT_COMPLETION  # type: ignore[arg-type]
    assert LLMConfig("m", stream_mode="disabled").stream_mode is StreamMode.DISABLED  # type: ignore[arg-type]
    with pytest.raises(LLMProviderConfigurationError, match="'disabled', 'enabled', 'auto'"):
        LLMConfig("m", stream_mode="sometimes")  # type: ignore[arg-type]
    async with create_llm_provider("openai", "m", stream_mode="auto") as provider:
        awaited: Any = await provider.execute("a b")
        assert (await awaited).content == "You said: a b"
        iterated: Any = await provider.execute("a b")
        assert "".join([piece async for piece in iterated]) == "You said: a b"
    assert [request.json.get("stream", False) for request in vendor.requests] == [False, True]


async def test_execute_chat_completion(vendor: LoopbackServer) -> None:
    """F-131: a talk of several turns, whose list of messages stays the caller's; whatever interface is configured."""
    async with create_llm_provider("openai", "m", api_type=APIType.RESPONSES) as provider:
        messages = [{"role": "user", "content": "Hello"}]
        first = whole(await provider.execute_chat_completion(messages=messages))
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "Go on"}]
        copy = json.loads(json.dumps(messages))
        second = whole(await provider.execute_chat_completion(messages=messages))
    assert (second.content, second.api_type) == ("You said: Go on", APIType.CHAT_COMPLETION)
    assert messages == copy == vendor.requests[1].json["messages"]
    assert {request.path for request in vendor.requests} == {CHAT}


async def test_execute_responses_api(vendor: LoopbackServer) -> None:
    """F-132: instructions, a dialogue continued by `response_id`, and nested tool dicts made flat."""
    nested = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    async with create_llm_provider("openai", "m") as provider:
        first = whole(await provider.execute_responses_api("Hello", instructions="Be kind.", previous_response_id=None))
        second = whole(
            await provider.execute_responses_api(
                input_message="Go on", previous_response_id=first.response_id, tools=[nested]
            )
        )
        with pytest.raises(LLMProviderError, match="'resp-none' not found"):
            await provider.execute_responses_api("Go on", previous_response_id="resp-none")
    bodies = [request.json for request in vendor.requests]
    assert {request.path for request in vendor.requests} == {RESPONSES}
    assert (first.api_type, second.content) == (APIType.RESPONSES, "You said: Go on")
    assert bodies[0]["instructions"] == "Be kind."
    assert bodies[1]["previous_response_id"] == first.response_id
    assert bodies[1]["tools"][0]["name"] == "look"
    assert set(nested) == {"type", "function"}


def test_llm_config() -> None:
    """F-133: a dataclass with these fields in this order and these defaults; values out of range are refused."""
    assert dataclasses.is_dataclass(LLMConfig)
    assert dataclasses.asdict(LLMConfig("m")) | {"extra_params": {}} == dataclasses.asdict(LLMConfig("m"))
    expected = {
        "model_name": "m", "api_type": "chat_completion", "token_limit": 8192, "temperature": 0.7, "max_tokens": None,
        "top_p": None, "frequency_penalty": None, "presence_penalty": None, "stop": None, "stream_mode": "disabled",
        "timeout": 60, "max_retries": 3, "retry_delay": 1.0, "extra_params": {},
    }  # fmt: skip
    assert list(dataclasses.asdict(LLMConfig("m")).items())[: len(expected)] == list(expected.items())
    for field, inside, outside in (
        ("temperature", (0, 0.0, 1, 1.0), (-0.1, 2.1, float("nan"), "warm")),
        ("top_p", (0, 1.0), (-0.1, 1.1)),
        ("frequency_penalty", (0.0, 2.0), (2.1, float("inf"))),
        ("presence_penalty", (0.0, 2.0), (2.1,)),
        ("max_tokens", (1, 10**6), (0, -5, 2.5, True)),
        ("max_retries", (0, 10), (-1, 1.5)),
        ("retry_delay", (0, 0.5), (-1, float("nan"))),
        ("timeout", (0.1, 60, None), (0, -1, "60")),
        ("stop", ("a", ["a", "b"], []), (1, [1])),
    ):
        for value in inside:
            assert getattr(LLMConfig("m", **{field: value}), field) == value
        for value in outside:
            with pytest.raises(LLMProviderConfigurationError, match=field):
                LLMConfig("m", **{field: value})


async def test_llm_response() -> None:
    """F-134: these fields, by position too, and a dict that JSON takes."""
    names = (
        "content", "model", "provider_type", "api_type", "prompt_tokens", "completion_tokens", "total_tokens",
        "finish_reason", "response_id", "metadata",
    )  # fmt: skip
    values = ("text", "m", "p", APIType.RESPONSES, 1, 2, 3, "stop", "id", {"a": 1})
    assert [getattr(LLMResponse(*values), name) for name in names] == list(values)  # type: ignore[arg-type]
    async with create_llm_provider("openai", "m") as provider:
        response = whole(await provider.execute("one two"))
    found = json.loads(json.dumps(response.to_dict()))
    assert [found[name] for name in names[:-1]] == [
        "You said: one two", "m", "openai", "chat_completion", 2, 4, 6, "stop", response.response_id,
    ]  # fmt: skip
    assert response.response_id


def test_errors() -> None:
    """F-135: one base, and a class for each way of failing, all in the module of exceptions."""
    classes = [getattr(providers, name) for name in providers.__all__ if name.endswith("Error")]
    assert len(classes) > 15
    assert all(issubclass(cls, LLMProviderError) and cls.__module__ == "providers.exceptions" for cls in classes)
    assert {"LLMProviderTokenLimitError", "LLMProviderRateLimitError", "LLMProviderUnsupportedOperationError"} <= {
        cls.__name__ for cls in classes
    }


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (
            Fault.status(429, {"error": {"message": "slow down"}}),
            LLMProviderRateLimitError,
        ),
        (
            Fault.status(400, {"error": {"message": "long", "code": "context_length_exceeded"}}),
            LLMProviderTokenLimitError,
        ),
        (Fault.silence(), LLMProviderTimeoutError),
    ],
)
async def test_failures_have_their_class(vendor: LoopbackServer, reply: Reply, kind: type[LLMProviderError]) -> None:
    """F-135, F-144: the class tells what happened, the error says where, and the provider works on."""
    async with create_llm_provider("openai", "m", max_retries=0, timeout=0.3) as provider:
        vendor.clear()
        vendor.script(CHAT, reply)
        with pytest.raises(kind) as caught:
            await provider.execute("Hi")
        assert (caught.value.provider, caught.value.model) == ("openai", "m")
        vendor.script(CHAT, Fault.status(500, "x"))
        assert (await provider.complete("Hi")).status == 500


class Custom(LLMProvider):
    """Written as the document tells: it overrides the verbs and has no `generate`."""

    def __init__(self, config: LLMConfig, api_key: str | None = None, **kwargs: Any) -> None:
        super().__init__(config)
        self.api_key = api_key
        self.more = kwargs

    async def execute(self, prompt: Any = None, system_prompt: str | None = None, **options: Any) -> Any:
        return LLMResponse(f"custom {prompt}", self.config.model_name or "", "custom")

    async def execute_responses_api(self, input_message: Any, *args: Any, **options: Any) -> Any:
        raise LLMProviderUnsupportedOperationError("no such interface here")


async def test_a_custom_provider() -> None:
    """F-136, F-137, F-138: registered, made by name with its own arguments, used; what it has not is refused."""
    register_provider("custom", Custom)
    try:
        provider: Any = create_llm_provider(
            provider_type="custom", model_name="custom-model-v1", api_key="k", temperature=0.1, shade="blue"
        )
        assert (provider.config.temperature, provider.api_key, provider.more) == (0.1, "k", {"shade": "blue"})
        assert (await provider.execute("Hi")).content == "custom Hi"
        assert provider.get_model_info()["model_name"] == "custom-model-v1"
        with pytest.raises(LLMProviderUnsupportedOperationError, match="no such interface here"):
            await provider.execute_responses_api("Hi")
        with pytest.raises(NotImplementedError):
            await provider.execute_chat_completion([{"role": "user", "content": "Hi"}])
        with pytest.raises(LLMProviderConfigurationError, match="belongs to"):
            register_provider("custom", EchoProvider)
    finally:
        unregister_provider("custom")


async def test_an_interface_that_is_not_there() -> None:
    """F-138: a provider without server-side conversations says so, with its name, before anything is sent."""
    async with EchoProvider("m") as provider:
        with pytest.raises(LLMProviderUnsupportedOperationError, match="responses") as caught:
            await provider.execute_responses_api("Hi")
        assert caught.value.provider == "echo"
        assert isinstance(caught.value, NotImplementedError)


async def test_update_config(vendor: LoopbackServer) -> None:
    """F-139: calls that start afterwards use it; those under way do not; all changes or none."""
    async with create_llm_provider("openai", "m", temperature=0.7) as provider:
        under_way: Any = await provider.execute("before", stream_mode="enabled")
        provider.update_config(temperature=0.9, max_tokens=1000)
        assert await anext(under_way)
        await under_way.aclose()
        await provider.execute("after")
        before = provider.config
        with pytest.raises(LLMProviderConfigurationError, match="top_p"):
            provider.update_config(temperature=0.1, top_p=7)
        assert provider.config == before
        await provider.execute("one call", config=GenerationConfig(temperature=0.0))
        assert provider.config == before
    assert [request.json["temperature"] for request in vendor.requests] == [0.7, 0.9, 0.0]


async def test_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-140: one instance for the same settings, another for any other, each with its own; after clearing a new one."""
    words = {"api_type": "chat_completion", "stream_mode": "disabled"}
    first = get_cached_provider("openai", "gpt-4", **words)
    assert get_cached_provider(provider_type="openai", model_name="gpt-4", **words) is first
    others = [
        get_cached_provider("openai", "gpt-4o", **words),
        get_cached_provider("openai", "gpt-4", api_type="responses"),
        get_cached_provider("openai", "gpt-4", temperature=0),
        get_cached_provider("openai", "gpt-4", temperature=0.5),
        get_cached_provider("openai", "gpt-4", api_key="another"),
    ]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    others.append(get_cached_provider("openai", "gpt-4", **words))
    assert len({id(one) for one in [first, *others]}) == 7
    assert (first.config.api_type, first.config.stream_mode) == (APIType.CHAT_COMPLETION, StreamMode.DISABLED)
    assert (others[1].config.api_type, others[2].config.api_type) == (APIType.RESPONSES, APIType.CHAT_COMPLETION)
    assert get_cached_provider("openai", "gpt-4", stream_mode="auto").config.stream_mode is StreamMode.AUTO
    clear_provider_cache()
    second = get_cached_provider("openai", "gpt-4", **words)
    assert second is not first
    assert whole(await second.execute("Hi")).content == "You said: Hi"


def test_facts_and_estimates() -> None:
    """F-141: the four keys; an estimate; a yes or no that counts what is kept for the answer."""
    provider = create_llm_provider("openai", "some-model", token_limit=100)
    info = provider.get_model_info()
    assert {key: info[key] for key in ("provider_type", "model_name", "api_type", "token_limit")} == {
        "provider_type": "openai", "model_name": "some-model", "api_type": "chat_completion", "token_limit": 100,
    }  # fmt: skip
    assert 0 < provider.estimate_tokens("How many are these?") < 12
    assert provider.estimate_tokens("word " * 500) > 400
    assert provider.validate_token_limit("short", max_tokens=50) is True
    assert provider.validate_token_limit("short", max_tokens=100) is False
    assert provider.validate_token_limit("word " * 500) is False


def test_settings_of_an_application(application: Path) -> None:
    """F-142: a pydantic-settings class of an application reads the same `.env`; `os.environ` stays as it was."""
    before = dict(os.environ)
    from providers import Settings

    class Own(Settings):
        openai_api_key: str
        colour: str = "blue"

    own = Own()  # type: ignore[call-arg]
    assert (own.openai_api_key, own.colour) == (KEY, "blue")
    assert (own.default_llm_provider, own.default_model_name) == ("openai", "gpt-4")
    create_llm_provider()
    assert dict(os.environ) == before


async def test_many_at_once() -> None:
    """F-143: two hundred calls at once on one provider; each answer is its caller's."""
    async with create_llm_provider("openai", "m") as provider:
        answers = await asyncio.gather(*(provider.execute(prompt=f"number {n}") for n in range(200)))
    assert [whole(answer).content for answer in answers] == [f"You said: number {n}" for n in range(200)]


@pytest.mark.parametrize("max_retries", [0, 2])
async def test_retries(vendor: LoopbackServer, max_retries: int) -> None:
    """F-144: `max_retries=n` is n+1 requests, `retry_delay` apart at the least half; `timeout` ends each attempt."""
    vendor.clear()
    vendor.script(CHAT, Fault.status(503, "busy"), repeat=True)
    async with create_llm_provider("openai", "m", max_retries=max_retries, retry_delay=0.1) as provider:
        with pytest.raises(LLMProviderError, match="busy"):
            await provider.execute("Hi")
        assert vendor.count(CHAT) == max_retries + 1
        times = [request.received_at for request in vendor.requests]
        assert all(later - earlier > 0.04 for earlier, later in itertools.pairwise(times))


async def test_debug_logging(vendor: LoopbackServer, caplog: pytest.LogCaptureFixture) -> None:
    """F-144: at DEBUG the log tells of each call, and neither it nor any error or repr shows the key."""
    caplog.set_level(logging.DEBUG)
    async with create_llm_provider("openai", "m", max_retries=1, retry_delay=0.01) as provider:
        await provider.execute("Hi")
        vendor.clear()
        vendor.script(CHAT, Fault.status(500, f"it broke at {KEY}"), repeat=True)
        with pytest.raises(LLMProviderError) as caught:
            await provider.execute("Hi")
        shown = f"{caplog.text} {caught.value!r} {caught.value} {provider!r} {provider.settings!r} {vars(caught.value)}"
    assert "POST" in caplog.text
    assert "200" in caplog.text
    assert "500" in caplog.text
    assert KEY not in shown
