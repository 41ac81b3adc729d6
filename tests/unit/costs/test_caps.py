"""Caps at their very end, and accounts that nobody changes by looking at them."""

from __future__ import annotations

import pytest

from providers import Budget, BudgetExceededError, LLMProviderServerError, Usage
from providers.costs import total_usage
from providers.profiles import ProfileTable
from providers.testing import ScriptedProvider

from .ledger import answer, spending


async def test_a_budget_that_is_used_up_refuses_what_is_free_too(profiles: ProfileTable) -> None:
    """A hard cap: what a call costs by our figures may not be what it costs."""
    budget = Budget(max_cost="0.001")
    free = spending(budget, profiles, lambda _: answer(), model_name="free")
    await free.execute("hi")
    costly = spending(budget, profiles, [answer(100, 0)])
    await costly.execute("hi", max_tokens=1)
    assert budget.used.cost == 0.001
    with pytest.raises(BudgetExceededError, match="Raise max_cost"):
        await free.execute("hi")
    assert len(free.requests) == 1


async def test_a_budget_of_nothing_lets_through_what_is_free(profiles: ProfileTable) -> None:
    budget = Budget(max_cost=0)
    free = spending(budget, profiles, lambda _: answer(), model_name="free")
    await free.execute("hi")
    with pytest.raises(BudgetExceededError):
        await spending(budget, profiles, [answer()]).execute("hi")
    assert budget.used.requests == 1


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_total_is_a_sum_of_its_own(failures: int) -> None:
    """C-17: the usage of the answer stays that of the attempt which gave it, whatever becomes of the sum."""
    failed = LLMProviderServerError("no")
    failed.usage = Usage(7, 2)
    provider = ScriptedProvider([*[failed] * failures, answer(10, 5)], retry_delay=0.001)
    response = await provider.execute("hi")
    total = total_usage(response)
    assert (total.input_tokens, total.output_tokens) == (10 + 7 * failures, 5 + 2 * failures)
    assert total is not response.usage
    total.input_tokens = 0
    again = total_usage(response)
    assert again.input_tokens == 10 + 7 * failures
    assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 5)
