"""Where keys, addresses and the other settings come from, and what is said where they are wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llm_provider_openai import OpenAIProvider
from providers.exceptions import (
    LLMProviderConfigurationError,
    MissingCredentialsError,
    MissingDependencyError,
    UnknownOptionError,
)
from providers.testing.server import LoopbackServer, Reply
from providers.types import LLMConfig

from . import bodies
from .conftest import Make


def head(server: LoopbackServer) -> Any:
    return server.requests[-1].headers


@pytest.fixture
def open_server(server: LoopbackServer) -> LoopbackServer:
    server.script("/v1/chat/completions", Reply.json(bodies.chat()), repeat=True)
    return server


async def test_the_environment_and_arguments_over_it(
    open_server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """F-005, F-044, F-060"""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment\n")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{open_server.url}/v1/")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    async with OpenAIProvider("gpt-4", transport=transport) as provider:
        await provider.execute("Hi")
    assert head(open_server)["Authorization"] == "Bearer sk-from-the-environment"
    assert head(open_server)["OpenAI-Organization"] == "org-1"
    assert head(open_server)["OpenAI-Project"] == "proj-1"
    options: dict[str, Any] = {"api_key": "sk-argument", "organization": "org-2", "project": "proj-2"}
    async with OpenAIProvider("gpt-4", transport=transport, **options) as provider:
        await provider.execute("Hi")
    assert head(open_server)["Authorization"] == "Bearer sk-argument"
    assert head(open_server)["OpenAI-Organization"] == "org-2"
    assert head(open_server)["OpenAI-Project"] == "proj-2"


async def test_the_sdk_adds_no_key_of_its_own(
    open_server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """F-005"""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment-key")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-key-of-mine")
    async with OpenAIProvider("gpt-4", base_url=f"{open_server.url}/v1", transport=transport) as provider:
        await provider.execute("Hi")
    assert head(open_server).all("Authorization") == ["Bearer sk-environment-key"]


@pytest.mark.parametrize("key", [None, "", "   ", "\n"])
async def test_an_address_alone_needs_no_key(
    open_server: LoopbackServer, transport: str, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-005; bad inputs 1, 2"""
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    base_url = f"{open_server.url}/v1"
    async with OpenAIProvider("gpt-4", api_key=key, base_url=base_url, transport=transport) as provider:
        await provider.execute("Hi")
        async for _ in provider.stream("Hi"):
            pass
    assert "Authorization" not in head(open_server)
    assert len(open_server.requests) >= 1
    assert all("authorization" not in request.headers for request in open_server.requests)


@pytest.mark.parametrize("key", [None, "", "  ", "\n"])
def test_no_key_for_the_vendor(monkeypatch: pytest.MonkeyPatch, key: str | None, tmp_path: Path) -> None:
    """F-005; bad inputs 1, 2"""
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    for options in ({}, {"base_url": "https://api.openai.com/v1"}, {"base_url": "https://eu.api.openai.com/v1"}):
        with pytest.raises(MissingCredentialsError) as caught:
            OpenAIProvider("gpt-4", api_key=key, **options)
        assert "OPENAI_API_KEY" in str(caught.value)
        assert ".env" in str(caught.value)


async def test_a_key_from_dotenv(open_server: LoopbackServer, tmp_path: Path) -> None:
    """F-005, F-142"""
    (tmp_path / ".env").write_text(
        f"OPENAI_API_KEY=sk-from-dotenv\nOPENAI_BASE_URL={open_server.url}/v1\n", encoding="utf-8"
    )
    async with OpenAIProvider("gpt-4") as provider:
        await provider.execute("Hi")
        assert ".env" in provider.get_model_info()["sources"]["api_key"]
    assert head(open_server)["Authorization"] == "Bearer sk-from-dotenv"


async def test_headers_of_ones_own(
    open_server: LoopbackServer, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"X-Team": "a", "authorization": "Bearer other-token-here", "api-key": "azure-like-key"}
    provider = OpenAIProvider(
        "gpt-4", api_key="sk-1234567", base_url=f"{open_server.url}/v1", default_headers=own, transport=transport
    )
    async with provider:
        await provider.execute("Hi")
    assert head(open_server).all("authorization") == ["Bearer other-token-here"]
    assert head(open_server)["x-team"] == "a"
    assert "other-token-here" not in repr(provider.settings)
    monkeypatch.setenv("OPENAI_DEFAULT_HEADERS", '{"X-Team": "b"}')
    async with OpenAIProvider("gpt-4", base_url=f"{open_server.url}/v1", transport=transport) as provider:
        await provider.execute("Hi")
    assert head(open_server)["x-team"] == "b"
    # A sign-in of one's own takes the place of a key.
    OpenAIProvider("gpt-4", default_headers={"Authorization": "Bearer x"})


def test_the_founding_documents_constructor() -> None:
    """F-061, F-062"""

    class GPT5Mini:
        model_name = "gpt-5-mini"

    caches: dict[str, Any] = {
        "cache_dir": "./cache",
        "cache_collection": None,
        "pg_dsn": None,
        "redis_url": None,
        "redis_ttl_seconds": 86400,
        "compress_pg": True,
        "qdrant_url": None,
        "qdrant_api_key": None,
    }
    provider = OpenAIProvider(
        model="gpt-5-nano",
        api_key="sk-1",
        base_url=None,
        organization=None,
        cache_backend=None,
        use_responses_api=False,
        **caches,
    )
    assert provider.config.model_name == "gpt-5-nano"
    assert OpenAIProvider(api_key="sk-1").config.model_name == "gpt-5"
    assert OpenAIProvider(LLMConfig(), "sk-1").config.model_name == "gpt-5"
    assert OpenAIProvider(model=GPT5Mini, api_key="sk-1").config.model_name == "gpt-5-mini"
    assert OpenAIProvider("gpt-4", "sk-1", "http://x/v1", "org").settings.organization == "org"


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


async def test_a_cache_by_its_name(server: LoopbackServer, tmp_path: Path) -> None:
    """F-061, F-064, F-106: a JSON file for each key in `cache_dir/<collection>`, only where the call asks for it."""
    server.script("/v1/chat/completions", Reply.json(bodies.chat("Hello")), repeat=True)
    options: dict[str, Any] = {"api_key": "sk-canary", "base_url": f"{server.url}/v1", "cache_dir": str(tmp_path)}
    async with OpenAIProvider("gpt-4", cache_backend="fs", cache_collection="mine", **options) as provider:
        await provider.complete("Hi")
        assert kept(tmp_path) == []
        first = await provider.complete("Hi", cache_response=True)
        again = await provider.complete("Hi", cache_response=True)
        other = await provider.complete("Hi", cache_response=True, cache_collection="theirs")
    assert [answer.metadata["cache"]["hit"] for answer in (first, again, other)] == [False, True, False]
    assert again.content == "Hello"
    assert server.count() == 3
    files = kept(tmp_path)
    assert [file.parent.name.partition("-")[0] for file in files] == ["mine", "theirs"]
    assert all("sk-canary" not in file.read_text(encoding="utf-8") for file in files)
    # A second provider, of a later day, finds what the first one kept; another server's answers are its own.
    async with OpenAIProvider("gpt-4", cache_backend="fs", cache_collection="mine", **options) as provider:
        assert (await provider.complete("Hi", cache_response=True)).metadata["cache"]["hit"]
    elsewhere = {**options, "base_url": f"{server.url}/v1/"}
    async with OpenAIProvider("gpt-4", cache_backend="fs", cache_collection="mine", **elsewhere) as provider:
        server.script("/v1//chat/completions", Reply.json(bodies.chat("Hello")), repeat=True)
        assert not (await provider.complete("Hi", cache_response=True)).metadata["cache"]["hit"]


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"temprature": 1}, UnknownOptionError, "temprature"),
        ({"transport": "grpc"}, LLMProviderConfigurationError, "transport (argument)"),
        ({"base_url": "127.0.0.1:80/v1"}, LLMProviderConfigurationError, "http://"),
        ({"base_url": "http://x/v1/v1"}, LLMProviderConfigurationError, "twice"),
        ({"base_url": "http://x/v1?key=1"}, LLMProviderConfigurationError, "query"),
        ({"api_key": "sk-a\nb"}, LLMProviderConfigurationError, "api_key"),
        ({"api_key": 7}, LLMProviderConfigurationError, "api_key"),
        ({"default_headers": {"X": 1}}, LLMProviderConfigurationError, "default_headers"),
        ({"default_headers": {"X": "a\nb"}}, LLMProviderConfigurationError, "X"),
        ({"use_responses_api": "perhaps"}, LLMProviderConfigurationError, "use_responses_api"),
    ],
)
def test_wrong_settings_are_named_at_once(options: dict[str, Any], kind: type[Exception], words: str) -> None:
    """bad inputs 2, 7, 9"""
    with pytest.raises(kind) as caught:
        OpenAIProvider("gpt-4", **{"api_key": "sk-1", **options})
    assert words in str(caught.value)


def test_a_missing_sdk_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "llm_provider_openai.sdk_transport", raising=False)
    monkeypatch.setitem(sys.modules, "openai", None)
    provider = OpenAIProvider("gpt-4", "sk-1", transport="sdk")
    with pytest.raises(MissingDependencyError, match=r"pip install 'llm-provider-system\[openai\]'"):
        provider.open()


async def test_the_slash_at_the_end_is_forgiven(make: Make, open_server: LoopbackServer, transport: str) -> None:
    """bad inputs 9"""
    await make(base_url=f"{open_server.url}/v1/", transport=transport).execute("Hi")
    assert open_server.requests[-1].target == "/v1/chat/completions"


def test_what_is_known_of_models() -> None:
    """F-141"""
    provider = OpenAIProvider("gpt-4o-mini", "sk-1")
    assert provider.token_limit == 128000
    assert provider.capabilities >= {"embeddings", "token_counting", "tools", "structured_output", "responses"}
    info = provider.get_model_info()
    assert (info["provider_type"], info["model_name"]) == ("openai", "gpt-4o-mini")
    assert OpenAIProvider("any-name-at-all", "sk-1").token_limit == 8192
    profile = OpenAIProvider("gpt-5-nano", "sk-1").profile
    assert profile.reasoning_model
    assert {"low", "medium", "high"} <= set(profile.reasoning_efforts)
    assert OpenAIProvider("text-embedding-3-small", "sk-1").profile.category == "embeddings"


def test_a_users_own_facts(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.toml").write_text(
        '[models."my-model"]\naccepts_default_temperature = true\nmax_tokens_parameter = "n_predict"\n',
        encoding="utf-8",
    )
    plan = OpenAIProvider("my-model", "sk-1")._plan("my-model")
    assert plan.default_temperature is True
    assert plan.chat["max_tokens"] == "n_predict"
