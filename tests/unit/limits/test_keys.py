"""Who shares a limit and a cooldown: the same provider, key and model, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from providers import LLMProviderRateLimitError, Request, RetryPolicy, StreamEvent
from providers.layers.limit import LimitLayer
from providers.pipeline import compose
from providers.profiles import ModelProfile
from providers.resilience.limiter import Limiter, LocalLimits, limit_key
from providers.types import Messages

Virtually = Callable[[Any], Any]

PARTS = [("acme", "key", "m"), ("other", "key", "m"), ("acme", "yek", "m"), ("acme", None, "m"), ("acme", "key", "n")]


def test_each_of_the_three_tells_two_keys_apart() -> None:
    """C-15: one limiter for each provider, fingerprint and model."""
    assert len({limit_key(*parts) for parts in PARTS}) == len(PARTS)
    assert limit_key("acme", "key", "m") == limit_key("acme", "key", "m")


@pytest.mark.parametrize(("provider", "credential", "model"), PARTS)
def test_what_one_uses_is_taken_from_its_own_kind_alone(
    provider: str, credential: str | None, model: str, virtually: Virtually
) -> None:
    """C-15: the levels of others stay full."""

    async def main() -> None:
        store = LocalLimits(asyncio.get_running_loop().time)

        def limiter(provider: str, credential: str | None, model: str) -> Limiter:
            profile = ModelProfile(model, requests_per_minute=600, tokens_per_minute=60_000)
            return Limiter(profile, provider=provider, credential=credential, store=store)

        async with limiter(provider, credential, model).limit(tokens=2000):
            pass
        for parts in PARTS:
            other = limiter(*parts)
            full = [rate.capacity for rate in other.rates]
            assert (store.gate(other.key, other.rates).levels() == full) is (parts != (provider, credential, model))

    virtually(main)


def test_a_cooldown_of_one_model_holds_up_no_other_one(virtually: Virtually) -> None:
    """C-15: "too many requests" is said for a model, and the calls of another one of the same key go on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        layer = LimitLayer("acme", "key", store=LocalLimits(loop.time))
        refused: list[str] = ["m"]
        began: list[tuple[str, float]] = []

        async def backend(request: Request) -> AsyncIterator[StreamEvent]:
            began.append((request.model, loop.time()))
            if request.model in refused:
                refused.remove(request.model)
                raise LLMProviderRateLimitError("no", retry_after=5)
            yield StreamEvent.finish("stop")

        async def ask(model: str) -> None:
            request = Request(model, Messages.of("hi"), stream=True, retry=RetryPolicy(1))
            async for _ in compose((layer,), backend)(request):
                pass

        with pytest.raises(LLMProviderRateLimitError):
            await ask("m")
        await asyncio.gather(ask("m"), ask("n"))
        assert dict(began)["n"] == 0
        assert dict(began)["m"] == pytest.approx(5, abs=0.1)

    virtually(main)
