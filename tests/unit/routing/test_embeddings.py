"""Vectors through a fallback: the rules of answers hold for them too, by the very errors of the targets."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from providers import (
    BudgetExceededError,
    EmbeddingRequest,
    EmbeddingResult,
    Embeddings,
    LLMProviderConfigurationError,
    LLMProviderQuotaError,
    LLMProviderRateLimitError,
    LLMProviderServerError,
    MissingDependencyError,
    Usage,
)
from providers.routing import FallbackProvider
from providers.testing import EchoProvider

from .backend import Clock


class Vectors(Embeddings, EchoProvider):
    """Gives the length of each text, or fails."""

    name = "vectors"

    def __init__(self, error: Exception | None = None, at_open: Exception | None = None, **options: Any) -> None:
        super().__init__("e-1", **options)
        self.error, self.at_open, self.calls = error, at_open, 0

    def open(self) -> None:
        if self.at_open is not None:
            raise self.at_open

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return EmbeddingResult([[float(len(text))] for text in request.inputs], Usage(3, 0), request.model)


async def test_a_budget_that_is_used_up_ends_the_call() -> None:
    """F-107: a cap is a cap, for vectors too."""
    second = Vectors()
    fallback = FallbackProvider([Vectors(BudgetExceededError("used up")), second])
    result = await fallback.embed("a")
    assert (result.ok, second.calls) == (False, 0)
    assert "used up" in str(result.error)


@pytest.mark.parametrize(
    ("error", "rests"),
    [
        (partial(LLMProviderRateLimitError, "slow down", status_code=429, retry_after=40), 40),
        (partial(LLMProviderQuotaError, "nothing left", status_code=429), 30),
        (partial(MissingDependencyError, "no package"), 30),
        (partial(KeyError, "a mistake in its code"), 30),
        (partial(LLMProviderServerError, "down", status_code=503), 0),
    ],
    ids=lambda value: value.func.__name__ if isinstance(value, partial) else "",
)
@pytest.mark.filterwarnings("ignore::UserWarning")
async def test_a_target_rests_as_its_own_error_says(error: Any, rests: int, clock: Clock) -> None:
    first, second = Vectors(error()), Vectors()
    fallback = FallbackProvider([first, second], clock=clock)
    assert (await fallback.embed("abc")).embeddings == [[3.0]]
    assert (first.calls, second.calls) == (1, 1)
    assert fallback._targets[0].health.wait == rests


@pytest.mark.filterwarnings("ignore::UserWarning")
async def test_a_target_that_cannot_be_opened_is_passed_over() -> None:
    first = Vectors(at_open=LLMProviderConfigurationError("its file is missing"))
    assert (await FallbackProvider([first, Vectors()]).embed("abc")).embeddings == [[3.0]]
    assert first.calls == 0
    wrong = FallbackProvider([Vectors(LLMProviderConfigurationError("the call is wrong")), Vectors()])
    with pytest.raises(LLMProviderConfigurationError, match="the call is wrong"):
        await wrong.embed("abc")


async def test_a_target_refuses_by_its_result_too() -> None:
    class Told(Vectors):
        async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
            return EmbeddingResult([], model="e-1", status=503, error="no capacity")

    fallback = FallbackProvider([Told(), Vectors()])
    assert (await fallback.embed("abc")).embeddings == [[3.0]]
    assert fallback._targets[0].health._failures == 1


async def test_a_class_of_the_users_own_stays_what_it_is() -> None:
    class Mine(FallbackProvider):
        def where(self) -> str:
            return "mine"

    for targets in ([EchoProvider()], [Vectors()]):
        mine = Mine(targets)
        assert isinstance(mine, Mine)
        assert mine.where() == "mine"
        assert type(mine).__qualname__ == Mine.__qualname__
    assert (await mine.embed("abc")).embeddings == [[3.0]]
    assert type(Mine([Vectors()])) is type(mine)
