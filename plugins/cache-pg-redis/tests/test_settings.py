"""From settings to stores: what is missing is named, what is wrong is said without the password, nothing is heavy."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any

import pytest

from llm_provider_cache_pg_redis import (
    HybridRedisPostgreSQLCache,
    RedisLimits,
    cache_from_settings,
    limits_from_settings,
)
from providers import LLMProviderConfigurationError, LLMProviderConnectionError, UnknownOptionError
from providers.caches import CacheKey, CacheStore
from providers.types import Secret

from .servers import CANARY, PostgresServer, RedisServer

PG, REDIS = f"postgresql://u:{CANARY}@localhost/db", f"redis://:{CANARY}@localhost:6379/0"


def settings(**words: Any) -> Any:
    found = {"pg_dsn": None, "redis_url": None, "redis_ttl_seconds": 86400, "compress_pg": True, "cache_options": {}}
    return SimpleNamespace(**{**found, **words})


def test_the_entry_points_lead_here() -> None:
    """F-109."""
    for group, name, value in (
        ("llm_providers.caches", "pg_redis", cache_from_settings),
        ("llm_providers.limits", "redis", limits_from_settings),
        ("llm_providers.names", "HybridRedisPostgreSQLCache", HybridRedisPostgreSQLCache),
        ("llm_providers.names", "RedisLimits", RedisLimits),
    ):
        [point] = entry_points(group=group, name=name)
        assert point.load() is value


def test_settings_reach_the_store() -> None:
    """F-061, F-107."""
    store = cache_from_settings(
        settings(
            pg_dsn=Secret(PG),
            redis_url=Secret(REDIS),
            redis_ttl_seconds=60,
            compress_pg=False,
            cache_options={"ttl": 5, "table": "mine", "pool_size": 2},
        )
    )
    assert isinstance(store, CacheStore)
    assert (store._redis_ttl, store._compress, store._ttl, store._table, store._size) == (60, False, 5, "mine_1", 2)
    assert repr(store) == "<HybridRedisPostgreSQLCache in PostgreSQL behind Redis>"
    assert repr(cache_from_settings(settings(pg_dsn=PG))) == "<HybridRedisPostgreSQLCache in PostgreSQL>"
    assert repr(limits_from_settings(settings(redis_url=Secret(REDIS)))) == "<RedisLimits under 'llm-limits'>"
    bare = cache_from_settings(SimpleNamespace(redis_url=REDIS))
    assert (bare._redis_ttl, bare._compress) == (86400, True)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(LLMProviderConfigurationError, match=r"PG_DSN.*REDIS_URL"):
        cache_from_settings(settings())
    with pytest.raises(LLMProviderConfigurationError, match="REDIS_URL"):
        limits_from_settings(settings(pg_dsn=PG, redis_url=Secret("")))
    with pytest.raises(UnknownOptionError, match=r"'tabel'.*table"):
        cache_from_settings(settings(pg_dsn=PG, cache_options={"tabel": "x"}))


@pytest.mark.parametrize(
    "words",
    [
        {"redis_ttl_seconds": 0},
        {"redis_ttl_seconds": True},
        {"redis_ttl_seconds": "60"},
        {"redis_ttl_seconds": float("nan")},
        {"redis_ttl_seconds": None},
        {"ttl": -1},
        {"timeout": float("inf")},
        {"pool_size": 0},
        {"pool_size": 2.5},
        {"table": "a; DROP TABLE x"},
        {"table": "A"},
        {"table": "a.b.c"},
        {"table": ""},
        {"prefix": "a*"},
        {"prefix": ""},
        {"prefix": None},
    ],
)
def test_a_wrong_option_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=next(iter(words))):
        HybridRedisPostgreSQLCache(PG, REDIS, **words)


@pytest.mark.parametrize(
    "address",
    [
        f"http://u:{CANARY}@localhost",
        f"postgresql+psycopg://u:{CANARY}@localhost",
        f"u:{CANARY}@localhost",
        f"postgresql://u:{CANARY}@more@localhost/db",
        f"postgresql://u:{CANARY}/db",
        f"postgresql://u:a/{CANARY}@localhost/db",
        f"postgresql://u:1/{CANARY}@localhost/db",
        f"postgresql://u:1#{CANARY}@localhost/db",
        f"postgresql://u:1?{CANARY}@localhost/db",
        f"redis://u:1/{CANARY}@localhost/0",
        f"redis://:{CANARY}@more@localhost",
        f"redis://u:{CANARY}/0",
        f"redis://[{CANARY}",
        f"postgresql://u:p\0{CANARY}@localhost",
        {CANARY: CANARY},
    ],
)
def test_an_address_that_is_none_is_not_shown(address: Any) -> None:
    for make in (
        lambda: HybridRedisPostgreSQLCache(pg_dsn=address),
        lambda: HybridRedisPostgreSQLCache(redis_url=address),
        lambda: RedisLimits(address),
    ):
        with pytest.raises(LLMProviderConfigurationError, match=r"pg_dsn|redis_url") as caught:
            make()
        assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "dsn",
    [
        f"host=127.0.0.1 port=1 password={CANARY} user=u",
        f"host=127.0.0.1 port=1 password='{CANARY} and more' user=u",
        f"host=127.0.0.1 nonsense={CANARY}",
        f"password={CANARY} host=127.0.0.1 port=x{CANARY}",
        f"postgresql://u:{CANARY}@127.0.0.1:1/db?sslmode={CANARY}",
        f"postgresql://u@127.0.0.1:1/db?password={CANARY}",
        f"postgresql://{CANARY}%zz:{CANARY}@127.0.0.1:1/db",
        f"postgresql://u:{CANARY}@127.0.0.1:1,127.0.0.1:2/db",
    ],
)
async def test_what_the_driver_says_of_an_address_is_not_passed_on(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    store = HybridRedisPostgreSQLCache(dsn, timeout=5)
    with caplog.at_level(logging.DEBUG), pytest.raises(LLMProviderConnectionError) as caught:
        await store.get(CacheKey("a"))
    await store.close()
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in caplog.text


async def test_a_wrong_password_is_not_told(redis_server: RedisServer, postgres_server: PostgresServer) -> None:
    wrong = "wrong-" + CANARY
    for words in (
        {"pg_dsn": postgres_server.url.replace(CANARY, wrong)},
        {"redis_url": redis_server.url.replace(CANARY, wrong)},
    ):
        store = HybridRedisPostgreSQLCache(**words, timeout=20)  # type: ignore[arg-type]
        with pytest.raises(LLMProviderConnectionError, match=r"(?i)auth|password|NOAUTH|invalid") as caught:
            await store.get(CacheKey("a"))
        await store.close()
        assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_nothing_heavy_is_imported() -> None:
    """Not by the import, and not by making the stores."""
    code = f"""
import sys
import llm_provider_cache_pg_redis as package
package.HybridRedisPostgreSQLCache({PG!r}, {REDIS!r})
package.RedisLimits({REDIS!r})
print([name for name in ("redis", "psycopg", "psycopg_pool", "aiohttp", "pydantic") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("missing", ["redis", "psycopg"])
def test_a_driver_that_is_not_installed(missing: str) -> None:
    """F-109: an ImportError that says what to install; the other part works without it."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
import llm_provider_cache_pg_redis as package
from providers import MissingDependencyError
makers = {{"psycopg": [lambda: package.HybridRedisPostgreSQLCache({PG!r})],
          "redis": [lambda: package.HybridRedisPostgreSQLCache(redis_url={REDIS!r}),
                    lambda: package.RedisLimits({REDIS!r})]}}
for name, calls in makers.items():
    for call in calls:
        try:
            call()
            assert name != {missing!r}
        except ImportError as error:
            assert isinstance(error, MissingDependencyError) and name == {missing!r}
            print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert f"the package {missing} is not installed" in line
        assert 'pip install "llm-provider-system[cache-pg-redis]"' in line
    assert done.stdout
