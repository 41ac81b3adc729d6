"""Chat Completions without a network: bodies as the vendor's types have them, replies as its SDK reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from llm_provider_openai import chat
from llm_provider_openai.plan import Plan
from llm_provider_openai.provider import OpenAIProvider
from providers.exceptions import LLMProviderConfigurationError, LLMProviderResponseError
from providers.parameters import UnsupportedParameterWarning
from providers.pipeline import fold
from providers.request_builder import RequestBuilder
from providers.types import LLMConfig, LLMResponse, Message, Request, ToolCall

from . import bodies

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
REQUEST = RequestBuilder("openai", LLMConfig("gpt-4")).build("Hi", None, {}, False)


def plan(model: str = "gpt-4", vendor: bool = True) -> Plan:
    return Plan.of(OpenAIProvider.profiles.get(model), vendor=vendor)


def request(messages: Any = "Hi", system: str | None = None, model: str = "gpt-4", **options: Any) -> Request:
    stream = options.pop("stream", False)
    return RequestBuilder("openai", LLMConfig(model)).build(messages, system, options, stream)


def body(*args: Any, vendor: bool = True, **options: Any) -> dict[str, Any]:
    made = request(*args, **options)
    return chat.encode(made, plan(made.model, vendor))[0]


def read(reply: dict[str, Any]) -> LLMResponse:
    return fold(chat.decode(reply, {}, "req_1"), REQUEST, "openai")


TALK = [
    Message.system("Be brief."),
    {
        "role": "user",
        "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:x"}}],
    },
    Message.assistant(None, [ToolCall("c1", "get_weather", '{"city":"Oslo"}')]),
    Message.tool_result("c1", "rain", name="get_weather"),
    {"role": "user", "content": "And now?", "name": "ann"},
]


def test_bodies_are_of_the_vendors_own_types() -> None:
    """F-065, F-066, C-20"""
    sent = body(
        TALK,
        tools=[WEATHER],
        tool_choice="get_weather",
        schema={"type": "object", "properties": {}, "additionalProperties": False},
    )
    TypeAdapter(CompletionCreateParamsNonStreaming).validate_python(sent)
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": TALK[1]["content"]},  # type: ignore[index]
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "user", "content": "And now?", "name": "ann"},
    ]
    assert sent["tools"] == [WEATHER]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert sent["response_format"]["type"] == "json_schema"


def test_plain_messages_go_out_as_they_are() -> None:
    """F-131"""
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert body(talk)["messages"] == talk
    assert body(talk, "S")["messages"] == [{"role": "system", "content": "S"}, *talk]
    late = [*talk, {"role": "system", "content": "late"}]
    assert body(late)["messages"] == late


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("any", "required"),
        ("get_weather", {"type": "function", "function": {"name": "get_weather"}}),
        ({"type": "tool", "name": "get_weather"}, {"type": "function", "function": {"name": "get_weather"}}),
        (
            {"type": "function", "function": {"name": "get_weather"}},
            {"type": "function", "function": {"name": "get_weather"}},
        ),
    ],
)
def test_every_spelling_of_a_tool_choice(choice: Any, sent: Any) -> None:
    """F-065"""
    assert body(tools=[WEATHER], tool_choice=choice)["tool_choice"] == sent


def test_a_choice_without_its_tool() -> None:
    assert "tool_choice" not in body(tool_choice="auto")
    with pytest.raises(LLMProviderConfigurationError, match="there are no tools"):
        body(tool_choice="required")
    with pytest.raises(LLMProviderConfigurationError, match="'other', which is not among the tools: get_weather"):
        body(tools=[WEATHER], tool_choice="other")


def test_parallel_calls_can_be_forbidden() -> None:
    sent = body(tools=[WEATHER], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert sent["parallel_tool_calls"] is False


@pytest.mark.parametrize("name", ["a b", "x" * 65, "grüß", "a.b"])
def test_a_bad_tool_name_is_refused_by_name(name: str) -> None:
    with pytest.raises(LLMProviderConfigurationError) as caught:
        body(tools=[{"type": "function", "function": {"name": name, "parameters": {}}}])
    assert name in str(caught.value)


def test_tools_without_parameters_get_no_invented_ones() -> None:
    sent = body(tools=[{"name": "now"}])
    assert sent["tools"] == [
        {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    ]


@pytest.mark.parametrize(
    ("model", "vendor", "name"),
    [
        ("gpt-4", True, "max_completion_tokens"),
        ("gpt-5-mini", True, "max_completion_tokens"),
        ("gpt-5-mini", False, "max_completion_tokens"),
        ("a-model-of-tomorrow", True, "max_completion_tokens"),
        ("gpt-4", False, "max_tokens"),
        ("llama-4", False, "max_tokens"),
    ],
)
def test_the_name_of_max_tokens(model: str, vendor: bool, name: str) -> None:
    """C-25"""
    sent = body(model=model, vendor=vendor, max_tokens=9)
    assert {key for key in sent if key.startswith("max_")} == {name}
    assert sent[name] == 9


@pytest.mark.parametrize(
    ("model", "vendor", "sent"),
    [
        ("gpt-4", True, True),
        ("gpt-5", True, False),
        ("gpt-5", False, False),
        ("new", True, False),
        ("new", False, True),
    ],
)
def test_the_default_temperature_goes_only_where_it_is_taken(model: str, vendor: bool, sent: bool) -> None:
    """C-04"""
    made = request(model=model)
    found, meta = chat.encode(made, plan(model, vendor))
    assert ("temperature" in found) is sent
    assert ("temperature" in meta["params"]["left_out"]) is not sent
    given = body(model="new", vendor=vendor, temperature=0.7)
    assert given["temperature"] == 0.7


@pytest.mark.parametrize("model", ["gpt-5-chat-latest", "gpt-5-chat"])
def test_the_chat_model_of_a_reasoning_family_takes_what_chat_models_take(model: str) -> None:
    made = request(model=model, temperature=0.2, top_p=0.5, stop=["x"], presence_penalty=1.0)
    found, meta = chat.encode(made, plan(model, True))
    assert (found["temperature"], found["top_p"], found["stop"], found["presence_penalty"]) == (0.2, 0.5, ["x"], 1.0)
    assert meta["params"]["left_out"] == {}
    with pytest.warns(UnsupportedParameterWarning, match="does not reason"):
        chat.encode(request(model=model, reasoning_effort="low"), plan(model, True))


def test_extras_win_and_streams_keep_their_options() -> None:
    """F-007"""
    made = request(stream=True, extra={"stream_options": {"include_obfuscation": False}, "user": "u", "top_p": 0.5})
    found, meta = chat.encode(made, plan())
    assert found["stream"] is True
    assert found["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert (found["user"], found["top_p"]) == ("u", 0.5)
    assert meta["params"]["sent"]["stream_options"] == found["stream_options"]
    assert "system" not in body(extra={"system": "S"})
    assert body(extra={"system_instruction": "S"})["messages"][0] == {"role": "system", "content": "S"}
    with pytest.raises(LLMProviderConfigurationError, match="stream"):
        body(extra={"stream": True})


def test_messages_without_content() -> None:
    empty = [{"role": "user", "content": "x"}, Message.assistant(None), Message.tool_result("c1", None)]
    assert [message["content"] for message in body(empty)["messages"]] == ["x", "", ""]


def test_previous_response_id_is_not_for_chat() -> None:
    """C-24"""
    with pytest.raises(LLMProviderConfigurationError, match="responses"):
        body(previous_response_id="resp_1")


# --- replies


def test_a_reply_is_read_as_the_vendors_sdk_reads_it() -> None:
    """F-134, F-068"""
    calls = [
        {"id": "call_a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}},
        {"id": "call_b", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
    ]
    reply = bodies.chat(None, finish="tool_calls", tool_calls=calls)
    theirs = ChatCompletion.model_validate(reply)
    ours = read(reply)
    said = theirs.choices[0].message
    assert ours.content == (said.content or "")
    assert [(c.id, c.name, c.arguments) for c in ours.tool_calls or ()] == [
        (c.id, c.function.name, c.function.arguments) for c in said.tool_calls or () if c.type == "function"
    ]
    assert (ours.response_id, ours.model, ours.finish_reason) == (theirs.id, theirs.model, "tool_calls")
    assert theirs.usage is not None
    assert theirs.usage.prompt_tokens_details is not None
    assert theirs.usage.completion_tokens_details is not None
    assert ours.usage.input_tokens == theirs.usage.prompt_tokens
    assert ours.usage.input_tokens_cached == theirs.usage.prompt_tokens_details.cached_tokens == 8
    assert ours.usage.output_tokens_reasoning == theirs.usage.completion_tokens_details.reasoning_tokens == 2
    assert ours.metadata["request_id"] == "req_1"
    assert ours.metadata["system_fingerprint"] == "fp_1"
    json.dumps(ours.to_dict())


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_text(key: str) -> None:
    answer = read(bodies.chat("42", **{key: "Let me see"}))
    assert (answer.content, answer.reasoning) == ("42", "Let me see")


def test_what_else_an_answer_may_hold() -> None:
    refusal = read(bodies.chat(None, refusal="No."))
    assert (refusal.content, refusal.metadata["refusal"]) == ("", "No.")
    parts = read(bodies.chat([{"type": "text", "text": "a"}, {"type": "thinking"}, {"type": "text", "text": "b"}]))  # type: ignore[arg-type]
    assert parts.content == "ab"
    assert read(bodies.chat(finish="max_tokens")).finish_reason == "length"
    assert read(bodies.chat(finish="max_tokens")).metadata["raw_finish_reason"] == "max_tokens"
    assert read(bodies.chat(finish="something_new")).finish_reason == "something_new"
    two = bodies.chat("first")
    two["choices"].append({"index": 1, "message": {"content": "second"}, "finish_reason": "stop"})
    assert read(two).content == "first"
    assert read(two).metadata["choices"][1]["message"]["content"] == "second"


def test_calls_without_ids_get_different_ones() -> None:
    """C-18"""
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "f", "arguments": None}}]
    one, two = read(bodies.chat(None, tool_calls=calls)).tool_calls or []
    assert one.id
    assert two.id
    assert one.id != two.id
    assert (one.parse_arguments(), two.parse_arguments()) == ({"a": 1}, {})


def test_what_a_server_puts_beside_a_call_goes_back_to_it() -> None:
    extra = {"google": {"thought_signature": "abc"}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": extra}
    answer = read(bodies.chat(None, tool_calls=[call]))
    [message] = [answer.to_message()]
    sent = body([{"role": "user", "content": "x"}, message, Message.tool_result("c1", "ok")])
    assert sent["messages"][1]["tool_calls"] == [call]
    other = ToolCall("c2", "f", "{}", {"another": {"signature": "s"}})
    sent = body(["x", Message.assistant(None, [other]), Message.tool_result("c2", "ok")])
    assert sent["messages"][1]["tool_calls"][0].keys() == {"id", "type", "function"}


@pytest.mark.parametrize(
    "reply",
    [
        {**bodies.HEAD, "object": "chat.completion", "choices": []},
        {**bodies.HEAD, "object": "chat.completion"},
        {"choices": None},
        {"choices": [{"index": 0, "finish_reason": "content_filter", "message": None}]},
        {"choices": [None]},
        {"choices": "no"},
        {"choices": [{"message": {"content": None, "tool_calls": None}}], "usage": None},
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {"choices": [{"message": {"content": 7, "tool_calls": [None, 3, {"function": None}]}}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": 3}], "usage": "many", "id": 4, "model": None},
    ],
)
def test_strange_answers_do_not_crash(reply: dict[str, Any]) -> None:
    """bad inputs 42"""
    answer = read(reply)
    assert answer.content == ""
    assert answer.usage.total_tokens is None


@pytest.mark.parametrize("reply", [{}, {"status": "ok"}, {"detail": "try /v2"}])
def test_an_object_that_is_no_chat_completion(reply: dict[str, Any]) -> None:
    """bad inputs 32"""
    with pytest.raises(LLMProviderResponseError, match="base_url"):
        read(reply)


@pytest.mark.parametrize(
    ("usage", "total"),
    [
        ({"prompt_tokens": 3.0, "completion_tokens": "4"}, 7),
        ({"prompt_tokens": -1, "completion_tokens": 4, "total_tokens": 9}, 9),
        ({"prompt_tokens": None, "completion_tokens": 4}, None),
        ({"prompt_tokens": [1], "completion_tokens": {}}, None),
        ({"prompt_tokens": 1e400, "completion_tokens": "NaN"}, None),
        ({"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": 7, "completion_tokens_details": []}, 3),
    ],
)
def test_usage_that_makes_no_sense_costs_no_answer(usage: dict[str, Any], total: int | None) -> None:
    """bad inputs 44"""
    answer = read({**bodies.chat("paid for"), "usage": usage})
    assert answer.content == "paid for"
    assert answer.usage.total_tokens == total
