"""One owner of retries: how many requests a call makes, alone, nested, under another owner, by a server's count."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from providers import LLMProviderError
from providers.resilience import owning_retries
from providers.routing import FallbackProvider
from providers.testing import LoopbackServer

from .backend import OUTAGE, PATH, Clock, ask, either, throttled
from .conftest import Make

STREAMING = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
FAST = {"retry_delay": 0.0005}


async def fails(provider: Any, streaming: bool, **options: Any) -> LLMProviderError:
    with pytest.raises(LLMProviderError) as caught:
        await ask(provider, streaming=streaming, **options)
    return caught.value


@STREAMING
@pytest.mark.parametrize("attempts", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 3])
async def test_requests_are_attempts_times_targets(
    one: LoopbackServer, make: Make, streaming: bool, attempts: int, count: int
) -> None:
    """With one target it is the policy exactly; the targets' own policies, of ten tries, do not count."""
    one.script(PATH, OUTAGE, repeat=True)
    targets = [make(one, f"m{number}", max_retries=9) for number in range(count)]
    fallback = FallbackProvider(targets, max_retries=attempts - 1, failures=100, **FAST)
    error = await fails(fallback, streaming)
    assert one.count(PATH) == attempts * count
    assert error.attempts == attempts
    assert len(error.failed_attempts or ()) == attempts * count - 1
    assert [request.json["model"] for request in one.requests] == [f"m{n}" for n in range(count)] * attempts


@STREAMING
async def test_a_call_may_say_how_often(one: LoopbackServer, make: Make, streaming: bool) -> None:
    one.script(PATH, OUTAGE, repeat=True)
    fallback = FallbackProvider([make(one), make(one)], failures=100, **FAST)
    await fails(fallback, streaming, attempts=3, backoff=0.0005)
    assert one.count(PATH) == 6


@STREAMING
async def test_nested_fallbacks_multiply_nothing(one: LoopbackServer, make: Make, streaming: bool) -> None:
    one.script(PATH, OUTAGE, repeat=True)
    calm = {"failures": 100, **FAST}
    inner = [FallbackProvider([make(one, f"{side}{n}") for n in (1, 2)], max_retries=5, **calm) for side in "ab"]
    outer = FallbackProvider([FallbackProvider(inner, max_retries=7, **calm), make(one, "c")], max_retries=2, **calm)
    error = await fails(outer, streaming)
    assert [request.json["model"] for request in one.requests] == ["a1", "a2", "b1", "b2", "c"] * 3
    assert len(error.failed_attempts or ()) == 14
    assert {item["target"] for item in error.failed_attempts or ()} == {
        f"openai/{model}" for model in ("a1", "a2", "b1", "b2", "c")
    }


@STREAMING
async def test_under_another_owner_it_is_one_walk(one: LoopbackServer, make: Make, streaming: bool) -> None:
    """As a bulk run or an agent takes the retries."""
    one.script(PATH, OUTAGE, repeat=True)
    fallback = FallbackProvider([make(one), make(one)], max_retries=5, failures=100, **FAST)
    with owning_retries():
        error = await fails(fallback, streaming)
    assert one.count(PATH) == 2
    assert len(error.failed_attempts or ()) == 1


@STREAMING
async def test_without_a_retry_layer_it_is_one_walk_too(one: LoopbackServer, make: Make, streaming: bool) -> None:
    one.script(PATH, OUTAGE, repeat=True)
    await fails(FallbackProvider([make(one), make(one)], layers=(), failures=100), streaming)
    assert one.count(PATH) == 2


@STREAMING
async def test_the_targets_own_retries_are_theirs_again_outside(
    one: LoopbackServer, make: Make, streaming: bool
) -> None:
    target = make(one, max_retries=1)
    one.script(PATH, OUTAGE, OUTAGE, either(), repeat=True)
    await ask(FallbackProvider([target], **FAST), streaming=streaming)
    assert one.count(PATH) == 3
    one.clear()
    one.script(PATH, OUTAGE, repeat=True)
    await fails(target, streaming)
    assert one.count(PATH) == 2


@STREAMING
async def test_the_wait_is_that_of_the_target_that_is_ready_first(
    one: LoopbackServer, two: LoopbackServer, make: Make, streaming: bool
) -> None:
    """One is throttled for an hour, the other one for a hundredth of a second: the call goes on."""
    one.script(PATH, throttled("3000"), repeat=True)
    two.script(PATH, throttled("0.01"), either("two"))
    fallback = FallbackProvider([make(two), make(one)], **FAST)
    response = await ask(fallback, streaming=streaming)
    assert response.content == "two"
    assert (one.count(PATH), two.count(PATH)) == (1, 2)
    assert [item["status"] for item in response.metadata["attempts"]] == [429, 429]
    other = FallbackProvider([make(one)], **FAST)
    error = await fails(other, streaming)
    assert (error.retry_after, error.attempts) == (3000, 1)


@STREAMING
async def test_a_final_error_of_one_target_does_not_end_what_another_one_may_mend(
    one: LoopbackServer, two: LoopbackServer, make: Make, streaming: bool
) -> None:
    from .backend import LOST_KEY

    one.script(PATH, OUTAGE, either("one"))
    two.script(PATH, LOST_KEY, repeat=True)
    fallback = FallbackProvider([make(one), make(two)], **FAST)
    with pytest.warns(UserWarning, match="key is refused"):
        assert (await ask(fallback, streaming=streaming)).content == "one"
    assert (one.count(PATH), two.count(PATH)) == (2, 1)


@STREAMING
@pytest.mark.parametrize("named", ["30", None])
async def test_a_target_that_pauses_keeps_no_call_waiting(
    one: LoopbackServer, two: LoopbackServer, make: Make, clock: Clock, streaming: bool, named: str | None
) -> None:
    """A target's own limits wait after "too many requests"; while another one is left, nobody stands there."""
    one.script(PATH, throttled(named), repeat=True)
    two.script(PATH, either("two"), repeat=True)
    fallback = FallbackProvider([make(one, "m", limits="process"), make(two)], clock=clock, **FAST)
    async with asyncio.timeout(20):
        for _ in range(3):
            assert (await ask(fallback, streaming=streaming)).content == "two"
    assert (one.count(PATH), two.count(PATH)) == (1, 3)
