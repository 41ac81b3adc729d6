"""The whole answer, with the fields and the names of both founding documents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..exceptions import LLMProviderError
from .config import APIType
from .messages import Message, Role
from .tools import ToolCall
from .usage import Usage


@dataclass(slots=True, init=False)
class LLMResponse:
    """A whole answer. `CompletionResult` is another name of this class.

    Attributes:
        content: the text.
        model: the model that answered, as the backend names it.
        provider_type: name of the provider.
        api_type: the interface that was used.
        usage: tokens and cost; unknown figures are `None`.
        finish_reason: why it ended: `"stop"`, `"length"`, `"tool_calls"`, `"content_filter"`, or the backend's
            own word.
        response_id: the backend's id of the answer.
        metadata: what else is known; `metadata["params"]` lists the parameters that were sent, left out and why.
        tool_calls: calls that the model asks for, or `None`.
        reasoning: the reasoning text, or `None`.
        parsed: the checked object, where structured output was asked for.
        status: HTTP status; 200 where all went well.
        error: what went wrong, or `None`.
        provider_data: what the backend needs back unchanged with this answer in the next call.
    """

    content: str
    model: str
    provider_type: str
    api_type: APIType
    usage: Usage
    finish_reason: str | None
    response_id: str | None
    metadata: dict[str, Any]
    tool_calls: list[ToolCall] | None
    reasoning: str | None
    parsed: Any
    status: int
    error: str | None
    provider_data: dict[str, Any] | None = field(repr=False)

    def __init__(
        self,
        content: str = "",
        model: str = "",
        provider_type: str = "",
        api_type: APIType = APIType.CHAT_COMPLETION,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        total_tokens: int | None = None,
        finish_reason: str | None = None,
        response_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        usage: Usage | None = None,
        tool_calls: list[ToolCall] | None = None,
        reasoning: str | None = None,
        parsed: Any = None,
        status: int = 200,
        error: str | None = None,
        provider_data: dict[str, Any] | None = None,
    ) -> None:
        self.content = content
        self.model = model
        self.provider_type = provider_type
        self.api_type = api_type
        self.usage = Usage(prompt_tokens, completion_tokens, total_tokens) if usage is None else usage
        self.finish_reason = finish_reason
        self.response_id = response_id
        self.metadata = {} if metadata is None else metadata
        self.tool_calls = tool_calls
        self.reasoning = reasoning
        self.parsed = parsed
        self.status = status
        self.error = error
        self.provider_data = provider_data

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt, cached ones included."""
        return self.usage.input_tokens

    @property
    def completion_tokens(self) -> int | None:
        """Tokens of the answer, reasoning included."""
        return self.usage.output_tokens

    @property
    def total_tokens(self) -> int | None:
        """Tokens of prompt and answer."""
        return self.usage.total_tokens

    @property
    def ok(self) -> bool:
        """Whether the status is 200 and there is no error."""
        return self.status == 200 and self.error is None

    @property
    def has_tool_calls(self) -> bool:
        """Whether the model asks for tools."""
        return bool(self.tool_calls)

    def to_message(self) -> Message:
        """The answer as the assistant's message, for the next call of the conversation."""
        return Message(
            Role.ASSISTANT,
            self.content if self.content or not self.tool_calls else None,
            list(self.tool_calls) if self.tool_calls else None,
            reasoning=self.reasoning,
            provider_data=self.provider_data,
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; a parsed pydantic object becomes its dict."""
        return {
            "content": self.content,
            "model": self.model,
            "provider_type": self.provider_type,
            "api_type": self.api_type.value,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "finish_reason": self.finish_reason,
            "response_id": self.response_id,
            "metadata": json_safe(self.metadata),
            "tool_calls": [call.to_dict() for call in self.tool_calls] if self.tool_calls else None,
            "usage": json_safe(self.usage.to_dict()),
            "reasoning": self.reasoning,
            "parsed": json_safe(self.parsed),
            "status": self.status,
            "error": self.error,
        }


CompletionResult = LLMResponse


def usage_of_error(error: LLMProviderError) -> Usage | None:
    """What an attempt that failed is known to have used, or `None`."""
    response = error.response
    for usage in (error.usage, response.usage if isinstance(response, LLMResponse) else None):
        if isinstance(usage, Usage) and any(usage[name] is not None for name in usage):
            return usage
    return None


def json_safe(value: Any) -> Any:
    """A value as JSON can hold it: models and our own values become dicts, what nothing knows becomes its text.

    JSON has no word for NaN and the infinities; they become `None`.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "model_dump"):
        return json_safe(value.model_dump(mode="json"))
    if hasattr(value, "to_dict"):
        return json_safe(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_safe(item) for item in value]
    return str(value)


@dataclass(slots=True)
class EmbeddingResult:
    """Vectors of texts.

    Attributes:
        embeddings: one list of floats for each input, in the order of the inputs.
        usage: tokens of the inputs.
        model: the model that answered.
        status: HTTP status; 200 where all went well.
        error: what went wrong, or `None`.
    """

    embeddings: list[list[float]]
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    status: int = 200
    error: str | None = None

    @property
    def embedding(self) -> list[float]:
        """The first vector; empty where there is none."""
        return self.embeddings[0] if self.embeddings else []

    @property
    def ok(self) -> bool:
        """Whether the status is 200 and there is no error."""
        return self.status == 200 and self.error is None
