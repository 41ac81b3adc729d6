"""How long to wait: every place where backends write it, and no header that can break the reader (bad input 35, 36)."""

from __future__ import annotations

import time
from email.utils import formatdate
from math import isfinite
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from providers.wire import parse_retry_after

NOW = 1_800_000_000.0


def date(seconds: float) -> str:
    return formatdate(NOW + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "1"}, 1.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 6000}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "30s"}, 30.0),
        ({"retry-after": date(30)}, 30.0),
        ({"retry-after": date(-30)}, 0.0),
        ({"retry-after": "Sunday, 06-Nov-94 08:49:37 GMT"}, 0.0),
        ({"retry-after": "Sun Nov  6 08:49:37 2094"}, 3939871777.0 - NOW),
        ({"retry-after": "Mon, 99 Foo 2027 99:99:99 GMT"}, None),
        ({"retry-after": str(int(NOW) + 12)}, 12.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250.5"}, 0.2505),
        ({"retry-after-ms": "1500", "retry-after": "1"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
        ({"retry-after": "x", "x-ratelimit-reset": "7"}, 7.0),
        ({"retry-after": "3", "x-ratelimit-reset": "700"}, 3.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, now=NOW) == seconds


def test_two_headers_of_one_name_give_the_larger() -> None:
    headers = CIMultiDict([("Retry-After", "1"), ("retry-after", "9"), ("RETRY-AFTER", "3")])
    assert parse_retry_after(headers) == 9.0
    assert parse_retry_after({"Retry-After": "1", "retry-after": "9"}) == 9.0


def test_a_date_is_read_by_the_servers_clock() -> None:
    """Our clock may be an hour off: what counts is how far the date lies behind the reply's own `Date`."""
    headers = {"Date": date(3600), "Retry-After": date(3605)}
    assert parse_retry_after(headers, now=NOW) == 5.0
    assert parse_retry_after({"Date": "nonsense", "Retry-After": date(5)}, now=NOW) == 5.0


def test_without_a_given_time_the_clock_is_read() -> None:
    headers = {"retry-after": formatdate(usegmt=True, timeval=time.time() + 100)}
    wait = parse_retry_after(headers)
    assert wait is not None
    assert 95 < wait <= 101


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        (
            {
                "x-ratelimit-reset-requests": "12ms",
                "x-ratelimit-remaining-requests": "4999",
                "x-ratelimit-reset-tokens": "1.8s",
                "x-ratelimit-remaining-tokens": "400",
            },
            None,
        ),
        (
            {
                "x-ratelimit-reset-requests": "12ms",
                "x-ratelimit-remaining-requests": "4999",
                "x-ratelimit-reset-tokens": "1.8s",
            },
            1.8,
        ),
        ({"x-ratelimit-reset-requests": "12ms"}, 0.012),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-reset-tokens": "1d"}, 86400.0),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "5",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "0",
            },
            360.0,
        ),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "6s",
                "x-ratelimit-remaining-tokens": "0",
            },
            6.0,
        ),
        ({"x-ratelimit-reset": str(int(NOW) + 20)}, 20.0),
        ({"x-ratelimit-reset": str((int(NOW) + 20) * 1000)}, 20.0),
        ({"x-ratelimit-reset": str(int(NOW) - 20)}, 0.0),
        ({"x-ratelimit-reset": str(int(NOW) - 20), "x-ratelimit-reset-tokens": "4"}, 4.0),
        ({"vendor-ratelimit-requests-reset": "2027-01-15T08:00:30Z"}, 30.0),
        ({"vendor-ratelimit-requests-reset": "2027-01-15T09:00:30+01:00"}, 30.0),
        ({"vendor-ratelimit-requests-reset": "2027-01-15T08:00:30"}, 30.0),
        (
            {
                "vendor-ratelimit-requests-reset": "2027-01-15T08:00:30Z",
                "vendor-ratelimit-requests-remaining": "10",
                "vendor-ratelimit-tokens-reset": "2027-01-15T08:01:00Z",
                "vendor-ratelimit-tokens-remaining": "0",
            },
            60.0,
        ),
        ({"x-rate-limit-reset": "5"}, 5.0),
        ({"ratelimit-reset": "soon"}, None),
        ({"x-reset": "5", "ratelimit-limit": "5"}, None),
    ],
)
def test_resets_of_rate_limits(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, now=NOW) == seconds


@pytest.mark.parametrize("status", [408, 500, 502, 503, 529])
def test_resets_are_read_of_a_429_alone(status: int) -> None:
    """Many backends send them with every reply: with another status they say nothing of the failure."""
    headers = {"x-ratelimit-reset-requests": "12ms", "x-ratelimit-remaining-requests": "0"}
    assert parse_retry_after(headers, status=429) == 0.012
    assert parse_retry_after(headers, status=status) is None
    assert parse_retry_after({**headers, "retry-after": "3"}, status=status) == 3.0
    assert parse_retry_after({**headers, "retry-after-ms": "300"}, status=status) == 0.3
    assert parse_retry_after(headers, {"error": {"details": [{"retryDelay": "4s"}]}}, status=status) == 4.0


@pytest.mark.parametrize(
    ("details", "seconds"),
    [
        ([{"@type": "x/RetryInfo", "retryDelay": "36s"}], 36.0),
        ([{"@type": "x/Help"}, {"retryDelay": "0.250s"}], 0.25),
        ([{"retryDelay": {"seconds": 3, "nanos": 500000000}}], 3.5),
        ([{"retryDelay": {"seconds": "3"}}], 3.0),
        ([{"retryDelay": 4}], 4.0),
        ([{"retryDelay": "4"}], None),
        ([{"retryDelay": "-4s"}], None),
        ([{"retryDelay": None}, {"retryDelay": True}, {"retryDelay": float("nan")}, {"retryDelay": 10**400}], None),
        ([None, 1, "x", []], None),
        ({"retryDelay": "3s"}, None),
        ("36s", None),
    ],
)
def test_retry_info_in_the_body(details: Any, seconds: float | None) -> None:
    assert parse_retry_after({}, {"error": {"details": details}}) == seconds


def test_the_longer_of_header_and_body_counts() -> None:
    body = {"error": {"details": [{"retryDelay": "36s"}]}}
    assert parse_retry_after({"retry-after": "2"}, body) == 36.0
    assert parse_retry_after({"retry-after": "50"}, body) == 50.0
    odd: dict[str, Any]
    for odd in ({}, {"error": None}, {"error": "text"}, {"error": {"details": None}}, {"error": []}):
        assert parse_retry_after({"retry-after": "2"}, odd) == 2.0


RESETS = ["x-ratelimit-reset", "x-ratelimit-reset-tokens", "a-ratelimit-tokens-reset"]
REMAINING = ["x-ratelimit-remaining", "x-ratelimit-remaining-tokens", "a-ratelimit-tokens-remaining"]
NAMES = st.sampled_from(["Retry-After", "retry-after-ms", "Date", *RESETS, *REMAINING])
VALUES = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"[0-9]{1,20}(\.[0-9]{0,5})?(ms|s|m|h)?", fullmatch=True),
    st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,12} [A-Z+0-9-]{0,7}", fullmatch=True),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{0,15}[Z+-]?[0-9:]{0,6}", fullmatch=True),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "details", "retryDelay", "seconds", "nanos", "message"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.none() | st.dictionaries(st.just("error"), JSON, max_size=1))
@example({"Retry-After": "Sat, 31 Dec 999999 00:00:00 GMT"}, None)
@example({"Retry-After": "0000-00-00T00:00:00Z"}, None)
@example({"Retry-After": "00, 00 0 00:00:00"}, None)
@settings(deadline=None, max_examples=500)
def test_it_never_raises_and_never_answers_nonsense(headers: dict[str, str], body: dict[str, Any] | None) -> None:
    wait = parse_retry_after(headers, body, now=NOW)
    assert wait is None or (isfinite(wait) and wait >= 0.0)
