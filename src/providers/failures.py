"""Failures as values, for the verbs that report them instead of raising."""

from __future__ import annotations

from typing import Any, Final

from .exceptions import (
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderUnsupportedOperationError,
    ProviderClosedError,
)
from .types import LLMResponse

MISTAKES: Final = (LLMProviderConfigurationError, LLMProviderUnsupportedOperationError, ProviderClosedError)
"""What is raised also by the verbs that report failures as values: the caller's own mistakes."""


def error_status(error: LLMProviderError) -> int:
    """An HTTP status for any error: its own, or the nearest one for failures without a reply."""
    if error.status_code is not None and error.status_code >= 400:
        return error.status_code
    if isinstance(error, TimeoutError):
        return 504
    return 503 if isinstance(error, ConnectionError) else 500


def error_data(error: LLMProviderError) -> dict[str, Any]:
    """An error as the data of an ERROR event: `status`, `error`, `type`, `code`, `retryable`, `retry_after`,
    `request_id`, and `content`, the text so far."""
    return {
        "status": error_status(error),
        "error": str(error),
        "type": type(error).__name__,
        "code": error.code,
        "retryable": error.retryable,
        "retry_after": error.retry_after,
        "request_id": error.request_id,
        "content": error.response.content if isinstance(error.response, LLMResponse) else "",
    }


def failed(error: LLMProviderError, provider: str, model: str | None) -> LLMResponse:
    """An error as an answer that is not `ok`, with what had arrived until then."""
    response = error.response if isinstance(error.response, LLMResponse) else LLMResponse("", model or "", provider)
    response.status, response.error = error_status(error), str(error) or type(error).__name__
    response.metadata = {**response.metadata, "error": error_data(error)}
    if error.failed_attempts:
        response.metadata["attempts"] = error.failed_attempts
    return response
