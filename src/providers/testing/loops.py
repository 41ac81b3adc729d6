"""What tests of a model in this process need: how long an event loop stood still, and a caller who leaves too early."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal

from ..base import LLMProvider

_TICK: Final = 0.005
_PATIENCE: Final = 300.0


@asynccontextmanager
async def loop_delays() -> AsyncIterator[list[float]]:
    """Collects by how many seconds a tick of this event loop, one every 5 ms, came late.

    Yields:
        The delays so far; it grows while the block runs. A call that blocks the loop is the greatest of them.
    """
    delays: list[float] = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(_TICK)
            now = time.perf_counter()
            delays.append(now - last - _TICK)
            last = now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(4 * _TICK)
    try:
        yield delays
    finally:
        ticking.cancel()


async def leave_while_opening(provider: LLMProvider, how: Literal["close", "rest_when_idle"]) -> None:
    """Cancel the only call while the provider opens for it, then close it or put it to rest; wait until all is over.

    Afterwards nothing of what `open` took may be left.

    Args:
        provider: one with `slow_open` that is not open.
        how: what is called after the call was cancelled and before `open` does its work.

    Raises:
        TimeoutError: `open` was not called, or it and `shut` took more than 300 s.
        Exception: what `open` raised.
    """
    life, inner = provider._life, provider._life._open
    opens, may_open = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def open_late() -> None:
        opens.set()
        may_open.wait(_PATIENCE)
        try:
            inner()
        except BaseException as error:
            raised.append(error)
            raise

    life._open = open_late
    try:
        call = asyncio.create_task(provider.warm_cache())
        if not await asyncio.to_thread(opens.wait, _PATIENCE):
            raise TimeoutError("open() was not called")
        change = life._change
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
        await getattr(provider, how)()
        may_open.set()
        if change is not None:
            await asyncio.wait_for(asyncio.wrap_future(change.done), _PATIENCE)
    finally:
        life._open = inner
    if raised:
        raise raised[0]
