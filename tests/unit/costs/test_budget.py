"""Budgets: what is reserved before a call, and what is booked after it."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from providers import (
    Budget,
    BudgetAmounts,
    BudgetExceededError,
    LLMProviderAuthenticationError,
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    LLMProviderError,
    LLMProviderServerError,
    LLMProviderStreamError,
    LLMProviderTimeoutError,
    LLMResponse,
    Request,
    StreamEvent,
    StreamEventType,
    Usage,
)
from providers.layers import retry
from providers.layers.estimate import answer_tokens, prompt_tokens
from providers.profiles import ModelProfile, ProfileTable
from providers.testing import EchoProvider
from providers.types import Messages, ToolSpec

from .ledger import answer, pieces, spending

# --- arguments


@pytest.mark.parametrize(
    "options",
    [
        {"max_cost": -1},
        {"max_cost": "much"},
        {"max_cost": True},
        {"max_cost": float("nan")},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_requests": True},
        {"max_seconds": -0.1},
        {"max_seconds": float("inf")},
        {"output_tokens": 0},
        {"unknown_price": "guess"},
    ],
    ids=str,
)
def test_caps_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=next(iter(options))):
        Budget(**options)


def test_a_new_budget() -> None:
    budget = Budget(max_cost="0.1", max_tokens=10, max_requests=2, max_seconds=5)
    assert budget.max_cost == Decimal("0.1")
    assert budget.used == BudgetAmounts(0, 0, 0, 0)
    assert budget.left == BudgetAmounts(0.1, 10, 2, 5)
    assert Budget().left == BudgetAmounts()
    assert "max_requests=2" in repr(budget)


# --- one call


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_is_booked_at_what_it_used(profiles: ProfileTable, streamed: bool) -> None:
    budget = Budget(max_cost=1, max_tokens=10_000, max_requests=3)
    provider = spending(budget, profiles, [answer(100, 7)])
    if streamed:
        assert [event async for event in provider.stream("hi")][-1].type is StreamEventType.DONE
    else:
        assert (await provider.complete("hi")).ok
    assert budget.used.cost == pytest.approx(0.0017)
    assert (budget.used.tokens, budget.used.requests, budget.estimated) == (107, 1, 0)
    assert (budget.left.tokens, budget.left.requests) == (9893, 2)
    assert budget.reserved == BudgetAmounts(0, 0, 0)


@pytest.mark.parametrize(
    ("caps", "cap"),
    [
        ({"max_cost": 0.0001}, "max_cost"),
        ({"max_tokens": 50}, "max_tokens"),
        ({"max_requests": 0}, "max_requests"),
        ({"max_seconds": 0}, "max_seconds"),
    ],
)
async def test_a_call_that_does_not_fit_is_not_made(profiles: ProfileTable, caps: dict[str, Any], cap: str) -> None:
    """It says which cap, what is used and left, and it is not tried again."""
    budget = Budget(**caps)
    provider = spending(budget, profiles, [answer()] * 4, retry)
    with pytest.raises(BudgetExceededError, match=f"Raise {cap}") as caught:
        await provider.execute("hi")
    error = caught.value
    assert (error.cap, error.code, error.retryable, error.attempts) == (cap, cap, False, 1)
    assert isinstance(error.used, BudgetAmounts)
    assert isinstance(error, LLMProviderError | RuntimeError)
    again = pickle.loads(pickle.dumps(error))
    assert (again.cap, again.left, again.needed) == (error.cap, error.left, error.needed)
    assert not (result := await provider.complete("hi")).ok
    assert "budget" in (result.error or "")
    events = [event async for event in provider.stream("hi")]
    assert events[-1].data["type"] == "BudgetExceededError"
    assert provider.requests == []
    assert budget.used.requests == budget.reserved.requests == 0


async def test_the_reservation_is_the_estimate_at_the_models_price(profiles: ProfileTable) -> None:
    reserved = []
    budget = Budget(max_cost=1)

    def look(request: Request) -> LLMResponse:
        reserved.append((budget.reserved, prompt_tokens(request)))
        return answer()

    provider = spending(budget, profiles, look)
    await provider.complete("x" * 400, max_tokens=50)
    await provider.complete("hi")
    (one, prompt), (two, _) = reserved
    assert prompt == 8 + 8 + 125
    assert one.cost == pytest.approx((prompt * 10 + 50 * 100) / 1e6)
    assert (one.tokens, one.requests) == (prompt + 50, 1)
    assert two.tokens == 17 + 4096


async def test_what_is_reserved_for_an_answer() -> None:
    def asked(**fields: Any) -> Request:
        return Request("m", Messages.of("hi"), **fields)

    known = ModelProfile("m", max_output_tokens=1000)
    assert answer_tokens(asked(), known, 4096) == 1000
    assert answer_tokens(asked(), known, 10) == 10
    assert answer_tokens(asked(), known, None) == 1000
    assert answer_tokens(asked(params={"max_tokens": 7}), known, 10) == 7
    assert answer_tokens(asked(params={"max_tokens": 5000}), known, 10) == 1000
    assert answer_tokens(asked(extras={"max_completion_tokens": 70}), known, 10) == 70
    assert answer_tokens(asked(), ModelProfile("m", context_window=9), None) == 9


async def test_all_of_a_prompt_is_estimated() -> None:
    def tokens(messages: Any, **fields: Any) -> int:
        return prompt_tokens(Request("m", Messages.of(messages), **fields))

    text = "x" * 4000
    plain = tokens(text)
    assert plain == 1266
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    parts = [{"role": "user", "content": [{"type": "text", "text": text}, picture]}]
    assert tokens(parts) == plain + 1500
    assert tokens("hi", system=text) > 1250
    assert tokens("hi", tools=(ToolSpec("f", text),)) > 1250
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "' + text + '"}'}}
    talk = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "x", "tool_call_id": "1"},
    ]
    assert tokens(talk) > 1250


async def test_a_model_without_a_price_is_refused_or_counted(profiles: ProfileTable) -> None:
    """C-17: unknown is not zero; a free model says that it is."""
    budget = Budget(max_cost=1)
    provider = spending(budget, profiles, [answer()], model_name="nobody")
    with pytest.raises(LLMProviderConfigurationError, match="no price of this model is known") as caught:
        await provider.execute("hi")
    assert (caught.value.code, caught.value.model, provider.requests) == ("unknown_price", "nobody", [])
    assert (await spending(budget, profiles, [answer()], model_name="free").complete("hi")).ok
    assert (budget.used.cost, budget.used.tokens, budget.unpriced) == (0, 15, 0)
    lenient = Budget(max_cost=1, unknown_price="allow")
    assert (await spending(lenient, profiles, [answer()], model_name="nobody").complete("hi")).ok
    assert (lenient.used.cost, lenient.used.tokens, lenient.unpriced) == (0, 15, 1)
    assert (await spending(Budget(max_tokens=10_000), profiles, [answer()], model_name="nobody").complete("hi")).ok


async def test_the_budget_itself_is_a_layer_too(monkeypatch: pytest.MonkeyPatch, profiles: ProfileTable) -> None:
    """Then models are looked up among those of all providers."""
    budget = Budget(max_tokens=10_000, max_requests=2)

    class Plain(EchoProvider):
        layers = (retry, budget)

    provider = Plain()
    assert (await provider.complete("one two three")).ok
    assert [event async for event in provider.stream("one two three")][-1].type is StreamEventType.DONE
    assert (budget.used.tokens, budget.used.requests) == (12, 2)
    with pytest.raises(BudgetExceededError):
        await provider.execute("hi")


async def test_reset_begins_anew(profiles: ProfileTable) -> None:
    budget = Budget(max_requests=1, max_seconds=100)
    provider = spending(budget, profiles, [answer()] * 2)
    await provider.execute("hi")
    assert (budget.used.seconds or 0) > 0
    with pytest.raises(BudgetExceededError):
        await provider.execute("hi")
    budget.reset()
    assert budget.used == BudgetAmounts(None, 0, 0, 0)
    await provider.execute("hi")
    assert budget.used.requests == 1


# --- what is booked of calls that go wrong


@pytest.mark.parametrize(
    ("error", "requests", "whole"),
    [
        (LLMProviderServerError("no"), 1, 0),
        (LLMProviderAuthenticationError("no"), 1, 0),
        (LLMProviderConnectionError("no"), 1, 0),
        (LLMProviderTimeoutError("no"), 1, 1),
        (LLMProviderStreamError("no"), 1, 1),
        (KeyError("a bug"), 1, 1),
        (LLMProviderConfigurationError("no"), 0, 0),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_failed_call(
    profiles: ProfileTable, error: Exception, requests: int, whole: int, streamed: bool
) -> None:
    """Where the backend may have worked in silence, the whole reservation is booked."""
    budget = Budget(max_cost=1)
    provider = spending(budget, profiles, [error])
    with pytest.raises(LLMProviderError):
        await (pieces(provider, max_tokens=100) if streamed else provider.execute("hi", max_tokens=100))
    expected = (17 + 100) * whole
    assert (budget.used.tokens, budget.used.requests, budget.estimated) == (expected, requests, whole)
    assert budget.used.cost == pytest.approx((17 * 10 + 100 * 100) / 1e6 * whole)
    assert budget.reserved == BudgetAmounts(0, 0, 0)


async def test_a_stream_without_figures_is_booked_by_its_texts(profiles: ProfileTable) -> None:
    texts = [StreamEvent.token("x" * 40), StreamEvent.reasoning("y" * 40)]
    budget = Budget(max_cost=1)
    provider = spending(
        budget, profiles, [[*texts, StreamEvent.finish("stop")], [*texts, LLMProviderStreamError("cut")]]
    )
    await provider.complete("hi")
    assert (budget.used.tokens, budget.estimated) == (17 + 20, 1)
    with pytest.raises(LLMProviderStreamError):
        await pieces(provider)
    assert (budget.used.tokens, budget.estimated) == ((17 + 20) * 2, 2)


async def test_a_stream_whose_figures_came_early(profiles: ProfileTable) -> None:
    """What came after the last figures is estimated; a first figure that says nothing of the output is no answer."""
    budget = Budget(max_cost=1)
    events = [StreamEvent.usage(Usage(100, None)), StreamEvent.token("x" * 40), LLMProviderStreamError("cut")]
    only = [StreamEvent.usage(Usage(100, None)), LLMProviderServerError("cut", retryable=False)]
    provider = spending(budget, profiles, [events, only])
    for expected in (110, 210):
        with pytest.raises(LLMProviderError):
            await pieces(provider)
        assert budget.used.tokens == expected


async def test_a_call_that_is_cancelled(profiles: ProfileTable) -> None:
    budget, begun = Budget(max_tokens=1000), asyncio.Event()

    class Slow(EchoProvider):
        layers = (retry, budget)

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            begun.set()
            await asyncio.sleep(60)
            yield StreamEvent.token("never")

    task = asyncio.create_task(Slow().complete("hi", max_tokens=10))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (budget.used.tokens, budget.reserved.tokens, budget.estimated) == (27, 0, 1)


async def test_a_stream_that_was_never_begun_reserves_nothing(profiles: ProfileTable) -> None:
    budget = Budget(max_requests=1)
    provider = spending(budget, profiles, [answer()])
    stream = provider.stream("hi")
    await stream.aclose()
    assert budget.used.requests == budget.reserved.requests == 0


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -1.0, None])
async def test_nonsense_of_a_plugin_does_not_stick(profiles: ProfileTable, cost: Any) -> None:
    budget = Budget(max_cost=1)
    usage = Usage(10, 10, -5, total_cost=cost)
    facts = [StreamEvent.usage(usage), StreamEvent.finish("stop", attempts=3)]
    provider = spending(budget, profiles, [facts, [*facts, StreamEvent.meta(attempts=[7])]])
    for number in (1, 2):
        assert (await provider.complete("hi")).ok
        assert (budget.used.tokens, budget.used.requests) == (20 * number, number)
        assert budget.used.cost == pytest.approx(0.0011 * number)


async def test_figures_that_make_no_price_are_booked_at_the_dearest(profiles: ProfileTable) -> None:
    budget = Budget(max_cost=1)
    provider = spending(budget, profiles, [LLMResponse("x", usage=Usage(10, 10, None, 99))])
    await provider.execute("hi")
    assert budget.used.cost == pytest.approx(0.0011)
    assert budget.estimated == 1
