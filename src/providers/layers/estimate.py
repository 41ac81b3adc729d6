"""How many tokens a request is likely to use, found before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..profiles import ModelProfile, estimate_tokens
from ..types import Request

MARGIN: Final = 1.25
"""What the estimate of a text is multiplied by, so that for prose it is hardly ever too small."""

_MESSAGE: Final = 8
_PART: Final = 1500
_LIMITS: Final = ("max_completion_tokens", "max_output_tokens")


def prompt_tokens(request: Request) -> int:
    """Tokens of a request's prompt: system, messages, tools and the schema of the answer, estimated with a margin.

    `providers.profiles.estimate_tokens` tells the error of the estimate before the margin: with it prose comes out at
    1.05 to 1.55 of the true count, dense JSON at about 0.65. A picture or document counts 1500. What a backend keeps of
    the conversation (`previous_response_id`) is not known and not counted.
    """
    inputs = embedded_texts(request)
    if inputs is not None:
        return round(sum(map(estimate_tokens, inputs)) * MARGIN)
    texts: list[str] = [request.system] if request.system else []
    count = _MESSAGE
    plain = request.messages.plain
    if plain is not None:
        texts += [item["content"] for item in plain]
        count += _MESSAGE * len(plain)
    else:
        for message in request.messages:
            count += _MESSAGE
            if isinstance(message.content, list):
                count += _PART * sum(not _is_text(part) for part in message.content)
            texts.append(message.text)
            texts += [f"{call.name}{call.arguments}" for call in message.tool_calls or ()]
            if message.reasoning:
                texts.append(message.reasoning)
    texts += [str(tool.raw or (tool.name, tool.description, tool.parameters)) for tool in request.tools]
    if request.output is not None:
        texts.append(str(request.output.json_schema()))
    return count + round(sum(map(estimate_tokens, texts)) * MARGIN)


def embedded_texts(request: Request) -> Sequence[str] | None:
    """The texts of a request for embeddings, which layers see through the same door; `None` of any other request."""
    return getattr(request, "inputs", None)


def _is_text(part: Any) -> bool:
    return str(part.get("type", "")).endswith("text")


def answer_tokens(request: Request, profile: ModelProfile, otherwise: int | None) -> int:
    """The most tokens of a request's answer; 0 of embeddings.

    Args:
        request: names it as `max_tokens`, or in `extras` as backends do.
        profile: knows the most that the model can give.
        otherwise: what to take where the request does not say; `None` for the model's most.
    """
    if embedded_texts(request) is not None:
        return 0
    most = profile.max_output_tokens
    said = request.params.get("max_tokens")
    for name in _LIMITS if request.extras else ():
        value = request.extras.get(name)
        said = value if type(value) is int and value > 0 else said
    if said is None:
        said = otherwise
    if said is None:
        return most if most is not None else profile.context_window or 0
    return int(said) if most is None else min(int(said), most)
