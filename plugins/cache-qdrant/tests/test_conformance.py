"""What each store of a response cache must do: over Qdrant's own local engine, and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from llm_provider_cache_qdrant import QdrantCache
from providers.caches import CacheStore
from providers.testing import LoopbackServer
from providers.testing.conformance.caches import CacheConformance

from .conftest import Words
from .scripted import Qdrant


class TestInMemory(CacheConformance):
    """F-107"""

    persistent: ClassVar[bool] = False

    def make_store(self, **options: Any) -> CacheStore:
        return QdrantCache(Words(), location=":memory:", **options)


class TestInAFolder(CacheConformance):
    """F-107"""

    def make_store(self, **options: Any) -> CacheStore:
        return QdrantCache(Words(), path=self.room / "cache", embedder_name="words", **options)


class TestOverHTTP(CacheConformance):
    """F-107: what travels; the server is a script. Its bound is kept in the background: `test_server` looks at it."""

    bounded: ClassVar[bool] = False

    server: LoopbackServer

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with LoopbackServer() as self.server:
            self.server.script("*", Qdrant().answer, repeat=True)
            yield
            assert self.server.errors == []

    def make_store(self, **options: Any) -> CacheStore:
        return QdrantCache(Words(), url=self.server.url, embedder_name="words", timeout=60, **options)
