"""Where keys, addresses and the other settings come from, and what is said where they are wrong."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

import providers
from llm_provider_anthropic import AnthropicProvider
from llm_provider_anthropic.plan import DEFAULT_MAX_TOKENS
from providers import create_llm_provider
from providers.exceptions import (
    LLMProviderConfigurationError,
    MissingCredentialsError,
    MissingDependencyError,
    UnknownOptionError,
)
from providers.testing.server import LoopbackServer, Reply
from providers.types import APIType, LLMConfig, StreamMode

from . import bodies
from .conftest import NEW, OLD, Make


def head(server: LoopbackServer) -> Any:
    return server.requests[-1].headers


def write_preset(line: str) -> None:
    text = f'[presets.house]\nprovider = "anthropic"\n{line}\n'
    Path("providers.toml").write_text(text, encoding="utf-8")


@pytest.fixture
def open_server(server: LoopbackServer) -> LoopbackServer:
    server.script("/v1/messages", Reply.json(bodies.said()), repeat=True)
    return server


async def test_the_environment_and_arguments_over_it(
    open_server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """F-005, F-044, F-060"""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-from-the-environment\n")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"{open_server.url}/")
    monkeypatch.setenv("ANTHROPIC_BETAS", '["a-1"]')
    async with AnthropicProvider(NEW, transport=transport) as provider:
        await provider.execute("Hi")
    assert head(open_server)["Authorization"] == "Bearer sk-from-the-environment"
    assert head(open_server)["x-api-key"] == "sk-from-the-environment"
    assert head(open_server)["anthropic-beta"] == "a-1"
    async with AnthropicProvider(NEW, api_key="sk-argument", transport=transport) as provider:
        await provider.execute("Hi")
    assert head(open_server)["x-api-key"] == "sk-argument"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"api_key": "sk-1"}, ("Bearer sk-1", "sk-1")),
        ({"api_key": "sk-1", "auth_header": "bearer"}, ("Bearer sk-1", None)),
        ({"api_key": "sk-1", "auth_header": "x-api-key"}, (None, "sk-1")),
        ({"auth_token": "tok-1"}, ("Bearer tok-1", None)),
        ({}, (None, None)),
        ({"api_key": "sk-1", "default_headers": {"authorization": "Bearer own"}}, ("Bearer own", "sk-1")),
        ({"default_headers": {"X-API-KEY": "own"}}, (None, "own")),
    ],
)
async def test_how_a_request_signs_in(
    open_server: LoopbackServer, transport: str, options: dict[str, Any], expected: tuple[str | None, str | None]
) -> None:
    """F-005: and an address alone needs no key."""
    async with AnthropicProvider(NEW, base_url=open_server.url, transport=transport, **options) as provider:
        await provider.execute("Hi")
        async for _ in provider.stream("Hi"):
            pass
        with pytest.raises(providers.LLMProviderError):
            await provider.count_tokens("Hi", attempts=1)
    for request in open_server.requests:
        found = request.headers.all("authorization"), request.headers.all("x-api-key")
        assert found == tuple([value] if value is not None else [] for value in expected)


async def test_token_and_key(open_server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """As in the vendor's SDK: the key of the environment goes first, an argument before that."""
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "tok-environment")
    async with AnthropicProvider(NEW, base_url=open_server.url, transport=transport) as provider:
        await provider.execute("Hi")
    assert head(open_server)["Authorization"] == "Bearer tok-environment"
    assert "x-api-key" not in head(open_server)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-environment")
    async with AnthropicProvider(NEW, base_url=open_server.url, transport=transport) as provider:
        await provider.execute("Hi")
    assert head(open_server)["x-api-key"] == "sk-environment"
    token: dict[str, Any] = {"auth_token": "tok-argument"}
    async with AnthropicProvider(NEW, base_url=open_server.url, transport=transport, **token) as provider:
        await provider.execute("Hi")
    assert head(open_server).all("Authorization") == ["Bearer tok-argument"]
    assert "x-api-key" not in head(open_server)
    # So is what stands in the preset that was asked for.
    write_preset('auth_token = "tok-preset"')
    places: dict[str, Any] = {"base_url": open_server.url, "transport": transport}
    async with create_llm_provider(preset="house", model_name=NEW, **places) as found:
        await found.execute("Hi")
    assert head(open_server).all("Authorization") == ["Bearer tok-preset"]
    AnthropicProvider(NEW, auth_token="tok-1")  # the vendor takes it as well
    with pytest.raises(LLMProviderConfigurationError, match="not both"):
        AnthropicProvider(NEW, api_key="sk-1", auth_token="tok-1")


@pytest.mark.parametrize("key", [None, "", "  ", "\n"])
def test_no_key_for_the_vendor(monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    """F-005; bad inputs 1, 2"""
    monkeypatch.setenv("ANTHROPIC_API_KEY", " ")
    addresses = (None, "https://api.anthropic.com", "https://eu.api.anthropic.com/v1")
    for address in addresses:
        with pytest.raises(MissingCredentialsError) as caught:
            AnthropicProvider(NEW, api_key=key, base_url=address)
        assert "ANTHROPIC_API_KEY" in str(caught.value)
        assert ".env" in str(caught.value)


async def test_a_key_from_dotenv(open_server: LoopbackServer, tmp_path: Path) -> None:
    """F-005, F-142"""
    (tmp_path / ".env").write_text(
        f"ANTHROPIC_API_KEY=sk-from-dotenv\nANTHROPIC_BASE_URL={open_server.url}\n", encoding="utf-8"
    )
    async with AnthropicProvider(NEW) as provider:
        await provider.execute("Hi")
        assert ".env" in provider.get_model_info()["sources"]["api_key"]
    assert head(open_server)["x-api-key"] == "sk-from-dotenv"


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
async def test_every_spelling_of_the_address(make: Make, open_server: LoopbackServer, transport: str, end: str) -> None:
    """bad inputs 9: the SDK wants it without the version segment, other dialects with it."""
    await make(base_url=f"{open_server.url}{end}", transport=transport).execute("Hi")
    assert open_server.requests[-1].target == "/v1/messages"


async def test_a_path_before_the_version(make: Make, server: LoopbackServer, transport: str) -> None:
    server.script("/gateway/anthropic/v1/messages", Reply.json(bodies.said()))
    await make(base_url=f"{server.url}/gateway/anthropic", transport=transport).execute("Hi")
    assert server.count("/gateway/anthropic/v1/messages") == 1


async def test_headers_of_ones_own(make: Make, open_server: LoopbackServer, transport: str) -> None:
    own = {"X-Team": "a", "Anthropic-Version": "2023-01-01", "anthropic-beta": "own"}
    provider = make(NEW, default_headers=own, betas=["lost"], transport=transport)
    await provider.execute("Hi")
    assert head(open_server)["x-team"] == "a"
    assert head(open_server).all("anthropic-version") == ["2023-01-01"]
    assert head(open_server).all("anthropic-beta") == ["own"]
    assert "X-Team" not in repr(provider.settings)


async def test_the_version_of_the_api(make: Make, open_server: LoopbackServer, transport: str) -> None:
    """The newest, and the one before it where sampling parameters go out; or what the user says."""
    for model, options, expected in (
        (NEW, {}, "2026-10-21"),
        (OLD, {}, "2023-06-01"),
        (OLD, {"temperature": 0.2}, "2023-06-01"),
        (OLD, {"config": LLMConfig(OLD, temperature=None)}, "2026-10-21"),
        (OLD, {"api_version": "2023-01-01"}, "2023-01-01"),
        (NEW, {"api_version": "2023-06-01"}, "2023-06-01"),
    ):
        await make(model, transport=transport, **options).execute("Hi")
        assert head(open_server).all("anthropic-version") == [expected]


async def test_betas_of_one_call(make: Make, open_server: LoopbackServer, transport: str) -> None:
    provider = make(NEW, betas=["a-1"], transport=transport)
    await provider.execute("Hi", extra={"betas": ["b-2"]})
    assert head(open_server).all("anthropic-beta") == ["a-1,b-2"]
    await provider.execute("Hi")
    assert head(open_server).all("anthropic-beta") == ["a-1"]


def test_the_founding_documents_constructor() -> None:
    """F-063: by position and by name, with the promised defaults."""
    provider = AnthropicProvider(api_key="sk-1")
    assert provider.config.model_name == "claude-3-5-sonnet-20241022"
    assert provider.config.max_tokens == 4096
    provider = AnthropicProvider(NEW, "sk-1", "http://127.0.0.1:1", 1000, 0.3)
    assert provider.config.model_name == NEW
    assert provider.settings.base_url == "http://127.0.0.1:1"
    assert (provider.config.max_tokens, provider.config.temperature) == (1000, 0.3)
    named = AnthropicProvider(model=OLD, api_key=None, base_url="http://x", max_tokens=4096, default_temperature=None)
    assert (named.config.model_name, named.config.max_tokens) == (OLD, 4096)
    signature = inspect.signature(AnthropicProvider)
    assert list(signature.parameters)[:5] == ["model", "api_key", "base_url", "max_tokens", "default_temperature"]
    assert signature.parameters["max_tokens"].default == 4096


def test_configuration_below_and_above() -> None:
    """F-063, F-133: a default goes below a configuration's own value, what somebody gave goes over it."""
    config = LLMConfig(NEW, max_tokens=77, temperature=0.1)
    assert AnthropicProvider(config, "sk-1").config.max_tokens == 77
    assert AnthropicProvider(config, "sk-1", max_tokens=4096).config.max_tokens == 4096
    assert AnthropicProvider(config=config, api_key="sk-1").config.temperature == 0.1
    assert AnthropicProvider(LLMConfig(), "sk-1").config.max_tokens is DEFAULT_MAX_TOKENS
    provider = create_llm_provider("anthropic", NEW, api_key="sk-1", stream_mode="enabled", max_tokens=9)
    assert isinstance(provider, AnthropicProvider)
    assert (provider.config.max_tokens, provider.config.stream_mode) == (9, StreamMode.ENABLED)
    assert provider.config.api_type is APIType.CHAT_COMPLETION
    assert config.max_tokens == 77
    assert create_llm_provider("anthropic", api_key="sk-1").config.model_name == "claude-sonnet-5-5"


def test_names_that_the_front_door_lends() -> None:
    """F-063"""
    assert providers.AnthropicProvider is AnthropicProvider  # type: ignore[attr-defined]
    assert providers.ANTHROPIC_AVAILABLE is True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"temprature": 1}, UnknownOptionError, "temprature"),
        ({"transport": "grpc"}, LLMProviderConfigurationError, "transport (argument) must be 'http' or 'sdk'"),
        ({"auth_header": "cookie"}, LLMProviderConfigurationError, "auth_header (argument)"),
        ({"base_url": "127.0.0.1:80"}, LLMProviderConfigurationError, "http://"),
        ({"base_url": "http://x/v1/v1"}, LLMProviderConfigurationError, "twice"),
        ({"base_url": "http://x?key=1"}, LLMProviderConfigurationError, "query"),
        ({"api_key": "sk-a\nb"}, LLMProviderConfigurationError, "api_key"),
        ({"api_key": 7}, LLMProviderConfigurationError, "api_key"),
        ({"max_tokens": 0}, LLMProviderConfigurationError, "max_tokens"),
        ({"default_temperature": 3}, LLMProviderConfigurationError, "temperature"),
        ({"betas": "a"}, LLMProviderConfigurationError, "betas"),
        ({"default_headers": {"X": 1}}, LLMProviderConfigurationError, "default_headers"),
        ({"default_headers": {"X": "a\nb"}}, LLMProviderConfigurationError, "X"),
        ({"api_version": "a\nb"}, LLMProviderConfigurationError, "anthropic-version"),
    ],
)
def test_wrong_settings_are_named_at_once(options: dict[str, Any], kind: type[Exception], words: str) -> None:
    """bad inputs 2, 7, 9"""
    with pytest.raises(kind) as caught:
        AnthropicProvider(NEW, **{"api_key": "sk-1", **options})
    assert words in str(caught.value)


def test_a_missing_sdk_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "llm_provider_anthropic.sdk_transport", raising=False)
    monkeypatch.setitem(sys.modules, "anthropic", None)
    provider = AnthropicProvider(NEW, "sk-1", transport="sdk")
    with pytest.raises(MissingDependencyError, match=r"pip install 'llm-provider-system\[anthropic\]'"):
        provider.open()


def test_what_is_known_of_models() -> None:
    """F-141"""
    assert AnthropicProvider(NEW, "sk-1").token_limit == 1_000_000
    assert AnthropicProvider(OLD, "sk-1").token_limit == 200_000
    assert AnthropicProvider("any-name-at-all", "sk-1").token_limit == 8192
    profile = AnthropicProvider(NEW, "sk-1").profile
    assert profile.reasoning_model
    assert profile.reasoning_efforts == ["low", "medium", "high", "xhigh", "max"]
    assert AnthropicProvider("claude-sonnet-4-20250514", "sk-1").profile.max_output_tokens == 64_000


def test_a_users_own_facts(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.toml").write_text(
        '[models."my-model"]\naccepts_default_temperature = false\njson_schema = false\n'
        'forced_tools = false\nparameters = {seed = "seed"}\n',
        encoding="utf-8",
    )
    plan = AnthropicProvider("my-model", "sk-1", "http://x")._plan("my-model")
    assert (plan.default_temperature, plan.json_schema, plan.can_force) == (False, False, False)
    assert plan.table["seed"] == "seed"
