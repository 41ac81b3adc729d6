"""What is known of a model on a server, worked out once: parameter names on the wire, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from providers.parameters import ParamTable
from providers.profiles import ModelProfile
from providers.types import Request

# Facts: openai-python 3.51, types/chat/completion_create_params.py and types/responses/response_create_params.py.
_CHAT: Final[dict[str, str]] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "stop": "stop",
    "seed": "seed",
    "reasoning_effort": "reasoning_effort",
}
_RESPONSES_LACKS: Final = ("stop", "seed", "frequency_penalty", "presence_penalty")
CHAT_ONLY_EXTRAS: Final = frozenset(
    {
        *("audio", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens", "modalities"),
        *("n", "prediction", "response_format", "web_search_options"),
    }
)
"""Parameters of the vendor that only Chat Completions has."""

_DEFAULT_LEFT_OUT: Final = "a default, left out because this model may refuse it"


def _put_effort(body: dict[str, Any], value: Any) -> None:
    body["reasoning"] = {**body.get("reasoning", {}), "effort": value}


_RESPONSES: Final[ParamTable] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": _put_effort,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How the parameters of one model go to one server.

    Attributes:
        chat: parameter to wire name, for Chat Completions.
        responses: the same for Responses.
        refused: parameter to reason, for those that the model does not take in Chat Completions.
        refused_by_responses: the same for Responses, which lacks some of them altogether.
        default_temperature: whether this package's default temperature is sent.
    """

    chat: ParamTable
    responses: ParamTable
    refused: Mapping[str, str]
    refused_by_responses: Mapping[str, str]
    default_temperature: bool

    @classmethod
    def of(cls, profile: ModelProfile, *, vendor: bool) -> Plan:
        """The plan for a model.

        Args:
            profile: what is known of the model. `data["max_tokens_parameter"]` may name the wire name of
                `max_tokens` in Chat Completions.
            vendor: whether the server is the vendor's own. Others mostly know `max_tokens` only; the vendor's newer
                models refuse that name and all of its models take `max_completion_tokens`.
        """
        newer = vendor or profile.reasoning_model
        limit = profile.data.get("max_tokens_parameter", "max_completion_tokens" if newer else "max_tokens")
        lacks = {name: f"Responses has no {name}; api_type='chat_completion' has" for name in _RESPONSES_LACKS}
        accepts = profile.accepts_default_temperature
        return cls(
            {**_CHAT, "max_tokens": str(limit)},
            _RESPONSES,
            profile.refuses,
            {**lacks, **profile.refuses},
            not vendor if accepts is None else accepts,
        )

    def refusals(self, request: Request, known: Mapping[str, str]) -> Mapping[str, str]:
        """What is not sent with this request: the model's refusals, and a default that it may refuse."""
        if self.default_temperature or "temperature" in known or "temperature" in request.given:
            return known
        return {**known, "temperature": _DEFAULT_LEFT_OUT}


def needs_chat(request: Request) -> bool:
    """Whether a request holds what only Chat Completions can carry."""
    return any(name in request.params for name in _RESPONSES_LACKS) or not CHAT_ONLY_EXTRAS.isdisjoint(request.extras)
