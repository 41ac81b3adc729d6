"""What a limit store does for several processes: a cap for all together, one that is killed, one that is forked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from ...resilience.limiter import Limiter
from ..server import LoopbackServer, Reply
from .limit_kit import LimitKit, Open
from .processes import finish, hear, python, started, tell

_PATIENCE = 30.0
_CALLER = "providers.testing.limit_caller"

_FORK = """
import asyncio, os, warnings
from providers.resilience.levels import Rate
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons on fork with threads
async def take(amount, seconds=5):
    await asyncio.wait_for(store.acquire("k", (Rate(10, 1e-6),), (amount,)), seconds)
asyncio.run(take(4))
child = os.fork()
asyncio.run(take(3))
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    try:
        asyncio.run(take(1, 0.5))
    except TimeoutError:
        print("shared")
    else:
        print("apart")
"""


def most_in(arrivals: Sequence[float], window: float) -> int:
    """The most of some times, in their order, that lie in any window of so many seconds."""
    most = first = 0
    for at, arrival in enumerate(arrivals):
        while arrivals[first] <= arrival - window:
            first += 1
        most = max(most, at - first + 1)
    return most


class LimitForkTests(LimitKit):
    """What holds in a forked child."""

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_forked_child_goes_on(self) -> None:
        """56: with the place, and the parent too; where each process is alone, child and parent each have the rest."""
        done = subprocess.run(
            python("-c", self.source() + _FORK), capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
        assert (done.stdout, done.stderr, done.returncode) == ("shared\n" if self.shared else "apart\n", "", 0)


class LimitProcessTests(LimitKit):
    """What holds between processes over one place."""

    def _callers(self, server: LoopbackServer, seconds: float, limit: float, period: float, *names: str) -> Any:
        """Processes that call a server within one limit."""
        words = [self.source(), server.url, str(seconds), str(limit), str(period)]
        return started([[*python("-m", _CALLER), *words, name] for name in names])

    @pytest.mark.slow
    def test_four_processes_share_a_cap(self) -> None:
        """C-15. 600 requests a minute, looked at through a window of 4 seconds: four processes of eight callers each,
        with only the place in common, get at most 40 requests through to a server in any 4 seconds, and at least 36 in
        each of them while all four are at work. Each process has its part."""
        period, limit, seconds = 4.0, 40, 7.0
        with LoopbackServer() as server:
            server.script("*", Reply.json({}), repeat=True)
            names = [f"p{at}" for at in range(4)]
            with self._callers(server, seconds, limit, period, *names) as processes:
                # So that all begin at the same time, however long each took to get here.
                for process in processes:
                    hear(process, "here")
                    hear(process, "ready")
                for process in processes:
                    tell(process, "go")
                for process in processes:
                    finish(process)
            requests = server.requests
        arrivals = sorted(request.received_at for request in requests)
        assert most_in(arrivals, period) <= limit
        first = {request.path: request.received_at for request in reversed(requests)}
        last = {request.path: request.received_at for request in requests}
        at, end, least = max(first.values()), min(last.values()), limit
        assert end - at > period
        while at + period <= end:
            least = min(least, sum(at <= arrival < at + period for arrival in arrivals))
            at += 0.05
        assert least >= 0.9 * limit
        parts = Counter(request.path for request in requests)
        assert len(parts) == 4
        assert min(parts.values()) >= 0.5 * len(requests) / 4

    @pytest.mark.slow
    def test_a_killed_process_leaves_the_others_their_limit(self) -> None:
        """Twelve processes, two at a time, one killed as it begins to use the place and one as it calls, while this one
        goes on; then this one gets what the limit allows, and the place is whole."""
        limit, period = 400, 4.0
        opening = 0.0

        def kill(server: LoopbackServer, at: int) -> None:
            nonlocal opening
            names = f"young{at}", f"old{at}"
            with self._callers(server, 60, limit, period, *names) as (young, old):
                hear(young, "here")
                hear(old, "here")
                begun = time.monotonic()
                # From the first thing that it does to the last before it calls.
                time.sleep(opening * at / 5)
                young.kill()
                hear(old, "ready")
                opening = opening or time.monotonic() - begun
                tell(old, "go")
                assert server.wait_until(lambda: server.count(f"/old{at}"), _PATIENCE)
                time.sleep(0.037 * at)

        async def work(make: Open) -> None:
            store, gone = make(), list[float]()
            limiter = Limiter(requests_per_minute=limit, period=period, model="m", provider="acme", store=store)

            async def caller() -> None:
                while True:
                    async with limiter.limit():
                        gone.append(time.monotonic())

            callers = [asyncio.ensure_future(caller()) for _ in range(8)]
            with LoopbackServer() as server:
                server.script("*", Reply.json({}), repeat=True)
                for at in range(6):
                    await asyncio.to_thread(kill, server, at)
            # What the last two had paid for passes within a second.
            await asyncio.sleep(1)
            before, begun = len(gone), time.monotonic()
            await asyncio.sleep(2)
            rate = (len(gone) - before) / (time.monotonic() - begun)
            for task in callers:
                task.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            assert rate > 0.8 * limit / period

        self._run(work)
        self.check_place()
