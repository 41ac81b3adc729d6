"""An embedder whose figures can be worked out, requests, and a layer with a backend that counts."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from llm_provider_cache_qdrant import QdrantCache
from providers.layers.cache import ResponseCache
from providers.pipeline import compose, fold
from providers.types import LLMResponse, Message, Messages, Request, StreamEvent, Usage
from providers.types.policy import CachePolicy

_ENGINE = importlib.util.find_spec("qdrant_client") is not None
if _ENGINE:
    # It takes a second on a busy machine, and the layer waits for two.
    importlib.import_module("qdrant_client")

SIZE = 96


class Words:
    """A bag of words as a vector: the same words in any order are the same; each other word turns it away.

    Attributes:
        asked: the texts that were embedded.
        wait: seconds that one takes.
        error: raised in place of an answer.
    """

    def __init__(self, size: int = SIZE) -> None:
        self.asked: list[str] = []
        self.wait = 0.0
        self.error: Exception | None = None
        self._size = size

    async def __call__(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        await asyncio.sleep(self.wait)
        if self.error is not None:
            raise self.error
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        found = [0.0] * self._size
        for word in text.lower().strip(" ?!.").split():
            rng = random.Random(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest())
            for place in range(self._size):
                found[place] += rng.gauss(0, 1)
        return found


class Backend:
    """Answers with a number that grows."""

    def __init__(self, *events: StreamEvent) -> None:
        self.calls = 0
        self._events = events

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        self.calls += 1
        for event in self._events or (StreamEvent.token(f"answer {self.calls}"), StreamEvent.usage(Usage(3, 2))):
            yield event
        yield StreamEvent.finish("stop")


class Asker:
    """A provider's calls through the layer, over one store."""

    def __init__(self, store: Any, *events: StreamEvent, provider: str = "acme", **options: Any) -> None:
        self.backend = Backend(*events)
        self.layer = ResponseCache(store, provider, patience=options.pop("patience", 60), **options)
        self._handler = compose([self.layer], self.backend.generate)

    async def __call__(self, request: Request | str, **changes: Any) -> LLMResponse:
        request = ask(request) if isinstance(request, str) else request
        request = request.replace(**changes)
        return fold([event async for event in self._handler(request)], request)


def ask(*texts: str | Message, **changes: Any) -> Request:
    """A request with user messages."""
    messages = [Message.user(text) if isinstance(text, str) else text for text in texts]
    return Request("m", Messages.of(messages), cache=CachePolicy()).replace(**changes)


def told(response: LLMResponse) -> dict[str, Any]:
    """What the answer says of the cache."""
    found: dict[str, Any] = response.metadata["cache"]
    return found


async def until(check: Callable[[], object], within: float = 60) -> None:
    """Wait until something is true."""
    for _ in range(int(within * 100)):
        if check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the client nothing here can run; a machine that has to have it says so by a variable."""
    if _ENGINE:
        return
    if os.environ.get("LLM_PROVIDER_REQUIRE_ENGINES") == "1":
        raise pytest.UsageError("LLM_PROVIDER_REQUIRE_ENGINES is set, and qdrant-client is not installed")
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.skip(reason="qdrant-client is not installed"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable or file of this machine may decide a test."""
    for name in list(os.environ):
        if name.startswith(("QDRANT_", "DEFAULT_", "LLM_PROVIDERS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
async def store(words: Words) -> AsyncIterator[QdrantCache]:
    found = QdrantCache(words, location=":memory:", embedding_timeout=60)
    yield found
    await found.close()
