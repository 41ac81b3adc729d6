"""Redis down, hanging, coming back, under limits: calls go on, limited in each process, with one warning."""

from __future__ import annotations

import asyncio
import time
import traceback
import warnings
from collections.abc import AsyncIterator

import pytest

from llm_provider_cache_pg_redis import RedisLimits
from providers import LLMProvider
from providers.layers import retry
from providers.layers.limit import LimitLayer
from providers.resilience.levels import Rate
from providers.types import Request, StreamEvent, Usage

from .servers import CANARY, RedisServer, free_port

RATES = (Rate(3, 0.001),)


class Backend(LLMProvider):
    """Answers."""

    name = "backend"

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        yield StreamEvent.token("yes")
        yield StreamEvent.usage(Usage(3, 2))
        yield StreamEvent.finish("stop")


async def fill(store: RedisLimits, key: str, most: int = 20) -> int:
    """How many may go at once."""
    gone = 0
    while gone < most:
        try:
            await asyncio.wait_for(store.acquire(key, RATES, (1,)), 3 if gone < 3 else 0.3)
        except TimeoutError:
            return gone
        gone += 1
    return gone


async def shares_again(store: RedisLimits, redis_server: RedisServer, seconds: float = 40.0) -> bool:
    """Whether Redis hears of calls."""
    redis_server.say("FLUSHALL")
    end = time.monotonic() + seconds
    while redis_server.say("DBSIZE") == b":0\r\n":
        if time.monotonic() > end:
            return False
        await store.acquire("other", (Rate(1000, 1000),), (1,))
        await asyncio.sleep(0.05)
    return True


@pytest.mark.parametrize("how", ["killed", "hangs", "never there"])
async def test_limits_hold_in_this_process(how: str, redis_server: RedisServer) -> None:
    """71: three may go at once and the fourth waits, with Redis or without; one warning; shared again afterwards."""
    url = redis_server.url
    if how == "never there":
        redis_server.kill()
    store = RedisLimits(url)
    if how != "never there":
        await store.acquire("warm", RATES, (1,))
        redis_server.kill() if how == "killed" else redis_server.pause()
    try:
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            assert await fill(store, "k") == 3
            assert await fill(store, "l") == 3
        assert [str(one.message).endswith("for this process alone until it is back") for one in record] == [True]
        assert CANARY not in str(record[0].message)
    finally:
        redis_server.restore()
    assert await shares_again(store, redis_server)
    store.close()


async def test_those_that_wait_go_on_when_it_dies(redis_server: RedisServer) -> None:
    """One has paid and waits for its time, others stand behind; a cooldown is known; then the server goes."""
    store, rates = RedisLimits(redis_server.url), (Rate(1, 20),)
    await store.acquire("k", rates, (1,))
    waiting = [asyncio.ensure_future(store.acquire("k", rates, (1,))) for _ in range(10)]
    await asyncio.sleep(0.1)
    redis_server.kill()
    with pytest.warns(UserWarning, match="this process alone"):
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
    seen = await store.acquire("k", rates, (1,))
    store.cool("k", rates, seen, 0.3)
    begun = time.monotonic()
    assert await asyncio.wait_for(store.acquire("k", rates, (1,)), 5) == seen + 1
    assert time.monotonic() - begun > 0.2
    redis_server.start()
    assert await shares_again(store, redis_server)
    # Redis has forgotten the cooldowns; one that is told of a later generation begins all the same.
    store.cool("k", rates, seen + 1, 0.4)
    begun = time.monotonic()
    assert await asyncio.wait_for(store.acquire("k", rates, (1,)), 5) == seen + 2
    assert time.monotonic() - begun > 0.2
    store.close()


async def test_a_provider_answers_while_redis_is_killed_again_and_again(redis_server: RedisServer) -> None:
    store = RedisLimits(redis_server.url)
    limits = LimitLayer("backend", "key", store=store, requests_per_minute=600_000)
    backend = Backend("m", layers=(retry, limits))
    stop, answers, longest = False, 0, 0.0

    async def caller() -> None:
        nonlocal answers, longest
        while not stop:
            begun = time.monotonic()
            assert (await backend.execute("?")).content == "yes"
            longest = max(longest, time.monotonic() - begun)
            answers += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callers = [asyncio.ensure_future(caller()) for _ in range(8)]
        for _ in range(3):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(redis_server.kill)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(redis_server.start)
        redis_server.pause()
        await asyncio.sleep(1)
        redis_server.go_on()
        stop = True
        await asyncio.gather(*callers)
    assert answers > 100
    assert longest < 6
    store.close()


@pytest.mark.parametrize("url", ["redis://:{}@127.0.0.1:{}/0?unknown_option=1", "redis://:{}@127.0.0.1:{}/x"])
async def test_an_address_that_the_client_refuses_holds_nobody_up(url: str) -> None:
    store = RedisLimits(url.format(CANARY, free_port()))
    with pytest.warns(UserWarning, match="this process alone") as record:
        await asyncio.wait_for(store.acquire("k", RATES, (1,)), 10)
    assert CANARY not in str(record[0].message)
    store.close()


async def test_a_warning_that_is_an_error_costs_no_call() -> None:
    store = RedisLimits(f"redis://:{CANARY}@127.0.0.1:{free_port()}/0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            await asyncio.wait_for(store.acquire("k", RATES, (1,)), 10)
        except Exception as error:
            pytest.fail("".join(traceback.format_exception(error)))
    store.close()
