"""From a backend's error reply to one of our errors: every usual JSON shape, one table of statuses, one of codes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from providers.exceptions import (
    LLMProviderAPIError,
    LLMProviderAuthenticationError,
    LLMProviderBadRequestError,
    LLMProviderContentFilterError,
    LLMProviderError,
    LLMProviderNotFoundError,
    LLMProviderOverloadedError,
    LLMProviderPermissionError,
    LLMProviderQuotaError,
    LLMProviderRateLimitError,
    LLMProviderServerError,
    LLMProviderTimeoutError,
    LLMProviderTokenLimitError,
)

from .redaction import redact, shorten
from .retry_after import parse_retry_after

Classifier = Callable[[int | None, str | None, str | None, str], type[LLMProviderError] | None]
"""A plugin's say: (status, code, type, message) to a class of ours, or `None` to leave it to the tables here."""

_LONGEST_MESSAGE = 500
_LONGEST_BODY = 1 << 20
_LONGEST_ID = 200

STATUS_ERRORS: Mapping[int, type[LLMProviderError]] = {
    401: LLMProviderAuthenticationError,
    402: LLMProviderPermissionError,
    403: LLMProviderPermissionError,
    404: LLMProviderNotFoundError,
    408: LLMProviderTimeoutError,
    410: LLMProviderNotFoundError,
    413: LLMProviderTokenLimitError,
    429: LLMProviderRateLimitError,
    503: LLMProviderOverloadedError,
    529: LLMProviderOverloadedError,
}
"""Statuses with a class of their own; other 4xx are bad requests, other 5xx server errors, the rest API errors."""

DECISIVE_CODES: Mapping[str, type[LLMProviderError]] = {
    "api_key_invalid": LLMProviderAuthenticationError,
    "billing_error": LLMProviderQuotaError,
    "billing_hard_limit_reached": LLMProviderQuotaError,
    "billing_not_active": LLMProviderQuotaError,
    "content_filter": LLMProviderContentFilterError,
    "content_policy_violation": LLMProviderContentFilterError,
    "context_length_exceeded": LLMProviderTokenLimitError,
    "context_window_exceeded": LLMProviderTokenLimitError,
    "exceed_context_size_error": LLMProviderTokenLimitError,
    "insufficient_quota": LLMProviderQuotaError,
    "invalid_api_key": LLMProviderAuthenticationError,
    "overloaded_error": LLMProviderOverloadedError,
    "request_too_large": LLMProviderTokenLimitError,
}
"""Codes and types that say more than the status: they win over it."""

GENERAL_CODES: Mapping[str, type[LLMProviderError]] = {
    "api_error": LLMProviderServerError,
    "authentication_error": LLMProviderAuthenticationError,
    "deadline_exceeded": LLMProviderServerError,
    "failed_precondition": LLMProviderBadRequestError,
    "internal": LLMProviderServerError,
    "internal_error": LLMProviderServerError,
    "internal_server_error": LLMProviderServerError,
    "invalid_argument": LLMProviderBadRequestError,
    "invalid_request_error": LLMProviderBadRequestError,
    "model_not_found": LLMProviderNotFoundError,
    "not_found": LLMProviderNotFoundError,
    "not_found_error": LLMProviderNotFoundError,
    "overloaded": LLMProviderOverloadedError,
    "permission_denied": LLMProviderPermissionError,
    "permission_error": LLMProviderPermissionError,
    "rate_limit_error": LLMProviderRateLimitError,
    "rate_limit_exceeded": LLMProviderRateLimitError,
    "resource_exhausted": LLMProviderRateLimitError,
    "server_error": LLMProviderServerError,
    "timeout_error": LLMProviderServerError,
    "too_many_requests": LLMProviderRateLimitError,
    "unauthenticated": LLMProviderAuthenticationError,
    "unavailable": LLMProviderOverloadedError,
}
"""Codes and types that decide where no status tells, as for errors inside a stream that began with 200."""


class _Told(NamedTuple):
    message: str
    codes: tuple[str, ...]  # the most particular first
    type: str | None
    number: int | None  # an HTTP status written into the body


def error_from_reply(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    provider: str | None = None,
    model: str | None = None,
    secrets: Iterable[str] = (),
    classify: Classifier | None = None,
) -> LLMProviderError:
    """Read an HTTP reply that refuses.

    Understands `{"error": {"message", "type", "code", "param", "status", "details"}}`, `{"error": "text"}`,
    `{"message"}`, `{"detail"}` (a text or a list), `{"errors": [...]}`, any of these in a list, HTML and plain text.

    Args:
        status: HTTP status.
        headers: the reply's headers; request id, retry hints and `x-should-retry` are read.
        body: the reply's body, whole or cut.
        provider: name of the provider.
        model: name of the model.
        secrets: strings that must not appear in the error.
        classify: asked first for the class.

    Returns:
        The error, to be raised by the caller: message, code and request id are redacted, the message is at most 500
        characters long.
    """
    parsed = _parse(body)
    told = _read(parsed) if parsed is not None else None
    if told is None or not told.message:
        codes, kind, number = (told.codes, told.type, told.number) if told else ((), None, None)
        told = _Told(_prose(status, headers, body, parsed), codes, kind, number)
    lower = {name.lower(): value for name, value in headers.items()}
    error = _build(
        told,
        status,
        provider=provider,
        model=model,
        secrets=secrets,
        classify=classify,
        request_id=lower.get("x-request-id") or lower.get("request-id"),
        retry_after=parse_retry_after(headers, _unwrapped(parsed), status=status),
    )
    advice = lower.get("x-should-retry", "").strip().lower()
    if advice == "false" or (advice == "true" and not isinstance(error, LLMProviderQuotaError)):
        error.retryable = advice == "true"
    elif status == 501:
        error.retryable = False  # "not implemented" will be so in a second, too
    return error


def error_from_event(
    payload: Mapping[str, Any],
    *,
    provider: str | None = None,
    model: str | None = None,
    secrets: Iterable[str] = (),
    classify: Classifier | None = None,
    request_id: str | None = None,
) -> LLMProviderError:
    """Read an error that arrived inside a reply that began with 200.

    Args:
        payload: the event's JSON: any shape that `error_from_reply` knows, a flat `{"type": "error", "code",
            "message"}`, or one with the error inside `response`.
        provider: name of the provider.
        model: name of the model.
        secrets: strings that must not appear in the error.
        classify: asked first for the class; its status is the number that the payload names, or `None`.
        request_id: the backend's id of the request.

    Returns:
        The error, to be raised by the caller. `status_code` is set where the payload itself names a status.
    """
    inner = payload.get("response")
    if payload.get("error") is None and isinstance(inner, Mapping) and inner.get("error") is not None:
        payload = inner
    told = _read(payload)
    if not told.message:
        told = told._replace(message="the stream reported an error without a message")
    return _build(
        told,
        told.number,
        provider=provider,
        model=model,
        secrets=secrets,
        classify=classify,
        request_id=request_id,
        retry_after=parse_retry_after({}, payload),
    )


def _build(
    told: _Told,
    status: int | None,
    *,
    secrets: Iterable[str],
    classify: Classifier | None,
    request_id: str | None,
    **carried: Any,
) -> LLMProviderError:
    secrets = tuple(secrets)
    code = told.codes[0] if told.codes else told.type
    message = (
        shorten(redact(told.message[: 20 * _LONGEST_MESSAGE], secrets), _LONGEST_MESSAGE)
        or "an error without a readable message"
    )
    chosen = classify(status, code, told.type, told.message) if classify is not None else None
    if chosen is None:
        chosen = _class_of(status, told)
    # A server may echo the key anywhere.
    code = redact(code, secrets) if code else code
    request_id = shorten(redact(request_id, secrets), _LONGEST_ID) if request_id else None
    return chosen(message, status_code=status, code=code, request_id=request_id, **carried)


def _class_of(status: int | None, told: _Told) -> type[LLMProviderError]:
    names = [name.lower() for name in (*told.codes, told.type) if name]
    for name in names:
        if name in DECISIVE_CODES:
            return DECISIVE_CODES[name]
    if status is None:
        return next((GENERAL_CODES[name] for name in names if name in GENERAL_CODES), LLMProviderAPIError)
    if status in STATUS_ERRORS:
        return STATUS_ERRORS[status]
    if 400 <= status < 500:
        return LLMProviderBadRequestError
    return LLMProviderServerError if 500 <= status < 600 else LLMProviderAPIError


def _parse(body: bytes) -> Any:
    if not body or len(body) > _LONGEST_BODY:
        return None
    import json

    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _unwrapped(parsed: Any) -> Mapping[str, Any] | None:
    if isinstance(parsed, list):
        parsed = next((item for item in parsed if isinstance(item, Mapping)), None)
    return parsed if isinstance(parsed, Mapping) else None


def _read(parsed: Any) -> _Told:
    whole = _unwrapped(parsed)
    if whole is None:
        return _Told(parsed if isinstance(parsed, str) else "", (), None, None)
    error: Any = whole.get("error")
    if not error and isinstance(whole.get("errors"), list) and whole["errors"]:
        error = whole["errors"][0]
    if not isinstance(error, Mapping):
        text = error if isinstance(error, str) else None
        # Without an `error` object the fields stand outside. `"error": "text"` may be a code with a `message` beside.
        error = {**whole, "message": whole.get("message") or text, "code": whole.get("code") or (text and _word(text))}
    message = _text(error.get("message")) or _text(error.get("detail")) or _text(error.get("msg"))
    param = error.get("param")
    if message and isinstance(param, str) and param and param not in message:
        message = f"{message} (parameter: {param})"
    kind = _word(error.get("type"))
    if kind == "error":
        kind = None
    names = [_reason(error.get("details")), _word(error.get("code")), _word(error.get("status"))]
    return _Told(message, tuple(name for name in names if name), kind, _status(error))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):  # a list of complaints: {"loc": [...], "msg": ...} each
        parts = []
        for item in value[:5]:
            if isinstance(item, Mapping) and isinstance(item.get("msg"), str):
                place = item.get("loc")
                where = ".".join(map(str, place)) if isinstance(place, list) else ""
                parts.append(f"{where}: {item['msg']}" if where else item["msg"])
            elif isinstance(item, str):
                parts.append(item)
        return "; ".join(parts)
    if isinstance(value, Mapping):
        return _text(value.get("message")) or _text(value.get("msg"))
    return ""


def _word(value: object) -> str | None:
    # A code is one word; numbers repeat the status, and sentences belong into the message.
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w.:/-]{0,79}", value) else None


def _reason(details: object) -> str | None:
    if not isinstance(details, list):
        return None
    return next((word for item in details if isinstance(item, Mapping) and (word := _word(item.get("reason")))), None)


def _status(error: Mapping[str, Any]) -> int | None:
    for name in ("code", "status", "status_code"):
        value = error.get(name)
        if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value):
            return int(value)
        if type(value) is int and 400 <= value < 600:
            return value
    return None


def _prose(status: int, headers: Mapping[str, str], body: bytes, parsed: Any) -> str:
    if 300 <= status < 400:
        place = next((value for name, value in headers.items() if name.lower() == "location"), None)
        # The query of a redirect is where sign-in pages put tokens.
        where = f" to {place.partition('?')[0]}" if place else ""
        return f"the server redirects{where}; redirects are not followed, so set base_url to the final address"
    text = bytes(body[: 20 * _LONGEST_MESSAGE]).decode("utf-8", "replace")
    if not text.strip():
        return f"the server answered {status} with an empty body"
    if parsed is None and re.match(r"\s*<(?:!doctype|html|head|body|\?xml)", text, re.IGNORECASE):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        inner = title[1] if title else re.sub(r"(?s)<(style|script).*?</\1>|<[^>]*>", " ", text)
        return f"the server answered {status} with an HTML page: {inner.strip()}"
    return text
