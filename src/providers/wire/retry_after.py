"""How long a backend asks us to wait, read from every place where backends write it.

Sources: RFC 9110 section 10.2.3 (`Retry-After`), the `retry-after-ms` header that several backends add, the family of
`*ratelimit*reset*` headers (draft-ietf-httpapi-ratelimit-headers and its many older spellings), and the `RetryInfo`
detail of JSON error bodies (AIP-193, https://aip.dev/193).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

# Patterns stay texts: they are compiled at the first error, not at import.
_NUMBER = r"(?a)\d{1,300}(?:\.\d{0,300})?|\.\d{1,300}"
_DURATION = r"(?a)(?:(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:ms|us|µs|ns|d|h|m|s)\s*)+"
_PART = r"(?a)(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(ms|us|µs|ns|d|h|m|s)"
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_EPOCH = 1e9  # a number of seconds above this (31 years) is a point in time


def parse_retry_after(
    headers: Mapping[str, str],
    body: Mapping[str, Any] | None = None,
    *,
    status: int | None = None,
    now: float | None = None,
) -> float | None:
    """Find the seconds that a reply asks to wait.

    `retry-after-ms`, `retry-after` and `RetryInfo` speak about this request: of several the longest counts. Only where
    all are missing and the status is 429, the reset times of the rate limits are read, which many backends send with
    every reply: of those with nothing `remaining` the last, else the last of those that do not say what remains. A
    limit with something left tells nothing of the one that was hit. Nothing is capped here; the retry policy does that.

    Args:
        headers: the reply's headers, in any case; a multidict's repeated headers are all seen.
        body: the reply's JSON body, where it is a mapping.
        status: the reply's status; left out, it counts as 429.
        now: seconds since 1970 by our clock; the time of day if left out. The reply's own `Date` header wins over
            both, since the server's times are told by the server's clock.

    Returns:
        Seconds, 0.0 for a time in the past; `None` without a hint or with one that makes no sense. Never raises.
    """
    seen: dict[str, list[str]] = {}
    for name, value in headers.items():
        seen.setdefault(str(name).lower(), []).append(str(value).strip())
    clock = next((at for at in map(_http_date, seen.get("date", ())) if at is not None), now)
    if clock is None:
        clock = time.time()
    hints = [_scaled(_number(value), 1e-3) for value in seen.get("retry-after-ms", ())]
    hints += [_wait(value, clock) for value in seen.get("retry-after", ())]
    hints += _retry_info(body)
    told = [hint for hint in hints if hint is not None]
    if told:
        return max(told)
    return _resets(seen, clock) if status in (None, 429) else None


def _resets(seen: Mapping[str, list[str]], clock: float) -> float | None:
    spent: list[float] = []
    unknown: list[float] = []
    for name, values in seen.items():
        if "reset" not in name or not ("ratelimit" in name or "rate-limit" in name):
            continue
        waits = [wait for wait in (_wait(value, clock) for value in values) if wait is not None]
        remaining = [_number(value) for value in seen.get(name.replace("reset", "remaining"), ())]
        if 0.0 in remaining:
            spent += waits
        elif all(left is None for left in remaining):
            unknown += waits
    return max(spent or unknown, default=None)


def _retry_info(body: object) -> list[float | None]:
    error = body.get("error") if isinstance(body, Mapping) else None
    details = error.get("details") if isinstance(error, Mapping) else None
    if not isinstance(details, Iterable) or isinstance(details, (str, bytes, Mapping)):
        return []
    return [_delay(detail.get("retryDelay")) for detail in details if isinstance(detail, Mapping)]


def _delay(value: object) -> float | None:
    if isinstance(value, Mapping):  # the same message, spelled as an object
        parts = [_plain(value.get("seconds")), _scaled(_plain(value.get("nanos")), 1e-9)]
        given = [part for part in parts if part is not None]
        return sum(given) if given else None
    if isinstance(value, str):
        return _duration(value.strip())
    return _plain(value)


def _plain(value: object) -> float | None:
    if isinstance(value, str):
        return _number(value.strip())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) and number >= 0.0 else None


def _wait(value: str, clock: float) -> float | None:
    number = _number(value)
    if number is not None:
        if number < _EPOCH:
            return number
        # Milliseconds since 1970 have three digits more than seconds have.
        return max(0.0, (number / 1000.0 if number >= _EPOCH * 1000.0 else number) - clock)
    span = _duration(value)
    if span is not None:
        return span
    at = _http_date(value)
    if at is None:
        at = _timestamp(value)
    return None if at is None else max(0.0, at - clock)


def _number(value: str) -> float | None:
    if not re.fullmatch(_NUMBER, value):
        return None
    number = float(value)
    return number if isfinite(number) else None


def _scaled(number: float | None, factor: float) -> float | None:
    return None if number is None else number * factor


def _duration(value: str) -> float | None:
    if not re.fullmatch(_DURATION, value):
        return None
    return sum(float(count) * _SECONDS[unit] for count, unit in re.findall(_PART, value))


def _http_date(value: str) -> float | None:
    if len(value) > 64 or ":" not in value or " " not in value:
        return None
    from email.utils import parsedate_tz

    # parsedate_tz accepts all three forms of RFC 9110, and answers some nonsense with other errors than ValueError.
    try:
        parts = parsedate_tz(value)
        if parts is None:
            return None
        from calendar import timegm

        return float(timegm((*parts[:6], 0, 1, 0)) - (parts[9] or 0))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _timestamp(value: str) -> float | None:
    if len(value) > 64 or "-" not in value:
        return None
    from datetime import UTC, datetime

    try:
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
