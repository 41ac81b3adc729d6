"""Waits between attempts: bounded, spread, the backend's hint first."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from typing import Any

import pytest

from providers import (
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    LLMProviderError,
    LLMProviderRateLimitError,
    LLMProviderServerError,
    RetryPolicy,
)
from providers.resilience import backoff, next_wait
from providers.testing import ScriptedProvider

FAST = {"retry_delay": 0.001}


def flaky(failures: int, error: type[LLMProviderError] = LLMProviderServerError, **facts: Any) -> ScriptedProvider:
    return ScriptedProvider([*(error("no", **facts) for _ in range(failures)), "fine"], **FAST)


async def test_cancelling_the_wait_passes_at_once_and_is_not_tried_again() -> None:
    """Bad input 54."""
    provider = ScriptedProvider(lambda _: LLMProviderServerError("no"), retry_delay=30.0)
    task = asyncio.create_task(provider.execute("hi"))
    await asyncio.sleep(0.05)
    assert len(provider.requests) == 1
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 1
    assert len(provider.requests) == 1
    assert provider.calls_under_way == 0


async def test_a_hint_above_the_longest_wait_fails_at_once_with_the_hint() -> None:
    """Bad input 35: `Retry-After: 86400`."""
    provider = flaky(1, LLMProviderRateLimitError, retry_after=86400.0)
    started = time.monotonic()
    with pytest.raises(LLMProviderRateLimitError) as caught:
        await provider.execute("hi")
    assert caught.value.retry_after == 86400
    assert len(provider.requests) == 1
    assert time.monotonic() - started < 1


async def test_a_hint_is_waited_for() -> None:
    provider = ScriptedProvider([LLMProviderRateLimitError("no", retry_after=0.2), "fine"], retry_delay=0.0)
    started = time.monotonic()
    await provider.execute("hi")
    assert 0.19 <= time.monotonic() - started < 2


def test_a_hint_goes_before_the_policy_and_jitter_only_adds_to_it() -> None:
    policy = RetryPolicy(initial_wait=7.0)
    waits = [next_wait(policy, 1, LLMProviderRateLimitError("no", retry_after=10.0)) for _ in range(200)]
    assert all(wait is not None and 10.0 <= wait <= 11.0 for wait in waits)
    assert len(set(waits)) > 100
    exact = RetryPolicy(jitter=False)
    assert next_wait(exact, 1, LLMProviderRateLimitError("no", retry_after=10.0)) == 10.0
    assert next_wait(exact, 1, LLMProviderRateLimitError("no", retry_after=0.05)) == 0.05
    assert next_wait(exact, 1, LLMProviderRateLimitError("no", retry_after=60.0)) == 60.0
    assert next_wait(exact, 1, LLMProviderRateLimitError("no", retry_after=60.001)) is None


def test_a_servers_zero_does_not_bring_everybody_back_in_step() -> None:
    """`Retry-After: 0`, or a date that is past, says no more than that the server has no time to name."""
    for kind in (LLMProviderRateLimitError, LLMProviderServerError):
        waits = [next_wait(RetryPolicy(initial_wait=2.0), 2, kind("no", retry_after=0.0)) for _ in range(200)]
        assert all(wait is not None and 2.0 <= wait <= 4.0 for wait in waits)
        assert len(set(waits)) > 100


def test_a_connection_that_was_lost_while_idle_is_tried_again_at_once() -> None:
    assert next_wait(RetryPolicy(), 1, LLMProviderConnectionError("lost", retry_after=0.0)) == 0.0
    wait = next_wait(RetryPolicy(), 1, LLMProviderConnectionError("refused"))
    assert wait is not None
    assert wait >= 0.5


@pytest.mark.parametrize("hint", [-5.0, math.nan, -math.inf])
def test_an_absurd_hint_is_passed_over_for_the_own_backoff(hint: float) -> None:
    """Bad input 35: `Retry-After: -5`; a plugin's arithmetic may give NaN, which asyncio would wait for in vain."""
    policy = RetryPolicy(initial_wait=2.0, jitter=False)
    assert next_wait(policy, 1, LLMProviderRateLimitError("no", retry_after=hint)) == 2.0


def test_waits_double_up_to_the_longest() -> None:
    policy = RetryPolicy(max_attempts=99, initial_wait=1.0, max_wait=60.0, jitter=False)
    assert [backoff(policy, attempt) for attempt in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("base", [2.0, 2, 1e30, 10**30, 1.0])
def test_a_huge_count_does_not_overflow(base: float) -> None:
    """Bad input 6: `2 ** 1024`."""
    policy = RetryPolicy(max_attempts=10**6 + 1, exponential_base=base, jitter=False)
    assert backoff(policy, 10**6) == (60.0 if base > 1 else 1.0)
    assert backoff(RetryPolicy(initial_wait=0.0, exponential_base=base), 10**6) == 0.0


def test_jitter_spreads_waits_evenly_over_half_of_them() -> None:
    """Bad input 34: callers that failed together do not come back together."""
    policy = RetryPolicy(initial_wait=8.0)
    waits = [backoff(policy, 1) for _ in range(4000)]
    assert 4.0 <= min(waits) < 4.1
    assert 7.9 < max(waits) <= 8.0
    assert abs(statistics.mean(waits) - 6.0) < 0.1
    assert abs(statistics.stdev(waits) - 4 / math.sqrt(12)) < 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", True),
        ("initial_wait", -1),
        ("initial_wait", math.nan),
        ("max_wait", math.inf),
        ("exponential_base", 0.5),
        ("exponential_base", 10**400),
        ("max_wait", 0.5),
    ],
)
def test_a_policy_is_checked(field: str, value: Any) -> None:
    """Bad input 6."""
    with pytest.raises(LLMProviderConfigurationError, match=field):
        RetryPolicy(**{field: value})
