"""Many processes, threads and loops: writers that are killed, children, stores that nobody closed, connections."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from llm_provider_cache_pg_redis import HybridRedisPostgreSQLCache
from providers.caches import CacheKey

from .conftest import Make
from .servers import PostgresServer, RedisServer, wait_for

KEY = CacheKey("ab" * 32)

HEAD = """
import asyncio, gc, os, random, sys, threading, warnings
warnings.simplefilter("error")
from llm_provider_cache_pg_redis import HybridRedisPostgreSQLCache
from providers.caches import CacheKey
pg, redis = (None if word == "-" else word for word in sys.argv[1:3])
"""


def run(code: str, *words: str | None) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", HEAD + code, *(word or "-" for word in words)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


def connections(server: PostgresServer) -> int:
    [(count,)] = server.run("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    assert isinstance(count, int)
    return count - 1


def clients(server: RedisServer) -> int:
    return server.say("CLIENT", "LIST").count(b"id=") - 1


def test_processes_that_make_the_table_at_once(postgres_server: PostgresServer) -> None:
    """72. Twice: each loses the race now and then where nothing keeps them apart."""
    code = """
async def work():
    store = HybridRedisPostgreSQLCache(pg, None, table="fresh", timeout=30)
    sys.stdin.readline()
    await asyncio.gather(*(store.put(CacheKey(sys.argv[3] + str(number)), "[]") for number in range(20)))
    await store.close()
asyncio.run(work())
"""
    for _ in range(2):
        postgres_server.run("DROP TABLE IF EXISTS fresh_1")
        arguments = [sys.executable, "-c", HEAD + code, postgres_server.url, "-"]
        writers = [
            subprocess.Popen([*arguments, name], stdin=subprocess.PIPE, stderr=subprocess.PIPE) for name in "abcd"
        ]
        assert [writer.communicate(b"\n")[1] for writer in writers] == [b""] * 4
        assert postgres_server.run("SELECT count(*) FROM fresh_1") == [(80,)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_that_was_forked_goes_on(redis_server: RedisServer, postgres_server: PostgresServer) -> None:
    """56: with connections of its own; its parent's are neither used nor closed."""
    code = """
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons on fork with threads
store = HybridRedisPostgreSQLCache(pg, redis, timeout=20)
async def work(name):
    for number in range(20):
        await store.put(CacheKey(name * 62 + f"{number:02d}"), "[]")
        assert await store.get(CacheKey("a" * 62 + "00")) is not None
asyncio.run(store.clear())
asyncio.run(work("a"))
link = store._now.pg._free[-1]
child = os.fork()
asyncio.run(work("b" if child else "c"))
if not child:
    asyncio.run(store.close())
    gc.collect()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert link.execute("SELECT 1").fetchone() == (1,)
asyncio.run(work("d"))
print(asyncio.run(store.size()).entries)
asyncio.run(store.close())
"""
    done = run(code, postgres_server.url, redis_server.url)
    assert (done.stdout, done.stderr, done.returncode) == ("80\n", "", 0)


def test_stores_that_are_dropped_leave_nothing_open(redis_server: RedisServer, postgres_server: PostgresServer) -> None:
    """No thread, no connection, no ResourceWarning: dropped, and one more held until the end."""
    code = """
kept = HybridRedisPostgreSQLCache(pg, redis, timeout=20)
async def work():
    for store in (HybridRedisPostgreSQLCache(pg, redis, timeout=20), kept):
        await asyncio.gather(*(store.put(CacheKey(str(number)), "[]") for number in range(20)))
    del store
    gc.collect()
asyncio.run(kept.close())
threads = threading.active_count()
asyncio.run(work())
asyncio.run(kept.close())
gc.collect()
for _ in range(200):
    if threading.active_count() == threads: break
    threading.Event().wait(0.05)
print(threading.active_count() - threads)
asyncio.run(kept.put(CacheKey("a"), "[]"))
"""
    done = run(code, postgres_server.url, redis_server.url)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)
    assert wait_for(lambda: connections(postgres_server) == 0)


async def test_no_more_connections_than_asked_for_and_none_after_close(
    make: Make, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    before = connections(postgres_server), clients(redis_server)
    store = make(timeout=20, pool_size=3)
    for _ in range(3):
        await asyncio.gather(*(store.put(CacheKey(str(number)), "[]") for number in range(100)))
        assert connections(postgres_server) <= before[0] + 3
        assert clients(redis_server) <= before[1] + 3
    words = [asyncio.ensure_future(store.get(CacheKey(str(number)))) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert all(await asyncio.gather(*words))
    await store.close()
    assert wait_for(lambda: (connections(postgres_server), clients(redis_server)) == before)


async def test_cancelled_anywhere_nothing_is_left_behind(
    make: Make, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    """54: at each turn of the loop, and at moments between."""
    store = make(timeout=20, pool_size=2)
    for at in range(60):
        for word in (store.put(KEY, "[]"), store.get(KEY), store.delete(KEY), store.clear(), store.size()):
            task = asyncio.ensure_future(word)
            for _ in range(at % 6):
                await asyncio.sleep(0 if at < 30 else 0.0003)
            task.cancel()
            await asyncio.wait({task})
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    await store.put(KEY, "[]")
    assert await store.get(KEY) is not None
    await store.close()
    assert wait_for(lambda: connections(postgres_server) <= 1)  # the one that emptied both at the start


def test_loops_one_after_the_other_and_threads(redis_server: RedisServer, postgres_server: PostgresServer) -> None:
    """55, 57: with closes in the middle."""
    store = HybridRedisPostgreSQLCache(postgres_server.url, redis_server.url, timeout=20)
    failures: list[BaseException] = []

    async def some(name: str) -> None:
        for number in range(15):
            key = CacheKey(f"{name}{number}", name)
            await store.put(key, f"[{number}]")
            entry = await store.get(key)
            assert entry is not None
            assert entry.text == f"[{number}]"
            if number % 5 == 4:
                await store.close()

    def thread(name: str) -> None:
        try:
            for _ in range(2):
                asyncio.run(some(name))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(name,)) for name in "abcdef"]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert failures == []
    asyncio.run(store.clear())
    asyncio.run(store.close())
