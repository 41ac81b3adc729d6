"""Calls that the garbage collector ends: it may run while this very thread holds the lock that their end wants."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from time import monotonic

import pytest

from providers import Budget, BudgetExceededError
from providers.resilience.levels import Rate
from providers.resilience.limiter import LocalLimits
from providers.routing import Health
from providers.sight import secrets
from providers.testing import ScriptedProvider

NOTHING = (Decimal(0), 0, 0)
Case = tuple[Callable[[], object], Callable[[], object]]


def budget() -> Case:
    found = Budget(max_requests=0)

    def refused() -> None:
        with pytest.raises(BudgetExceededError):
            found.reserve(Decimal(0), 0)

    return refused, lambda: found.settle(NOTHING, NOTHING)


def health() -> Case:
    def clock() -> float:
        return sum(len(item) for item in [[now] for now in range(9)]) + monotonic()

    found = Health(failures=1, cooldown=0.0, clock=clock)

    def work() -> None:
        found.down(found.force(), 0)
        assert found.state

    return work, lambda: (found.left(0), found.down(-1))


def limits() -> Case:
    found, names = LocalLimits(), iter(range(10**9))
    rates = (Rate(1, 1),)

    def charge() -> None:
        found.charge(f"{next(names)}", rates, (0,))

    return charge, charge


def masks() -> Case:
    class Owner:
        pass

    owners = [Owner() for _ in range(40)]
    for number, owner in enumerate(owners):
        secrets.protect(owner, [f"secret number {number}"])

    def forget() -> None:
        secrets.protect(owners[0], ["another secret"])
        secrets.known_secrets()

    return forget, lambda: secrets.masked("a text of a call's end")


def life() -> Case:
    provider = ScriptedProvider(["hi"])

    def opened_anew() -> None:
        async def work() -> None:
            await provider._life.ensure_open()
            await provider.rest_when_idle()

        asyncio.run(work())

    def end() -> None:
        provider._life.under_way += 1  # a stream that had begun
        provider._life.discount()

    return opened_anew, end


@pytest.mark.parametrize("made", [budget, health, life, limits, masks])
def test_a_call_that_ends_in_the_collector_waits_for_nothing(made: Callable[[], Case]) -> None:
    """C-15. What the thread does, and the end of a call that is thrown away in the middle of it."""
    work, end = made()
    busy, runs, ended = threading.local(), count(), 0

    def collected(phase: str, info: dict[str, int]) -> None:
        nonlocal ended
        # Not each time, or the end of one call would leave nothing to do for the next one.
        if phase == "start" and getattr(busy, "mine", False) and not next(runs) % 7:
            busy.mine = False
            end()
            ended += 1
            busy.mine = True

    def run() -> None:
        busy.mine = True
        for _ in range(300):
            work()
        busy.mine = False

    before = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
        thread.join(10)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collected)
    assert not thread.is_alive()
    assert ended > 20
