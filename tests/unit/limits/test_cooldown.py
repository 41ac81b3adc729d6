"""The cooldown: one for all callers, its end a time, its growth once for all that fail together."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import LLMProviderRateLimitError
from providers.headroom import Headroom
from providers.resilience.concurrency import Concurrency
from providers.resilience.cooldown import Cooldown
from providers.resilience.limiter import Limiter, LocalLimits
from providers.testing import ScriptedProvider

Virtually = Callable[[Any], Any]


def test_many_failures_of_one_moment_are_one_cooldown() -> None:
    """C-15: generation-counted."""
    cooldown = Cooldown()
    for _ in range(50):
        cooldown.begin(10.0, 0)
    assert (cooldown.generation, cooldown.streak, cooldown.remaining(10.0)) == (1, 1, 1.0)
    for expected in (2.0, 4.0, 8.0):
        now = cooldown.until
        cooldown.begin(now, cooldown.generation)
        assert cooldown.remaining(now) == expected
    cooldown.passed(0)
    assert cooldown.streak == 4  # That call began long before.
    cooldown.passed(cooldown.generation)
    assert cooldown.streak == 0


def test_a_state_that_was_lost_meanwhile() -> None:
    """A file that somebody deleted, a server that forgot: a refusal of a later generation is one of now."""
    cooldown = Cooldown()
    assert cooldown.begin(10.0, 7)
    assert (cooldown.generation, cooldown.remaining(10.0)) == (8, 1.0)


def test_what_the_backend_asks_for_goes_before_and_counts_from_old_calls_too() -> None:
    cooldown = Cooldown()
    cooldown.begin(0, 0, 7)
    cooldown.begin(1, 0, 9)
    assert cooldown.remaining(1) == 9
    cooldown.begin(2, 0, 3)
    assert cooldown.remaining(2) == 8
    assert cooldown.generation == 1


@pytest.mark.parametrize("hint", [math.inf, 1e300, 3600.0])
def test_no_cooldown_is_longer_than_the_longest(hint: float) -> None:
    cooldown = Cooldown(longest=60)
    cooldown.begin(0, 0, hint)
    assert cooldown.remaining(0) == 60
    assert cooldown.remaining(60) == 0


@pytest.mark.parametrize("hint", [None, -1.0, 0.0, math.nan])
def test_no_hint_is_a_second(hint: float | None) -> None:
    cooldown = Cooldown()
    cooldown.begin(0, 0, hint)
    assert cooldown.remaining(0) == 1


@given(
    st.lists(
        st.tuples(st.floats(-1e5, 1e5), st.integers(0, 5), st.none() | st.floats(allow_nan=True)),
        max_size=30,
    )
)
def test_it_is_always_over_by_itself(events: list[tuple[float, int, float | None]]) -> None:
    """Whatever the clock does, forwards or back, nobody waits longer than the longest."""
    cooldown, now = Cooldown(longest=60), 1e6
    for jump, seen, hint in events:
        now += jump
        cooldown.begin(now, seen, hint)
        assert 0 <= cooldown.remaining(now) <= 60
        assert cooldown.remaining(now + 60) <= 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_fifty_workers_under_random_refusals_never_stall(seed: int, virtually: Virtually) -> None:
    """C-15: fifty workers, half of all calls refused, with and without hints, some cancelled in the queue. While
    somebody waits, the next one is let in when the cooldown is over and not later; outside of cooldowns nobody waits
    longer than the queue takes. A worker that waits for what never comes would end the virtual loop at once."""
    longest, chance = 60.0, random.Random(seed)

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        store = LocalLimits(clock)
        limiter = Limiter(requests_per_minute=6000, model="m", store=store)
        cooldown = store.gate(limiter.key, limiter.rates).cooldown
        waits: list[tuple[float, float]] = []
        cooled: list[tuple[float, float]] = []
        done = 0

        async def call() -> None:
            asked = clock()
            async with limiter.limit():
                waits.append((asked, clock()))
                await asyncio.sleep(chance.uniform(0, 2))
                if chance.random() < 0.5:
                    raise LLMProviderRateLimitError("no", retry_after=chance.choice([None, 0, 0.5, 5, 30, 1e9]))

        async def worker() -> None:
            nonlocal done
            good = 0
            while good < 20:
                try:
                    async with asyncio.timeout(chance.choice([None, None, 3])):
                        await call()
                    good += 1
                except LLMProviderRateLimitError:
                    assert cooldown.until - clock() <= longest + 1e-6
                    cooled.append((clock(), cooldown.until))
                except TimeoutError:
                    await asyncio.sleep(chance.uniform(0, 1))
            done += 1

        await asyncio.gather(*(worker() for _ in range(50)))
        assert done == 50
        pauses: list[list[float]] = []
        for begin, end in cooled:
            if pauses and begin <= pauses[-1][1]:
                pauses[-1][1] = max(end, pauses[-1][1])
            else:
                pauses.append([begin, end])
        assert len(pauses) > 5
        entries = sorted(entry for _, entry in waits)
        for asked, entry in waits:
            cooling = sum(max(0.0, min(end, entry) - max(begin, asked)) for begin, end in pauses)
            # Up to fifty stand in the queue, and about 95 of them go in a second.
            assert entry - asked - cooling <= 50 / 90
        for begin, end in pauses:
            # A cooldown is at most the longest one, and what calls that began before it add while they end.
            assert end - begin <= longest + 2
            assert not any(begin < entry < end - 1e-6 for entry in entries)
        assert max(entry - asked for asked, entry in waits) > 1

    virtually(main)


def test_all_callers_of_a_key_wait_and_others_do_not(virtually: Virtually) -> None:
    """C-15: (provider, key, model) is what shares a cooldown."""

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        store = LocalLimits(clock)
        same: dict[str, Any] = {"provider": "acme", "credential": "k1", "model": "m", "store": store}
        with pytest.raises(LLMProviderRateLimitError):
            async with Limiter(**same).limit():
                raise LLMProviderRateLimitError("no", retry_after=5)
        for other in ({"provider": "other"}, {"credential": "k2"}, {"credential": None}, {"model": "n"}):
            async with Limiter(**{**same, **other}).limit():
                assert clock() == 0
        async with Limiter(**same).limit():
            assert clock() == pytest.approx(5, abs=0.01)

    virtually(main)


def test_after_a_cooldown_calls_come_at_the_pace_of_the_limit(virtually: Virtually) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        limiter = Limiter(requests_per_minute=600, store=LocalLimits(clock))
        with pytest.raises(LLMProviderRateLimitError):
            async with limiter.limit():
                raise LLMProviderRateLimitError("no", retry_after=5)
        went: list[float] = []

        async def one() -> None:
            async with limiter.limit():
                went.append(clock())

        await asyncio.gather(*(one() for _ in range(20)))
        assert went[0] == pytest.approx(5, abs=0.01)
        assert min(b - a for a, b in itertools.pairwise(went)) > 0.09

    virtually(main)


def test_the_bound_of_concurrency_grows_by_one_and_halves(virtually: Virtually) -> None:
    async def main() -> None:
        bound = Concurrency(start=4, most=6)
        under_way = most = 0

        async def call(error: Exception | None = None) -> None:
            nonlocal under_way, most
            async with bound.call():
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(1)
                under_way -= 1
                if error is not None:
                    raise error

        await asyncio.gather(*(call() for _ in range(4)))
        assert (most, bound.bound) == (4, 4)
        await asyncio.gather(*(call() for _ in range(60)))
        assert (most, bound.bound) == (6, 6)
        refused = [call(LLMProviderRateLimitError("no")) for _ in range(6)]
        await asyncio.gather(*refused, return_exceptions=True)
        assert bound.bound == 3  # Halved once, not six times.
        most = 0
        await asyncio.gather(*(call() for _ in range(3)))
        assert most == 3
        for _ in range(5):
            await asyncio.gather(call(LLMProviderRateLimitError("no")), return_exceptions=True)
        assert bound.bound == 1
        await asyncio.gather(*(call() for _ in range(5)))
        assert bound.under_way == 0

    virtually(main)


def test_cancelled_calls_give_their_place_back(virtually: Virtually) -> None:
    async def main() -> None:
        bound = Concurrency(start=1, most=1)

        async def call() -> None:
            async with bound.call():
                await asyncio.sleep(1)

        for wait in (0, 0.5, 1, 1.0001, 1.5):
            tasks = [asyncio.ensure_future(call()) for _ in range(3)]
            await asyncio.sleep(wait)
            tasks[0].cancel()
            tasks[1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await call()
            assert bound.under_way == 0

    virtually(main)


def test_a_place_that_a_closed_loop_was_given_comes_back_once() -> None:
    """First when the loop is found closed, then when its waiter is thrown away."""
    bound = Concurrency(1, 1)

    async def wait() -> None:
        async with bound.call():
            pass

    other = asyncio.new_event_loop()
    waiter = other.create_task(wait())
    waiter._log_destroy_pending = False  # type: ignore[attr-defined]

    async def main() -> None:
        async with bound.call():
            await asyncio.to_thread(other.run_until_complete, asyncio.sleep(0.01))
            other.close()

    asyncio.run(main())
    assert bound.under_way == 0
    del waiter
    gc.collect()
    assert bound.under_way == 0


@pytest.mark.parametrize(
    "error", [LLMProviderRateLimitError("slow down"), LLMProviderRateLimitError("", retry_after=0)]
)
def test_who_would_not_wait_begins_no_cooldown_that_nobody_asked_for(
    error: LLMProviderRateLimitError, virtually: Virtually
) -> None:
    async def main() -> list[float]:
        provider = ScriptedProvider([error] * 9, "m", requests_per_minute=60_000)
        since = asyncio.get_running_loop().time()
        for _ in range(3):
            with pytest.raises(LLMProviderRateLimitError):
                await provider.execute("hi", attempts=3, backoff=0)
        await provider.close()
        return [asyncio.get_running_loop().time() - since]

    assert virtually(main)[0] < 0.1


def test_what_was_said_to_be_left_does_not_hold_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = Concurrency(8, 8)
    bound.hear(Headroom(requests=0))
    bound.hear(Headroom())
    assert bound.bound == 1
    since = time.monotonic()
    monkeypatch.setattr("providers.resilience.concurrency.monotonic", lambda: since + 61)
    assert bound.bound == 8
