"""A process that calls a server within a limit that it shares with others; what `LimitConformance` starts and kills.

    python -m providers.testing.limit_caller MAKE URL SECONDS LIMIT PERIOD NAME

MAKE is Python text that leaves a limit store in `store`. The process says `here` before it runs that, `ready` when the
store has done its first word, and waits for a line; then eight callers ask for `URL/NAME` as often as LIMIT requests in
PERIOD seconds allow, for SECONDS.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from ..resilience.limiter import Limiter

_CALLERS = 8


def say(word: str) -> None:
    """A line for who started this process."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def made_by(make: str) -> Any:
    """The store that Python text makes."""
    names: dict[str, Any] = {}
    exec(make, names)
    return names["store"]


async def ask(url: str, name: str) -> None:
    """One request, over a connection of its own."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    await reader.read()
    writer.close()
    await writer.wait_closed()


async def main(make: str, url: str, seconds: float, limit: float, period: float, name: str) -> None:
    """What the module says."""
    say("here")
    store = made_by(make)
    await store.acquire("warm", (), ())
    say("ready")
    sys.stdin.readline()
    limiter = Limiter(requests_per_minute=limit, period=period, model="m", provider="acme", store=store)

    async def caller() -> None:
        while time.monotonic() < end:
            async with limiter.limit():
                await ask(url, name)

    end = time.monotonic() + seconds
    callers = [asyncio.ensure_future(caller()) for _ in range(_CALLERS)]
    await asyncio.wait(callers, timeout=seconds)
    for task in callers:
        task.cancel()
    for result in await asyncio.gather(*callers, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    # What is left to do is done at the interpreter's end, whether the store can be closed or not.


if __name__ == "__main__":
    make, url, seconds, limit, period, name = sys.argv[1:]
    asyncio.run(main(make, url, float(seconds), float(limit), float(period), name))
