"""What must end, and what is expected of answers: cooldowns from elsewhere, and the mean of earlier answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from providers import Request, StreamEvent, Usage
from providers.layers.limit import LimitLayer
from providers.pipeline import collecting, compose, compose_whole
from providers.profiles import ModelProfile
from providers.resilience.cooldown import Cooldown
from providers.resilience.limiter import LocalLimits
from providers.types import Messages

Virtually = Callable[[Any], Any]


@pytest.mark.parametrize("until", [70.0, 1e9])
def test_a_cooldown_that_came_from_elsewhere_ends_as_soon_as_any(until: float) -> None:
    """C-15: one that was read from a file or a server, whose clock or bound was another one, cannot be left set."""
    cooldown = Cooldown(longest=10)
    cooldown.until, cooldown.generation = until, 1
    assert cooldown.remaining(50.0) == 10
    # Nor is one that begins meanwhile longer for it.
    cooldown.begin(50.0, cooldown.generation, 3)
    assert cooldown.remaining(50.0) == 10
    assert cooldown.remaining(60.0) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_expected_to_be_as_long_as_those_before_it(stream: bool, virtually: Virtually) -> None:
    """F-110, C-15: without `max_tokens` the mean of earlier answers is kept free, and settled afterwards."""

    async def main() -> None:
        store = LocalLimits(asyncio.get_running_loop().time)
        profile = ModelProfile("m", tokens_per_minute=1_000_000)
        layer = LimitLayer("acme", "key", lambda _: profile, store=store)
        limiter = layer.limiter("m")
        taken: list[float] = []

        def level() -> float:
            return store.gate(limiter.key, limiter.rates).levels()[1]

        async def backend(request: Request) -> AsyncIterator[StreamEvent]:
            taken.append(full - level())
            yield StreamEvent.token("a")
            yield StreamEvent.usage(Usage(10, 1000))
            yield StreamEvent.finish("stop")

        async def ask(**params: Any) -> float:
            """What was taken before the answer was there."""
            request = Request("m", Messages.of("hi"), stream=stream, params=params)
            if stream:
                async for _ in compose((layer,), backend)(request):
                    pass
            else:
                await compose_whole((layer,), backend, collecting(backend))(request)
            await asyncio.sleep(60)  # until the bucket is full again
            return taken[-1]

        full = level()
        prompt = await ask()
        assert prompt < 100
        assert await ask() == pytest.approx(prompt + 1000)
        assert await ask(max_tokens=7) == pytest.approx(prompt + 7)

    virtually(main)
