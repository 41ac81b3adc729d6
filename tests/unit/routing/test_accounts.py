"""What a call used in all: each figure once, equal to what the servers have billed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from providers import Budget, LLMProviderError, LLMResponse, Priced, total_usage
from providers.layers import retry
from providers.profiles import ProfileTable
from providers.routing import FallbackProvider
from providers.testing import Fault, LoopbackServer, RecordedRequest, Reply

from .backend import OUTAGE, PATH, answer, ask, chunk, throttled
from .conftest import Make

BILLED_ERROR = {"error": {"message": "it broke", "code": "server_error"}, "usage": {}}
STREAMING = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])


class Ledger:
    """Answers as told, and notes what each answer costs."""

    def __init__(self) -> None:
        self.input = self.output = 0

    def _usage(self, tokens: int) -> dict[str, int]:
        self.input += tokens
        self.output += 2
        return {"prompt_tokens": tokens, "completion_tokens": 2, "total_tokens": tokens + 2}

    def fails(self, tokens: int) -> Callable[[RecordedRequest], Reply]:
        """An answer that is paid for and no answer: the whole one says so with an error, the stream breaks off."""

        def reply(request: RecordedRequest) -> Reply:
            usage = self._usage(tokens)
            if request.json.get("stream"):
                return Fault.cut(Reply.sse([chunk(usage=usage), chunk(content="x")]), after_events=1)
            return Reply.json(
                {"error": {"message": "broke", "code": "server_error", "type": "api_error"}, "usage": usage}
            )

        return reply

    def answers(self, tokens: int) -> Callable[[RecordedRequest], Reply]:
        def reply(request: RecordedRequest) -> Reply:
            usage = self._usage(tokens)
            if request.json.get("stream"):
                return Reply.sse([chunk(content="Hi"), chunk("stop"), chunk(usage=usage)])
            body: Any = {"id": "c", "object": "chat.completion", "model": "gpt-4", "usage": usage}
            choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
            return Reply.json({**body, "choices": [choice]})

        return reply

    def agrees(self, outcome: LLMResponse | LLMProviderError) -> None:
        total = total_usage(outcome)
        assert (total.input_tokens or 0, total.output_tokens or 0) == (self.input, self.output)


@STREAMING
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_the_total_is_the_servers_ledger(
    one: LoopbackServer, two: LoopbackServer, make: Make, streaming: bool, nested: bool, attempts: int
) -> None:
    """Over walks that fail, with failed answers that are billed; the last walk answers."""
    ledger, tokens = Ledger(), iter(range(1, 100))
    for _ in range(attempts - 1):
        one.script(PATH, ledger.fails(next(tokens)))
        two.script(PATH, ledger.fails(next(tokens)))
    one.script(PATH, ledger.fails(next(tokens)))
    two.script(PATH, ledger.answers(next(tokens)))
    first: Any = make(one, "a")
    if nested:
        first = FallbackProvider([first])
    fallback = FallbackProvider([first, make(two, "b")], max_retries=attempts - 1, retry_delay=0.0005)
    response = await ask(fallback, streaming=streaming)
    ledger.agrees(response)
    assert len(response.metadata["attempts"]) == 2 * attempts - 1
    assert [item["usage"].input_tokens for item in response.metadata["attempts"]] == sorted(range(1, 2 * attempts))
    assert {item["target"] for item in response.metadata["attempts"]} <= {"openai/a", "openai/b"}


@STREAMING
@pytest.mark.parametrize("attempts", [1, 2])
async def test_it_is_so_where_all_fail(
    one: LoopbackServer, two: LoopbackServer, make: Make, streaming: bool, attempts: int
) -> None:
    ledger, tokens = Ledger(), iter(range(1, 100))
    for _ in range(attempts):
        one.script(PATH, ledger.fails(next(tokens)))
        two.script(PATH, ledger.fails(next(tokens)))
    fallback = FallbackProvider([make(one, "a"), make(two, "b")], max_retries=attempts - 1, retry_delay=0.0005)
    with pytest.raises(LLMProviderError) as caught:
        await ask(fallback, streaming=streaming)
    ledger.agrees(caught.value)
    assert len(caught.value.failed_attempts or ()) == 2 * attempts - 1


async def test_a_failed_completion_holds_its_account_too(one: LoopbackServer, two: LoopbackServer, make: Make) -> None:
    ledger = Ledger()
    one.script(PATH, ledger.fails(3))
    two.script(PATH, ledger.fails(4))
    response = await FallbackProvider([make(one), make(two)], max_retries=0).complete("Hi")
    assert not response.ok
    assert [item["usage"].input_tokens for item in response.metadata["attempts"]] == [3]


@STREAMING
@pytest.mark.parametrize("seed", range(8))
async def test_random_scripts_agree_with_the_ledger(
    one: LoopbackServer, two: LoopbackServer, make: Make, streaming: bool, seed: int
) -> None:
    """Outages, throttling and billed failures in any order, many calls at once."""
    chance, ledger = random.Random(seed), Ledger()

    def replies(request: RecordedRequest) -> Any:
        how = chance.random()
        if how < 0.25:
            return OUTAGE
        if how < 0.4:
            return throttled()
        if how < 0.7:
            return ledger.fails(chance.randint(1, 50))(request)
        return ledger.answers(chance.randint(1, 50))(request)

    for server in (one, two):
        server.script(PATH, replies, repeat=True)
    inner = FallbackProvider([make(two, "b"), make(two, "c")], failures=1000)
    fallback = FallbackProvider([make(one, "a"), inner], max_retries=2, retry_delay=0.0005, failures=1000)
    outcomes = await asyncio.gather(*(ask(fallback, streaming=streaming) for _ in range(12)), return_exceptions=True)
    read = sent = 0
    for outcome in outcomes:
        assert isinstance(outcome, LLMResponse | LLMProviderError)
        total = total_usage(outcome)
        read, sent = read + (total.input_tokens or 0), sent + (total.output_tokens or 0)
    assert (read, sent) == (ledger.input, ledger.output)


class Dear(ProfileTable):
    def __init__(self, price: int) -> None:
        super().__init__()
        self._own = {"models": {"*": {"input_price": price, "output_price": price}}}


@STREAMING
async def test_targets_price_and_book_their_own(one: LoopbackServer, make: Make, streaming: bool) -> None:
    """A budget that the targets share is booked once for each request; the outer prices leave theirs as they are."""
    ledger = Ledger()
    one.script(PATH, ledger.fails(10), ledger.answers(20))
    budget = Budget(max_cost=100, max_requests=50)
    targets = []
    for name, price in (("a", 1_000_000), ("b", 2_000_000)):
        layers = (Priced("p", Dear(price)), retry, budget.bound_to("p", Dear(price)))
        targets.append(make(one, name, layers=layers, max_tokens=5))
    fallback = FallbackProvider(targets, max_retries=0, layers=(Priced("p", Dear(5)), retry))
    response = await ask(fallback, streaming=streaming)
    assert response.usage.total_cost == 44
    assert response.metadata["attempts"][0]["usage"].total_cost == 12
    assert total_usage(response).total_cost == 56
    assert (budget.used.cost, budget.used.requests, budget.reserved.requests) == (56, 2, 0)


async def test_a_budget_that_is_used_up_ends_the_call(one: LoopbackServer, two: LoopbackServer, make: Make) -> None:
    from providers import BudgetExceededError

    one.script(PATH, answer(), repeat=True)
    poor = make(one, layers=(retry, Budget(max_requests=1)))
    fallback = FallbackProvider([poor, make(two)])
    await ask(fallback)
    with pytest.raises(BudgetExceededError):
        await ask(fallback)
    assert (one.count(PATH), two.count(PATH)) == (1, 0)
