"""Errors of Qdrant's client as errors of this package, with no key in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from providers.exceptions import (
    LLMProviderAPIError,
    LLMProviderAuthenticationError,
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    LLMProviderError,
    LLMProviderRateLimitError,
    LLMProviderResponseError,
    LLMProviderTimeoutError,
)
from providers.wire.redaction import redact, shorten

from .place import Place

_SHOWN = 200


@contextmanager
def translated(place: Place) -> Iterator[None]:
    """Raise what Qdrant's client raises as one of ours.

    Raises:
        LLMProviderConfigurationError: the folder cannot be used.
        LLMProviderConnectionError: the server is not there.
        LLMProviderTimeoutError: it did not answer in time.
        LLMProviderAPIError: it answered: no.
        LLMProviderResponseError: what it answered makes no sense.
    """
    try:
        yield
    except LLMProviderError:
        raise
    except Exception as error:
        if place.url is not None:
            _of_server(place, error)
        if place.path is not None:
            _of_folder(place, error)
        raise


def _of_folder(place: Place, error: Exception) -> None:
    raise LLMProviderConfigurationError(
        f"the Qdrant cache in {place} cannot be used ({type(error).__name__}: {shorten(str(error), _SHOWN)}); where "
        "the folder is damaged, remove it"
    ) from error


def _of_server(place: Place, error: Exception) -> None:
    status = getattr(error, "status_code", None)
    if status is not None:
        # Not kept as the cause: a proxy's page may quote our headers.
        content = getattr(error, "content", b"")
        said = content.decode("utf-8", "replace") if isinstance(content, bytes) else ""
        secrets = [place.api_key.get_secret_value()] if place.api_key else []
        message = f"Qdrant at {place} answered {status}: {shorten(redact(said, secrets), _SHOWN)}"
        if status in (401, 403):
            raise LLMProviderAuthenticationError(f"{message}; check qdrant_api_key", status_code=status) from None
        kind = LLMProviderRateLimitError if status == 429 else LLMProviderAPIError
        raise kind(message, status_code=status) from None
    if type(error).__name__ == "ResourceExhaustedResponse":
        raise LLMProviderRateLimitError(f"Qdrant at {place} has too many requests", status_code=429) from None
    source = getattr(error, "source", error)
    kinds = {kind.__name__ for kind in type(source).__mro__}
    if "TimeoutException" in kinds:
        raise LLMProviderTimeoutError(f"Qdrant at {place} did not answer within {place.timeout} s") from source
    if "TransportError" in kinds:
        raise LLMProviderConnectionError(f"Qdrant at {place} cannot be reached ({type(source).__name__})") from source
    # Its text may quote the answer.
    raise LLMProviderResponseError(f"Qdrant at {place} gave no answer of its kind ({type(source).__name__})") from None
