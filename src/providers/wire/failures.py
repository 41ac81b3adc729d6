"""From what goes wrong below HTTP (no connection, a cut body, bad gzip, silence) to our errors."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from providers.exceptions import (
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    LLMProviderError,
    LLMProviderResponseError,
    LLMProviderStreamError,
    LLMProviderTimeoutError,
    ProviderClosedError,
)

from .pool import Call
from .redaction import redact, shorten
from .reply import request_id_of

if TYPE_CHECKING:
    import aiohttp


def failure(
    error: BaseException,
    call: Call,
    *,
    timeout: float | None,
    provider: str,
    address: str,
    request_id: str | None = None,
    secrets: Iterable[str] = (),
) -> LLMProviderError | None:
    """Translate what ended a call.

    Args:
        error: what was caught.
        call: the call; a cancellation that its deadline or `close()` caused is taken back from the task here.
        timeout: the call's seconds, for the message.
        provider: name of the provider.
        address: the server's base address, for the message.
        request_id: the backend's id, where the reply had begun.
        secrets: strings that must not appear in the error.

    Returns:
        The error to raise `from` the original, or `None`: it is not ours to translate (a cancellation from outside).
    """
    if call.task is None and isinstance(error, asyncio.CancelledError):
        return None  # the reader of a body is not stopped by a cancellation, so this one is the caller's
    if call.why is not None and call.stopped():
        if call.why == "closed":
            return ProviderClosedError("the provider was closed while this call was under way", provider=provider)
        waited = "nothing came" if call.response is not None else "no answer"
        return LLMProviderTimeoutError(
            f"{waited} from {address} within {timeout:g} s", provider=provider, request_id=request_id
        )
    if not isinstance(error, Exception) or isinstance(error, LLMProviderError):
        return None
    import aiohttp
    from multidict import CIMultiDict, CIMultiDictProxy

    if isinstance(error, aiohttp.ClientResponseError):
        # Its repr() would show the request's headers, and its text the query: both may hold the key.
        info = error.request_info
        url = info.real_url.with_query(None)
        error.request_info = aiohttp.RequestInfo(url, info.method, CIMultiDictProxy(CIMultiDict()), url)
        error.args = ()
    text = (str(error) or type(error).__name__).replace(" ssl:default", "")
    detail = shorten(redact(text, secrets), 300)
    known = (aiohttp.ClientError, OSError, UnicodeError, zlib.error)
    if not isinstance(error, known):
        return None
    if call.response is not None:
        return LLMProviderStreamError(
            f"the reply from {address} was cut off or damaged: {detail}", provider=provider, request_id=request_id
        )
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return LLMProviderConnectionError(
            f"the certificate of {address} is not trusted: {detail}. Name the authority's certificate with ca_file "
            "or SSL_CERT_FILE",
            provider=provider,
            retryable=False,
        )
    if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):
        return LLMProviderConfigurationError(f"{address} is not an address: {detail}", provider=provider)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return LLMProviderConnectionError(
            f"the proxy refused a connection to {address}: status {error.status}",
            provider=provider,
            status_code=error.status,
            retryable=error.status >= 500,
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return LLMProviderResponseError(f"{address} does not answer in HTTP: {detail}", provider=provider)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return LLMProviderConnectionError(f"{address} does not accept a connection: {detail}", provider=provider)
    if isinstance(error, aiohttp.ClientConnectorError):
        return LLMProviderConnectionError(f"no connection to {address}: {detail}", provider=provider)
    return LLMProviderConnectionError(
        f"the connection to {address} broke before the reply: {detail}",
        provider=provider,
        retry_after=0.0 if getattr(error, "lost_idle", False) else None,
    )


def not_a_stream(
    response: aiohttp.ClientResponse, kind: str, start: bytes, provider: str, address: str, secrets: Iterable[str]
) -> LLMProviderResponseError:
    """The error for a reply of another type than an event stream, quoting how it starts."""
    quoted = shorten(redact(start.decode("utf-8", "replace"), secrets), 200)
    return LLMProviderResponseError(
        f"{address} answered with {kind or 'an unnamed type'} where an event stream was expected"
        + (f"; it starts with {quoted!r}" if quoted else ""),
        provider=provider,
        status_code=response.status,
        request_id=request_id_of(response.headers, secrets),
    )
