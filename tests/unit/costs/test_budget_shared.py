"""Budgets that many calls share, over time; and their arithmetic."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import (
    Budget,
    BudgetAmounts,
    BudgetExceededError,
    LLMProviderError,
    Request,
    StreamEvent,
    StreamEventType,
)
from providers.layers import retry
from providers.profiles import ProfileTable
from providers.testing import EchoProvider, LoopbackServer

from .ledger import Ledger, answer, pieces, provider_with, spending

# --- time


async def test_a_call_under_way_is_ended_when_the_time_is_over() -> None:
    budget = Budget(max_seconds=0.1)
    closed = []

    class Slow(EchoProvider):
        layers = (retry, budget)

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            try:
                yield StreamEvent.token("a")
                await asyncio.sleep(60)
            finally:
                closed.append(1)

    provider = Slow()
    began = time.monotonic()
    with pytest.raises(BudgetExceededError, match="time is over") as caught:
        await provider.execute("hi")
    assert (caught.value.cap, caught.value.needed) == ("max_seconds", None)
    budget.reset()
    with pytest.raises(BudgetExceededError) as caught:
        await pieces(provider)
    assert time.monotonic() - began < 2
    assert (caught.value.response.content, len(closed)) == ("a", 2)
    with pytest.raises(BudgetExceededError):
        await provider.execute("hi")
    assert budget.reserved.requests == 0


async def test_the_time_of_the_consumer_is_his_own_and_a_cancel_stays_one() -> None:
    budget = Budget(max_seconds=30)

    class Slow(EchoProvider):
        layers = (budget,)

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            yield StreamEvent.token("a")
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError) as caught:
        await asyncio.wait_for(pieces(Slow()), 0.05)
    assert not isinstance(caught.value, LLMProviderError)


# --- many at once


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_dollar_over_two_hundred_calls_at_once(
    server: LoopbackServer, profiles: ProfileTable, streamed: bool
) -> None:
    """The ledger never exceeds the cap where the estimate holds the prompts and `max_tokens` the answers."""
    ledger = Ledger(server, words=100)
    ledger.hold = 0.02
    budget = Budget(max_cost=1)
    provider = provider_with(server, retry, budget.bound_to("ledger", profiles), max_tokens=100)

    async def ask() -> bool:
        try:
            if streamed:
                return [event async for event in provider.stream("one two three")][-1].type is StreamEventType.DONE
            return (await provider.complete("one two three")).ok
        except BudgetExceededError:
            return False

    async with provider:
        results = await asyncio.gather(*(ask() for _ in range(200)))
    billed = sum((bill.input_tokens or 0) * 10 + (bill.output_tokens or 0) * 100 for bill in ledger.bills) / 1_000_000
    # One call is 0.01003; reserved are (20 * 10 + 100 * 100) / 1e6 for each.
    assert len(ledger.bills) == sum(results) >= 98
    assert billed == pytest.approx(budget.used.cost)
    assert 0.97 < billed <= 1
    assert budget.reserved.cost == 0


async def test_the_stated_error_is_what_a_call_exceeds_its_reservation_by(profiles: ProfileTable) -> None:
    """Without `max_tokens` an answer may be longer than `output_tokens`: each call under way exceeds by that."""
    budget = Budget(max_cost=1, output_tokens=10)
    provider = spending(budget, profiles, lambda _: answer(10, 1000))
    results = await asyncio.gather(*(provider.complete("hi") for _ in range(200)))
    made = sum(result.ok for result in results)
    error = made * 990 * 100 / 1e6
    assert 0 < (budget.used.cost or 0) - 1 <= error


def test_threads_and_loops_share_one_budget(profiles: ProfileTable) -> None:
    budget = Budget(max_requests=100, max_tokens=1_000_000)
    made: list[bool] = []

    def work() -> None:
        async def main() -> None:
            provider = spending(budget, profiles, lambda _: answer())
            for _ in range(25):
                made.append((await provider.complete("hi")).ok)

        asyncio.run(main())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), sum(made)) == (200, 100)
    assert (budget.used.requests, budget.used.tokens, budget.left.requests) == (100, 1500, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_use_the_budget() -> None:
    budget = Budget(max_requests=5)
    budget.reserve(Decimal(0), 0)
    with budget._lock:
        child = os.fork()
        if not child:  # pragma: no cover
            signal.alarm(20)  # a child that waits for the parent's lock waits for ever
            budget.reserve(Decimal(0), 0, 5)
            os._exit(0 if budget.left.requests == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0


# --- arithmetic

AMOUNTS = st.tuples(st.decimals(0, 5, places=7), st.integers(0, 500), st.integers(0, 3))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(AMOUNTS, st.tuples(st.integers(0, 20), AMOUNTS)), max_size=60))
def test_the_caps_hold_at_every_step_where_nobody_uses_more_than_reserved(steps: list[Any]) -> None:
    """Used and reserved together never pass a cap, and nothing is lost or made on the way."""
    budget = Budget(max_cost=7, max_tokens=900, max_requests=6)
    open_: list[tuple[Decimal, int, int]] = []
    booked: list[tuple[Decimal, int, int]] = []
    for step in steps:
        if len(step) == 3:
            try:
                with localcontext() as context:
                    context.prec = 2
                    budget.reserve(*step)
                open_.append(step)
            except BudgetExceededError as error:
                left, wanted = error.left, error.needed
                name = error.cap.removeprefix("max_")
                assert getattr(wanted, name) > getattr(left, name) or (name == "cost" and left.cost == 0)
        elif open_:
            reserved = open_.pop(step[0] % len(open_))
            used = tuple(min(one, two) for one, two in zip(reserved, step[1], strict=True))
            budget.settle(reserved, used)
            booked.append(used)
        held, spent = (
            [sum(item[at] for item in open_) for at in range(3)],
            [sum(item[at] for item in booked) for at in range(3)],
        )
        assert (budget._reserved_cost, budget._reserved_tokens, budget._reserved_requests) == tuple(held)
        assert (budget._cost, budget._tokens, budget._requests) == tuple(spent)
        assert held[0] + spent[0] <= 7
        assert held[1] + spent[1] <= 900
        assert held[2] + spent[2] <= 6
    for reserved in open_:
        budget.settle(reserved, (Decimal(0), 0, 0))
    assert budget.reserved == BudgetAmounts(0, 0, 0)
