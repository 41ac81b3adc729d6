"""The usage of every attempt is kept: totals are what the server's ledger says, however the call went."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest

from providers import (
    LLMProviderError,
    LLMProviderOverloadedError,
    LLMProviderServerError,
    LLMResponse,
    StreamEvent,
    StreamEventType,
    Usage,
    total_usage,
)
from providers.layers import retry
from providers.layers.budget import Budget
from providers.layers.pricing import Priced
from providers.resilience import owning_retries
from providers.testing import LoopbackServer, ScriptedProvider

from .ledger import PRICES, Ledger, LedgerProvider, provider_with, table

FAST: dict[str, Any] = {"retry_delay": 0.001}


def cost(usage: Usage) -> float:
    """What the ledger's bills cost."""
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    return (read * PRICES["input_price"] + written * PRICES["output_price"]) / 1_000_000


def tokens(usage: Usage) -> tuple[int | None, int | None, int | None]:
    return usage.input_tokens, usage.output_tokens, usage.total_tokens


async def whole(provider: Any) -> LLMResponse:
    answer = await provider.execute("one two three")
    assert isinstance(answer, LLMResponse)
    return answer


async def streamed(provider: Any) -> LLMResponse:
    events = [event async for event in provider.stream("one two three")]
    assert events[-1].type is StreamEventType.DONE, events[-1].data
    answer: LLMResponse = events[-1].data
    return answer


async def pieces(provider: Any) -> None:
    async for _ in await provider.execute("one two three", stream_mode="enabled"):
        pass


async def half(provider: Any) -> None:
    """Reads three pieces and leaves."""
    stream, seen = provider.stream("one two three"), 0
    async for event in stream:
        if event.type is StreamEventType.TOKEN:
            seen += 1
        elif event.type is StreamEventType.USAGE and seen == 3:
            break
    await stream.aclose()


@pytest.mark.parametrize("order", ["budget inside", "budget outside"])
@pytest.mark.parametrize("failures", [(), (0,), (0, 0)], ids=len)
@pytest.mark.parametrize("ask", [whole, streamed])
async def test_totals_are_the_ledgers(
    server: LoopbackServer, tmp_path: Path, ask: Any, failures: tuple[int, ...], order: str
) -> None:
    """F-121, C-17: the same reply whole and streamed, at once and after failed attempts."""
    ledger, budget, profiles = Ledger(server), Budget(max_cost=1), table(tmp_path)
    ledger.fail(*failures)
    spend, price = budget.bound_to("ledger", profiles), Priced("ledger", profiles)
    layers = (price, retry, spend) if order == "budget inside" else (price, spend, retry)
    async with provider_with(server, *layers) as provider:
        answer = await ask(provider)
    assert answer.content == "word " * 8
    assert len(ledger.bills) == len(failures) + 1
    assert tokens(answer.usage) == tokens(ledger.bills[-1]) == (3, 8, 11)
    assert tokens(total_usage(answer)) == tokens(ledger.total)
    assert total_usage(answer).total_cost == pytest.approx(cost(ledger.total))
    if failures:
        told = answer.metadata["attempts"]
        assert [attempt["error"] for attempt in told] == ["LLMProviderOverloadedError"] * len(failures)
        assert [tokens(attempt["usage"]) for attempt in told] == [tokens(bill) for bill in ledger.bills[:-1]]
        assert all(0 <= attempt["wait"] < 1 for attempt in told)
    else:
        assert "attempts" not in answer.metadata
    used = budget.used
    assert (used.tokens, used.requests, budget.estimated) == (ledger.total.total_tokens, len(failures) + 1, 0)
    assert used.cost == pytest.approx(cost(ledger.total))
    assert (budget.reserved.cost, budget.reserved.tokens, budget.reserved.requests) == (0, 0, 0)


async def test_totals_of_the_stack_of_settings_are_the_ledgers(server: LoopbackServer) -> None:
    """F-121, C-17: one reply whole, streamed, from the cache either way, after two failed attempts, and left half-way:
    after each the sum of what the calls say, and what the budget has booked, is the ledger's."""
    ledger, budget = Ledger(server), Budget(max_tokens=10_000)
    kind = type("Stacked", (LedgerProvider,), {"url": f"{server.url}/v1"})
    sums, caching = Usage(0, 0), {"cache_response": True}

    def add(usage: Usage) -> None:
        nonlocal sums
        sums += usage.without_costs()
        assert tokens(sums) == tokens(ledger.total)
        assert (budget.used.tokens, budget.used.requests) == (ledger.total.total_tokens, len(ledger.bills))

    async with kind("m", retry_delay=0.001, cache_backend="memory", budget=budget) as provider:
        for text, failures in (("a b c", ()), ("d e f", (0, 0))):
            ledger.fail(*failures)
            first = await provider.execute(text, **caching)
            add(total_usage(first))
            assert len(first.metadata.get("attempts", ())) == len(failures)
            again = await provider.execute(text, **caching)
            add(total_usage(again))
            events = [event async for event in provider.stream(text, **caching)]
            add(total_usage(events[-1].data))
            assert again.content == events[-1].data.content == first.content
        assert len(ledger.bills) == 4
        ledger.stall(3)
        stream, last, seen = provider.stream("g h i", **caching), Usage(), 0
        async for event in stream:
            seen += event.type is StreamEventType.TOKEN
            if event.type is StreamEventType.USAGE:
                last = event.data
                if seen == 3:
                    break
        await stream.aclose()
        assert await server.eventually(lambda: server.disconnects >= 1)
        add(last)


@pytest.mark.parametrize("order", ["budget inside", "budget outside"])
@pytest.mark.parametrize("failures", [(), (0, 0)], ids=len)
@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_totals_of_a_stream_that_is_left_are_the_ledgers(
    server: LoopbackServer, tmp_path: Path, failures: tuple[int, ...], order: str, how: str
) -> None:
    ledger, budget, profiles = Ledger(server), Budget(max_cost=1), table(tmp_path)
    ledger.fail(*failures)
    ledger.stall(3)
    spend = budget.bound_to("ledger", profiles)
    layers = (retry, spend) if order == "budget inside" else (spend, retry)
    async with provider_with(server, *layers) as provider:
        if how == "left":
            await half(provider)
        else:
            task = asyncio.create_task(streamed(provider))
            assert await server.eventually(lambda: ledger.total.output_tokens == 3)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await server.eventually(lambda: server.disconnects >= 1)
    assert tokens(ledger.bills[-1]) == (3, 3, 6)
    used = budget.used
    assert (used.tokens, used.requests) == (ledger.total.total_tokens, len(failures) + 1)
    assert used.cost == pytest.approx(cost(ledger.total))
    assert budget.reserved.tokens == 0


@pytest.mark.parametrize("order", ["budget inside", "budget outside"])
@pytest.mark.parametrize("ask", [whole, streamed, "text"])
async def test_totals_of_a_call_that_fails_are_the_ledgers(
    server: LoopbackServer, tmp_path: Path, ask: Any, order: str
) -> None:
    ledger, budget, profiles = Ledger(server), Budget(max_cost=1), table(tmp_path)
    ledger.fail(0, 0, 0, 0)
    spend = budget.bound_to("ledger", profiles)
    price = Priced("ledger", profiles)
    layers = (price, retry, spend) if order == "budget inside" else (price, spend, retry)
    async with provider_with(server, *layers, max_retries=2) as provider:
        if ask is streamed:
            events = [event async for event in provider.stream("one two three")]
            assert events[-1].type is StreamEventType.ERROR
        else:
            with pytest.raises(LLMProviderOverloadedError) as caught:
                await (whole(provider) if ask is whole else pieces(provider))
            error = caught.value
            assert error.attempts == 3
            assert error.failed_attempts is not None
            assert len(error.failed_attempts) == 2
            assert tokens(total_usage(error)) == tokens(ledger.total) == (9, 0, 9)
            assert total_usage(error).total_cost == pytest.approx(cost(ledger.total))
            assert tokens(total_usage(pickle.loads(pickle.dumps(error)))) == (9, 0, 9)
    assert (budget.used.tokens, budget.used.requests) == (9, 3)


async def test_a_break_after_the_first_piece_keeps_the_attempts_before_it(server: LoopbackServer) -> None:
    ledger = Ledger(server)
    ledger.fail(0, 5)
    async with provider_with(server, retry) as provider:
        with pytest.raises(LLMProviderOverloadedError) as caught:
            async for _ in await provider.execute("one two three", stream_mode="enabled"):
                pass
    assert tokens(total_usage(caught.value)) == tokens(ledger.total) == (6, 5, 11)


# --- without a server


async def test_one_attempt_says_nothing_of_attempts() -> None:
    """No cost for the usual call, and not one event more."""
    provider = ScriptedProvider(["fine", "fine", LLMProviderServerError("no")], max_retries=0)
    answer = await provider.complete("hi")
    assert "attempts" not in answer.metadata
    facts = [event.data async for event in provider.stream("hi") if event.type is StreamEventType.META]
    assert facts
    assert not any("attempts" in data for data in facts)
    with pytest.raises(LLMProviderServerError) as caught:
        await provider.execute("hi")
    assert (caught.value.attempts, caught.value.failed_attempts) == (1, None)


async def test_what_an_attempt_says_of_itself() -> None:
    script = [LLMProviderServerError("no", status_code=503, response=LLMResponse("", usage=Usage(5, 1))), "fine"]
    answer = await ScriptedProvider(script, **FAST).complete("hi")
    [told] = answer.metadata["attempts"]
    assert (told["error"], told["status"], told["usage"]) == ("LLMProviderServerError", 503, Usage(5, 1))
    assert answer.to_dict()["metadata"]["attempts"][0]["usage"]["total_tokens"] == 6


async def test_inside_another_owner_each_call_tells_its_own_attempt_only() -> None:
    provider = ScriptedProvider([LLMProviderServerError("no"), "fine"], **FAST)
    with owning_retries():
        with pytest.raises(LLMProviderError) as caught:
            await provider.execute("hi")
        assert (caught.value.attempts, caught.value.failed_attempts) == (1, None)
        assert "attempts" not in (await provider.complete("hi")).metadata


async def test_two_calls_at_once_do_not_share_attempts() -> None:
    script: dict[str, list[Any]] = {
        "a": [LLMProviderServerError("no"), "A"],
        "b": [LLMProviderServerError("no")] * 2 + ["B"],
    }
    provider = ScriptedProvider(lambda request: script[request.messages.last_text].pop(0), **FAST)
    one, two = await asyncio.gather(provider.complete("a"), provider.complete("b"))
    assert (len(one.metadata["attempts"]), len(two.metadata["attempts"])) == (1, 2)


# --- costs in the usage


async def test_costs_are_filled_by_the_layer_and_by_nothing_else(tmp_path: Path) -> None:
    """F-118, F-121: opt-in."""
    profiles = table(tmp_path, scripted={"input_price": 1, "output_price": 2})

    class Pricey(ScriptedProvider):
        layers = (retry, Priced("scripted", profiles))

    def script() -> list[Any]:
        return [LLMResponse("a b", usage=Usage(1_000_000, 500_000))]

    assert (await ScriptedProvider(script()).complete("hi")).usage.total_cost is None
    answer = await Pricey(script()).complete("hi")
    assert (answer.usage.input_cost, answer.usage.output_cost, answer.usage.total_cost) == (1.0, 1.0, 2.0)
    answer = await streamed(Pricey(script()))
    assert answer.usage.total_cost == 2.0
    broken = [StreamEvent.usage(Usage(1_000_000, 0)), StreamEvent.token("x"), LLMProviderServerError("cut")]
    with pytest.raises(LLMProviderServerError) as caught:
        async for _ in await Pricey([broken]).execute("hi", stream_mode="enabled"):
            pass
    assert caught.value.response.usage.total_cost == 1.0


async def test_a_wrong_price_loses_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Pricey(ScriptedProvider):
        layers = (Priced("scripted", table(tmp_path, scripted={"input_price": -1})),)

    answer = await Pricey(["fine"]).complete("hi")
    assert (answer.ok, answer.content, answer.usage.total_cost) == (True, "fine", None)
    assert "input_price" in caplog.text
