"""Real servers for the whole session, a factory for stores over them, and the search for the password in all texts."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from llm_provider_cache_pg_redis import HybridRedisPostgreSQLCache

from .servers import CANARY, Missing, PostgresServer, RedisServer, Server

Make = Callable[..., HybridRedisPostgreSQLCache]


def _session(kind: type[Any]) -> Iterator[Any]:
    try:
        if importlib.util.find_spec(kind.driver) is None:
            raise Missing(f"the package {kind.driver} is not installed")
        server = kind()
    except Missing as error:
        if os.environ.get("LLM_PROVIDER_REQUIRE_ENGINES") == "1":
            pytest.fail(f"LLM_PROVIDER_REQUIRE_ENGINES is set, and {error}")
        warnings.warn(f"{error}: THE TESTS WITH IT ARE NOT RUN", stacklevel=1)
        pytest.skip(str(error))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def _redis() -> Iterator[RedisServer]:
    yield from _session(RedisServer)


@pytest.fixture(scope="session")
def _postgres() -> Iterator[PostgresServer]:
    yield from _session(PostgresServer)


def _fresh(server: Server) -> Iterator[Any]:
    server.restore()
    yield server
    server.restore()


@pytest.fixture
def redis_server(_redis: RedisServer) -> Iterator[RedisServer]:
    """A Redis that runs, before the test and after it."""
    yield from _fresh(_redis)


@pytest.fixture
def postgres_server(_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A PostgreSQL that runs, before the test and after it."""
    yield from _fresh(_postgres)


@pytest.fixture
async def make(redis_server: RedisServer, postgres_server: PostgresServer) -> AsyncIterator[Make]:
    """Makes stores over both servers, emptied before; closes them."""
    made: list[HybridRedisPostgreSQLCache] = []

    def build(**options: Any) -> HybridRedisPostgreSQLCache:
        words = {"pg_dsn": postgres_server.url, "redis_url": redis_server.url, **options}
        made.append(HybridRedisPostgreSQLCache(**words))
        return made[-1]

    first = build(timeout=10)
    await first.clear()
    yield build
    await asyncio.gather(*(store.close() for store in made))


@pytest.fixture(autouse=True)
def no_password_in_any_text(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    """Logs down to DEBUG, of the drivers too, warnings, and what is printed."""
    caplog.set_level(logging.DEBUG)
    yield
    printed = capfd.readouterr()
    texts = [caplog.text, printed.out, printed.err, *(str(one.message) for one in recwarn.list)]
    assert not any(CANARY in text for text in texts)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No variable or file of this machine may decide a test."""
    for name in list(os.environ):
        if name.startswith(("PG", "REDIS_", "DEFAULT_", "LLM_PROVIDERS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
