"""The suite that every store must pass: both parts, PostgreSQL alone, Redis alone, over real servers."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from llm_provider_cache_pg_redis import HybridRedisPostgreSQLCache
from providers.caches import CacheStore
from providers.testing import CacheConformance, SharedCacheConformance

from .servers import PostgresServer, RedisServer


class Servers(CacheConformance):
    bounded = False
    places: dict[str, str]

    @pytest.fixture(autouse=True)
    def _servers(self, redis_server: RedisServer, postgres_server: PostgresServer) -> None:
        self.places = {"pg_dsn": postgres_server.url, "redis_url": redis_server.url}

    def make_store(self, **options: Any) -> CacheStore:
        # A machine under load may take longer than what a caller would wait for.
        return HybridRedisPostgreSQLCache(**{"timeout": 20, **self.places, **options})


class TestBoth(Servers):
    """F-107, F-109."""


class TestBothUncompressed(Servers):
    """F-061: `compress_pg=False`."""

    def make_store(self, **options: Any) -> CacheStore:
        return super().make_store(compress_pg=False, table="plain_answers", prefix="plain", **options)


class TestPostgresAlone(Servers):
    def make_store(self, **options: Any) -> CacheStore:
        return super().make_store(redis_url=None, **options)


class TestRedisAlone(Servers):
    def make_store(self, **options: Any) -> CacheStore:
        return super().make_store(pg_dsn=None, **options)


class KilledWriters(SharedCacheConformance):
    """Each part is looked at alone afterwards."""

    writers: ClassVar[int] = 8
    places: dict[str, str]

    @pytest.fixture(autouse=True)
    def _servers(self, redis_server: RedisServer, postgres_server: PostgresServer) -> None:
        self.places = {"pg_dsn": postgres_server.url, "redis_url": redis_server.url}

    def make_store(self) -> CacheStore:
        return HybridRedisPostgreSQLCache(**self.places, timeout=20)  # type: ignore[arg-type]

    def source(self) -> str:
        return f"""
from llm_provider_cache_pg_redis import HybridRedisPostgreSQLCache
store = HybridRedisPostgreSQLCache(**{self.places}, timeout=20)
"""

    def parts(self) -> list[CacheStore]:
        return [HybridRedisPostgreSQLCache(timeout=20, **{name: url}) for name, url in self.places.items()]


class TestKilledWritersOfBoth(KilledWriters):
    """Issue 4"""


class TestKilledWritersOfPostgres(KilledWriters):
    @pytest.fixture(autouse=True)
    def _servers(self, postgres_server: PostgresServer) -> None:
        self.places = {"pg_dsn": postgres_server.url}


class TestKilledWritersOfRedis(KilledWriters):
    @pytest.fixture(autouse=True)
    def _servers(self, redis_server: RedisServer) -> None:
        self.places = {"redis_url": redis_server.url}


del Servers, KilledWriters
