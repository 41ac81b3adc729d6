"""Requests for embeddings go through the layers too: prices, retries, limits and budgets, and no cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from providers import (
    Budget,
    EmbeddingRequest,
    EmbeddingResult,
    Embeddings,
    LLMProvider,
    LLMProviderRateLimitError,
    Request,
    StreamEvent,
    Usage,
)

pytestmark = pytest.mark.usefixtures("house")


class Vectors(Embeddings, LLMProvider):
    """Each text is one token for each of its letters."""

    name = "vectors"
    errors: tuple[Exception, ...] = ()

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        if self.errors:
            error, *rest = self.errors
            self.errors = tuple(rest)
            raise error
        letters = sum(map(len, request.inputs))
        return EmbeddingResult([[1.0]] * len(request.inputs), Usage(letters), request.model)


async def test_prices(house: Path) -> None:
    """F-121: an embedding has no output; its cost is that of the prompt."""
    (house / "config").mkdir()
    table = '[models.m]\ncategory = "embeddings"\ninput_price = 0.5\n'
    (house / "config" / "models.toml").write_text(table, encoding="utf-8")
    usage = (await Vectors("m").embed(["abcd", "ef"])).usage
    assert (usage.input_tokens, usage.input_cost, usage.output_cost, usage.total_cost) == (6, 3e-06, None, 3e-06)


async def test_a_budget_books_exactly_what_was_used() -> None:
    spend = Budget(max_tokens=40, max_requests=3)
    provider = Vectors("m", budget=spend)
    assert (await provider.embed("a" * 10)).ok
    assert (spend.used.tokens, spend.used.requests, spend.estimated) == (10, 1, 0)
    refused = await provider.embed("word " * 100)
    assert not refused.ok
    assert "budget" in (refused.error or "")
    assert (spend.used.tokens, spend.used.requests) == (10, 1)


async def test_a_backend_that_asks_for_a_pause_has_it() -> None:
    loop = asyncio.get_running_loop()
    provider = Vectors("m", max_retries=0)
    provider.errors = (LLMProviderRateLimitError("slow down", retry_after=0.3, status_code=429),)
    assert (await provider.embed("a")).status == 429
    began = loop.time()
    assert (await provider.embed("a")).ok
    assert loop.time() - began >= 0.2


async def test_tokens_are_held_to_the_limit() -> None:
    """F-110."""
    provider = Vectors("limited", tokens_per_minute=60_000)
    limiter: Any = provider._stack.layers[-1].limiter("limited")  # type: ignore[attr-defined]
    before = limiter.store.gate(limiter.key, limiter.rates).levels()[1]
    await provider.embed("a" * 500)
    after = limiter.store.gate(limiter.key, limiter.rates).levels()[1]
    assert 400 <= before - after <= 500


async def test_a_cache_and_layers_that_do_not_know_them_are_passed_by() -> None:
    seen: list[Any] = []

    async def watch(request: Request, inner: Any) -> AsyncIterator[StreamEvent]:
        seen.append(request)
        async for event in inner(request):
            yield event

    assert (await Vectors("m", layers=(watch,)).embed("a")).ok
    assert (await Vectors("m", cache_backend="memory").embed("a")).ok
    assert seen == []
    watch.embeddings = True  # type: ignore[attr-defined]
    assert (await Vectors("m", layers=(watch,)).embed("a")).ok
    assert isinstance(seen[0], EmbeddingRequest)
