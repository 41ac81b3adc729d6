"""From what a caller says to one request: overlays, pseudo keys, system prompts, refusals."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest

from providers import (
    APIType,
    LLMConfig,
    LLMProviderConfigurationError,
    Request,
    RetryPolicy,
    ToolChoice,
    UnknownOptionError,
)
from providers.request_builder import RequestBuilder
from providers.testing import EchoProvider


def build(
    defaults: LLMConfig | None = None, messages: Any = "hi", prompt: str | None = None, /, **options: Any
) -> Request:
    return RequestBuilder("p", defaults or LLMConfig("m")).build(messages, prompt, options, False)


# --- parameters


def test_the_order_of_overlays() -> None:
    """C-04: keyword arguments over the call's config over the provider's."""
    config = LLMConfig("m", temperature=0.1, top_p=0.1, max_tokens=1, seed=1)
    request = build(config, config={"top_p": 0.2, "max_tokens": 2, "seed": 2}, max_tokens=3, seed=4)
    assert dict(request.params) == {"temperature": 0.1, "top_p": 0.2, "max_tokens": 3, "seed": 4}
    assert request.given == {"temperature", "top_p", "max_tokens", "seed"}


def test_zero_overlays_and_none_does_not() -> None:
    """`0`, `0.0`, `False` and `[]` are values; `None` is "not given"."""
    config = LLMConfig("m", temperature=0.5, stop=["x"], seed=5, extra_params={"flag": True})
    request = build(
        config, temperature=0.0, stop=[], seed=0, top_p=None, extra={"flag": False, "list": [], "none": None}
    )
    assert dict(request.params) == {"temperature": 0.0, "stop": [], "seed": 0}
    assert dict(request.extras) == {"flag": False, "list": [], "none": None}
    assert build(config, temperature=None).params["temperature"] == 0.5
    assert build(config, config={"temperature": 0}).params["temperature"] == 0


def test_a_default_is_not_given() -> None:
    assert build().given == frozenset()
    assert build(temperature=0.7).given == {"temperature"}
    assert build(config={"temperature": 0.7}).given == {"temperature"}
    assert build(LLMConfig("m", extra_params={"temperature": None})).given == frozenset()


def test_parameters_among_the_extras_are_checked_and_mapped_like_the_others() -> None:
    """F-007: `extra={"stop": [...]}`."""
    request = build(extra={"stop": ["x"], "top_k": 3})
    assert dict(request.params)["stop"] == ["x"]
    assert dict(request.extras) == {"top_k": 3}
    assert "stop" in request.given
    with pytest.raises(LLMProviderConfigurationError, match=r"temperature \(extra\)"):
        build(extra={"temperature": "hot"})
    with pytest.raises(LLMProviderConfigurationError, match=r"max_tokens \(extra\)"):
        build(LLMConfig("m", extra_params={"max_tokens": 0}))


def test_the_calls_extras_go_over_the_configurations() -> None:
    request = build(LLMConfig("m", extra_params={"a": 1, "b": 1}), config={"extra": {"b": 2, "c": 2}}, extra={"c": 3})
    assert dict(request.extras) == {"a": 1, "b": 2, "c": 3}


def test_nothing_of_the_callers_is_changed() -> None:
    """Bad input 29."""
    config = LLMConfig("m", extra_params={"system": "s", "temperature": 0.1, "a": 1})
    call = {
        "extra": {"system": "s", "conversation": ["x"], "stop": "x"},
        "config": {"extra": {"system_instruction": "s"}},
    }
    tools = [{"name": "f"}]
    before = copy.deepcopy((config, call, tools))
    build(config, tools=tools, **call)
    assert (config, call, tools) == before


@pytest.mark.parametrize("options", [{}, {"temperature": 0.1}, {"extra": {"a": 1}}])
def test_requests_do_not_see_later_changes_of_the_callers_list(options: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "hi"}]
    request = build(None, messages, **options)
    messages[0] = {"role": "user", "content": "another"}
    messages.append({"role": "user", "content": "more"})
    assert [message.content for message in request.messages] == ["hi"]


# --- refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": "0.7"}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "60"}, "timeout"),
        ({"extra": []}, "extra"),
        ({"extra": "x"}, "extra"),
        ({"on_unsupported": "never"}, "on_unsupported"),
        ({"api_type": "chat"}, "api_type"),
        ({"attempts": 0}, "max_attempts"),
        ({"backoff": -1}, "backoff"),
        ({"backoff": float("nan")}, "backoff"),
        ({"tools": 5}, "tools"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"system": 5}, "system prompt"),
        ({"system_prompt": ["x"]}, "system prompt"),
        ({"extra": {"system": 5}}, "system"),
        ({"config": {"extra": {"system_instruction": 5}}}, "system"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"extra": {"conversation": 5}}, "messages"),
    ],
    ids=str,
)
def test_a_bad_option_is_named_before_any_request(options: dict[str, Any], said: str) -> None:
    """Bad input 3 to 6."""
    with pytest.raises(LLMProviderConfigurationError, match=said):
        build(**options)


def test_an_unknown_option_is_named_with_the_nearest_and_a_way_out() -> None:
    """Bad input 7."""
    with pytest.raises(UnknownOptionError, match=r"tempreture.*did you mean 'temperature'.*extra=\{"):
        build(tempreture=1)
    assert build(unknown=None).extras == {}


def test_no_model_and_no_prompt() -> None:
    """Bad input 23."""
    with pytest.raises(LLMProviderConfigurationError, match=r"model_name=.*DEFAULT_MODEL_NAME"):
        build(LLMConfig())
    for empty in ("", None, [], ()):
        for options in ({}, {"temperature": 0.5}, {"config": {"temperature": 0.5}}, {"extra": {"a": 1}}):
            with pytest.raises(LLMProviderConfigurationError, match=r"empty|messages"):
                build(None, empty, **options)


# --- conversation and system


@pytest.mark.parametrize(
    "conversation",
    [
        [{"role": "user", "content": "instead"}],
        "instead",
        {"messages": [{"role": "user", "content": "instead"}]},
    ],
    ids=["list", "text", "dict"],
)
@pytest.mark.parametrize("prompt", ["hi", "", None])
def test_a_conversation_among_the_extras_replaces_the_input(conversation: Any, prompt: Any) -> None:
    """F-046."""
    for options in ({"extra": {"conversation": conversation}}, {"config": {"extra": {"conversation": conversation}}}):
        request = build(None, prompt, **options)
        assert [message.content for message in request.messages] == ["instead"]
        assert dict(request.extras) == {}


def test_what_stands_beside_the_messages_of_a_conversation_is_kept() -> None:
    """F-046."""
    request = build(extra={"conversation": {"messages": ["x"], "add_generation_prompt": False}})
    assert dict(request.extras) == {"add_generation_prompt": False}


SYSTEMS = {
    "call": ({"system": "call"}, {}, None),
    "keyword": ({}, {"system_prompt": "keyword"}, None),
    "config": ({}, {"config": {"extra": {"system": "config"}}}, None),
    "alias": ({}, {"extra": {"system_instruction": "alias"}}, None),
    "defaults": ({}, {}, LLMConfig("m", system="defaults")),
    "extra_params": ({}, {}, LLMConfig("m", extra_params={"system": "extra_params"})),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_place_of_a_system_prompt(name: str) -> None:
    """F-007, F-008, F-043, C-20: found everywhere and never forwarded as it is."""
    call, options, config = SYSTEMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request = build(config, "hi", call.get("system"), **options)
    assert request.system == name
    assert not {"system", "system_instruction"} & set(request.extras)


def test_their_order_and_the_warning_of_a_clash() -> None:
    """C-20: call over config over defaults over conversation."""
    messages = [{"role": "system", "content": "conversation"}, {"role": "user", "content": "hi"}]
    config = LLMConfig("m", system="defaults")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build(None, messages).system == "conversation"
        assert build(None, messages, "conversation").system == "conversation"
    with pytest.warns(UserWarning, match=r"LLMConfig's is used, not the conversation's"):
        assert build(config, messages).system == "defaults"
    with pytest.warns(UserWarning, match=r"config.extra's is used, not LLMConfig's"):
        assert build(config, "hi", config={"extra": {"system": "config"}}).system == "config"
    with pytest.warns(
        UserWarning, match=r"the call's is used, not config.extra's, LLMConfig's, the conversation's"
    ) as caught:
        assert build(config, messages, "call", config={"extra": {"system": "config"}}).system == "call"
    assert len(caught) == 1
    assert "defaults" not in str(caught[0].message)


def test_an_empty_system_prompt_of_a_call_takes_the_others_away() -> None:
    with pytest.warns(UserWarning, match="several system prompts"):
        assert build(LLMConfig("m", system="defaults"), "hi", "").system == ""


# --- everything else


def test_the_rest_of_the_request() -> None:
    config = LLMConfig("m", timeout=5, on_unsupported="drop", api_type="responses", max_retries=1, retry_delay=0.5)
    plain = build(config)
    assert (plain.timeout, plain.on_unsupported, plain.api_type) == (5, "drop", APIType.RESPONSES)
    assert plain.retry == RetryPolicy(2, 0.5)
    request = build(
        config, tools=[{"name": "f"}], tool_choice="f", response_format="json_object", api_type="chat_completion",
        previous_response_id="r", timeout=9, attempts=7, backoff=0, on_unsupported="error",
    )  # fmt: skip
    assert (request.tools[0].name, request.tool_choice, request.timeout) == ("f", ToolChoice("named", "f"), 9)
    assert (request.api_type, request.previous_response_id, request.on_unsupported) == (
        APIType.CHAT_COMPLETION,
        "r",
        "error",
    )
    assert request.output is not None
    assert request.retry == RetryPolicy(7, 0)


def test_no_limit_of_time() -> None:
    """Bad input 5: `None` is no limit in the configuration, and "not given" in a call."""
    assert build(LLMConfig("m", timeout=None)).timeout is None
    assert build(LLMConfig("m", timeout=7), timeout=None).timeout == 7


def test_a_long_first_wait_is_not_above_the_longest() -> None:
    """Bad input 6."""
    assert build(LLMConfig("m", retry_delay=90)).retry.max_wait == 90
    assert build(backoff=90).retry.max_wait == 90
    assert build(LLMConfig("m", max_retries=10**6)).retry.max_attempts == 10**6 + 1


def test_a_response_cache_that_is_not_there_is_told() -> None:
    with pytest.warns(UserWarning, match="no response cache"):
        build(cache_response=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(cache_response=False)


def test_a_request_is_one_frozen_value() -> None:
    request = build()
    with pytest.raises(AttributeError):
        request.model = "x"  # type: ignore[misc]
    assert request.replace(model="x").model == "x"
    assert request.model == "m"


# --- two spellings of one thing


@pytest.mark.parametrize(
    ("prompt", "options", "used", "said"),
    [
        (None, {"system_prompt": "a", "system": "b"}, "a", "system_prompt= is used, not system="),
        ("a", {"system": "b"}, "a", "the call's is used, not system="),
        ("a", {"system_prompt": "b"}, "a", "the call's is used, not system_prompt="),
        ("a", {"system_prompt": "a", "system": "b"}, "a", "the call's is used, not system_prompt=, system="),
        (None, {"extra": {"system": "a", "system_instruction": "b"}}, "a",
         "extra['system'] is used, not extra['system_instruction']"),
        (None, {"config": {"extra": {"system_instruction": "b", "system": "a"}}}, "a",
         "extra['system'] is used, not extra['system_instruction']"),
    ],
    ids=str,
)  # fmt: skip
def test_two_names_of_the_system_prompt_that_differ_are_told(
    prompt: str | None, options: dict[str, Any], used: str, said: str
) -> None:
    """C-20: nothing that was said is dropped silently."""
    with pytest.warns(UserWarning, match="several system prompts") as caught:
        assert build(None, "hi", prompt, **options).system == used
    assert [str(item.message) for item in caught] == [f"several system prompts: {said}"]
    agreeing = {
        name: "a" if isinstance(value, str) else {"extra": {"system": "a", "system_instruction": "a"}}["extra"]
        for name, value in options.items()
        if name != "config"
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(None, "hi", prompt, **agreeing)


def test_two_names_in_the_configuration_that_differ_are_told() -> None:
    """C-20."""
    with pytest.warns(UserWarning, match=r"extra\['system'\] is used, not extra\['system_instruction'\]"):
        assert build(LLMConfig("m", extra_params={"system": "a", "system_instruction": "b"})).system == "a"


def test_a_schema_under_two_names_is_refused() -> None:
    """Neither of them is dropped silently."""
    with pytest.raises(LLMProviderConfigurationError, match="schema and response_format"):
        build(schema={"type": "object"}, response_format="json_object")
    assert build(schema=None, response_format="json_object").output is not None


@pytest.mark.parametrize("options", [{"extra": {"conversations": [["a"]]}}, {"config": {"conversations": [["a"]]}}])
def test_conversations_are_for_batches(options: dict[str, Any]) -> None:
    """F-047."""
    with pytest.raises(LLMProviderConfigurationError, match="for batches"):
        build(**options)
    assert build(extra={"conversations": None}).extras == {}


@pytest.mark.parametrize(
    ("stream", "agrees", "clashes"), [(False, "disabled", "enabled"), (True, "ENABLED", "disabled")]
)
def test_a_verb_that_has_one_mode_takes_no_other(stream: bool, agrees: str, clashes: str) -> None:
    builder = RequestBuilder("p", LLMConfig("m"))
    for mode in (agrees, "auto", None):
        assert builder.build("hi", None, {"stream_mode": mode}, stream).stream is stream
    with pytest.raises(LLMProviderConfigurationError, match=rf"verb .* streams.*stream_mode='{clashes}'"):
        builder.build("hi", None, {"stream_mode": clashes}, stream)
    with pytest.raises(LLMProviderConfigurationError, match="stream_mode"):
        builder.build("hi", None, {"stream_mode": "sometimes"}, stream)


async def test_complete_and_stream_refuse_the_other_mode() -> None:
    provider = EchoProvider()
    with pytest.raises(LLMProviderConfigurationError, match="never streams"):
        await provider.complete("hi", stream_mode="enabled")
    with pytest.raises(LLMProviderConfigurationError, match="always streams"):
        provider.stream("hi", stream_mode="disabled")
    assert (await provider.complete("hi", stream_mode="disabled")).content == "hi"
    assert [event async for event in provider.stream("hi", stream_mode="enabled")][-1].data.content == "hi"
    await provider.close()
