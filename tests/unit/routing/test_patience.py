"""Calls that would stand in line before a target's limits, while another target could answer."""

from __future__ import annotations

import logging
import time
from itertools import count
from typing import Any

import pytest

from providers.exceptions import LLMProviderRateLimitError
from providers.resilience.limiter import patience
from providers.routing import FallbackProvider
from providers.testing import LoopbackServer

from .backend import PATH, ask, either, throttled
from .conftest import Make

_keys = count()


@pytest.fixture
def key() -> str:
    """A key that no other test has, since limits belong to the key."""
    return f"sk-patience-{next(_keys)}"


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_key_that_was_told_to_wait_elsewhere(
    one: LoopbackServer, two: LoopbackServer, make: Make, key: str, streaming: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Users: with a fallback for each web request, the second one stood still for a minute although its other target
    was well."""
    one.script(PATH, throttled("600"), repeat=True)
    two.script(PATH, either("two"), repeat=True)
    options: dict[str, Any] = {"limits": "process", "api_key": key}
    with caplog.at_level(logging.INFO, "providers.limits"):
        for _ in range(3):
            fallback = FallbackProvider([make(one, **options), make(two, **options)], max_retries=0)
            begun = time.monotonic()
            response = await ask(fallback, streaming=streaming)
            assert response.content == "two"
            assert time.monotonic() - begun < 10
            assert [item["error"] for item in response.metadata["attempts"]] == ["LLMProviderRateLimitError"]
    assert (one.count(PATH), two.count(PATH)) == (1, 3)
    assert "asks to wait" in caplog.text
    assert key not in caplog.text
    assert patience.get() is None


async def test_a_targets_own_limit(one: LoopbackServer, two: LoopbackServer, make: Make, key: str) -> None:
    """Where its minute is used up, the next target has room; so has the first one in its own time."""
    one.script(PATH, either("one"), repeat=True)
    two.script(PATH, either("two"), repeat=True)
    options: dict[str, Any] = {"limits": "process", "api_key": key}
    fallback = FallbackProvider([make(one, requests_per_minute=1, **options), make(two)], max_retries=0)
    assert [(await ask(fallback)).content for _ in range(3)] == ["one", "two", "two"]


async def test_where_nobody_else_is_left_the_call_waits(
    one: LoopbackServer, two: LoopbackServer, make: Make, key: str
) -> None:
    """For the last target as for a provider alone: here until its next place, after 1.4 seconds; in a fallback inside
    of another as well. One that another fallback has behind it does not."""
    one.script(PATH, either("one"), repeat=True)
    two.script(PATH, either("two"), repeat=True)
    slow = make(one, requests_per_minute=45, limits="process", api_key=key)
    inner = FallbackProvider([slow], max_retries=0)
    begun = time.monotonic()
    assert [(await ask(FallbackProvider([inner], max_retries=0))).content for _ in range(2)] == ["one", "one"]
    assert time.monotonic() - begun > 1.2
    both = FallbackProvider([inner, make(two)], max_retries=0)
    assert (await ask(both)).content == "two"


async def test_without_patience_the_error_says_why(one: LoopbackServer, make: Make, key: str) -> None:
    """What moves the call on says what the call waited for; nobody else is told to wait because of it."""
    one.script(PATH, either(), repeat=True)
    provider = make(one, requests_per_minute=1, limits="process", api_key=key, max_retries=0)
    await ask(provider)
    token = patience.set(lambda: 0.05)
    try:
        with pytest.raises(LLMProviderRateLimitError, match=r"no turn within 0\.05 s: all calls with this key wait"):
            await ask(provider)
    finally:
        patience.reset(token)
    assert one.count(PATH) == 1
