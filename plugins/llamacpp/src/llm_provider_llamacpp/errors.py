"""llama.cpp's errors as ours: it answers most of them, and throws the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from providers.exceptions import (
    LLMProviderAuthenticationError,
    LLMProviderBadRequestError,
    LLMProviderError,
    LLMProviderNotFoundError,
    LLMProviderOverloadedError,
    LLMProviderPermissionError,
    LLMProviderServerError,
    LLMProviderTokenLimitError,
    LLMProviderUnsupportedOperationError,
)

from .settings import NAME

# Source: format_error_response in tools/server/server-common.cpp of llama.cpp.
_TYPES: Final[Mapping[str, type[LLMProviderError]]] = {
    "invalid_request_error": LLMProviderBadRequestError,
    "exceed_context_size_error": LLMProviderTokenLimitError,
    "authentication_error": LLMProviderAuthenticationError,
    "permission_error": LLMProviderPermissionError,
    "not_found_error": LLMProviderNotFoundError,
    "not_supported_error": LLMProviderUnsupportedOperationError,
    "unavailable_error": LLMProviderOverloadedError,
    "server_error": LLMProviderServerError,
}
# Two refusals have no word of their own: a text to embed that is too long, and a grammar that cannot be made.
_TOO_LONG: Final = "too large to process"
_SCHEMA: Final = "JSON schema error at "
_GRAMMAR: Final = "failed to parse grammar"


def error_of_reply(error: Any, schema: str | None = None) -> LLMProviderError:
    """Our error for the object under `error` of a reply.

    Args:
        error: the object.
        schema: name of the schema that the answer has to fit, or `None`.
    """
    if not isinstance(error, Mapping):
        error = {"message": str(error)}
    kind, message, status = error.get("type"), str(error.get("message", "no reason given")), error.get("code")
    cls = _TYPES.get(str(kind), LLMProviderServerError)
    if _TOO_LONG in message:
        cls, status = LLMProviderTokenLimitError, 400
        message = f"{message.split('. ')[0]}; shorten the text, or raise embedding_ctx"
    elif cls is LLMProviderTokenLimitError and "n_ctx" in error:
        message = too_long(error.get("n_prompt_tokens"), error["n_ctx"])
    elif schema is not None and _GRAMMAR in message:
        return _not_enforceable(schema, message)
    return cls(
        message,
        provider=NAME,
        status_code=status if isinstance(status, int) else None,
        code=str(kind) if kind else None,
        retryable=False if cls is LLMProviderServerError else None,
    )


def error_of_exception(error: Exception, schema: str | None = None) -> LLMProviderError:
    """Our error for what xllamacpp throws: it does so for requests that make no sense to it."""
    message = str(error) or type(error).__name__
    if schema is not None and (_SCHEMA in message or _GRAMMAR in message):
        return _not_enforceable(schema, message.rpartition(_SCHEMA)[2])
    return LLMProviderBadRequestError(message, provider=NAME, status_code=400)


def too_long(tokens: Any, context: Any, *, more: bool = False) -> str:
    """The sentence for a prompt that does not fit."""
    return (
        f"the prompt has {'more than ' if more else ''}{tokens} tokens, and prompt and answer together may have "
        f"{context}; shorten it, or raise n_ctx"
    )


def _not_enforceable(schema: str, message: str) -> LLMProviderError:
    return LLMProviderUnsupportedOperationError(
        f"llama.cpp cannot enforce the schema {schema!r}: {message}", provider=NAME, status_code=400
    )
