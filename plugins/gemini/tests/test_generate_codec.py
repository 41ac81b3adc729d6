"""generateContent, whole: bodies of requests, events of replies, every finish reason, usage, blocked prompts."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from google.genai import types

from llm_provider_gemini import GeminiProvider
from llm_provider_gemini.common import usage_of
from llm_provider_gemini.generate import decode
from providers.exceptions import (
    LLMProviderContentFilterError,
    LLMProviderResponseError,
    LLMProviderUnsupportedOperationError,
)
from providers.testing.server import LoopbackServer, Reply
from providers.types import LLMResponse, Message, StreamEventType, StreamMode, Usage

from . import bodies
from .conftest import KEY, Make


async def sent(
    make: Make, server: LoopbackServer, messages: Any, model: str = "gemini-2.5-flash", **options: Any
) -> Any:
    server.script("*", Reply.json(bodies.reply()))
    answer = await make(model).complete(messages, **options)
    assert answer.ok, answer.error
    return server.requests[-1].json


async def test_a_plain_prompt(make: Make, server: LoopbackServer, transport: str, version: str) -> None:
    """F-128, F-044: the key stands in a header, the model and the version in the path."""
    server.script(f"POST /{version}/models/gemini-3.8-flash:generateContent", Reply.json(bodies.reply()))
    answer = await make(transport=transport, api_version=version).execute("Hello")
    [request] = server.requests
    assert request.json == {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    assert request.headers["x-goog-api-key"] == KEY
    assert KEY not in request.target
    assert isinstance(answer, LLMResponse)
    assert (answer.content, answer.model, answer.response_id) == ("Hello there", "gemini-3.8-flash", "resp-1")
    assert (answer.finish_reason, answer.metadata["raw_finish_reason"]) == ("stop", "STOP")
    assert answer.usage.without_costs() == Usage(14, 5, 19, 8, None, 2)
    assert answer.provider_data is None


async def test_system_instruction_under_each_of_its_names(make: Make, server: LoopbackServer) -> None:
    """F-007, F-008, F-043"""
    expected = {"parts": [{"text": "Be brief."}]}
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    for messages, options in (
        ("Hi", {"system": "Be brief."}),
        ("Hi", {"extra": {"system": "Be brief."}}),
        ("Hi", {"extra": {"system_instruction": "Be brief."}}),
        ("Hi", {"config": {"extra": {"system_instruction": "Be brief."}}}),
        ("Hi", {"extra": {"systemInstruction": "Be brief."}}),
        (talk, {}),
    ):
        body = await sent(make, server, messages, **options)
        assert body["systemInstruction"] == expected
        assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
        assert not body.keys() & {"system", "system_instruction"}


async def test_a_talk_of_several_turns(make: Make, server: LoopbackServer) -> None:
    """F-131"""
    talk = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
    ]
    body = await sent(make, server, talk)
    assert [item["role"] for item in body["contents"]] == ["user", "model", "user"]
    assert [item["parts"][0]["text"] for item in body["contents"]] == ["One?", "1", "Two?"]


@pytest.mark.parametrize("odd", ["", '"}]},', "\\", "\x00\n\x7f", "Grüße 😀", "half \ud83d"])
async def test_a_long_talk_goes_as_a_short_one(make: Make, server: LoopbackServer, transport: str, odd: str) -> None:
    """F-131: its messages are written in another way, which nobody sees."""
    talk = [{"role": "user" if at % 2 == 0 else "assistant", "content": f"{at} {odd}"} for at in range(31)]
    talk[8:8] = [{"role": "user", "content": odd}] * 2  # nobody has to take turns
    expected = [
        {"role": {"assistant": "model"}.get(item["role"], "user"), "parts": [{"text": item["content"]}]}
        for item in json.loads(json.dumps(talk).replace('\\ud83d"', '\ufffd"'))
    ]
    server.script("*", Reply.json(bodies.reply()), repeat=True)
    provider = make(transport=transport)
    for count in (1, 7, 8, 9, len(talk)):
        await provider.execute(talk[:count], extra={"top_k": 3})
        body = server.requests[-1].json
        assert body["contents"] == expected[:count]
        assert body["generationConfig"]["topK"] == 3
    talk[20]["role"] = "system"
    await provider.execute(talk, on_unsupported="drop")
    assert [item["role"] for item in server.requests[-1].json["contents"]][20] == "user"
    server.script("*", Reply.json({"totalTokens": 7}), repeat=True)
    assert await provider.count_tokens(talk) == 7


def test_every_finish_reason_of_the_vendor_is_one_of_ours() -> None:
    """Read from the SDK, so that a new one shows."""
    ours = {}
    for reason in types.FinishReason:
        events = decode(bodies.reply(bodies.text("a"), finish=reason.value), {})
        ours[reason.value] = events[0].data["finish_reason"]
        assert events[0].data["raw_finish_reason"] == reason.value
    assert ours["STOP"] == "stop"
    assert ours["MAX_TOKENS"] == ours.get("CONTINUATION", "length") == "length"  # which major 2 did not have at first
    filtered = {name for name, word in ours.items() if word == "content_filter"}
    assert filtered == {
        *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"),
        *("IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION", "PUP_LIMITED_DISABLED", "MODEL_ARMOR"),
    } & {reason.value for reason in types.FinishReason}
    assert ours["MALFORMED_FUNCTION_CALL"] == "malformed_function_call"
    assert all(re.fullmatch(r"[a-z_]+", word) for word in ours.values())
    called = decode(bodies.reply(bodies.call("f", {}, "1")), {})
    assert called[0].data["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, None),
        ({}, None),
        ([], None),
        ({"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}, None),
        ({"promptTokenCount": 5}, Usage(5)),
        ({"promptTokenCount": 5, "totalTokenCount": 5}, Usage(5, 0, 5)),
        # All of the answer was thought: the figure for what was said is left out.
        ({"promptTokenCount": 5, "thoughtsTokenCount": 9, "totalTokenCount": 14}, Usage(5, 9, 14, None, None, 9)),
        ({"promptTokenCount": 5, "thoughtsTokenCount": 9}, Usage(5, None, None, None, None, 9)),
        ({"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8}, Usage(5, 3, 8)),
        (
            {
                "promptTokenCount": 5,
                "toolUsePromptTokenCount": 7,
                "candidatesTokenCount": 3,
                "thoughtsTokenCount": 2,
                "totalTokenCount": 17,
            },
            Usage(12, 5, 17, None, None, 2),
        ),
        # A gateway that counts the thoughts among what was said.
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 10},
            Usage(5, 5, 10, None, None, 2),
        ),
        ({"promptTokenCount": "5", "candidatesTokenCount": -1, "totalTokenCount": True}, Usage(5)),
    ],
)
def test_usage(data: Any, expected: Usage | None) -> None:
    """Thoughts belong to the output, results of the vendor's tools to the input; unknown is None."""
    assert usage_of(data) == expected


async def test_reasoning_pictures_and_ratings(make: Make, server: LoopbackServer, transport: str) -> None:
    """F-072"""
    parts = [
        bodies.thought("Hm. "),
        bodies.thought("Yes."),
        bodies.text("See: "),
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        bodies.text("that.", thoughtSignature=bodies.SIGNATURE),
    ]
    facts = {
        "safetyRatings": bodies.RATINGS,
        "citationMetadata": {"citationSources": [{"uri": "https://example.com"}]},
        "groundingMetadata": {"webSearchQueries": ["q"]},
        "avgLogprobs": -0.5,
        "logprobsResult": {"chosenCandidates": []},
    }
    whole = {**bodies.reply(), "candidates": [{**bodies.candidate(*parts), **facts}]}
    server.script("*", Reply.json(whole))
    answer = await make(transport=transport).execute("Hi")
    assert isinstance(answer, LLMResponse)
    assert (answer.content, answer.reasoning) == ("See: that.", "Hm. Yes.")
    assert answer.metadata["output"] == [parts[3]]
    assert answer.metadata["safety_ratings"] == bodies.RATINGS
    assert answer.metadata["citations"] == facts["citationMetadata"]
    assert answer.metadata["grounding_metadata"] == facts["groundingMetadata"]
    assert (answer.metadata["avg_logprobs"], answer.metadata["logprobs"]) == (-0.5, {"chosenCandidates": []})
    assert answer.provider_data == {"gemini": {"parts": parts}}
    json.dumps(answer.to_dict())
    # What the scripted server sends is what the vendor's own types read.
    theirs = types.GenerateContentResponse.model_validate(whole)
    assert theirs.candidates is not None
    assert theirs.candidates[0].content is not None


async def test_a_blocked_prompt(make: Make, server: LoopbackServer, transport: str, version: str) -> None:
    """F-135: no candidate comes; the reason, the ratings and what it used are on the error."""
    server.script("*", Reply.json(bodies.blocked("PROHIBITED_CONTENT")), repeat=True)
    provider = make(transport=transport, api_version=version)
    with pytest.raises(LLMProviderContentFilterError, match="PROHIBITED_CONTENT") as caught:
        await provider.execute("Hi")
    error = caught.value
    assert (error.code, error.retryable) == ("PROHIBITED_CONTENT", False)
    assert error.usage == error.response.usage
    assert error.usage.without_costs() == Usage(9, 0, 9)
    assert error.response.finish_reason == "content_filter"
    assert error.response.metadata["safety_ratings"] == bodies.RATINGS
    assert server.count() == 1
    result = await provider.complete("Hi")
    assert (result.ok, result.finish_reason) == (False, "content_filter")
    server.clear()
    server.script("*", Reply.sse([bodies.blocked()], done=None))
    last = [event async for event in provider.stream("Hi")][-1]
    assert (last.type, last.data["code"]) == (StreamEventType.ERROR, "SAFETY")


async def test_an_answer_that_is_stopped_keeps_its_text(make: Make, server: LoopbackServer, transport: str) -> None:
    server.script("*", Reply.json(bodies.reply(bodies.text("So far"), finish="SAFETY")), repeat=True)
    answer = await make(transport=transport).execute("Hi")
    assert (answer.content, answer.finish_reason) == ("So far", "content_filter")
    with pytest.raises(LLMProviderContentFilterError):
        await make(transport=transport).execute("Hi", schema={"type": "object"})


async def test_several_candidates(make: Make, server: LoopbackServer) -> None:
    two = [bodies.candidate(bodies.text("b"), index=1), bodies.candidate(bodies.text("a"))]
    server.script("*", Reply.json({**bodies.reply(), "candidates": two}))
    answer = await make().execute("Hi", extra={"candidate_count": 2})
    assert server.requests[-1].json["generationConfig"] == {"candidateCount": 2}
    assert answer.content == "a"
    assert answer.metadata["choices"] == two


@pytest.mark.parametrize(
    "whole",
    [
        {"usageMetadata": bodies.USAGE},
        {"candidates": []},
        {"candidates": None, "modelVersion": "m"},
        {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "index": 0}]},
        {"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}]},
        {"candidates": [{"content": {"parts": [{}, {"text": None}, 3, {"functionCall": 3}]}}, 4]},
    ],
)
async def test_answers_without_text(make: Make, server: LoopbackServer, whole: dict[str, Any]) -> None:
    server.script("*", Reply.json(whole))
    answer = await make().execute("Hi")
    assert answer.content == ""


@pytest.mark.parametrize("whole", [{}, {"choices": []}, {"id": "x", "object": "chat.completion"}])
async def test_a_reply_that_is_none(make: Make, server: LoopbackServer, whole: dict[str, Any]) -> None:
    server.script("*", Reply.json(whole))
    with pytest.raises(LLMProviderResponseError, match="base_url and api_version"):
        await make().execute("Hi")


async def test_models_of_any_name(make: Make, server: LoopbackServer) -> None:
    """Any string is a model; one that would leave its folder is refused."""
    server.script("*", Reply.json(bodies.reply()), repeat=True)
    for model, path in (
        ("models/gemini-9", "/v1/models/gemini-9:generateContent"),
        ("tunedModels/mine", "/v1/tunedModels/mine:generateContent"),
        ("vendor/an other?x", "/v1/models/vendor/an%20other%3Fx:generateContent"),
    ):
        assert (await make(model).execute("Hi")).content
        assert server.requests[-1].target == path
    with pytest.raises(ValueError, match=r"'\.\.'"):
        await make("../x").execute("Hi")


async def test_the_verbs_and_modes(make: Make, server: LoopbackServer, transport: str) -> None:
    """F-064, F-128, F-129, F-130: each documented argument of complete; a mode by its word or its member."""
    server.script(
        "/v1/models/gemini-2.5-flash:generateContent", Reply.json(bodies.reply(bodies.text("{}"))), repeat=True
    )
    chunks = bodies.stream([bodies.text("a")], [bodies.text("b")])
    server.script("/v1/models/gemini-2.5-flash:streamGenerateContent", Reply.sse(chunks, done=None), repeat=True)
    provider = make("gemini-2.5-flash", transport=transport)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    for messages in ("Hi", {"role": "user", "content": "Hi"}, Message.user("Hi"), [Message.user("Hi")]):
        answer = await provider.complete(
            messages,
            tools=[tool],
            tool_choice="auto",
            temperature=0,
            max_tokens=5,
            response_format="json_object",
            reasoning_effort="low",
            attempts=3,
            backoff=1.0,
        )
        assert (answer.ok, answer.parsed) == (True, {})
        assert server.requests[-1].json["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
    for mode in ("enabled", StreamMode.ENABLED):
        stream: Any = await provider.execute("Hi", stream_mode=mode)
        assert "".join([chunk async for chunk in stream]) == "ab"
    auto: Any = await provider.execute("Hi", stream_mode="auto")
    assert (await auto).content == "{}"
    whole = await provider.execute("Hi", stream_mode="disabled", api_type="chat_completion")
    assert isinstance(whole, LLMResponse)


async def test_what_this_interface_lacks(make: Make, server: LoopbackServer) -> None:
    """F-132, F-138: conversations that the backend keeps are refused, clearly and before anything is sent."""
    with pytest.raises(LLMProviderUnsupportedOperationError, match="responses"):
        await make().execute_responses_api("Hi", "Be brief.")
    with pytest.raises(LLMProviderUnsupportedOperationError):
        await make().execute("Hi", previous_response_id="r-1")
    assert server.count() == 0


def test_the_default_model_and_facts(make: Make) -> None:
    provider = GeminiProvider(api_key=KEY)
    assert provider.config.model_name == "gemini-3.8-flash"
    assert provider.token_limit == 1048576
    assert provider.capabilities == {
        *("tools", "structured_output", "images", "documents", "content_parts", "embeddings", "token_counting")
    }
