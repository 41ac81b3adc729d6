"""The text that an answer is stored as, and the events that it becomes again."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..types import APIType, LLMResponse, StreamEvent, ToolCall, Usage
from .key import SCHEMA_VERSION, UncacheableError, plain

_PIECES: Final = re.compile(r"\s*\S+|\s+")
# This call used nothing, which is known: so a sum over calls equals what the backend's own ledger says.
_NOTHING: Final = Usage(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0)


# What its metadata tell of the call that made an answer, and not of the answer.
_OF_THE_CALL: Final = frozenset({"attempts", "cache", "restarted"})


def encode(response: LLMResponse) -> str:
    """A whole answer as one line of JSON in ASCII. `parsed` is left out: it is made anew from the content. So are the
    attempts that failed: who is given the stored answer has made none.

    Reads back exactly, but for one thing: two halves of a surrogate pair, side by side, become their character.

    Raises:
        UncacheableError: metadata or provider data hold what is neither a JSON value nor bytes.
    """
    data = {
        "schema": SCHEMA_VERSION,
        "content": response.content,
        "model": response.model,
        "api_type": response.api_type.value,
        "usage": {name: _figure(value) for name, value in response.usage.to_dict().items()},
        "finish_reason": _exact(response.finish_reason),
        "response_id": _exact(response.response_id),
        "metadata": _exact({name: fact for name, fact in response.metadata.items() if name not in _OF_THE_CALL}),
        "tool_calls": [
            [call.id, call.name, call.arguments, _exact(call.provider_data)] for call in response.tool_calls or ()
        ],
        "reasoning": response.reasoning,
        "provider_data": _exact(response.provider_data),
    }
    try:
        return json.dumps(data, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UncacheableError(f"the answer is no JSON: {error}") from error


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer that was read back.

    Attributes:
        content: the text.
        calls: the tool calls.
        reasoning: the reasoning text, or `None`.
        usage: what the answer used when it was made.
        facts: `finish_reason`, `model`, `response_id`, `api_type`, `provider_data` and the metadata.
    """

    content: str
    calls: Sequence[ToolCall]
    reasoning: str | None
    usage: dict[str, Any]
    facts: dict[str, Any]

    def events(self, stream: bool, cache: Mapping[str, Any], parsed: Any = None) -> list[StreamEvent]:
        """The events of the answer, with the usage of a call that used nothing.

        Args:
            stream: whether the text comes in pieces.
            cache: what the metadata shall say of the cache; the stored usage is added under `"usage"`.
            parsed: the object that the content was read as, where it was.
        """
        events = [StreamEvent.reasoning(self.reasoning)] if self.reasoning else []
        if self.content:
            pieces = _PIECES.findall(self.content) if stream else [self.content]
            events.extend(map(StreamEvent.token, pieces))
        events.extend(map(StreamEvent.tool_call, self.calls))
        facts = {**self.facts, "cache": {**cache, "usage": dict(self.usage)}}
        if parsed is not None:
            facts["parsed"] = parsed
        return [*events, StreamEvent.usage(replace(_NOTHING)), StreamEvent.meta(**facts)]


def decode(text: str) -> Stored:
    """Read a stored text.

    Raises:
        ValueError: it is none, it is damaged, or it is of another schema.
    """
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA_VERSION:
            raise ValueError(f"the entry is of schema {data['schema']!r}, not {SCHEMA_VERSION}")
        facts = {
            **_restore(data["metadata"]),
            "model": _text(data["model"]),
            "api_type": APIType(data["api_type"]),
        }
        for name in ("finish_reason", "response_id", "provider_data"):
            if data[name] is not None:
                facts[name] = _restore(data[name])
        calls = [
            ToolCall(_text(id), _text(name), _text(arguments), _restore(extra))
            for id, name, arguments, extra in data["tool_calls"]
        ]
        reasoning = None if data["reasoning"] is None else _text(data["reasoning"])
        return Stored(_text(data["content"]), calls, reasoning, Usage.from_dict(data["usage"]).to_dict(), facts)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the entry is damaged: {type(error).__name__}") from error


def _figure(value: Any) -> Any:
    return value if value is None or isinstance(value, int) else float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _exact(value: Any) -> Any:
    """A value as JSON values that read back as an equal one."""
    found = plain(value)
    if _restore(found) != value:
        raise UncacheableError("the answer's metadata or provider data hold a value that would not read back as it is")
    return found


def _restore(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore(item) for item in value]
    if isinstance(value, dict):
        if len(value) == 1 and "\0bytes" in value:
            return b64decode(value["\0bytes"])
        return {name[1:] if name.startswith("\0\0") else name: _restore(item) for name, item in value.items()}
    return value
