"""What was replaced while a part was left alone, so that it was never told, is not given out when it is back."""

from __future__ import annotations

import asyncio
import time
import warnings

import pytest

from providers.caches import CacheKey

from .conftest import Make
from .servers import PostgresServer, RedisServer, Server

KEY = CacheKey("ab" * 32)
PATIENCE = 40.0


@pytest.mark.parametrize("which", ["redis", "postgres"])
async def test_what_a_part_was_never_told_is_put_right_before_it_is_asked(
    which: str, make: Make, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    """F-107: a word to a part that hangs may still be done when it goes on; one while it is left alone never is."""
    server: Server = redis_server if which == "redis" else postgres_server
    store = make(timeout=0.5)
    await store.warm()
    await store.put(KEY, "[1]")
    running = store._now
    assert running is not None
    part = running.redis if which == "redis" else running.pg
    assert part is not None
    server.pause()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await store.put(KEY, "[2]")
            assert part.down
            await store.put(KEY, "[3]")  # the part is not asked any more
            entry = await store.get(KEY)
            assert entry is not None
            assert entry.text == "[3]"
    finally:
        server.go_on()
    end = time.monotonic() + PATIENCE
    while part.down:
        assert time.monotonic() < end
        await store.get(KEY)
        await asyncio.sleep(0.05)
    for fresh in (store, make(timeout=20), make(timeout=20, redis_url=None)):
        entry = await fresh.get(KEY)
        assert entry is not None
        assert entry.text == "[3]"
