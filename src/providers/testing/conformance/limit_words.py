"""What a limit store does for callers: their order, their amounts, keys, rates, pauses; and for those that go away."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from contextlib import suppress

import pytest

from ...exceptions import LLMProviderRateLimitError
from ...resilience.levels import UNLIMITED, Rate
from ...resilience.limiter import Limiter, LimitStore
from .limit_kit import NEVER, LimitKit, Open


class LimitWordTests(LimitKit):
    """The words of the protocol."""

    def test_it_is_a_limit_store(self) -> None:
        """The words, `acquire` alone awaited; and nothing is done before the first of them."""

        async def work(make: Open) -> None:
            before = set(threading.enumerate())
            store = make()
            assert set(threading.enumerate()) - before == set()
            assert inspect.iscoroutinefunction(store.acquire)
            for word in (store.charge, store.cool, store.passed):
                assert not inspect.iscoroutinefunction(word)
            assert await self._soon(store.acquire("k", (), ())) == 0

        self._run(work)

    def test_what_was_taken_is_gone_and_comes_back_with_time(self) -> None:
        """All buckets count; nothing is let in twice; a debt is paid first."""

        async def work(make: Open) -> None:
            store, rates = make(), (Rate(5, NEVER), Rate(100, 50))
            await self._soon(store.acquire("k", rates, (3, 100)))
            begun = time.monotonic()
            await self._soon(store.acquire("k", rates, (2, 50)), 1)
            assert time.monotonic() - begun > 0.8
            await self._must_wait(store, "k", rates, (1, 0))
            store.charge("k", rates, (-4, 0))
            store.charge("k", rates, (3, 0))
            await self._must_wait(store, "k", rates, (2, 0))
            await self._soon(store.acquire("k", rates, (1, 0)))
            # More than a bucket holds goes once it is full, and leaves a debt.
            store.charge("k", rates, (-5, 0))
            await self._soon(store.acquire("k", rates, (20, 0)))
            store.charge("k", rates, (-14, 0))
            await self._must_wait(store, "k", rates, (1, 0))
            store.charge("k", rates, (-1, 0))
            await self._must_wait(store, "k", rates, (1, 0))
            store.charge("k", rates, (7, 0))
            store.charge("k", rates, (-7, 0))
            await self._must_wait(store, "k", rates, (1, 0))
            # No bucket holds more than its capacity, whatever is given back.
            store.charge("k", rates, (-1000, 0))
            await self._soon(store.acquire("k", rates, (5, 0)))
            await self._must_wait(store, "k", rates, (1, 0))

        self._run(work)

    def test_keys_are_apart(self) -> None:
        """C-15: neither levels nor pauses of a key are those of another, however alike or odd their names are."""
        keys = [
            "acme/1f/m",
            "acme/1f/M",
            "acme/1f",
            "ä b/🌍",
            "%",
            "*",
            "'; DROP TABLE limits; --",
            "x" * 300,
            " ",
            "a\nb",
        ]
        rates = (Rate(1, NEVER),)

        async def work(make: Open) -> None:
            store = make()
            await self._soon(asyncio.gather(*(store.acquire(key, rates, (0,)) for key in keys)))
            await self._soon(store.acquire("other", rates, (1,)))
            store.cool("other", rates, 0, 30)
            for key in keys:
                assert await self._soon(store.acquire(key, rates, (1,))) == 0
            for key in keys:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(store.acquire(key, rates, (1,)), 0.03)

        self._run(work)

    def test_other_rates_count_from_then_on(self) -> None:
        """A key's limit may change at work; those that wait have the new one. Who knows none changes nothing."""

        async def work(make: Open) -> None:
            store, slow, fast = make(), (Rate(1, 0.001), UNLIMITED), (Rate(1, 50), UNLIMITED)
            await self._soon(store.acquire("k", slow, (1, 0)))
            waiter = asyncio.ensure_future(store.acquire("k", slow, (1, 0)))
            await asyncio.sleep(0.1)
            assert not waiter.done()
            await self._soon(store.acquire("k", fast, (0, 0)))
            await self._soon(waiter)
            await self._soon(store.acquire("k", (UNLIMITED, UNLIMITED), (1, 1)))
            begun = time.monotonic()
            for _ in range(20):
                await self._soon(store.acquire("k", fast, (1, 0)))
            assert time.monotonic() - begun > 0.3

        self._run(work)

    def test_stores_share_levels_and_pauses(self) -> None:
        """C-15: those over one place, where they are shared; otherwise each is alone."""
        rates = (Rate(10, NEVER),)

        async def work(make: Open) -> None:
            store, other = make(), make()
            await self._soon(store.acquire("k", rates, (6,)))
            await self._soon(other.acquire("k", rates, (4 if self.shared else 10,)))
            await self._must_wait(store, "k", rates, (1 if self.shared else 5,))
            other.charge("k", rates, (-1,))
            await self._soon(other.acquire("k", rates, (1,)))
            await self._must_wait(store, "k", rates, (1 if self.shared else 5,))

            store.cool("c", (), await store.acquire("c", (), ()), 0.5)
            await self._close(store)
            begun = time.monotonic()
            assert await self._soon(other.acquire("c", (), ())) == int(self.shared)
            assert (time.monotonic() - begun > 0.2) is self.shared

        self._run(work)

    def test_a_limiter_settles_and_cools_in_the_store(self) -> None:
        """F-111: what the answer took is charged, and a refusal is heard; by another limiter over the same place."""

        async def work(make: Open) -> None:
            store = make()
            other = make() if self.shared else store
            limiter, twin = (
                Limiter(tokens_per_minute=10_000, model="m", provider="p", credential="sk-1", store=one)
                for one in (store, other)
            )
            async with limiter.limit(tokens=100) as ctx:
                ctx.output_tokens = 200
            await self._close(store)
            # 400 at once, and 300 of them are gone.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(twin.limit(tokens=140).__aenter__(), 0.1)
            with pytest.raises(LLMProviderRateLimitError):
                async with limiter.limit(tokens=1):
                    raise LLMProviderRateLimitError("no", retry_after=30)
            await self._close(store)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(twin.limit().__aenter__(), 0.3)

        self._run(work)

    def test_pauses_of_one_moment_are_one_and_grow_until_a_call_goes_well(self) -> None:
        """C-15: calls of one generation are one sign; a pause that nobody gave a length to doubles; `passed` ends the
        row, and is not heard from a call that began before the last pause; no number is no length."""
        rates = (Rate(5, 50), UNLIMITED)

        async def work(make: Open) -> None:
            store = make()

            async def entry(after: float = 0.0) -> tuple[int, float]:
                begun = time.monotonic()
                generation = await self._soon(store.acquire("k", rates, (1, 100)), after)
                return generation, time.monotonic() - begun

            seen, _ = await entry()
            for _ in range(3):
                store.cool("k", rates, seen, 0.2)
            generation, took = await entry(0.2)
            assert generation == seen + 1
            assert took > 0.1
            store.cool("k", rates, seen, None)  # of an older generation: says nothing
            generation, took = await entry()
            assert generation == seen + 1
            for more in range(1, 5):
                store.cool("k", rates, seen + more, 0.01)
                generation, _ = await entry(0.5)
                assert generation == seen + more + 1
            store.passed("k", rates, seen + 4)
            await entry()
            store.passed("k", rates, seen + 5)
            await entry()
            # The sixth in a row would be of 32 seconds; this is the first again.
            store.cool("k", rates, seen + 5, float("nan"))
            generation, took = await entry(1)
            assert generation == seen + 6
            assert took > 0.8
            store.passed("k", rates, seen + 5)
            store.cool("k", rates, seen + 6, None)
            generation, took = await entry(2)
            assert generation == seen + 7
            assert took > 1.7

        self._run(work)

    def test_a_call_that_takes_long_ends_a_row_of_pauses(self) -> None:
        """Most calls take longer than a store looks after a key of which nothing is to be said."""

        async def work(make: Open) -> None:
            store, rates = make(), (Rate(100, 100),)
            for _ in range(2):
                store.cool("k", rates, await self._soon(store.acquire("k", rates, (1,))), None)
                generation = await self._soon(store.acquire("k", rates, (1,)), 1)
                await asyncio.sleep(2.5)
                store.passed("k", rates, generation)
            begun = time.monotonic()
            store.cool("k", rates, await self._soon(store.acquire("k", rates, (1,))), None)
            await self._soon(store.acquire("k", rates, (1,)), 1)
            # The first pause takes a second, one behind another two.
            assert time.monotonic() - begun < 1.6 + self.slack

        self._run(work)

    def test_a_mistake_of_one_caller_harms_no_other_one(self) -> None:
        """A wrong number of amounts is told to who gave it."""

        async def work(make: Open) -> None:
            store, rates = make(), (Rate(10, 10), Rate(10, 10))
            good = asyncio.ensure_future(store.acquire("k", rates, (1, 1)))
            with pytest.raises(ValueError):  # noqa: PT011 - which words is the store's to say
                await self._soon(store.acquire("k", rates, (1,)))
            with suppress(ValueError):
                store.charge("k", rates, (1,))
            await self._soon(good)
            await self._soon(store.acquire("k", rates, (1, 1)))

        self._run(work)

    def test_waiters_are_served_in_order(self) -> None:
        """First come, first served, as fast as the limit allows, and those that are cancelled cost no time."""
        rates = (Rate(2, 20),)

        async def work(make: Open) -> None:
            store, order = make(), list[int]()

            async def one(number: int) -> None:
                await store.acquire("k", rates, (1,))
                order.append(number)

            begun = time.monotonic()
            tasks = [asyncio.ensure_future(one(number)) for number in range(20)]
            await asyncio.sleep(0.12)
            for task in tasks[1:16:2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            took = time.monotonic() - begun
            assert order == sorted(order)
            assert len(order) < 16
            assert (len(order) - 2) / 20 - 0.02 <= took <= (len(order) - 2) / 20 + self.slack

        self._run(work)

    @pytest.mark.parametrize("when", ["let in and not told", "waiting for its time", "anywhere"])
    def test_a_call_that_is_cancelled_takes_nothing(self, when: str) -> None:
        """54: whatever it had got by then is there again."""
        rates = (Rate(10, NEVER),)

        async def work(make: Open) -> None:
            store = make()
            await store.acquire("k", rates, (0,))
            waiting = [asyncio.ensure_future(store.acquire("k", rates, (10,)))]
            if when == "let in and not told":
                await asyncio.sleep(0)
                time.sleep(0.5)  # noqa: ASYNC251 - the loop shall not hear of it
            elif when == "waiting for its time":
                await asyncio.wait(waiting)
                waiting.append(asyncio.ensure_future(store.acquire("k", rates, (10,))))
                await asyncio.sleep(0.3)
            else:
                for turns in range(40):
                    waiting.append(asyncio.ensure_future(store.acquire("k", rates, (10,))))
                    await asyncio.sleep(0.0001 * turns)
                    for task in waiting:
                        task.cancel()
            done = sum(task.done() and not task.cancelled() for task in waiting)
            assert done <= 1
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            if when == "waiting for its time":
                # What it had paid is no debt of the next one.
                await self._soon(store.acquire("k", rates, (0,)))
            store.charge("k", rates, (-10 * done,))
            await self._soon(store.acquire("k", rates, (10,)))
            await self._must_wait(store, "k", rates, (1,))

        self._run(work)

    @pytest.mark.parametrize("same", [True, False], ids=["one store", "two"])
    def test_who_knows_no_limit_takes_none_away_from_those_who_do(self, same: bool) -> None:
        """C-15: one caller without limits beside three with one, for the same key."""

        async def work(make: Open) -> None:
            known: LimitStore = make()
            limited = Limiter(requests_per_minute=600, model="m", store=known)
            free, let_in = Limiter(model="m", store=known if same else make()), [0, 0]

            async def call(limiter: Limiter, at: int) -> None:
                while True:
                    async with limiter.limit():
                        let_in[at] += 1
                    await asyncio.sleep(0.005)

            begun = time.monotonic()
            tasks = [asyncio.create_task(call(*one)) for one in [(limited, 0)] * 3 + [(free, 1)]]
            await asyncio.sleep(2)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # 24 at once, and one each tenth of a second.
            assert 30 <= let_in[0] <= 24 + 10 * (time.monotonic() - begun) + 3
            assert let_in[1] > 5

        self._run(work)
