"""The vendor's words for errors, and those of compatible servers, beyond the table that all plugins share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from providers.exceptions import (
    LLMProviderAPIError,
    LLMProviderAuthenticationError,
    LLMProviderContentFilterError,
    LLMProviderError,
    LLMProviderNotFoundError,
    LLMProviderOverloadedError,
    LLMProviderQuotaError,
    LLMProviderServerError,
    LLMProviderTokenLimitError,
)

# Source: developers.openai.com/api/docs/guides/error-codes and openai-python 3.51, types/responses/response_error.py.
_CODES: Final[Mapping[str, type[LLMProviderError]]] = {
    "account_deactivated": LLMProviderAuthenticationError,
    "bio_policy": LLMProviderContentFilterError,
    "contextwindowexceedederror": LLMProviderTokenLimitError,
    "cyber_policy": LLMProviderContentFilterError,
    "engine_overloaded": LLMProviderOverloadedError,
    "image_content_policy_violation": LLMProviderContentFilterError,
    "incorrect_api_key": LLMProviderAuthenticationError,
    "invalid_prompt": LLMProviderContentFilterError,
    "model_not_found": LLMProviderNotFoundError,
    "moderation_blocked": LLMProviderContentFilterError,
    "responsibleaipolicyviolation": LLMProviderContentFilterError,
    "server_is_overloaded": LLMProviderOverloadedError,
    "slow_down": LLMProviderOverloadedError,
    "string_above_max_length": LLMProviderTokenLimitError,
    "usage_limit_reached": LLMProviderQuotaError,
    "misalignment_policy_violation": LLMProviderContentFilterError,
    "vector_store_timeout": LLMProviderServerError,
}

# Servers that send no code of their own for this case, vLLM among them, say it in words that clients rely on.
_TOO_LONG: Final = re.compile(r"maximum context length|context (?:window|length|size) (?:is |was )?exceeded", re.I)
NO_SUCH_INTERFACE: Final = (404, 405, 501)
_OTHER_REASONS: Final = ("model_not_found", "previous_response_not_found")


def classify(status: int | None, code: str | None, type: str | None, message: str) -> type[LLMProviderError] | None:
    """The class of an error of this dialect, or `None` where the shared tables know best."""
    for word in (code, type):
        found = _CODES.get(word.lower()) if word else None
        if found is not None:
            return found
    if status in (400, 413, 422, None) and _TOO_LONG.search(message):
        return LLMProviderTokenLimitError
    return None


def hint_at_chat(error: LLMProviderAPIError) -> None:
    """Say in an error of the Responses interface what to do where the server has no such interface."""
    if error.status_code not in NO_SUCH_INTERFACE or error.code in _OTHER_REASONS:
        return
    error.message = f'{error.message}; if this server has no Responses interface, use api_type="chat_completion"'
    error.args = (error.message,)
