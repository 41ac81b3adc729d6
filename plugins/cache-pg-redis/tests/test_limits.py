"""Limits in Redis: processes share them, by the server's own clock, whatever happens to one of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from llm_provider_cache_pg_redis import RedisLimits
from providers import LLMProviderRateLimitError
from providers.resilience.levels import UNLIMITED, Rate
from providers.resilience.limiter import Limiter, LimitStore
from providers.testing import LoopbackServer, Reply

from .servers import CANARY, RedisServer, wait_for

WORKER = Path(__file__).with_name("worker.py")
Open = Callable[[], RedisLimits]


@pytest.fixture
def open_store(redis_server: RedisServer) -> Iterator[Open]:
    redis_server.say("FLUSHALL")
    made: list[RedisLimits] = []

    def build() -> RedisLimits:
        made.append(RedisLimits(redis_server.url, timeout=5))
        return made[-1]

    yield build
    for store in made:
        store.close()


@pytest.fixture
def store(open_store: Open) -> RedisLimits:
    return open_store()


def start(
    redis: str, server: LoopbackServer, seconds: float, limit: float, period: float, *names: str
) -> list[subprocess.Popen[bytes]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [sys.executable, str(WORKER), redis, server.url, str(seconds), str(limit), str(period)]
    processes = [subprocess.Popen([*words, name], **pipes) for name in names]  # type: ignore[call-overload]
    for process in processes:
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    return processes


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors.decode()
    assert errors == b""


def most_in(arrivals: list[float], window: float) -> int:
    most = first = 0
    for at, time_ in enumerate(arrivals):
        while arrivals[first] <= time_ - window:
            first += 1
        most = max(most, at - first + 1)
    return most


@pytest.mark.slow
def test_four_processes_share_a_cap_through_redis(redis_server: RedisServer) -> None:
    """C-15. 600 requests a minute, looked at through a window of 4 seconds: four processes of eight callers each, with
    only the server in common, get at most 40 requests through in any 4 seconds, and at least 36 in each of them while
    all four are at work. Each process has its part."""
    period, limit, seconds = 4.0, 40, 9.0
    redis_server.say("FLUSHALL")
    with LoopbackServer() as server:
        server.script("*", Reply.json({}), repeat=True)
        for process in start(redis_server.url, server, seconds, limit, period, *(f"p{at}" for at in range(4))):
            finish(process)
        requests = server.requests
    arrivals = sorted(request.received_at for request in requests)
    assert most_in(arrivals, period) <= limit
    names = [
        {request.path: request.received_at for request in reversed(requests)},
        {request.path: request.received_at for request in requests},
    ]
    begin, end = max(names[0].values()), min(names[1].values())
    assert end - begin > period
    at, least = begin, limit
    while at + period <= end:
        least = min(least, sum(at <= arrival < at + period for arrival in arrivals))
        at += 0.05
    print(f"most {most_in(arrivals, period)} and least {least} of {limit} in {period:g} s")
    assert least >= 0.9 * limit
    parts = Counter(request.path for request in requests)
    assert len(parts) == 4
    assert min(parts.values()) >= 0.5 * len(requests) / 4


@pytest.mark.slow
async def test_a_killed_process_leaves_the_others_their_limit(redis_server: RedisServer, store: RedisLimits) -> None:
    """Six processes, killed while they call, two at a time; then this one gets what the limit allows."""
    limit, period = 400, 4.0
    limiter = Limiter(requests_per_minute=limit, period=period, model="m", provider="acme", store=store)
    gone: list[float] = []

    async def caller() -> None:
        while True:
            async with limiter.limit():
                gone.append(time.monotonic())

    callers = [asyncio.ensure_future(caller()) for _ in range(8)]
    with LoopbackServer() as server:
        server.script("*", Reply.json({}), repeat=True)
        for at in range(3):
            names = [f"victim{at}{one}" for one in range(2)]
            victims = await asyncio.to_thread(start, redis_server.url, server, 60, limit, period, *names)
            for one, victim in enumerate(victims):
                assert await asyncio.to_thread(server.wait_until, partial(server.count, f"/victim{at}{one}"), 30)
                await asyncio.sleep(0.037 * (at + one))
                os.kill(victim.pid, signal.SIGKILL)
                victim.communicate()
    # What the last two had paid for passes within a second.
    await asyncio.sleep(1)
    before, begun = len(gone), time.monotonic()
    await asyncio.sleep(2)
    assert (len(gone) - before) / (time.monotonic() - begun) > 0.8 * limit / period
    for task in callers:
        task.cancel()
    await asyncio.gather(*callers, return_exceptions=True)


async def test_stores_share_levels_and_cooldown(open_store: Open) -> None:
    store, other = open_store(), open_store()
    rates = (Rate(10, 0.001),)
    await store.acquire("k", rates, (6,))
    await other.acquire("k", rates, (4,))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.acquire("k", rates, (1,)), 0.2)
    other.charge("k", rates, (-1,))
    await asyncio.wait_for(other.acquire("k", rates, (1,)), 5)

    store.cool("c", (), await store.acquire("c", (), ()), 0.5)
    store.close()
    begun = time.monotonic()
    assert await other.acquire("c", (), ()) == 1
    assert 0.2 < time.monotonic() - begun < 5


async def test_a_limiter_settles_and_cools_in_redis(open_store: Open, redis_server: RedisServer) -> None:
    store, other = open_store(), open_store()
    limiter = Limiter(tokens_per_minute=10_000, model="m", provider="p", credential=CANARY, store=store)
    async with limiter.limit(tokens=100) as ctx:
        ctx.output_tokens = 200
    store.close()
    twin = Limiter(tokens_per_minute=10_000, model="m", provider="p", credential=CANARY, store=other)
    # 400 at once, and 300 of them are gone.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(twin.limit(tokens=140).__aenter__(), 0.2)
    with pytest.raises(LLMProviderRateLimitError):
        async with limiter.limit(tokens=1):
            raise LLMProviderRateLimitError("no", retry_after=30)
    store.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(twin.limit().__aenter__(), 0.3)
    keys = redis_server.say("KEYS", "*")
    assert keys.startswith(b"*1\r\n")
    assert CANARY.encode() not in keys
    assert b"llm-limits:1:p%2F" in keys


async def test_the_figures_are_those_of_this_process(store: RedisLimits) -> None:
    """Cooldowns double, end, are not set twice by calls of one generation, and are forgotten after a success."""
    rates = (Rate(5, 50), UNLIMITED)
    seen = await store.acquire("k", rates, (1, 100))
    for _ in range(3):
        store.cool("k", rates, seen, 0.2)
    begun = time.monotonic()
    assert await store.acquire("k", rates, (1, 100)) == seen + 1
    assert 0.1 < time.monotonic() - begun < 3
    store.passed("k", rates, seen + 1)
    store.cool("k", rates, seen, None)  # of an older generation: says nothing
    assert await asyncio.wait_for(store.acquire("k", rates, (1, 100)), 3) == seen + 1
    store.cool("k", rates, seen + 1, float("nan"))
    begun = time.monotonic()
    assert await asyncio.wait_for(store.acquire("k", rates, (1, 100)), 5) == seen + 2
    assert time.monotonic() - begun > 0.8


async def test_a_cooldown_cannot_be_left_set(store: RedisLimits, redis_server: RedisServer) -> None:
    """It ends by itself, whatever was asked for, and so does the key."""
    rates = (Rate(5, 50),)
    store.cool("k", rates, await store.acquire("k", rates, (1,)), 1e9)
    store.close()
    key = "llm-limits:1:k"
    _, _, state = redis_server.say("GET", key).decode().partition("\r\n")
    figures = [float(word) for word in state.split()]
    assert 50 < figures[4] - figures[1] <= 60
    assert 3600 <= int(redis_server.say("TTL", key)[1:]) < 4000
    # A clock that was set back by a day: the pause is no longer than it was.
    figures[4], figures[5], figures[1] = figures[4] + 86_400, figures[5] + 86_400, figures[1] + 86_400
    figures[4], figures[6] = figures[5] + 0.5, 5.0
    redis_server.say("SET", key, " ".join(map(str, figures)))
    await asyncio.wait_for(store.acquire("k", rates, (1,)), 5)


@pytest.mark.parametrize("value", ["", "garbage", "1 2 3", "9 1 1 1 1 1 1", "1 nan nan nan nan nan nan", "1 2 3 4 x 5"])
async def test_a_damaged_state_counts_as_unused(value: str, store: RedisLimits, redis_server: RedisServer) -> None:
    redis_server.say("SET", "llm-limits:1:k", value)
    await asyncio.wait_for(store.acquire("k", (Rate(2, 0.001),), (2,)), 5)
    redis_server.say("DEL", "llm-limits:1:k")
    redis_server.say("LPUSH", "llm-limits:1:k", "a list")
    await asyncio.wait_for(store.acquire("k", (Rate(2, 0.001),), (2,)), 5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.acquire("k", (Rate(2, 0.001),), (2,)), 0.2)


async def test_waiters_are_served_in_order_and_cancelled_ones_take_nothing(store: RedisLimits) -> None:
    rates = (Rate(2, 20),)
    order: list[int] = []

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
    assert (len(order) - 2) / 20 - 0.02 <= took <= (len(order) - 2) / 20 + 3
    await asyncio.sleep(0.3)
    await asyncio.wait_for(store.acquire("k", rates, (2,)), 0.3)


@pytest.mark.parametrize("when", ["on its way", "let in and not told", "waiting for its time", "anywhere"])
async def test_a_call_that_is_cancelled_takes_nothing(when: str, store: RedisLimits, redis_server: RedisServer) -> None:
    """54: whatever it had got by then is there again."""
    rates = (Rate(10, 1e-6),)
    await store.acquire("k", rates, (0,))
    line = store._lines["k"]
    waiting = [asyncio.ensure_future(store.acquire("k", rates, (10,)))]
    if when == "on its way":
        redis_server.pause()
        waiting.append(asyncio.ensure_future(store.acquire("k", rates, (10,))))
        await asyncio.sleep(0)
        assert await asyncio.to_thread(wait_for, lambda: not line.queue)
    elif when == "let in and not told":
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 - the loop shall not hear of it
    elif when == "waiting for its time":
        await asyncio.wait(waiting)
        waiting.append(asyncio.ensure_future(store.acquire("k", rates, (10,))))
        assert await asyncio.to_thread(wait_for, lambda: line.held)
    else:
        for turns in range(40):
            waiting.append(asyncio.ensure_future(store.acquire("k", rates, (10,))))
            await asyncio.sleep(0.0001 * turns)
            for task in waiting:
                task.cancel()
    done = sum(task.done() and not task.cancelled() for task in waiting)
    for task in waiting:
        task.cancel()
    redis_server.go_on()
    await asyncio.gather(*waiting, return_exceptions=True)
    if when == "waiting for its time":
        # What it had paid is no debt of the next one.
        await asyncio.wait_for(store.acquire("k", rates, (0,)), 4)
    if done:
        store.charge("k", rates, (-10 * done,))
    await asyncio.wait_for(store.acquire("k", rates, (10,)), 4)


async def test_several_loops_and_threads_and_a_loop_that_died(store: RedisLimits) -> None:
    rates = (Rate(2, 100),)
    dead = asyncio.new_event_loop()

    async def leave() -> asyncio.Task[int]:
        await store.acquire("k", rates, (2,))
        task = asyncio.ensure_future(store.acquire("k", rates, (2,)))
        await asyncio.sleep(0)
        return task

    def die() -> None:
        task = dead.run_until_complete(leave())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        dead.close()

    async def work() -> None:
        await asyncio.gather(*(store.acquire("k", rates, (1,)) for _ in range(10)))

    await asyncio.to_thread(die)
    await asyncio.wait_for(asyncio.gather(*(asyncio.to_thread(asyncio.run, work()) for _ in range(4))), 10)


async def test_a_key_with_many_words_keeps_no_other_waiting(store: RedisLimits) -> None:
    stop, rates = threading.Event(), (Rate(1000, 1000),)

    def hammer() -> None:
        while not stop.is_set():
            store.charge("a", rates, (0.001,))

    await store.acquire("b", rates, (1,))
    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        for _ in range(20):
            await asyncio.wait_for(store.acquire("b", rates, (1,)), 5)
    finally:
        stop.set()
        thread.join()


async def test_the_thread_ends_when_there_is_nothing_to_do(store: RedisLimits) -> None:
    def threads() -> int:
        return sum(thread.name == "llm-limits-redis" for thread in threading.enumerate())

    assert threads() == 0
    await store.acquire("k", (), ())
    assert threads() == 1
    store.close()
    assert threads() == 0
    await store.acquire("k", (), ())
    assert threads() == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on_with_the_server(redis_server: RedisServer) -> None:
    redis_server.say("FLUSHALL")
    code = f"""
import asyncio, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from providers.resilience.levels import Rate
from llm_provider_cache_pg_redis import RedisLimits
store = RedisLimits({redis_server.url!r}, timeout=5)
async def take(n):
    await asyncio.wait_for(store.acquire("k", (Rate(10, 0.001),), (n,)), 5)
asyncio.run(take(4))
pid = os.fork()
asyncio.run(take(3))
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    try:
        asyncio.run(asyncio.wait_for(take(1), 0.5))
    except TimeoutError:
        print("shared")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("shared\n", "", 0)


def test_it_is_a_limit_store(store: RedisLimits) -> None:
    found: LimitStore = store
    assert CANARY not in repr(found)
