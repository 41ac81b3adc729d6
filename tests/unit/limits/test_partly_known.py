"""Limits in a file where callers know different ones of a key: nobody takes a limit away from somebody else."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.resilience.levels import UNLIMITED, Levels, Rate
from providers.resilience.shared_limits import SQLiteLimits

REQUESTS, TOKENS = Rate(10, 0.001), Rate(1000, 0.001)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[SQLiteLimits]]:
    """Two stores over one file, which stand for two processes."""
    found = [SQLiteLimits(tmp_path / "limits.sqlite") for _ in range(2)]
    yield found
    for store in found:
        store.close()


async def waits(store: SQLiteLimits, rates: tuple[Rate, ...], amounts: tuple[float, ...]) -> bool:
    try:
        await asyncio.wait_for(store.acquire("k", rates, amounts), 0.2)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize(
    "partly", [(REQUESTS, UNLIMITED), (UNLIMITED, TOKENS), (UNLIMITED, UNLIMITED)], ids=["requests", "tokens", "none"]
)
async def test_who_knows_some_limits_leaves_the_others_as_they_are(
    partly: tuple[Rate, Rate], stores: list[SQLiteLimits]
) -> None:
    """C-15. One process knows both limits and has used one up; the other one, which knows one or none, calls on the
    same key, twice, and changes nothing about what it does not know."""
    one, other = stores
    await one.acquire("k", (REQUESTS, TOKENS), (8, 1000))
    for _ in range(2):
        amounts = tuple(0.0 if rate == UNLIMITED else 1.0 for rate in partly)
        other.charge("k", partly, amounts)
        other.close()
    assert await waits(one, (REQUESTS, TOKENS), (0, 1))


async def test_what_was_put_aside_refills_all_the_same(tmp_path: Path) -> None:
    """C-15. The time that passed while only others called counts for whoever knows the limit, once."""
    now = [1000.0]
    store = SQLiteLimits(tmp_path / "limits.sqlite", clock=lambda: now[0])
    rates = (REQUESTS, Rate(100, 10))
    await store.acquire("k", rates, (0, 100))
    store.close()
    for _ in range(4):
        now[0] += 1.0
        other = SQLiteLimits(tmp_path / "limits.sqlite", clock=lambda: now[0])
        await other.acquire("k", (REQUESTS, UNLIMITED), (1, 0))
        other.close()
    assert not await waits(store, rates, (0, 40))
    assert await waits(store, rates, (0, 10))
    store.close()


def test_levels_that_are_put_aside_and_taken_up_again() -> None:
    levels = Levels((REQUESTS, TOKENS), 0.0)
    levels.take((10, 1100))
    levels.reshape((REQUESTS, UNLIMITED))
    levels.refill(50_000.0)
    levels.take((1, 5000))
    levels.drain(60)
    assert levels.levels[1] == pytest.approx(UNLIMITED.capacity)
    again = Levels.of(levels.figures(), levels.stamp)
    again.reshape((REQUESTS, TOKENS))
    # Below 0 by 100, and 50 came back.
    assert again.levels == pytest.approx([levels.levels[0], -50])


@pytest.mark.parametrize(
    "state", ["[1e999, [], [0, 0, 0, 0]]", "[1, [], [0, 0, Infinity, 0]]", "[1, [5], [0, 0, 0, 0]]"]
)
async def test_a_row_that_nobody_can_read_stops_nobody(state: str, stores: list[SQLiteLimits]) -> None:
    """C-15. Whatever stands there counts as unused, and the thread that reads it goes on."""
    await stores[0].acquire("other", (REQUESTS,), (1,))
    stores[0].close()
    with sqlite3.connect(stores[0].path) as file:
        file.execute("INSERT INTO limits VALUES ('k', ?)", (state,))
    file.close()
    assert not await waits(stores[1], (REQUESTS,), (10,))
