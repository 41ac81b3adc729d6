"""The whole answer: the fields of both documents, safe as JSON."""

from __future__ import annotations

import json
import pickle
from enum import Enum

import pytest
from pydantic import BaseModel

from providers import APIType, CompletionResult, EmbeddingResult, LLMResponse, Message, Role, ToolCall, Usage


class Color(Enum):
    RED = "red"


class Point(BaseModel):
    x: int


def test_the_documented_fields_in_their_order() -> None:
    """F-134."""
    response = LLMResponse("hi", "m", "p", APIType.RESPONSES, 1, 2, 3, "stop", "id", {"a": 1})
    found = (response.content, response.model, response.provider_type, response.api_type, response.prompt_tokens)
    assert found == ("hi", "m", "p", APIType.RESPONSES, 1)
    rest = (response.completion_tokens, response.total_tokens, response.finish_reason, response.response_id)
    assert rest == (2, 3, "stop", "id")
    assert response.metadata == {"a": 1}


def test_it_is_the_other_documents_result_too() -> None:
    """F-068, C-05."""
    assert CompletionResult is LLMResponse
    response = CompletionResult("x", usage=Usage(1, 2), tool_calls=[ToolCall("1", "f")], reasoning="hm", status=200)
    assert response.ok
    assert response.has_tool_calls
    assert response.usage.total_tokens == 3
    assert not LLMResponse("x", status=500).ok
    assert not LLMResponse("x", error="no").ok
    assert not LLMResponse("x").has_tool_calls


def test_to_dict_is_safe_as_json_whatever_is_inside() -> None:
    """F-134."""
    response = LLMResponse(
        "x",
        metadata={"a": {1, 2}, "b": b"x", 3: object(), "c": Color.RED, "d": Usage(1), "e": (1, 2), "p": Point(x=1)},
        tool_calls=[ToolCall("1", "f", '{"a": 1}')],
        parsed=Point(x=5),
        provider_data={"secret": "signature"},
    )
    data = json.loads(json.dumps(response.to_dict()))
    assert data["parsed"] == {"x": 5}
    assert data["metadata"]["p"] == {"x": 1}
    assert data["metadata"]["d"]["input_tokens"] == 1
    assert data["tool_calls"][0]["function"]["name"] == "f"
    assert (data["prompt_tokens"], data["total_tokens"], data["api_type"]) == (None, None, "chat_completion")
    for name in (
        "content",
        "model",
        "provider_type",
        "finish_reason",
        "response_id",
        "usage",
        "status",
        "error",
        "reasoning",
    ):
        assert name in data


def test_it_becomes_the_assistants_message() -> None:
    """F-068."""
    call = ToolCall("1", "f")
    response = LLMResponse("", tool_calls=[call], reasoning="hm", provider_data={"s": 1})
    message = response.to_message()
    assert message == Message(Role.ASSISTANT, None, [call], reasoning="hm", provider_data={"s": 1})
    assert LLMResponse("").to_message().content == ""
    assert LLMResponse("a", tool_calls=[call]).to_message().content == "a"


def test_answers_do_not_share_their_defaults_and_travel() -> None:
    one, two = LLMResponse(), LLMResponse()
    assert one.metadata is not two.metadata
    assert one.usage is not two.usage
    full = LLMResponse("x", "m", usage=Usage(1, 2), tool_calls=[ToolCall("1", "f")], provider_data={"a": 1})
    assert pickle.loads(pickle.dumps(full)) == full


def test_embeddings() -> None:
    """F-076."""
    result = EmbeddingResult([[0.5, 1.0], [2.0]], Usage(3))
    assert (result.embedding, result.ok, result.usage.input_tokens) == ([0.5, 1.0], True, 3)
    assert EmbeddingResult([]).embedding == []
    assert not EmbeddingResult([], error="no").ok


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
def test_figures_come_from_usage_alone(name: str) -> None:
    """C-05: one truth."""
    response = LLMResponse("x", usage=Usage(1, 2))
    response.usage = Usage(10, 20)
    assert getattr(response, name) == {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}[name]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_json_has_no_word_for_becomes_none(value: float) -> None:
    """F-134: NaN is no JSON, and what reads our JSON elsewhere refuses all of it."""

    class Own:
        def to_dict(self) -> dict[str, float]:
            return {"score": value}

    class Model(BaseModel):
        score: float

    response = LLMResponse(
        metadata={"logprob": value, "all": [1.5, value, (value,)], "own": Own(), "fine": 0.0},
        usage=Usage(1, 1, input_cost=value),
        parsed=Model(score=value),
    )
    data = json.loads(json.dumps(response.to_dict(), allow_nan=False))
    assert data["metadata"] == {"logprob": None, "all": [1.5, None, [None]], "own": {"score": None}, "fine": 0.0}
    assert data["parsed"] == {"score": None}
    assert data["usage"]["input_cost"] is None
