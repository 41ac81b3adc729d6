"""Limits in a file: processes share them, whatever happens to one of them, and no event loop is held up."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers import LLMProviderRateLimitError
from providers.resilience.levels import Rate
from providers.resilience.limiter import Limiter, LimitStore
from providers.resilience.shared_limits import SQLiteLimits
from providers.testing import LoopbackServer, Reply

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "limits.sqlite"


@pytest.fixture
def store(file: Path) -> Iterator[SQLiteLimits]:
    found = SQLiteLimits(file)
    yield found
    found.close()


def start(
    file: Path, server: LoopbackServer, seconds: float, limit: float, period: float, name: str
) -> subprocess.Popen[bytes]:
    arguments = [str(file), server.url, str(seconds), str(limit), str(period), name]
    return subprocess.Popen([sys.executable, str(WORKER), *arguments], stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=20)
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
def test_four_processes_share_a_cap_without_a_server(file: Path) -> None:
    """C-15. 600 requests a minute, looked at through a window of 4 seconds: four processes of eight callers each, with
    only the file in common, get at most 40 requests through to a server in any 4 seconds, and at least 36 in each of
    them while all four are at work. Each process has its part."""
    period, limit, seconds = 4.0, 40, 6.0
    with LoopbackServer() as server:
        server.script("*", Reply.json({}), repeat=True)
        processes = [start(file, server, seconds, limit, period, f"p{at}") for at in range(4)]
        for process in processes:
            finish(process)
        requests = server.requests
    arrivals = sorted(request.received_at for request in requests)
    assert most_in(arrivals, period) <= limit
    names = [
        {request.path: request.received_at for request in reversed(requests)},
        {r.path: r.received_at for r in requests},
    ]
    begin, end = max(names[0].values()), min(names[1].values())
    assert end - begin > period
    at = begin
    while at + period <= end:
        assert sum(at <= arrival < at + period for arrival in arrivals) >= 0.9 * limit
        at += 0.05
    parts = Counter(request.path for request in requests)
    assert len(parts) == 4
    assert min(parts.values()) >= 0.5 * len(requests) / 4


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_leaves_the_file_usable(file: Path) -> None:
    """Twelve processes, killed at different moments, while one goes on: the file is whole, and the one gets what the
    limit allows once the others are dead."""
    limit, period = 400, 4.0
    with LoopbackServer() as server:
        server.script("*", Reply.json({}), repeat=True)
        survivor = start(file, server, 6, limit, period, "survivor")
        assert server.wait_until(lambda: server.count("/survivor"), 5)
        for at in range(6):
            victims = [start(file, server, 30, limit, period, f"victim{at}{one}") for one in range(2)]
            time.sleep(0.35 + 0.037 * at)
            for victim in victims:
                os.kill(victim.pid, signal.SIGKILL)
                victim.communicate()
        died = time.monotonic()
        finish(survivor)
        requests = server.requests
    assert sum(request.path != "/survivor" for request in requests) > 0
    after = [r.received_at for r in requests if r.received_at > died]
    rate = len(after) / (after[-1] - after[0])
    assert rate > 0.8 * limit / period
    with sqlite3.connect(file) as check:
        assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    check.close()


async def test_stores_with_one_path_share_levels_and_cooldown(file: Path, store: SQLiteLimits) -> None:
    other = SQLiteLimits(file)
    rates = (Rate(10, 0.001),)
    await store.acquire("k", rates, (6,))
    await other.acquire("k", rates, (4,))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.acquire("k", rates, (1,)), 0.1)
    other.charge("k", rates, (-1,))
    await asyncio.wait_for(other.acquire("k", rates, (1,)), 2)

    store.cool("c", (), await store.acquire("c", (), ()), 0.3)
    store.close()
    begun = time.monotonic()
    generation = await other.acquire("c", (), ())
    assert 0.2 < time.monotonic() - begun < 1
    assert generation == 1
    other.close()


async def test_a_limiter_settles_and_cools_in_the_file(file: Path, store: SQLiteLimits) -> None:
    limiter = Limiter(tokens_per_minute=10_000, model="m", store=store)
    async with limiter.limit(tokens=100) as ctx:
        ctx.output_tokens = 200
    store.close()
    other = SQLiteLimits(file)
    # 400 at once, and 300 of them are gone.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(
            Limiter(tokens_per_minute=10_000, model="m", store=other).limit(tokens=140).__aenter__(), 0.1
        )
    with pytest.raises(LLMProviderRateLimitError):
        async with limiter.limit(tokens=1):
            raise LLMProviderRateLimitError("no", retry_after=30)
    store.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Limiter(tokens_per_minute=10_000, model="m", store=other).limit().__aenter__(), 0.2)
    other.close()


async def test_waiters_are_served_in_order_and_cancelled_ones_take_nothing(store: SQLiteLimits) -> None:
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
    done = len(order)
    assert done < 16
    assert (done - 2) / 20 - 0.01 <= took <= (done - 2) / 20 + 0.3
    await asyncio.sleep(0.15)
    await asyncio.wait_for(store.acquire("k", rates, (2,)), 0.05)


async def test_no_event_loop_waits_for_the_file(file: Path, store: SQLiteLimits) -> None:
    """Another process has the file locked: callers wait, and the loop turns."""
    await store.acquire("k", (Rate(10, 10),), (1,))
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    waiter = asyncio.ensure_future(store.acquire("k", (Rate(10, 10),), (1,)))
    turns, longest, last = 0, 0.0, time.monotonic()
    while time.monotonic() - last < 1 and turns < 50:
        before = time.monotonic()
        store.charge("k", (Rate(10, 10),), (0.01,))
        await asyncio.sleep(0.005)
        longest = max(longest, time.monotonic() - before)
        turns += 1
    assert not waiter.done()
    assert longest < 0.2
    holder.execute("ROLLBACK")
    holder.close()
    await asyncio.wait_for(waiter, 3)


def spoil(file: Path, how: str) -> None:
    file.parent.mkdir()
    if how == "garbage":
        file.write_bytes(os.urandom(10_000))
    elif how == "folder":
        file.mkdir()
    else:
        connection = sqlite3.connect(file)
        connection.execute("CREATE TABLE limits (key TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID")
        connection.execute("INSERT INTO limits VALUES ('k', '[1, \"x\"]')")
        connection.commit()
        connection.close()


@pytest.mark.parametrize("how", ["garbage", "folder", "broken row"])
async def test_a_file_that_cannot_be_used_fails_no_call(how: str, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The limits hold for this process alone then, and the log says so."""
    spoil(file, how)
    store, rates = SQLiteLimits(file), (Rate(3, 0.1),)
    with caplog.at_level(logging.WARNING, "providers.limits"):
        for _ in range(3):
            await asyncio.wait_for(store.acquire("k", rates, (1,)), 2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.acquire("k", rates, (1,)), 0.1)
    assert ("this process alone" in caplog.text) == (how != "broken row")
    store.close()


async def test_a_clock_that_is_set_back_or_forth_stops_nobody(file: Path) -> None:
    jump = [0.0]
    store, rates = SQLiteLimits(file, clock=lambda: time.time() + jump[0]), (Rate(2, 50),)
    for jump[0] in (0.0, -86_400.0, 86_400.0, -1e8, 3600.0):
        await asyncio.wait_for(asyncio.gather(*(store.acquire("k", rates, (1,)) for _ in range(4))), 1)
    jump[0] = 0.0
    store.cool("k", rates, 0, 0.2)
    await asyncio.sleep(0.05)
    jump[0] = -86_400.0
    await asyncio.wait_for(store.acquire("k", rates, (1,)), 1)
    store.close()


async def test_several_loops_and_threads_and_a_loop_that_died(store: SQLiteLimits) -> None:
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
    begun = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*(asyncio.to_thread(asyncio.run, work()) for _ in range(4))), 5)
    assert time.monotonic() - begun < 2


async def test_the_thread_ends_when_there_is_nothing_to_do(store: SQLiteLimits) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "llm-limits"]

    assert threads() == []
    await store.acquire("k", (), ())
    assert len(threads()) == 1
    store.close()
    assert threads() == []
    await store.acquire("k", (), ())
    assert len(threads()) == 1


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    """C-15: SQLite does not wait for another one that makes the file; limits must not fall apart over that."""
    failures: list[BaseException] = []

    def connect(path: Path, barrier: threading.Barrier) -> None:
        store = SQLiteLimits(path)
        barrier.wait()
        try:
            store._connect().close()
        except BaseException as error:
            failures.append(error)

    for number in range(150):
        barrier = threading.Barrier(3)
        arguments = (tmp_path / f"{number}.sqlite", barrier)
        threads = [threading.Thread(target=connect, args=arguments) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on_with_the_file(file: Path) -> None:
    code = f"""
import asyncio, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from providers.resilience.levels import Rate
from providers.resilience.shared_limits import SQLiteLimits
store = SQLiteLimits({str(file)!r})
async def take(n):
    await asyncio.wait_for(store.acquire("k", (Rate(10, 0.001),), (n,)), 1)
asyncio.run(take(4))
pid = os.fork()
asyncio.run(take(3))
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    try:
        asyncio.run(take(1))
    except TimeoutError:
        print("shared")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (done.stdout, done.returncode) == ("shared\n", 0), done.stderr


def test_both_stores_are_limit_stores(store: SQLiteLimits) -> None:
    found: LimitStore = store
    assert found is store


@pytest.mark.parametrize("same", [True, False], ids=["one process", "two"])
async def test_who_knows_no_limit_takes_none_away_from_those_who_do(same: bool, tmp_path: Path) -> None:
    """In one process and in another one, which a second store stands for."""
    known = SQLiteLimits(tmp_path / "limits.sqlite")
    other = known if same else SQLiteLimits(tmp_path / "limits.sqlite")
    limited = Limiter(requests_per_minute=600, model="m", store=known)
    free, let_in = Limiter(model="m", store=other), [0, 0]

    async def call(limiter: Limiter, at: int) -> None:
        while True:
            async with limiter.limit():
                let_in[at] += 1
            await asyncio.sleep(0.005)

    tasks = [asyncio.create_task(call(*one)) for one in [(limited, 0)] * 3 + [(free, 1)]]
    await asyncio.sleep(1.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    known.close()
    other.close()
    # 24 at once, and one each tenth of a second.
    assert 30 <= let_in[0] <= 42
    assert let_in[1] > 5
