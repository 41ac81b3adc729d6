"""Settings of a fallback that change: all or none, and what nobody says any more is the targets' again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from providers import LLMProvider, create_llm_provider, register_provider, unregister_provider
from providers.exceptions import LLMProviderConfigurationError
from providers.types import Request, StreamEvent

from .backend import ask

TARGETS = """
[presets.a]
provider = "acme-heard"
model_name = "m"
timeout = 9
on_unsupported = "drop"
seed = {a}

[presets.b]
provider = "acme-heard"
model_name = "m"
seed = {b}

[presets.house]
provider = "fallback"
targets = ["a", "b"]
{own}
"""

heard: list[Request] = []


class Heard(LLMProvider):
    """Keeps the requests that it gets."""

    name = "acme-heard"

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer."""
        heard.append(request)
        yield StreamEvent.token("hi")
        yield StreamEvent.finish("stop")


@pytest.fixture(autouse=True)
def acme() -> Iterator[None]:
    register_provider("acme-heard", Heard)
    heard.clear()
    yield
    unregister_provider("acme-heard")


def write(own: str = "", a: Any = 1, b: Any = 1) -> None:
    Path("providers.toml").write_text(TARGETS.format(own=own, a=a, b=b), encoding="utf-8")


async def test_what_a_preset_says_no_more_is_the_targets_again() -> None:
    """As in a fallback that is made of the same file now."""
    write("timeout = 5\non_unsupported = 'error'")
    async with create_llm_provider(preset="house") as fallback:
        await ask(fallback)
        write()
        await fallback.reload()
        await ask(fallback)
        await fallback.reload(timeout=60)
        await ask(fallback)
        await fallback.reload()
        await ask(fallback)
    async with create_llm_provider(preset="house") as made_now:
        await ask(made_now)
    said = [(request.timeout, request.on_unsupported) for request in heard]
    assert said == [(5, "error"), (9, "drop"), (60, "drop"), (60, "drop"), (9, "drop")]


async def test_what_a_target_refuses_changes_nothing() -> None:
    """Neither its own settings nor those of the targets before it."""
    write("max_retries = 1")
    async with create_llm_provider(preset="house") as fallback:
        write("max_retries = 2", a=2, b='"many"')
        with pytest.raises(LLMProviderConfigurationError, match=r"seed \(\[presets.b\] of .*, line 12\)"):
            await fallback.reload()
        seeds = [provider.config.seed for provider in fallback.targets]  # type: ignore[attr-defined]
        assert (fallback.config.max_retries, seeds) == (1, [1, 1])
        write("max_retries = 2", a=2, b=3)
        await fallback.reload()
        seeds = [provider.config.seed for provider in fallback.targets]  # type: ignore[attr-defined]
        assert (fallback.config.max_retries, seeds) == (2, [2, 3])
