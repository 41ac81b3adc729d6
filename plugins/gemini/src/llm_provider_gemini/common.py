"""What the codecs share: names in both spellings, finish reasons, usage, and what is reported as lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from providers.exceptions import UnsupportedParameterError
from providers.notices import warn
from providers.parameters import UnsupportedParameterWarning
from providers.types import Request, Usage, token_count

from .settings import NAME

# Source: google-genai 3.3, types.FinishReason. What is not here is passed on in small letters.
FINISH_REASONS: Final[Mapping[str, str]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "ESCALATION": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
    "MODEL_ARMOR": "content_filter",
}

_RARE: Final = frozenset({"thoughtsTokenCount", "toolUsePromptTokenCount", "cachedContentTokenCount"})
_SNAKE: Final = re.compile(r"_([a-z0-9])")


def camel(name: str) -> str:
    """A name as the wire spells it: `top_k` is `topK`."""
    return _SNAKE.sub(lambda found: found[1].upper(), name) if "_" in name else name


def camel_keys(value: Any) -> Any:
    """A value with all its dicts' keys as the wire spells them; enums and the SDK's objects become plain values."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Mapping):
        return {camel(str(key)): camel_keys(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [camel_keys(item) for item in value]
    return value


def put_finish(facts: dict[str, Any], reason: Any, called: bool) -> None:
    """Put a finish reason into the facts, in this package's word where there is one for it.

    Args:
        facts: changed in place.
        reason: the vendor's word.
        called: whether the answer holds calls of tools; the vendor's word is `STOP` for these too.
    """
    if not isinstance(reason, str) or not reason:
        return
    ours = FINISH_REASONS.get(reason, reason.lower())
    facts["finish_reason"] = "tool_calls" if called and ours == "stop" else ours
    facts["raw_finish_reason"] = reason


def usage_of(data: Any) -> Usage | None:
    """The usage of a reply, or `None` where it has none.

    The vendor counts thoughts and the results of its own tools apart from answer and prompt; here they belong to
    output and input. A figure that is zero is left out on the wire, so the output may have to be told from the total.
    Figures that make no sense are unknown; nothing is raised, since the answer was paid for.
    """
    if not isinstance(data, dict) or not data:
        return None
    prompt, said = token_count(data.get("promptTokenCount")), token_count(data.get("candidatesTokenCount"))
    total = token_count(data.get("totalTokenCount"))
    if not prompt and not total:
        return None  # there is no prompt without a token: some gateways send zeros for what they do not know
    rare = not _RARE.isdisjoint(data)
    thoughts = token_count(data.get("thoughtsTokenCount")) if rare else None
    tools = (token_count(data.get("toolUsePromptTokenCount")) or 0) if rare else 0
    read = None if prompt is None else prompt + tools
    written: int | None
    if said is None:
        written = total - read if total is not None and read is not None and total >= read else None
    elif thoughts and read is not None and total == read + said:
        written = said  # some gateways count the thoughts among what was said
    else:
        written = said + (thoughts or 0)
    cached = token_count(data.get("cachedContentTokenCount")) if rare else None
    return Usage(read, written, total, cached, None, thoughts)


def figures_of(usage: Usage) -> tuple[int | None, ...]:
    """What `renew_usage` may change."""
    return (
        *(usage.input_tokens, usage.output_tokens, usage.total_tokens),
        *(usage.input_tokens_cached, usage.output_tokens_reasoning),
    )


def renew_usage(usage: Usage, data: Any) -> None:
    """Bring a usage that was given out up to date, as `usage_of` reads the data; left alone where they are none.

    For each chunk of a stream, so the usual three figures have a quick way.
    """
    try:
        prompt, said, total = data["promptTokenCount"], data["candidatesTokenCount"], data["totalTokenCount"]
    except (KeyError, TypeError):
        prompt = said = total = None
    usual = type(prompt) is type(said) is type(total) is int and prompt > 0 <= said and total >= 0
    if usual and _RARE.isdisjoint(data):
        usage.input_tokens, usage.output_tokens, usage.total_tokens = prompt, said, total
        usage.input_tokens_cached = usage.output_tokens_reasoning = None
        return
    known = usage_of(data)
    if known is not None:
        usage.input_tokens, usage.output_tokens = known.input_tokens, known.output_tokens
        usage.total_tokens = known.total_tokens
        usage.input_tokens_cached = known.input_tokens_cached
        usage.output_tokens_reasoning = known.output_tokens_reasoning


def report_lost(request: Request, lost: Mapping[str, str]) -> None:
    """Report parts of the call, other than parameters, that this interface has no place for.

    Raises:
        UnsupportedParameterError: `request.on_unsupported` is `"error"`.
    """
    if request.on_unsupported == "drop":
        return
    text = "; ".join(f"{name} was not sent: {reason}" for name, reason in lost.items())
    if request.on_unsupported == "error":
        raise UnsupportedParameterError(text, provider=NAME, model=request.model)
    warn(f"{request.model}: {text}", UnsupportedParameterWarning)


def as_json(value: Any) -> str:
    """A value as JSON text."""
    import json

    return json.dumps(value, ensure_ascii=False)


def own_data(provider_data: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What this provider left in a message's or a call's `provider_data`; other providers' is not for this wire."""
    data = (provider_data or {}).get(NAME)
    return data if isinstance(data, Mapping) else {}
