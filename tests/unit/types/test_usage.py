"""Usage: a mapping under many names, where unknown is `None` and never zero."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import LLMResponse, Usage
from providers.types import token_count

figures = st.none() | st.integers(0, 10**6)


def test_it_is_a_mapping_under_all_names() -> None:
    """F-121, C-17."""
    usage = Usage(3, 4, input_tokens_cached=1, output_tokens_reasoning=2)
    assert dict(usage)["total_tokens"] == 7
    assert {**usage} == usage.to_dict()
    assert usage["input_tokens"] == usage["prompt_tokens"] == usage.prompt_tokens == 3
    assert usage["output_tokens"] == usage["completion_tokens"] == usage.completion_tokens == 4
    assert usage["cached_input_tokens"] == usage.cached_input_tokens == usage["cached"] == 1
    assert usage["reasoning_tokens"] == usage.reasoning_tokens == 2
    assert "prompt_tokens" in usage
    assert "nonsense" not in usage
    with pytest.raises(KeyError, match="nonsense"):
        usage["nonsense"]


def test_unknown_is_none_and_never_zero() -> None:
    """C-17."""
    usage = Usage()
    assert set(usage.to_dict().values()) == {None}
    assert usage.get("input_tokens", 5) == 5
    assert usage.get("nonsense", 5) == 5
    assert Usage(3).total_tokens is None
    assert Usage(None, 4).total_tokens is None
    assert Usage(0, 0).total_tokens == 0
    assert LLMResponse("x").total_tokens is None


def test_a_total_that_the_backend_says_stands() -> None:
    assert Usage(1, 2, 10).total_tokens == 10


def test_costs_add_up_where_both_are_known() -> None:
    assert Usage(input_cost=0.5, output_cost=0.25).total_cost == 0.75
    assert Usage(input_cost=0.5).total_cost is None


@given(st.lists(st.tuples(figures, figures), min_size=1, max_size=5))
def test_sums_are_sums_of_what_is_known(pairs: list[tuple[int | None, int | None]]) -> None:
    """C-17: per-attempt figures sum into one; the total is never below what is in it."""
    total = sum((Usage(*pair) for pair in pairs), Usage())
    inputs = [one for one, _ in pairs if one is not None]
    outputs = [two for _, two in pairs if two is not None]
    assert total.input_tokens == (sum(inputs) if inputs else None)
    assert total.output_tokens == (sum(outputs) if outputs else None)
    if inputs and outputs:
        assert total.total_tokens == sum(inputs) + sum(outputs)


def test_a_sum_changes_neither_of_its_parts() -> None:
    one, two = Usage(1, 1), Usage(2, 2)
    three = one + two
    assert (one, two, three) == (Usage(1, 1), Usage(2, 2), Usage(3, 3))
    with pytest.raises(TypeError):
        one + 5  # type: ignore[operator]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        (0, 0),
        (5.0, 5),
        ("5", 5),
        ("5.0", 5),
        (-1, None),
        (-1.5, None),
        (True, None),
        (None, None),
        ("many", None),
        (float("nan"), None),
        (float("inf"), None),
        ("1e400", None),
        ([], None),
        ({}, None),
    ],
    ids=str,
)
def test_odd_figures_never_cost_the_answer(value: Any, expected: int | None) -> None:
    """Bad input 44."""
    assert token_count(value) == expected
    assert Usage.from_dict({"prompt_tokens": value}).input_tokens == expected


def test_from_dict_reads_every_name_and_passes_over_the_rest() -> None:
    """F-121."""
    assert Usage.from_dict(
        {"prompt_tokens": 1, "completion_tokens": 2, "weather": "fine", "total_tokens": None}
    ) == Usage(1, 2)
    full = Usage(1, 2, 3, 1, 1, 1, 0.1, 0.2, 0.3)
    assert Usage.from_dict(full.to_dict()) == full
    assert Usage.from_dict(full) == full


def test_it_travels() -> None:
    usage = Usage(1, 2)
    assert pickle.loads(pickle.dumps(usage)) == copy.deepcopy(usage) == usage
