"""A server that is down, hangs, dies in the middle or comes back costs hits and no answers."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from llm_provider_cache_pg_redis import HybridRedisPostgreSQLCache
from providers import LLMProvider, LLMProviderConnectionError
from providers.caches import CacheKey
from providers.layers import retry
from providers.layers.cache import ResponseCache
from providers.types import Request, StreamEvent, Usage

from .conftest import Make
from .servers import CANARY, PostgresServer, RedisServer, Server, free_port

KEY = CacheKey("ab" * 32)
TEXT = '{"schema":1}'


class Backend(LLMProvider):
    """Counts its calls."""

    name = "backend"
    calls = 0

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        self.calls += 1
        yield StreamEvent.token(f"to {request.messages.last_text}")
        yield StreamEvent.usage(Usage(3, 2))
        yield StreamEvent.finish("stop")


class Application:
    """A provider behind the cache; notes how long each call took and whether it was a hit."""

    def __init__(self, store: HybridRedisPostgreSQLCache, patience: float = 30.0) -> None:
        self.backend = Backend("m", layers=(ResponseCache(store, "backend", patience=patience), retry))
        self.longest = 0.0

    async def __call__(self, text: str) -> bool:
        begun = time.monotonic()
        response = await self.backend.execute(text, cache_response=True)
        self.longest = max(self.longest, time.monotonic() - begun)
        assert response.content == f"to {text}"
        return bool(response.metadata["cache"]["hit"])

    async def hits_again(self, text: str, seconds: float = 40.0) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if await self(text):
                return True
            await asyncio.sleep(0.1)
        return False


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest, redis_server: RedisServer, postgres_server: PostgresServer) -> Server:
    return redis_server if request.param == "redis" else postgres_server


def caught(record: Any) -> list[str]:
    return [str(one.message) for one in record if "goes on without it" in str(one.message)]


async def test_the_other_part_serves_alone(make: Make, server: Server) -> None:
    """71, 72: killed, so that connections break; hits go on; one warning; used again when it is back."""
    store = make(timeout=5)
    app = Application(store)
    assert not await app("one")
    assert await app("one")
    server.kill()
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for _ in range(3):
            assert await app("one")
            await app("two")
        assert await app("two")
        await store.close()
        assert await app("two")
    assert len(caught(record)) == 1
    assert app.backend.calls == 2
    server.start()
    other = make(timeout=20, **{"redis_url" if isinstance(server, PostgresServer) else "pg_dsn": None})

    async def written() -> bool:
        # A new text each time, until one has reached the server that was away.
        before = (await other.size()).entries
        await app(f"new {time.monotonic()}")
        return (await other.size()).entries > before

    end = time.monotonic() + 40
    while not await written():
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


async def test_a_server_that_was_started_again_between_two_calls_costs_nothing(make: Make, server: Server) -> None:
    """72: connections from before are of no use any more; that is found out and mended within the word."""
    postgres = isinstance(server, PostgresServer)
    store = make(timeout=20, **{"redis_url" if postgres else "pg_dsn": None})
    await asyncio.gather(*(store.put(CacheKey(str(number)), TEXT) for number in range(20)))
    server.kill()
    server.start()
    found = await asyncio.gather(*(store.get(CacheKey(str(number))) for number in range(20)))
    assert [entry is not None for entry in found] == [postgres] * 20  # this Redis keeps nothing on disk
    await store.put(KEY, TEXT)
    assert await store.get(KEY) is not None


async def test_both_down_and_back(make: Make, redis_server: RedisServer, postgres_server: PostgresServer) -> None:
    app = Application(make(timeout=5))
    await app("one")
    redis_server.kill()
    postgres_server.kill()
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for _ in range(3):
            assert not await app("one")
        assert any("go on without it" in str(one.message) for one in record)
        assert len(record) == 1
    postgres_server.start()
    redis_server.start()
    assert await app.hits_again("one")


async def test_down_at_the_start(make: Make, server: Server) -> None:
    server.kill()
    store = make(timeout=5)
    with pytest.warns(UserWarning, match="until it is back"):
        await store.warm()
    app = Application(store)
    assert not await app("one")
    assert await app("one")
    server.start()
    assert await app("one")


async def test_calls_under_way_while_a_server_is_started_again_and_again(make: Make, server: Server) -> None:
    """Eight callers, three kills: no answer is lost; afterwards everything is a hit."""
    app = Application(make(timeout=5))
    stop = False

    async def caller(number: int) -> None:
        at = 0
        while not stop:
            await app(f"{number} {at % 10}")
            at += 1
            await asyncio.sleep(0.002)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callers = [asyncio.ensure_future(caller(number)) for number in range(8)]
        for _ in range(3):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.start)
        stop = True
        await asyncio.gather(*callers)
        await app("last")
    assert await app.hits_again("last")


async def test_a_server_that_hangs_is_waited_for_once(make: Make, server: Server) -> None:
    """71: connections are taken and words are never answered. Bounded, with the patience of the layer as it is."""
    store = make()
    app = Application(store, patience=2.0)
    await store.warm()
    assert not await app("one")
    server.pause()
    try:
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            begun = time.monotonic()
            for at in range(20):
                await app(f"text {at}")
            took = time.monotonic() - begun
        assert app.longest < 4
        assert took < 8  # one word's patience, not twenty
        assert len(record) == 1
        assert await app("one")
    finally:
        server.go_on()
    fresh = make(timeout=20, **{"redis_url" if isinstance(server, PostgresServer) else "pg_dsn": None})
    end = time.monotonic() + 40
    before = (await fresh.size()).entries
    while (await fresh.size()).entries <= before:
        assert time.monotonic() < end
        await app(f"new {time.monotonic()}")
        await asyncio.sleep(0.1)


async def test_a_hanging_server_at_the_start(make: Make, server: Server) -> None:
    server.pause()
    try:
        app = Application(make(), patience=2.0)
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            for _ in range(3):
                await app("one")
        assert app.longest < 4
        assert len(record) == 1
    finally:
        server.go_on()
    assert await app.hits_again("one")


@pytest.mark.parametrize("which", ["redis", "postgres"])
async def test_what_was_replaced_or_removed_meanwhile_does_not_come_back(
    which: str, make: Make, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    """A part that returns with what it had is not believed: it hung, and has kept the old answers."""
    server: Server = redis_server if which == "redis" else postgres_server
    store = make(timeout=0.5)
    await store.warm()
    gone, other = CacheKey("cd" * 32), CacheKey("ef" * 32, "other")
    for key in (KEY, gone, other):
        await store.put(key, "[1]")
    server.pause()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await store.put(KEY, "[2]")
        with pytest.raises(LLMProviderConnectionError):
            await store.delete(gone)
        with pytest.raises(LLMProviderConnectionError):
            await store.clear("other")
    finally:
        server.go_on()
    part = store._now.redis if which == "redis" else store._now.pg  # type: ignore[union-attr]
    assert part is not None
    end = time.monotonic() + 40
    while part.down:
        assert time.monotonic() < end
        await store.get(KEY)
        await asyncio.sleep(0.05)
    # Asked by itself: PostgreSQL has the new answer too.
    for words in ({"redis_url": None}, {}):
        fresh = make(timeout=20, **words)
        assert (entry := await fresh.get(KEY)) is not None
        assert entry.text == "[2]"
        assert await fresh.get(gone) is None
        assert await fresh.get(other) is None


async def test_a_write_that_nobody_took_leaves_what_there_is(make: Make, postgres_server: PostgresServer) -> None:
    """Else an outage would empty the cache of all that was asked for meanwhile."""
    store = make(redis_url=None)
    await store.warm()
    await store.put(KEY, "[1]")
    postgres_server.pause()
    with pytest.raises(LLMProviderConnectionError):
        await store.put(KEY, "[2]")
    postgres_server.go_on()
    end = time.monotonic() + 40
    while store._now.pg.down:  # type: ignore[union-attr]
        assert time.monotonic() < end
        with suppress(LLMProviderConnectionError):
            await store.get(KEY)
        await asyncio.sleep(0.05)
    assert (entry := await store.get(KEY)) is not None
    assert entry.text in ("[1]", "[2]")  # the server may have done after all what it was asked for when it hung


async def test_nobody_listens_and_nothing_is_told(make: Make, redis_server: RedisServer) -> None:
    """One part, and it is down: an error of this project, at once, without the password."""
    port = free_port()
    for words in (
        {"pg_dsn": f"postgresql://u:{CANARY}@127.0.0.1:{port}/db", "redis_url": None},
        {"pg_dsn": None, "redis_url": f"redis://u:{CANARY}@127.0.0.1:{port}/0"},
    ):
        store = make(**words)
        calls: list[Callable[[], Any]] = [
            store.warm,
            lambda store=store: store.get(KEY),
            lambda store=store: store.put(KEY, TEXT),
            lambda store=store: store.delete(KEY),
            store.clear,
            store.size,
        ]
        for call in calls:
            with pytest.raises(LLMProviderConnectionError, match="does not answer") as caught:
                await call()
            assert CANARY not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


async def test_no_storm_of_connections(make: Make, redis_server: RedisServer, postgres_server: PostgresServer) -> None:
    """While PostgreSQL is down a thousand words make a handful of attempts."""
    attempts = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.close()

    counting = await asyncio.start_server(count, "127.0.0.1", 0)
    port = counting.sockets[0].getsockname()[1]
    store = make(pg_dsn=f"postgresql://u:{CANARY}@127.0.0.1:{port}/db")
    begun = time.monotonic()

    async def many() -> None:
        for number in range(20):
            await asyncio.gather(*(store.get(CacheKey(f"{number}-{one}")) for one in range(50)))
            await asyncio.sleep(0.05)

    with pytest.warns(UserWarning, match="until it is back"):
        await many()
    # At first all eight threads try at once, perhaps with and without TLS; then once a second at most.
    assert attempts <= 2 * (8 + time.monotonic() - begun)
    counting.close()
    await counting.wait_closed()
