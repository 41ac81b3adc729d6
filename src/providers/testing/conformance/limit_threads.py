"""What a limit store does for several event loops and threads: one limit for all, nobody held up, nothing left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from ...resilience.levels import Rate
from ..loops import loop_delays
from .limit_kit import NEVER, LimitKit, Open


class LimitThreadTests(LimitKit):
    """Loops and threads."""

    def test_several_loops_and_threads_and_a_loop_that_died(self) -> None:
        """55, 57: they share one limit; a loop that was closed with a waiter in the line holds nobody up."""
        rates = (Rate(2, 100),)

        async def work(make: Open) -> None:
            store, dead = make(), asyncio.new_event_loop()

            async def leave() -> asyncio.Task[int]:
                await store.acquire("k", rates, (2,))
                task = asyncio.ensure_future(store.acquire("k", rates, (2,)))
                await asyncio.sleep(0)
                return task

            def die() -> None:
                task = dead.run_until_complete(leave())
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                dead.close()

            async def some() -> None:
                await self._soon(asyncio.gather(*(store.acquire("k", rates, (1,)) for _ in range(10))))

            await asyncio.to_thread(die)
            begun = time.monotonic()
            await asyncio.gather(*(asyncio.to_thread(asyncio.run, some()) for _ in range(4)))
            assert time.monotonic() - begun > 0.3

        self._run(work)

    def test_what_does_not_wait_may_be_said_from_any_thread(self) -> None:
        """Where no loop runs too; and it is not lost."""
        rates = (Rate(10, NEVER),)

        async def work(make: Open) -> None:
            store = make()
            await self._soon(store.acquire("k", rates, (10,)))

            def give_back() -> None:
                for _ in range(200):
                    store.charge("k", rates, (-0.01,))

            words: list[Callable[[], None]] = [
                give_back,
                lambda: store.charge("k", rates, (-1,)),
                lambda: store.passed("c", (), 0),
                lambda: store.cool("c", (), 0, 0.2),
            ]
            threads = [threading.Thread(target=word) for word in words]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert await self._soon(store.acquire("c", (), ())) == 1
            await self._soon(store.acquire("k", rates, (3,)))
            await self._must_wait(store, "k", rates, (1,))

        self._run(work)

    def test_no_event_loop_is_held_up(self) -> None:
        """Neither by a caller that waits for its turn, nor by what is said meanwhile, nor by a pause."""
        rates = (Rate(1, 4),)

        async def work(make: Open) -> None:
            store = make()
            await self._soon(store.acquire("k", rates, (1,)))
            store.cool("c", (), 0, 0.3)
            async with loop_delays() as delays:
                waiting = [store.acquire("k", rates, (1,)), store.acquire("k", rates, (1,)), store.acquire("c", (), ())]
                tasks = [asyncio.ensure_future(one) for one in waiting]
                for _ in range(60):
                    store.charge("other", rates, (0.01,))
                    store.passed("other", rates, 0)
                    await asyncio.sleep(0.005)
                assert not tasks[1].done()
                await self._soon(asyncio.gather(*tasks), 1)
            assert max(delays) < 0.2

        self._run(work)

    def test_a_key_with_many_words_keeps_no_other_waiting(self) -> None:
        """One caller says a thousand words for one key; the callers of another go on."""
        rates = (Rate(1000, 1000),)

        async def work(make: Open) -> None:
            store, stop = make(), threading.Event()

            def hammer() -> None:
                while not stop.is_set():
                    store.charge("a", rates, (0.001,))

            await store.acquire("b", rates, (1,))
            thread = threading.Thread(target=hammer)
            thread.start()
            try:
                for _ in range(20):
                    await self._soon(store.acquire("b", rates, (1,)))
            finally:
                stop.set()
                thread.join()

        self._run(work)

    def test_the_threads_end_when_there_is_nothing_to_do(self) -> None:
        """Those that are named while the store is used, none after `close`; and then from the beginning."""

        async def work(make: Open) -> None:
            store, before = make(), set(threading.enumerate())
            for _ in range(2):
                await self._soon(store.acquire("k", (), ()))
                assert sorted(one.name for one in set(threading.enumerate()) - before) == sorted(self.threads)
                await self._close(store)
                assert set(threading.enumerate()) - before == set()

        self._run(work)
