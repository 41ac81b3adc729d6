"""The contract: one method in, all verbs out."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from providers import (
    BaseProvider,
    LLMConfig,
    LLMProvider,
    LLMProviderAuthenticationError,
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    LLMProviderError,
    LLMProviderServerError,
    LLMProviderTimeoutError,
    LLMProviderUnsupportedOperationError,
    LLMResponse,
    Message,
    ModelProfile,
    Provider,
    Request,
    StreamEvent,
    StreamEventType,
    UnknownOptionError,
)
from providers.layers import retry
from providers.testing import EchoProvider, ScriptedProvider

from .counting import Counting

pytestmark = pytest.mark.usefixtures("house")


# --- verbs


async def test_all_verbs_stand_on_the_one_method() -> None:
    """F-128, F-131, F-064, F-071."""
    provider = Counting("m")
    for response in (
        await provider.execute("hi"),
        await provider.execute(prompt="hi", system_prompt="be kind"),
        await provider.execute_chat_completion(messages=[{"role": "user", "content": "hi"}]),
        await provider.execute_chat_completion("hi", system_prompt="be kind"),
        await provider.complete("hi"),
        await provider.complete(Message.user("hi")),
        [event async for event in provider.stream("hi")][-1].data,
    ):
        assert isinstance(response, LLMResponse)
        assert (response.content, response.model, response.provider_type) == ("ab", "m", "counting")
        assert (response.total_tokens, response.finish_reason, response.ok) == (3, "stop", True)


async def test_the_responses_verb_and_what_it_says() -> None:
    """F-132."""
    provider = ScriptedProvider(lambda _: "fine")
    nested = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    await provider.execute_responses_api(
        input_message="hi", instructions="be kind", previous_response_id="r1", tools=[nested], temperature=0.0
    )
    [request] = provider.requests
    assert (request.api_type, request.system, request.previous_response_id) == ("responses", "be kind", "r1")
    assert (request.tools[0].name, request.params["temperature"]) == ("f", 0.0)


async def test_what_a_provider_does_not_understand_is_refused_before_it_hears_of_it() -> None:
    """F-138; users: parameters that vanish."""
    provider = Counting("m")
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    for call, word in (
        (provider.execute("hi", tools=[{"name": "f"}]), "tools"),
        (provider.execute("hi", schema={"type": "object"}), "structured_output"),
        (provider.execute_responses_api("hi"), "responses"),
        (provider.execute("hi", previous_response_id="r"), "responses"),
        (provider.execute(image), "images"),
        (provider.execute([{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]), "documents"),
        (provider.execute([{"role": "user", "content": [{"type": "input_audio"}]}]), "content_parts"),
        (provider.complete("hi", tools=[{"name": "f"}]), "tools"),
    ):
        with pytest.raises(LLMProviderUnsupportedOperationError, match=word):
            await call
    assert provider.opened == 0


async def test_text_parts_need_no_power() -> None:
    response = await EchoProvider().execute([{"role": "user", "content": [{"type": "text", "text": "hi"}]}])
    assert response.content == "hi"


async def test_complete_reports_a_failure_as_a_value() -> None:
    """F-069."""
    cases: list[tuple[LLMProviderError, int]] = [
        (LLMProviderAuthenticationError("no", status_code=401, request_id="r"), 401),
        (LLMProviderTimeoutError("late"), 504),
        (LLMProviderConnectionError("nobody"), 503),
        (LLMProviderError("odd"), 500),
        (LLMProviderServerError("odd", status_code=200), 500),
    ]
    for error, status in cases:
        result = await ScriptedProvider([error], max_retries=0).complete("hi")
        assert (result.ok, result.status, result.content) == (False, status, "")
        assert error.message in (result.error or "")
        assert result.metadata["error"]["type"] == type(error).__name__
        assert result.model == "scripted"
        result.to_dict()


async def test_complete_of_an_answer_that_breaks_off_is_a_failure() -> None:
    """F-069: half an answer is never an `ok` one."""
    cut = [StreamEvent.token("half"), LLMProviderServerError("cut")]
    result = await ScriptedProvider([cut], max_retries=0).complete("hi")
    assert (result.ok, result.status) == (False, 500)


@pytest.mark.parametrize("options", [{"temperature": 9}, {"tempreture": 1}, {"tools": 5}], ids=str)
async def test_a_callers_mistake_is_raised_by_every_verb(options: dict[str, Any]) -> None:
    """F-069: a mistake is no answer."""
    provider = Counting("m")
    with pytest.raises(LLMProviderConfigurationError):
        await provider.execute("hi", **options)
    with pytest.raises(LLMProviderConfigurationError):
        await provider.complete("hi", **options)
    with pytest.raises(LLMProviderConfigurationError):
        async for _ in provider.stream("hi", **options):
            pass
    assert provider.calls_under_way == 0


async def test_a_stream_ends_with_one_error_event_or_one_done() -> None:
    """F-073."""
    provider = ScriptedProvider(
        [[StreamEvent.token("a"), LLMProviderServerError("cut", status_code=503, retry_after=1)]]
    )
    events = [event async for event in provider.stream("hi")]
    assert [event.type.value for event in events] == ["token", "error"]
    data = events[-1].data
    assert (data["status"], data["content"], data["retryable"], data["retry_after"]) == (503, "a", True, 1)
    assert "cut" in data["error"]


async def test_many_calls_at_once_are_safe() -> None:
    """F-143."""
    provider = EchoProvider()
    answers = await asyncio.gather(*(provider.execute(f"question {number}") for number in range(200)))
    assert [answer.content for answer in answers] == [f"question {number}" for number in range(200)]
    assert provider.calls_under_way == 0


# --- making one


def test_the_ways_to_name_a_model() -> None:
    """F-062, C-08."""

    class GPT:
        model_name = "named"

    for provider in (
        Counting("named"),
        Counting(LLMConfig("named")),
        Counting(model="named"),
        Counting(model_name="named"),
        Counting(LLMConfig("other"), model="named"),
        Counting(GPT),
        Counting(GPT()),
        Counting(model=ModelProfile("named")),
        Counting(SimpleNamespace(model_name="named")),
    ):
        assert provider.config.model_name == "named"


@pytest.mark.parametrize("bad", [5, ["m"], {"model_name": 5}, b"m", ""], ids=str)
def test_what_is_no_model(bad: Any) -> None:
    with pytest.raises(LLMProviderConfigurationError, match="model_name"):
        Counting(bad)


def test_options_override_the_configuration_which_stays_as_it_is() -> None:
    """F-127, bad input 29."""
    config = LLMConfig("m", temperature=0.2, extra_params={"a": 1})
    before = copy.deepcopy(config)
    provider = Counting(config, temperature=0.0, max_tokens=None)
    assert provider.config.temperature == 0.0
    provider.update_config(top_p=0.5, extra_params={"b": 2})
    provider.config.extra_params["c"] = 3
    assert config == before
    config.temperature = 1.0
    assert provider.config.temperature == 0.0


def test_an_unknown_option_is_named() -> None:
    """Bad input 7."""
    with pytest.raises(
        UnknownOptionError, match=r"'counting' has no option 'temprature'; did you mean 'temperature'"
    ) as caught:
        Counting("m", temprature=1)
    assert isinstance(caught.value, TypeError)
    Counting("m", temprature=None)


def test_update_config_is_all_or_nothing() -> None:
    """F-139, bad input 12."""
    provider = Counting("m", temperature=0.5)
    before = provider.config
    for changes in (
        {"model_name": None},
        {"temperature": 0.9, "max_tokens": -5},
        {"temperature": 0.9, "unknown": 1},
        {"api_type": "x", "seed": 1},
    ):
        with pytest.raises(LLMProviderConfigurationError):
            provider.update_config(**changes)
        assert provider.config is before
        assert provider.config.temperature == 0.5


async def test_update_config_is_for_calls_that_start_from_now_on() -> None:
    """F-139."""
    provider = ScriptedProvider(lambda _: "one two", temperature=0.1)
    stream = await provider.execute("hi", stream_mode="enabled")
    provider.update_config(temperature=0.9, max_tokens=1000, model_name="other", stream_mode="auto")
    assert "".join([chunk async for chunk in stream]) == "one two"
    await (await provider.execute("hi"))
    before, after = provider.requests
    assert (before.params["temperature"], before.model) == (0.1, "scripted")
    assert (after.params["temperature"], after.params["max_tokens"], after.model) == (0.9, 1000, "other")


def test_facts() -> None:
    """F-141, bad input 17."""
    info = Counting("m", api_type="responses").get_model_info()
    assert (info["provider_type"], info["model_name"], info["api_type"]) == ("counting", "m", "responses")
    assert info["token_limit"] == 8192
    assert info["provider_class"].endswith("counting.Counting")
    assert repr(Counting("m")) == "<Counting counting/m>"
    assert BaseProvider is Provider is LLMProvider


def test_a_provider_cannot_be_pickled_and_says_why() -> None:
    """Bad input 56."""
    for travel in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="create one in each process"):
            travel(Counting("m"))


def test_two_providers_share_nothing() -> None:
    one, two = Counting("m"), Counting("m")
    one.update_config(temperature=0.0)
    assert two.config.temperature == 0.7
    assert one.settings is not two.settings


# --- the founding document's style


class Custom(LLMProvider):
    """As the founding document writes it: no `generate`."""

    def __init__(self, config: LLMConfig, api_key: str | None = None, **kwargs: Any) -> None:
        super().__init__(config)
        self.api_key = api_key

    async def execute(self, prompt: str, **kwargs: Any) -> Any:  # type: ignore[override]
        return LLMResponse(f"custom {prompt}", self.config.model_name or "", "custom")

    async def execute_chat_completion(self, messages: Any, **kwargs: Any) -> Any:
        return await self.execute(messages[-1]["content"])

    async def execute_responses_api(self, input_message: Any, **kwargs: Any) -> Any:
        raise LLMProviderUnsupportedOperationError("Responses API not supported")


async def test_a_provider_that_overrides_the_verbs_works_without_generate() -> None:
    """F-136, F-138."""
    provider = Custom(LLMConfig("m"), api_key="k")
    assert (await provider.execute("hi")).content == "custom hi"
    assert (await provider.execute_chat_completion([{"role": "user", "content": "x"}])).content == "custom x"
    with pytest.raises(NotImplementedError):
        await provider.execute_responses_api("x")
    with pytest.raises(LLMProviderUnsupportedOperationError, match=r"Custom has no generate"):
        await provider.complete("x")
    assert provider.calls_under_way == 0


async def test_a_subclass_that_overrides_generate_is_not_passed_by() -> None:
    """`respond` of a class above does not hide the `generate` of a class below, nor the other way round."""

    class Whole(LLMProvider):
        name = "whole"

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            yield StreamEvent.token("generated")

        async def respond(self, request: Request) -> list[StreamEvent]:
            return [StreamEvent.token("responded")]

    class Changed(Whole):
        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            yield StreamEvent.token("changed")

    assert (await Whole("m").execute("x")).content == "responded"
    assert (await Changed("m").execute("x")).content == "changed"


async def test_a_layer_without_a_form_for_whole_answers() -> None:
    """It sees the events of whole answers too; one with both forms is asked for the cheaper one."""
    seen = []

    async def watch(request: Request, inner: Any) -> AsyncIterator[StreamEvent]:
        async for event in inner(request):
            seen.append(event.type)
            yield event

    class Watched(LLMProvider):
        name = "watched"
        layers = (watch, retry)

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            yield StreamEvent.token("text")
            yield StreamEvent.finish("stop")

    assert (await Watched("m").execute("x")).content == "text"
    assert seen == [StreamEventType.TOKEN, StreamEventType.META]
