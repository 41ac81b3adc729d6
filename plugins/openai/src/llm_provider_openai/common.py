"""What both interfaces share on the wire: tools, finish reasons, usage and texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from providers.exceptions import LLMProviderConfigurationError
from providers.types import Request, ToolCall, ToolSpec, Usage, token_count

NAME: Final = "openai"
"""The provider's name, and the key of what it keeps in `provider_data`."""

_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_CALL_KEYS: Final = frozenset({"id", "type", "function", "index", "custom"})

_NO_EXTRAS: Final[Mapping[str, str]] = {
    "stream": "call stream(), or set stream_mode",
    "model": "name it with the argument model",
    "messages": "it would replace the whole prompt; give the messages to the call",
    "input": "it would replace the whole prompt; give the messages to the call",
}

# Other servers' words for the vendor's four; what is not here is passed on.
FINISH_REASONS: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "max_output_tokens": "length",
    "max_tokens": "length",
    "model_length": "length",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
}


def checked_tools(request: Request) -> tuple[ToolSpec, ...]:
    """The request's tools.

    Raises:
        LLMProviderConfigurationError: a tool's name has characters that the vendor refuses, or more than 64.
    """
    for spec in request.tools:
        if spec.raw is None and not _TOOL_NAME.fullmatch(spec.name):
            raise LLMProviderConfigurationError(
                f"the tool name {spec.name[:100]!r} must be 1 to 64 letters, digits, '_' and '-'",
                provider=NAME,
                model=request.model,
            )
    return request.tools


def put_tool_choice(request: Request, body: dict[str, Any], *, flat: bool) -> None:
    """Put the choice of tools into a body.

    Args:
        request: the call.
        body: changed in place.
        flat: whether a function is named as Responses does it, or nested as Chat Completions does.

    Raises:
        LLMProviderConfigurationError: a tool must be called that is not there.
    """
    choice = request.tool_choice
    if choice is None:
        return
    if not request.tools and "tools" not in request.extras:
        # Without tools "auto" and "none" mean the same as nothing, and the vendor refuses them.
        if choice.mode in ("auto", "none"):
            return
        raise LLMProviderConfigurationError(
            f"tool_choice is {choice.name or choice.mode!r}, but there are no tools", provider=NAME, model=request.model
        )
    if choice.mode == "named":
        body["tool_choice"] = _named(request, str(choice.name), flat)
    else:
        body["tool_choice"] = choice.mode
    if choice.parallel is not None:
        body["parallel_tool_calls"] = choice.parallel


def _named(request: Request, name: str, flat: bool) -> dict[str, Any]:
    found = next((spec for spec in request.tools if spec.name == name), None)
    if found is None and "tools" not in request.extras:
        known = ", ".join(spec.name for spec in request.tools)
        raise LLMProviderConfigurationError(
            f"tool_choice names {name!r}, which is not among the tools: {known}", provider=NAME, model=request.model
        )
    if found is not None and found.raw is not None:
        return {"type": found.raw.get("type", name)}
    return {"type": "function", "name": name} if flat else {"type": "function", "function": {"name": name}}


def refuse_extras(extras: Mapping[str, Any], model: str) -> None:
    """Refuse extras that would replace what the call itself says: its kind, its model, its whole prompt.

    Raises:
        LLMProviderConfigurationError: one is there.
    """
    for name, instead in _NO_EXTRAS.items():
        if name in extras:
            raise LLMProviderConfigurationError(f"extra must not hold {name!r}: {instead}", provider=NAME, model=model)


def merge_extra(request: Request, body: dict[str, Any], params: dict[str, Any], name: str, own: dict[str, Any]) -> None:
    """Put an object into a body that the request's extras may hold too: both are sent, and the extras' keys win.

    Args:
        request: the call.
        body: changed in place.
        params: what `map_params` said; changed in place where the extras hold the object.
        name: of the object.
        own: what this package puts into it.
    """
    given = request.extras.get(name)
    if name not in request.extras:
        body[name] = own
    elif isinstance(given, Mapping):
        body[name] = params["sent"][name] = {**own, **given}


def usage_of(data: Any) -> Usage | None:
    """Usage of either interface, or `None` where the reply has none.

    Figures that make no sense are unknown; nothing is raised, since the answer was paid for.
    """
    if not isinstance(data, dict) or not data:
        return None
    read = data.get("prompt_tokens", data.get("input_tokens"))
    written = data.get("completion_tokens", data.get("output_tokens"))
    total = data.get("total_tokens")
    if type(read) is type(written) is type(total) is int and read >= 0 <= written and total >= 0:
        usage = Usage(read, written, total)
    else:
        usage = Usage(token_count(read), token_count(written), token_count(total))
    details = data.get("prompt_tokens_details") or data.get("input_tokens_details")
    if isinstance(details, dict):
        usage.input_tokens_cached = token_count(details.get("cached_tokens"))
        usage.input_tokens_cache_write = token_count(details.get("cache_write_tokens"))
    elif "prompt_cache_hit_tokens" in data:  # DeepSeek's own place for it
        usage.input_tokens_cached = token_count(data["prompt_cache_hit_tokens"])
    details = data.get("completion_tokens_details") or data.get("output_tokens_details")
    if isinstance(details, dict):
        usage.output_tokens_reasoning = token_count(details.get("reasoning_tokens"))
    return usage


def text_of(value: Any) -> str:
    """The text of a content that is a text, a list of parts (some servers), or nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(text_of(part.get("text")) for part in value if isinstance(part, dict))
    return ""


def call_of(data: Any) -> ToolCall:
    """A tool call of Chat Completions, whole; what is missing is empty."""
    data = data if isinstance(data, dict) else {}
    body = data.get("function") or data.get("custom")
    body = body if isinstance(body, dict) else {}
    arguments = body.get("arguments", body.get("input"))
    if not isinstance(arguments, str):
        arguments = as_json(arguments) if isinstance(arguments, dict) else ""
    return ToolCall(text_of(data.get("id")), text_of(body.get("name")), arguments, kept_of(data))


def kept_of(call: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a server wants back unchanged with a tool call: its fields beyond the vendor's own (thought signatures)."""
    other = {key: value for key, value in call.items() if key not in _CALL_KEYS and value is not None}
    return {NAME: other} if other else None


def as_json(value: Any) -> str:
    """A value as JSON text: some servers send arguments as an object."""
    import json

    return json.dumps(value, ensure_ascii=False)


def own_data(provider_data: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What this provider left in a message's or a call's `provider_data`; other providers' is not for this wire."""
    data = (provider_data or {}).get(NAME)
    return data if isinstance(data, Mapping) else {}
