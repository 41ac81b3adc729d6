"""Error replies in every shape become one error of the right class, without secrets (bad input 36 to 40)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import exceptions as e
from providers.wire import error_from_event, error_from_reply, redact
from providers.wire.reply import headroom_of

CANARY = "sk-canary-0123456789"


def reply(status: int, body: Any = b"", headers: dict[str, str] | None = None, **options: Any) -> e.LLMProviderError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_from_reply(status, headers or {}, raw, provider="test", **options)


@pytest.mark.parametrize(
    ("status", "expected", "retryable"),
    [
        (302, e.LLMProviderAPIError, False),
        (400, e.LLMProviderBadRequestError, False),
        (401, e.LLMProviderAuthenticationError, False),
        (402, e.LLMProviderPermissionError, False),
        (403, e.LLMProviderPermissionError, False),
        (404, e.LLMProviderNotFoundError, False),
        (405, e.LLMProviderBadRequestError, False),
        (408, e.LLMProviderTimeoutError, True),
        (409, e.LLMProviderBadRequestError, False),
        (410, e.LLMProviderNotFoundError, False),
        (413, e.LLMProviderTokenLimitError, False),
        (418, e.LLMProviderBadRequestError, False),
        (422, e.LLMProviderBadRequestError, False),
        (429, e.LLMProviderRateLimitError, True),
        (500, e.LLMProviderServerError, True),
        (501, e.LLMProviderServerError, False),
        (502, e.LLMProviderServerError, True),
        (503, e.LLMProviderOverloadedError, True),
        (504, e.LLMProviderServerError, True),
        (529, e.LLMProviderOverloadedError, True),
        (599, e.LLMProviderServerError, True),
        (600, e.LLMProviderAPIError, False),
    ],
)
def test_the_status_picks_the_class(status: int, expected: type[e.LLMProviderError], retryable: bool) -> None:
    for body in (b"", b"no", {"error": {"message": "no"}}):
        error = reply(status, body)
        assert type(error) is expected
        assert error.status_code == status
        assert error.retryable is retryable
        assert error.provider == "test"


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": {"message": "m", "type": "t_error", "code": "c", "param": "p"}}, "m (parameter: p)", "c"),
        ({"error": {"message": "bad p", "type": "t_error", "code": None, "param": "p"}}, "bad p", "t_error"),
        (
            {"error": {"code": 400, "message": "m", "type": "exceed_context_size_error"}},
            "m",
            "exceed_context_size_error",
        ),
        ({"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}, "m", "RESOURCE_EXHAUSTED"),
        ({"error": {"code": 400, "message": "m", "status": "X", "details": [{"reason": "KEY_BAD"}]}}, "m", "KEY_BAD"),
        ([{"error": {"code": 400, "message": "m", "status": "INVALID"}}], "m", "INVALID"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, "m", "overloaded_error"),
        ({"error": "a text"}, "a text", None),
        ({"error": "not_found", "message": "m"}, "m", "not_found"),
        ({"message": "m"}, "m", None),
        ({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, "m", "BadRequestError"),
        ({"detail": "m"}, "m", None),
        ({"detail": [{"loc": ["body", "n"], "msg": "too big"}, {"msg": "x"}]}, "body.n: too big; x", None),
        ({"errors": [{"message": "m", "code": "c"}]}, "m", "c"),
        ({"errors": ["a text"]}, "a text", None),
        ({"error": {"message": {"message": "m"}}}, "m", None),
        ({"strange": 1}, '{"strange": 1}', None),
        ("a string", "a string", None),
        (b"plain\ntext \x1b[31mred", "plain text [31mred", None),
        (b"", "the server answered 400 with an empty body", None),
        (b"null", "null", None),
        (
            b"<html><head><title>502 Bad\nGateway</title>",
            "the server answered 400 with an HTML page: 502 Bad Gateway",
            None,
        ),
        (b"<!DOCTYPE html><p>no <b>way", "the server answered 400 with an HTML page: no way", None),
        (b"[" * 100_000, "[" * 497 + "...", None),
        (b'{"error": {"message": "cut', '{"error": {"message": "cut', None),
        (b"\xff\xfe", "\ufffd\ufffd", None),
    ],
)
def test_message_and_code_are_found_in_every_shape(body: Any, message: str, code: str | None) -> None:
    error = reply(400, body)
    assert error.message == message
    assert error.code == code


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "context_length_exceeded", e.LLMProviderTokenLimitError),
        (400, "exceed_context_size_error", e.LLMProviderTokenLimitError),
        (429, "insufficient_quota", e.LLMProviderQuotaError),
        (400, "content_filter", e.LLMProviderContentFilterError),
        (400, "content_policy_violation", e.LLMProviderContentFilterError),
        (400, "API_KEY_INVALID", e.LLMProviderAuthenticationError),
        (500, "overloaded_error", e.LLMProviderOverloadedError),
        (500, "invalid_request_error", e.LLMProviderServerError),
        (400, "rate_limit_exceeded", e.LLMProviderBadRequestError),
        (413, "request_too_large", e.LLMProviderTokenLimitError),
    ],
)
def test_decisive_codes_win_over_the_status(status: int, code: str, expected: type[e.LLMProviderError]) -> None:
    assert type(reply(status, {"error": {"message": "m", "code": code}})) is expected
    assert type(reply(status, {"error": {"message": "m", "type": code, "code": "unheard_of"}})) is expected


def test_a_spent_quota_is_not_retried() -> None:
    """Bad input 37: waiting does not help, whatever a header says."""
    body = {"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}}
    assert reply(429, body).retryable is False
    assert reply(429, body, {"x-should-retry": "true"}).retryable is False


def test_the_server_may_say_whether_to_retry() -> None:
    assert reply(400, b"", {"X-Should-Retry": "true"}).retryable is True
    assert reply(503, b"", {"x-should-retry": "false"}).retryable is False
    assert reply(503, b"", {"x-should-retry": "maybe"}).retryable is True


def test_request_id_and_hints() -> None:
    assert reply(500, b"", {"X-Request-Id": "a", "request-id": "b"}).request_id == "a"
    assert reply(500, b"", {"Request-ID": "b"}).request_id == "b"
    assert reply(500).request_id is None
    assert reply(429, b"", {"Retry-After": "3"}).retry_after == 3.0
    assert reply(429, [{"error": {"details": [{"retryDelay": "36s"}]}}]).retry_after == 36.0
    assert reply(429).retry_after is None
    spent = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2s"}
    assert (reply(429, b"", spent).retry_after, reply(503, b"", spent).retry_after) == (2.0, None)


def test_code_and_request_id_hide_what_the_server_echoes() -> None:
    body = {"error": {"message": "m", "type": "t_error", "code": CANARY}}
    for headers in ({"x-request-id": f"for {CANARY}"}, {"request-id": f"Bearer {CANARY}\x1b" + "x" * 9000}):
        error = reply(401, body, headers, secrets=[CANARY])
        assert (error.code, "***" in str(error.request_id)) == ("***", True)
        assert CANARY not in f"{error} {vars(error)}"
        assert len(str(error.request_id)) <= 200
    told = error_from_event(body, provider="test", secrets=iter([CANARY]), request_id=CANARY)
    assert (told.code, told.request_id) == ("***", "***")
    known = {"error": {"message": CANARY, "code": "insufficient_quota"}}
    assert type(reply(429, known, secrets=["insufficient_quota"])) is e.LLMProviderQuotaError, "classed before masking"


def test_the_plugin_has_the_first_say() -> None:
    seen: list[tuple[Any, ...]] = []

    def classify(*told: Any) -> type[e.LLMProviderError] | None:
        seen.append(told)
        return e.LLMProviderTokenLimitError if "too long" in told[3] else None

    body = {"error": {"message": "prompt is too long", "type": "invalid_request_error"}}
    assert type(reply(400, body, classify=classify)) is e.LLMProviderTokenLimitError
    assert type(reply(404, {"message": "x"}, classify=classify)) is e.LLMProviderNotFoundError
    assert seen == [
        (400, "invalid_request_error", "invalid_request_error", "prompt is too long"),
        (404, None, None, "x"),
    ]


def test_a_redirect_says_where_to() -> None:
    error = reply(307, b"", {"Location": "https://elsewhere/v1?token=abcdefghij"})
    assert "https://elsewhere/v1" in error.message
    assert "abcdefghij" not in error.message


@pytest.mark.parametrize(
    ("payload", "expected", "code", "status"),
    [
        (
            {"type": "error", "error": {"type": "overloaded_error"}},
            e.LLMProviderOverloadedError,
            "overloaded_error",
            None,
        ),
        ({"error": {"code": "rate_limit_exceeded"}}, e.LLMProviderRateLimitError, "rate_limit_exceeded", None),
        ({"error": {"type": "server_error", "code": None}}, e.LLMProviderServerError, "server_error", None),
        ({"error": {"code": 503, "status": "UNAVAILABLE"}}, e.LLMProviderOverloadedError, "UNAVAILABLE", 503),
        ({"error": {"code": "429"}}, e.LLMProviderRateLimitError, None, 429),
        ({"type": "error", "code": "insufficient_quota"}, e.LLMProviderQuotaError, "insufficient_quota", None),
        ({"response": {"error": {"code": "server_error"}}}, e.LLMProviderServerError, "server_error", None),
        ({"error": "server_error"}, e.LLMProviderServerError, "server_error", None),
        ({"error": {"code": "unheard_of"}}, e.LLMProviderAPIError, "unheard_of", None),
    ],
)
def test_errors_inside_a_stream(
    payload: dict[str, Any], expected: type[e.LLMProviderError], code: str | None, status: int | None
) -> None:
    """Bad input 40: the reply began with 200, so only the payload tells."""
    inner = payload.get("response", payload)
    told = inner["error"] if isinstance(inner.get("error"), dict) else inner
    told["message"] = "m"
    error = error_from_event(payload, provider="test", request_id="r1")
    assert type(error) is expected
    assert (error.message, error.code, error.status_code, error.request_id) == ("m", code, status, "r1")


def test_an_error_event_without_words_still_has_a_message() -> None:
    error = error_from_event({"error": {}}, provider="test")
    assert type(error) is e.LLMProviderAPIError
    assert "without a message" in error.message


def test_secrets_do_not_pass() -> None:
    """The canary of bad inputs: servers quote keys in messages, and a long page may cut one in half."""
    told = f"Incorrect key {CANARY}, sent as Authorization: Bearer {CANARY}x and ?key={CANARY}"
    for error in (
        reply(401, {"error": {"message": told}}, secrets=[CANARY]),
        reply(401, told.encode(), secrets=[f"Bearer {CANARY}", CANARY]),
        error_from_event({"error": told}, provider="test", secrets=[CANARY]),
        reply(500, b"x" * 490 + CANARY.encode(), secrets=[CANARY]),
    ):
        assert CANARY not in str(error)
        assert CANARY[:12] not in str(error)
        assert len(error.message) <= 500


def test_redaction_without_a_list_of_secrets() -> None:
    assert redact("Authorization: Bearer abcdefgh12345") == "Authorization: Bearer ***"
    assert redact('{"api_key": "abcdefgh12345"}') == '{"api_key": "***"}'
    assert redact("https://host/v1?key=abcdefgh12345&x=1") == "https://host/v1?key=***&x=1"
    assert redact("the key EMPTY is short", ["EMPTY", "", " "]) == "the key EMPTY is short"
    assert redact("abcdef abcdefgh", ["abcdef", "abcdefgh"]) == "*** ***"
    assert redact("https://host/?access_token=short") == "https://host/?access_token=***"
    for plain in (
        "max_tokens: 12345678901 is too large",
        "Basic authentication is not supported",
        "unexpected token: endblock1234",
        "Invalid key: temperature2",
        "give an API key: required_field",
    ):
        assert redact(plain) == plain


KEYS = ["error", "errors", "message", "detail", "type", "code", "status", "param", "details", "reason", "msg", "loc"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.integers(300, 620), JSON | st.binary(max_size=60))
@settings(deadline=None, max_examples=500)
def test_no_body_can_break_the_reader(status: int, body: Any) -> None:
    error = reply(status, body)
    assert isinstance(error, e.LLMProviderError)
    assert error.message
    assert len(error.message) <= 500
    if isinstance(body, dict):
        assert isinstance(error_from_event(body, provider="test"), e.LLMProviderError)


def test_a_password_with_an_at_sign_is_masked_whole() -> None:
    assert redact("redis://me:pa@ss@host:1/0 and b@c") == "redis://me:***@host:1/0 and b@c"
    assert redact("http://host:80/a@b") == "http://host:80/a@b"


def test_what_is_left_of_a_limit() -> None:
    told = {"X-RateLimit-Remaining-Requests": "7", "x-acme-ratelimit-requests-remaining": "3"}
    assert headroom_of({**told, "x-ratelimit-remaining-tokens": " 9 "}) == (3, 9)
    assert headroom_of({"x-ratelimit-remaining-requests": "9" * 5000, "x-ratelimit-remaining-tokens": "-1"}) == (
        None,
        None,
    )
