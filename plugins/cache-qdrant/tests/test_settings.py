"""The cache from configuration, and who makes its vectors."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from llm_provider_cache_qdrant import QdrantCache, cache_from_settings
from providers import create_llm_provider
from providers.base import LLMProvider
from providers.capabilities import EmbeddingRequest, Embeddings
from providers.exceptions import (
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    MissingDependencyError,
    UnknownProviderError,
)
from providers.registry import register_provider, unregister_provider
from providers.types import EmbeddingResult, LLMConfig, Request, Secret, StreamEvent

from .conftest import Asker, Words, told
from .test_similar import EGG, OTHER_EGG


class AcmeProvider(Embeddings, LLMProvider):
    """Answers with a number; makes vectors."""

    made: list[AcmeProvider] = []  # noqa: RUF012
    vectors = Words()

    def __init__(self, config: LLMConfig | str | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self.made.append(self)
        self.requests: list[EmbeddingRequest] = []
        self.shuts = 0
        self.answers = 0
        self.error: Exception | None = None

    async def generate(self, request: Request) -> Any:
        self.answers += 1
        yield StreamEvent.token(f"answer {self.answers}")
        yield StreamEvent.finish("stop")

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return EmbeddingResult(await self.vectors(list(request.inputs)), model=request.model)

    async def shut(self) -> None:
        self.shuts += 1


class PlainProvider(LLMProvider):
    """Makes no vectors."""

    async def generate(self, request: Request) -> Any:
        yield StreamEvent.finish("stop")


@pytest.fixture(autouse=True)
def acme() -> Iterator[None]:
    register_provider("acme-q", AcmeProvider, replace=True)
    register_provider("plain-q", PlainProvider, replace=True)
    AcmeProvider.made.clear()
    yield
    unregister_provider("acme-q")
    unregister_provider("plain-q")


@dataclass
class Settings:
    """What `cache_from_settings` reads of the layers' settings."""

    qdrant_url: str | None = None
    qdrant_api_key: Secret | None = None
    cache_dir: str = "./cache"
    cache_options: dict[str, Any] | None = field(default_factory=dict)


async def test_from_configuration(tmp_path: Path) -> None:
    """F-107: a provider's name and model; it is made at the first question, and closed with the cache."""
    options = {"embedding_provider": "acme-q", "embedding_model": "e-1", "dimensions": 96, "threshold": 0.9}
    store = cache_from_settings(Settings(cache_dir=str(tmp_path), cache_options={**options, "embedding_timeout": 60}))
    assert AcmeProvider.made == []
    asker = Asker(store)
    await asker(EGG)
    assert told(await asker(OTHER_EGG))["similarity"] > 0.9
    [provider] = AcmeProvider.made
    request = provider.requests[0]
    assert (request.model, request.inputs, request.dimensions) == ("e-1", (EGG,), 96)
    assert len(provider.requests) == 2
    await store.close()
    assert provider.shuts == 1
    assert (tmp_path / "qdrant" / "meta.json").exists()


async def test_with_a_real_provider(tmp_path: Path) -> None:
    """F-061, F-107: `cache_backend="qdrant"` finds the plugin; answers outlive the provider."""
    options = {"embedding_provider": "acme-q", "embedding_model": "e-1", "embedding_timeout": 60}

    def make() -> LLMProvider:
        return create_llm_provider(
            "acme-q",
            "m",
            cache_backend="qdrant",
            cache_dir=str(tmp_path),
            cache_collection="mine",
            cache_options=options,
        )

    async with make() as provider:
        await provider.warm_cache()
        one = await provider.execute(EGG, cache_response=True)
        two = await provider.execute(OTHER_EGG, cache_response=True)
        assert (one.content, two.content) == ("answer 1", "answer 1")
        assert told(two)["similarity"] < 1
    async with make() as provider:
        hit = await provider.execute(EGG, cache_response=True)
        assert (hit.content, told(hit)["hit"]) == ("answer 1", True)
        other = await provider.execute(EGG, cache_response=True, cache_collection="other")
        assert not told(other)["hit"]


async def test_a_provider_as_the_embedder(tmp_path: Path) -> None:
    """It stays its owner's; a failure that it reports as a value counts as one."""
    provider = AcmeProvider("e-1")
    store = QdrantCache(provider, path=tmp_path / "q", embedding_timeout=60)
    asker = Asker(store)
    await asker(EGG)
    assert told(await asker(OTHER_EGG))["hit"]
    provider.error = LLMProviderConnectionError("gone")
    with pytest.warns(UserWarning, match=r"failed \(LLMProviderError: gone\)"):
        assert not told(await asker("how do i make toast"))["hit"]
    await store.close()
    assert provider.shuts == 0
    await provider.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"needs an embedder: pass embedder=provider.*embedding_provider"),
        ({"embedder": Words(), "embedding_provider": "acme-q"}, "not both"),
        ({"embedder": 7}, "embedder is a int"),
        ({"embedder": PlainProvider("m")}, "makes no embeddings"),
        ({"embedding_provider": "plain-q"}, "PlainProvider makes no embeddings"),
        ({"embedder": Words(), "embedding_model": "m"}, "are for embedding_provider"),
        ({"embedder": lambda texts: None, "location": None, "path": "x"}, "pass embedder_name"),
        ({"embedder": Words(), "location": None, "path": "x"}, "pass embedder_name"),
        ({"embedder": Words(), "threshold": 0}, "threshold must be"),
        ({"embedder": Words(), "threshold": 1.5}, "threshold must be"),
        ({"embedder": Words(), "threshold": "0.9"}, "threshold must be"),
        ({"embedder": Words(), "dimensions": 0}, "dimensions"),
        ({"embedder": Words(), "ttl": -1}, "ttl"),
        ({"embedder": Words(), "max_bytes": 0}, "max_bytes"),
        ({"embedder": Words(), "timeout": 0}, "timeout"),
        ({"embedder": Words(), "longest_question": 0}, "longest_question"),
        ({"embedder": Words(), "prefix": "a~b"}, "prefix must be"),
        ({"embedder": Words(), "prefix": ""}, "prefix must be"),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=words):
        QdrantCache(**{"location": ":memory:", **options})


def test_options_that_are_wrong(tmp_path: Path) -> None:
    """With what was meant, where that can be told."""
    with pytest.raises(UnknownProviderError, match="no provider is named 'nobody'"):
        cache_from_settings(Settings(cache_options={"embedding_provider": "nobody"}))
    with pytest.raises(LLMProviderConfigurationError, match=r"'treshold', which .* did you mean 'threshold'"):
        cache_from_settings(Settings(cache_options={"treshold": 1}))
    with pytest.raises(LLMProviderConfigurationError, match="needs an embedder"):
        cache_from_settings(Settings(cache_dir=str(tmp_path), cache_options=None))
    with pytest.raises(LLMProviderConfigurationError, match="must be an address"):
        cache_from_settings(Settings(qdrant_url="x", cache_options={"embedding_provider": "acme-q"}))
    store = cache_from_settings(
        Settings("http://127.0.0.1:6333", Secret("key-4711"), cache_options={"embedding_provider": "acme-q"})
    )
    assert str(store._place) == "http://127.0.0.1:6333"
    assert "key-4711" not in repr(store._place)
    memory = {"embedding_provider": "acme-q", "location": ":memory:"}
    assert cache_from_settings(Settings("http://127.0.0.1:6333", cache_options=memory))._place.url is None
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-109: an ImportError that says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install llm-provider-cache-qdrant") as caught:
        QdrantCache(Words(), location=":memory:")
    assert isinstance(caught.value, ImportError)


def test_names() -> None:
    """F-109: the front door lends the class; the entry point is the callable."""
    from providers import QdrantCache as Lent  # type: ignore[attr-defined]

    assert Lent is QdrantCache
    [entry] = entry_points(group="llm_providers.caches", name="qdrant")
    assert entry.load() is cache_from_settings
