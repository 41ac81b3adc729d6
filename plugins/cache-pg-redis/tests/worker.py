"""A process that calls a server within limits shared through Redis: URL OF REDIS, URL SECONDS LIMIT PERIOD NAME."""

from __future__ import annotations

import asyncio
import sys
import time
from urllib.parse import urlsplit

from llm_provider_cache_pg_redis import RedisLimits
from providers.resilience.limiter import Limiter

CALLERS = 8


async def call(url: str, name: str) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    await reader.read()
    writer.close()
    await writer.wait_closed()


async def main(redis: str, url: str, seconds: float, limit: float, period: float, name: str) -> None:
    store = RedisLimits(redis, timeout=5)
    await store.acquire("warm", (), ())
    # So that all begin at the same time, however long each took to get here.
    print("ready", flush=True)
    sys.stdin.readline()
    limiter = Limiter(requests_per_minute=limit, period=period, model="m", provider="acme", store=store)

    async def caller() -> None:
        while time.monotonic() < end:
            async with limiter.limit():
                await call(url, name)

    end = time.monotonic() + seconds
    callers = [asyncio.ensure_future(caller()) for _ in range(CALLERS)]
    await asyncio.wait(callers, timeout=seconds)
    for task in callers:
        task.cancel()
    for result in await asyncio.gather(*callers, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    store.close()


if __name__ == "__main__":
    redis, url, seconds, limit, period, name = sys.argv[1:]
    asyncio.run(main(redis, url, float(seconds), float(limit), float(period), name))
