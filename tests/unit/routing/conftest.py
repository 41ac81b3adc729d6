"""Two scripted servers of one dialect, and a real remote plugin's providers that talk to them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_provider_openai import OpenAIProvider
from providers.routing import FallbackProvider
from providers.testing import LoopbackServer

from .backend import Clock

Make = Callable[..., OpenAIProvider]


@pytest.fixture
def one() -> Iterator[LoopbackServer]:
    with LoopbackServer() as started:
        yield started


@pytest.fixture
def two() -> Iterator[LoopbackServer]:
    with LoopbackServer() as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, address, proxy or file of this machine may decide a test."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "DEFAULT_", "LLM_PROVIDER")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes providers that talk to a scripted server, and closes them."""
    made: list[OpenAIProvider] = []

    def build(server: LoopbackServer, model: str = "gpt-4", **options: Any) -> OpenAIProvider:
        # Their own pauses after "too many requests" would only make the tests slow; one test is about them.
        settings = {"base_url": f"{server.url}/v1", "api_key": "sk-loopback-key", "retry_delay": 0.01, **options}
        if "layers" not in settings:
            settings.setdefault("limits", "off")
        made.append(OpenAIProvider(model, **settings))
        return made[-1]

    yield build
    for provider in made:
        await provider.close()
    await asyncio.sleep(0)


@pytest.fixture
def pair(one: LoopbackServer, two: LoopbackServer, make: Make, clock: Clock) -> Callable[..., FallbackProvider]:
    """Makes a fallback from the first server to the second one, quick in its retries."""

    def build(**options: Any) -> FallbackProvider:
        settings = {"max_retries": 0, "retry_delay": 0.001, "clock": clock, **options}
        return FallbackProvider([make(one, "first"), make(two, "second")], **settings)

    return build
