"""Settings of layers: the founding document's defaults and variables, and stores whose packages are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers.layer_settings import LayerSettings
from providers.testing import ScriptedProvider
from providers.types import Secret

from .conftest import ROOT, Install, Run

pytestmark = pytest.mark.usefixtures("house")

# What a cache needs is read where one is named.
NAMED = {"cache_backend": "memory"}


def plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, Secret) else value


def test_the_defaults_of_the_founding_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-061, F-107."""
    for name in ("PG_DSN", "REDIS_URL", "QDRANT_URL", "QDRANT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert LayerSettings.resolve("acme", {}).cache_backend is None
    settings = LayerSettings.resolve("acme", NAMED)
    found = {
        name: getattr(settings, name)
        for name in (
            *("cache_dir", "cache_collection", "pg_dsn", "redis_url", "redis_ttl_seconds", "compress_pg"),
            *("qdrant_url", "qdrant_api_key"),
        )
    }
    assert found == {
        "cache_dir": "./cache",
        "cache_collection": None,
        "pg_dsn": None,
        "redis_url": None,
        "redis_ttl_seconds": 86400,
        "compress_pg": True,
        "qdrant_url": None,
        "qdrant_api_key": None,
    }


@pytest.mark.parametrize(
    ("variable", "name", "text", "value"),
    [
        ("PG_DSN", "pg_dsn", "postgresql://h/d", "postgresql://h/d"),
        ("REDIS_URL", "redis_url", "redis://h", "redis://h"),
        ("QDRANT_URL", "qdrant_url", "http://h:6333", "http://h:6333"),
        ("QDRANT_API_KEY", "qdrant_api_key", "qdrant-key", "qdrant-key"),
        ("LLM_PROVIDERS_REDIS_TTL_SECONDS", "redis_ttl_seconds", "60", 60),
        ("LLM_PROVIDERS_COMPRESS_PG", "compress_pg", "false", False),
        ("LLM_PROVIDERS_CACHE_DIR", "cache_dir", "elsewhere", "elsewhere"),
        ("LLM_PROVIDERS_CACHE_COLLECTION", "cache_collection", "mine", "mine"),
    ],
)
def test_the_documented_variables(
    variable: str, name: str, text: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-060, F-061; an argument goes before them."""
    monkeypatch.setenv(variable, text)
    settings = LayerSettings.resolve("acme", NAMED)
    assert plain(getattr(settings, name)) == value
    assert variable in settings.sources[name]
    given = {"redis_ttl_seconds": 7, "compress_pg": True}.get(name, "given")
    assert plain(getattr(LayerSettings.resolve("acme", {**NAMED, name: given}), name)) == given


async def test_answers_lie_in_the_folder_cache_unless_told_otherwise(house: Path) -> None:
    """F-061, F-106: `./cache`, and in it a folder for each collection."""
    async with ScriptedProvider(["a"], cache_backend="fs") as provider:
        await provider.execute("Hi", cache_response=True)
    assert len(list((house / "cache" / "default").glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("options", "package"),
    [
        ('cache_backend="pg_redis", pg_dsn="postgresql://h/d"', "llm-provider-system[cache-pg-redis]"),
        ('cache_backend="qdrant"', "llm-provider-system[cache-qdrant]"),
        ('limits="redis", redis_url="redis://h"', "llm-provider-system[cache-pg-redis]"),
    ],
)
def test_a_package_that_is_missing_is_an_import_error_that_says_what_to_install(
    options: str, package: str, python: Run
) -> None:
    """F-109, in an interpreter that has no plugin."""
    python(
        f"""
        from providers.testing import EchoProvider

        try:
            EchoProvider({options})
        except ImportError as error:
            assert "pip install '{package}'" in str(error), error
        else:
            raise AssertionError("nobody said anything")
        """
    )


@pytest.mark.parametrize("name", ["HybridRedisPostgreSQLCache", "QdrantCache", "PusherStreamer"])
def test_a_class_of_a_package_that_is_missing(name: str, python: Run) -> None:
    """F-109: `from providers import ...` of what no installed package brings."""
    python(
        f"""
        try:
            from providers import {name}
        except ImportError as error:
            assert "{name}" in str(error) and "pip install" in str(error), error
        else:
            raise AssertionError("nobody said anything")
        """
    )


def test_a_plugin_whose_own_packages_are_missing(python: Run, install: Install, site: Path) -> None:
    """F-109: the name of the setting, and what could not be imported."""
    install(
        "llm-cache-broken",
        {"llm_providers.caches": {"broken": "llm_cache_broken:make"}},
        {"llm_cache_broken": "import a_driver_that_nobody_has"},
    )
    python(
        """
        from providers.testing import EchoProvider

        try:
            EchoProvider(cache_backend="broken")
        except ImportError as error:
            assert "cache_backend='broken'" in str(error) and "a_driver_that_nobody_has" in str(error), error
        else:
            raise AssertionError("nobody said anything")
        """,
        path=[ROOT / "src", site],
    )
