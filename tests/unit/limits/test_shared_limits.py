"""Limits in a file, beyond what each store must do: a file that is locked, spoilt or new, and a clock that is set."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.resilience.levels import Rate
from providers.resilience.shared_limits import SQLiteLimits


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "limits.sqlite"


@pytest.fixture
def store(file: Path) -> Iterator[SQLiteLimits]:
    found = SQLiteLimits(file)
    yield found
    found.close()


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
