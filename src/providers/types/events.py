"""The events that an answer is made of, and how they look as server-sent events."""

from __future__ import annotations

import json
import math
from enum import Enum
from time import time
from typing import Any

from .tools import ToolCall, ToolCallDelta
from .usage import Usage


class StreamEventType(str, Enum):
    """What an event says; the comment tells the type of its `data`."""

    TOKEN = "token"  # str: the next piece of the answer
    REASONING = "reasoning"  # str: the next piece of the reasoning
    TOOL_CALL_START = "tool_call_start"  # ToolCallDelta with name and id
    TOOL_CALL_DELTA = "tool_call_delta"  # ToolCallDelta with the next characters of the arguments
    TOOL_CALL_END = "tool_call_end"  # ToolCall, whole
    META = "meta"  # dict: finish_reason, model, response_id, and whatever else is worth knowing
    USAGE = "usage"  # Usage, cumulative: the last one stands
    DONE = "done"  # LLMResponse: the whole answer
    ERROR = "error"  # dict: status, error

    __str__ = str.__str__


class StreamEvent:
    """One step of an answer.

    Attributes:
        type: what it says.
        data: of the type that `StreamEventType` tells.
        timestamp: Unix time in seconds when it was made.
    """

    __slots__ = ("data", "timestamp", "type")

    def __init__(self, type: StreamEventType, data: Any = None, timestamp: float | None = None) -> None:
        self.type = type
        self.data = data
        self.timestamp = time() if timestamp is None else timestamp

    @classmethod
    def token(cls, text: str) -> StreamEvent:
        """The next piece of the answer."""
        return cls(StreamEventType.TOKEN, text)

    @classmethod
    def reasoning(cls, text: str) -> StreamEvent:
        """The next piece of the reasoning."""
        return cls(StreamEventType.REASONING, text)

    @classmethod
    def tool_start(cls, index: int, name: str | None, id: str | None = None) -> StreamEvent:
        """A tool call begins."""
        return cls(StreamEventType.TOOL_CALL_START, ToolCallDelta(index, id, name))

    @classmethod
    def tool_delta(cls, index: int, arguments: str) -> StreamEvent:
        """The next characters of a tool call's arguments."""
        return cls(StreamEventType.TOOL_CALL_DELTA, ToolCallDelta(index, arguments=arguments))

    @classmethod
    def tool_call(cls, call: ToolCall) -> StreamEvent:
        """A tool call, whole."""
        return cls(StreamEventType.TOOL_CALL_END, call)

    @classmethod
    def usage(cls, usage: Usage) -> StreamEvent:
        """What has been used until now; cumulative, so the last one stands."""
        return cls(StreamEventType.USAGE, usage)

    @classmethod
    def meta(cls, **data: Any) -> StreamEvent:
        """Facts about the answer. `finish_reason`, `model`, `provider_type`, `response_id`, `api_type`, `parsed` and
        `provider_data` become fields of the response; all others its metadata, lists of `attempts` one after the other.
        `restarted` says that the answer begins anew: what came before it is void."""
        return cls(StreamEventType.META, data)

    @classmethod
    def finish(cls, reason: str | None, **data: Any) -> StreamEvent:
        """The backend says that the answer is whole, and why it ended."""
        return cls(StreamEventType.META, {"finish_reason": reason, **data})

    def to_sse(self) -> str:
        """The event as server-sent event, `"event: token\\ndata: Hello\\n\\n"`.

        A text with newlines becomes several `data:` lines, which a reader joins again; other data is JSON.
        Source: WHATWG HTML, "Server-sent events".
        """
        return format_sse_event(self.type.value, self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StreamEvent) and other.type is self.type and other.data == self.data

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"StreamEvent({self.type.name}, {self.data!r})"


def format_sse_event(event: str, data: Any) -> str:
    """One server-sent event; a text is sent as it is, line by line, anything else as JSON.

    Args:
        event: the event's name, without newlines.
        data: a text, something with `to_dict()`, or a JSON value.
    """
    text = data if isinstance(data, str) else json.dumps(_jsonable(data), ensure_ascii=False)
    # A lone CR ends a line for a reader too, so all three line ends are split; they come back as "\n".
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    body = "\n".join(f"data: {line}" for line in lines)
    return f"event: {event}\n{body}\n\n"


def _jsonable(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no word for NaN and the infinities
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)
