"""Lines of callers before limits elsewhere: threads that cannot start, loops that died, the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.resilience.levels import Rate
from providers.resilience.shared_limits import SQLiteLimits

SLOW = (Rate(10, 0.001),)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteLimits]:
    found = SQLiteLimits(tmp_path / "limits.sqlite")
    yield found
    found.close()


async def waits(store: SQLiteLimits, amount: float) -> bool:
    try:
        await asyncio.wait_for(store.acquire("k", SLOW, (amount,)), 0.2)
    except TimeoutError:
        return True
    return False


async def test_a_thread_that_could_not_start_holds_up_no_later_call(
    store: SQLiteLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C-15. A machine may have no thread to give for a moment; who asks then is told, and takes nothing."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            await store.acquire("k", SLOW, (5,))
    assert not await waits(store, 10)


async def test_a_call_that_ends_while_the_thread_starts(store: SQLiteLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    """C-15. The collector may end one in that very moment; two threads would let the wrong ones in."""
    begin, started = threading.Thread.start, 0

    def start(thread: threading.Thread) -> None:
        nonlocal started
        if thread.name == store.thread_name:
            started += 1
            if started == 1:
                store.charge("k", SLOW, (1,))
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert not await waits(store, 9)
    assert started == 1


async def test_what_a_dead_loop_had_is_given_back_once(store: SQLiteLimits) -> None:
    """C-15. Two callers of a loop that was closed: the first was waiting, the second is let in before its task is
    thrown away. Both give back what they paid, once."""
    await store.acquire("k", SLOW, (9,))
    dead = asyncio.new_event_loop()
    tasks: list[asyncio.Task[int]] = []

    async def queue() -> None:
        tasks.extend(asyncio.ensure_future(store.acquire("k", SLOW, (amount,))) for amount in (2, 1))
        await asyncio.sleep(0.2)

    await asyncio.to_thread(dead.run_until_complete, queue())
    dead.close()
    store.charge("k", SLOW, (0,))
    store.close()
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    tasks.clear()
    gc.collect()
    store.close()
    assert await waits(store, 2)
    assert not await waits(store, 1)


def test_the_garbage_collector_may_end_calls_anywhere(store: SQLiteLimits) -> None:
    """C-15. Calls that are thrown away settle their accounts wherever the collector runs: also in the store's own
    thread, while it looks through its lines. Each collection here settles one call of a key that is new."""
    runs, settled, failed = itertools.count(), list[str](), list[object]()
    busy, hook = threading.local(), threading.excepthook

    def settle(phase: str, info: dict[str, int]) -> None:
        # Not each time, or the thread would have more to do than it can.
        if phase == "start" and next(runs) % 41 == 0 and not getattr(busy, "now", False):
            busy.now = True
            try:
                settled.append(f"key {len(settled)}")
                store.charge(settled[-1], SLOW, (0.001,))
                store.cool("own 0", SLOW, 0, 0.001)
            except BaseException as error:
                failed.append(error)
            finally:
                busy.now = False

    async def call() -> None:
        until = time.monotonic() + 5
        while len(settled) < 100 and time.monotonic() < until:
            await asyncio.wait_for(store.acquire(f"own {len(settled) % 7}", (Rate(1000, 1000),), (1,)), 5)

    before = gc.get_threshold()
    threading.excepthook = lambda told: failed.append(told.exc_value or told.exc_type())
    gc.callbacks.append(settle)
    gc.set_threshold(5)
    try:
        asyncio.run(call())
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(settle)
        store.close()
        threading.excepthook = hook
    assert failed == []
    assert len(settled) >= 100


def test_closing_leaves_nothing_undone(store: SQLiteLimits) -> None:
    """C-15. What comes while another thread closes the store is done, too, without a further use."""
    stop = time.monotonic() + 1.0
    threads = [threading.Thread(target=close_often, args=(store, stop)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while time.monotonic() < stop:
        store.charge("k", SLOW, (0.0001,))
    for thread in threads:
        thread.join()
    assert done(store)


def close_often(store: SQLiteLimits, stop: float) -> None:
    while time.monotonic() < stop:
        store.close()


def done(store: SQLiteLimits) -> bool:
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        if not any(line.chores for line in store._lines.values()):
            return True
        time.sleep(0.01)
    return False
