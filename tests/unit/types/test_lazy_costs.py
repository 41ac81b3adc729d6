"""Costs that are worked out when somebody looks at them."""

from __future__ import annotations

import copy
import pickle
import threading
from dataclasses import asdict, replace
from typing import Any

import pytest

from providers.types import Usage


class Counting:
    """A pricing that knows how often it was asked."""

    def __init__(self, *costs: float | None) -> None:
        self.asked = 0
        self.costs = costs or (1.0, 2.0, 3.0)

    def __call__(self, usage: Usage) -> Any:
        self.asked += 1
        return self.costs


def test_nobody_looks_and_nothing_is_worked_out() -> None:
    pricing = Counting()
    usage = Usage(3, 1)
    usage.price_with(pricing)
    assert (usage.total_tokens, usage["prompt_tokens"]) == (4, 3)
    assert repr(usage).startswith("Usage(input_tokens=3, output_tokens=1")
    assert "cost" not in repr(usage)
    assert pricing.asked == 0


@pytest.mark.parametrize(
    "look",
    [
        lambda usage: usage.total_cost,
        lambda usage: usage["total_cost"],
        lambda usage: usage.get("total_cost"),
        lambda usage: usage.to_dict()["total_cost"],
        lambda usage: dict(usage)["total_cost"],
        lambda usage: asdict(usage)["total_cost"],
        lambda usage: replace(usage).total_cost,
        lambda usage: copy.copy(usage).total_cost,
        lambda usage: copy.deepcopy(usage).total_cost,
        lambda usage: (usage + Usage(0, 0, input_cost=0.0, output_cost=0.0)).total_cost,
    ],
)
def test_every_way_to_look_finds_them(look: Any) -> None:
    """F-121"""
    pricing = Counting()
    usage = Usage(3, 1)
    usage.price_with(pricing)
    assert look(usage) == 3.0
    assert (usage.input_cost, usage.output_cost, pricing.asked) == (1.0, 2.0, 1)
    assert "total_cost=3.0" in repr(usage)


def test_a_pickle_holds_the_figures_and_no_pricing() -> None:
    usage = Usage(3, 1)
    usage.price_with(Counting())
    again = pickle.loads(pickle.dumps(usage))
    assert again == usage == Usage(3, 1, input_cost=1.0, output_cost=2.0)
    again.price_with(Counting(9.0, 9.0, 9.0))
    assert again.total_cost == 3.0


def test_what_was_said_and_the_first_pricing_stay() -> None:
    said = Usage(3, 1, total_cost=0.5)
    said.price_with(Counting())
    assert (said.input_cost, said.total_cost) == (None, 0.5)
    twice, first, second = Usage(3, 1), Counting(), Counting(9.0, 9.0, 9.0)
    twice.price_with(first)
    twice.price_with(second)
    assert (twice.total_cost, first.asked, second.asked) == (3.0, 1, 0)


def test_unknown_stays_unknown_and_other_names_are_refused() -> None:
    """Unknown is None, and never 0."""
    usage = Usage(3, 1)
    usage.price_with(Counting(None, None, None))
    assert (usage.input_cost, usage.total_cost, usage.total_cost) == (None, None, None)
    with pytest.raises(AttributeError, match="no_such"):
        usage.no_such  # noqa: B018


def test_many_threads_may_look_at_once() -> None:
    for _ in range(200):
        usage = Usage(3, 1)
        usage.price_with(Counting())
        gate, seen = threading.Barrier(4), []

        def look(usage: Usage = usage, gate: threading.Barrier = gate, seen: list[Any] = seen) -> None:
            gate.wait()
            seen.append(usage.total_cost)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [3.0] * 4


def test_a_cost_that_somebody_puts_there_stays() -> None:
    usage = Usage(3, 1)
    usage.price_with(lambda _: (1.0, 2.0, 3.0))
    usage.total_cost = 9.0
    assert (usage.input_cost, usage.output_cost, usage.total_cost) == (1.0, 2.0, 9.0)
