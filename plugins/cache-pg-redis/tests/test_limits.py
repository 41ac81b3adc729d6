"""Limits in Redis: processes share them, by the server's own clock, whatever happens to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from llm_provider_cache_pg_redis import RedisLimits
from providers.resilience.levels import Rate
from providers.resilience.limiter import Limiter, LimitStore
from providers.testing import SharedLimitConformance

from .servers import CANARY, RedisServer, wait_for


class TestRedisLimits(SharedLimitConformance):
    """C-15"""

    # A machine under load may take longer than what a caller would wait for.
    slack = 3.0
    threads = ("llm-limits-redis",)
    url: str

    @pytest.fixture(autouse=True)
    def _redis(self, redis_server: RedisServer) -> None:
        redis_server.say("FLUSHALL")
        self.url = redis_server.url

    def make_store(self) -> LimitStore:
        return RedisLimits(self.url, timeout=5)

    def source(self) -> str:
        return f"from llm_provider_cache_pg_redis import RedisLimits\nstore = RedisLimits({self.url!r}, timeout=5)"


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisLimits]:
    redis_server.say("FLUSHALL")
    found = RedisLimits(redis_server.url, timeout=5)
    yield found
    found.close()


async def test_neither_keys_nor_the_store_tell_a_secret(store: RedisLimits, redis_server: RedisServer) -> None:
    async with Limiter(tokens_per_minute=10_000, model="m", provider="p", credential=CANARY, store=store).limit(1):
        pass
    store.close()
    keys = redis_server.say("KEYS", "*")
    assert keys.startswith(b"*1\r\n")
    assert CANARY.encode() not in keys
    assert b"llm-limits:1:p%2F" in keys
    assert CANARY not in repr(store)


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


async def test_a_call_that_is_cancelled_on_its_way_takes_nothing(store: RedisLimits, redis_server: RedisServer) -> None:
    """54: while Redis hangs over it, and behind one that Redis hangs over."""
    rates = (Rate(10, 1e-6),)
    await store.acquire("k", rates, (0,))
    redis_server.pause()
    waiting = [asyncio.ensure_future(store.acquire("k", rates, (10,))) for _ in range(2)]
    await asyncio.sleep(0)
    assert await asyncio.to_thread(wait_for, lambda: not store._lines["k"].queue)
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    redis_server.go_on()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.wait_for(store.acquire("k", rates, (10,)), 4)
