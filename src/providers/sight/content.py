"""The texts of a call as the conventions for generative AI write them: JSON of messages made of parts, no secrets."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..types import LLMResponse, Message, Request
from ..types.tools import ToolCall
from .secrets import redacted


def of_request(request: Request) -> dict[str, str]:
    """The attributes that hold what a model was asked."""
    found = {"gen_ai.input.messages": _json([_message(message) for message in request.messages])}
    if request.system:
        found["gen_ai.system_instructions"] = _json([_text(request.system)])
    if request.tools:
        found["gen_ai.tool.definitions"] = _json([{"type": "function", "name": tool.name} for tool in request.tools])
    return found


def of_response(response: LLMResponse) -> str:
    """The attribute that holds what a model answered; its calls with the arguments that it gave."""
    parts = [{"type": "reasoning", "content": response.reasoning}] if response.reasoning else []
    if response.content:
        parts.append(_text(response.content))
    parts += _calls(response.tool_calls)
    return _json([{"role": "assistant", "parts": parts, "finish_reason": response.finish_reason or "error"}])


def _message(message: Message) -> dict[str, Any]:
    if message.tool_call_id is not None:
        answer = {"type": "tool_call_response", "id": message.tool_call_id, "response": message.text}
        return {"role": "tool", "parts": [answer]}
    parts: list[dict[str, Any]] = []
    if message.reasoning:
        parts.append({"type": "reasoning", "content": message.reasoning})
    if isinstance(message.content, str):
        parts.append(_text(message.content))
    for part in message.content if isinstance(message.content, list) else ():
        text = part.get("text")
        # Of a picture or document its kind: the data would fill the trace, and an address may hold a signature.
        parts.append(_text(text) if isinstance(text, str) else {"type": part["type"]})
    parts += _calls(message.tool_calls)
    return {"role": message.role.value, "parts": parts}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": text}


def _calls(calls: Iterable[ToolCall] | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for call in calls or ():
        try:
            arguments: Any = call.parse_arguments()
        except ValueError:
            arguments = call.arguments
        found.append({"type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments})
    return found


def _json(value: Any) -> str:
    # Each text by itself, before JSON writes it: a secret must not hide behind an escape.
    return json.dumps(_clean(value), ensure_ascii=False)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value
