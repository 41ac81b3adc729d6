"""A value that is refused is told, and never quoted where it may be a secret."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from providers import (
    LLMConfig,
    LLMProvider,
    LLMProviderConfigurationError,
    ProviderSettings,
    Request,
    Secret,
    StreamEvent,
    create_llm_provider,
    register_provider,
    setting,
)
from providers.creation import _told
from providers.notices import shown, shown_name, without_secrets

from .test_remote import Acme as Remote

KEY = "sk-test-0123456789"
PASSWORD = "pw-of-the-house"
SECRET = "crimson-otter"  # what looks like any word


@dataclass(kw_only=True, eq=False)
class VaultSettings(ProviderSettings):
    env_prefix = "ACME_"
    api_key: Secret | None = setting()
    n_parallel: int = setting(1)
    share: float | None = setting()
    verbose: bool = setting(False)


class Vault(LLMProvider):
    name = "vault"
    Settings = VaultSettings

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        yield StreamEvent.token("a")


@pytest.fixture(autouse=True)
def registered(house: Path) -> None:
    register_provider("vault", Vault)
    register_provider("remote", Remote)


def toml(house: Path, text: str) -> None:
    (house / "providers.toml").write_text(text, encoding="utf-8")


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(LLMProviderConfigurationError) as caught:
        create_llm_provider(*args, **options)
    return f"{caught.value} {caught.value!r} {caught.value.args}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("redis", "'redis'"),
        ("flie", "'flie'"),
        ("claude-haiku-4-5-20251001", "'claude-haiku-4-5-20251001'"),
        (5, "5"),
        (True, "True"),
        (None, "None"),
        ([1], "[1]"),
        ("x" * 40, repr("x" * 40)),
        ("x" * 41, "a text of 41 characters"),
        ("redis://app:PW@host/0", "an address"),
        ("app:PW@host", "an address"),
        (KEY, f"a text of {len(KEY)} characters"),
        ("AIzaSyA-12", "a text of 10 characters"),
        ("Bearer x1", "a text of 9 characters"),
        ("0123456789abcdef0123456789abcdef", "a text of 32 characters"),
        ({"key": KEY}, "a value of type dict"),
        (["redis://app:PW@host"], "a value of type list"),
    ],
    ids=str,
)
def test_short_words_are_quoted_and_what_may_be_a_secret_is_described(value: Any, expected: str) -> None:
    assert shown(value) == expected


def test_a_value_that_holds_a_known_secret_is_described() -> None:
    assert shown(SECRET, [SECRET]) == shown(f"x{SECRET}", [SECRET])[:-13] + "13 characters"
    assert shown("none", ["none"]) == "'none'", "placeholders for local servers are no secrets"
    assert shown_name("fast") == "fast"
    assert shown_name(KEY) == f"(a text of {len(KEY)} characters)"
    assert without_secrets(f"not '{SECRET}'", [SECRET]) == "not '***'"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LLM_PROVIDERS_CACHE_BACKEND", f"postgresql://app:{PASSWORD}@db/x"),
        ("LLM_PROVIDERS_LIMITS", f"redis://app:{PASSWORD}@host/0"),
        ("LLM_PROVIDERS_TELEMETRY", f"https://user:{PASSWORD}@collector"),
        ("LLM_PROVIDERS_MAX_CONCURRENCY", KEY),
        ("LLM_PROVIDERS_MAX_CONCURRENCY", SECRET),
        ("LLM_PROVIDERS_CACHE_BACKEND", SECRET),
        ("LLM_PROVIDERS_REQUESTS_PER_MINUTE", SECRET),
        ("LLM_PROVIDERS_BUDGET", SECRET),
        ("DEFAULT_LLM_PROVIDER", KEY),
    ],
)
def test_what_a_variable_holds(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key or an address that was set under the wrong name."""
    monkeypatch.setenv("ACME_API_KEY", SECRET)
    monkeypatch.setenv(variable, value)
    told = refusal(None if variable.startswith("DEFAULT") else "vault")
    for secret in (KEY, PASSWORD, SECRET):
        assert secret not in told
    assert variable in told


@pytest.mark.parametrize(
    ("text", "preset"),
    [
        (f'[settings.layers]\nlimits = "redis://app:{PASSWORD}@host/0"\n[presets.p]\nprovider = "vault"', "p"),
        (f'[settings]\ndefault_llm_provider = "{KEY}"', None),
        (f'[presets.p]\nprovider = "{KEY}"', "p"),
        (f'[presets.p]\nprovider = "vault"\napi_key = "{SECRET}"\ntimeout = "{SECRET}"', "p"),
        (f'[presets.p]\nprovider = "vault"\napi_key = "{SECRET}"\napi_type = "{SECRET}"', "p"),
        (f'[presets.p]\nprovider = "vault"\napi_key = "{SECRET}"\nlimits = "{SECRET}"', "p"),
        (f'[presets.p]\nprovider = "remote"\napi_key = "{SECRET}"\ntransport = "{SECRET}"', "p"),
        (f'[presets.p]\nprovider = "remote"\napi_key = "{KEY}"\nbase_url = "{KEY}"', "p"),
        (f'[presets.p]\nprovider = "vault"\n{KEY} = 1', "p"),
        (f'[presets.{KEY}]\nprovider = "vault"\nx = 1', KEY),
        (f'[presets.{KEY}]\nprovider = "vault"', "q"),
    ],
)
def test_what_the_toml_file_holds(house: Path, text: str, preset: str | None) -> None:
    toml(house, text)
    told = refusal(preset=preset)
    for secret in (KEY, PASSWORD, SECRET):
        assert secret not in told
    assert "providers.toml" in told


def test_a_table_named_by_a_key(house: Path) -> None:
    _told.clear()
    toml(house, f"[providers.{KEY}]\nx = 1\n[settings]\n{KEY} = 1\n[{KEY}]\na = 1")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        create_llm_provider("vault")
    told = "\n".join(str(item.message) for item in caught)
    assert told.count("a text of 18 characters") >= 3
    assert KEY not in told


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": SECRET},
        {"max_concurrency": SECRET},
        {"config": {"stream_mode": SECRET}},
        {"config": LLMConfig(), "reasoning_effort": 5, "on_unsupported": SECRET},
    ],
    ids=str,
)
def test_what_an_argument_holds(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if "config" not in options or "on_unsupported" in options:
        assert SECRET not in refusal("vault", api_key=SECRET, **options)
        monkeypatch.setenv("ACME_API_KEY", SECRET)
        assert SECRET not in refusal("vault", **options)
        with pytest.raises(LLMProviderConfigurationError) as caught:
            Vault(**options)
        assert SECRET not in f"{caught.value} {caught.value!r}"
    assert KEY not in refusal("vault", config={"stream_mode": KEY})


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "max_concurrency", "n_parallel", "share"])
@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_is_no_number(house: Path, name: str, value: bool) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=rf"{name} \(argument\) must be a .*number.*{value}"):
        create_llm_provider("vault", **{name: value})
    toml(house, f"[providers.vault]\n{name} = {str(value).lower()}")
    with pytest.raises(LLMProviderConfigurationError, match=rf"{name} \(.*line 2\) must be a .*number.*{value}"):
        create_llm_provider("vault")


def test_a_number_may_still_stand_for_a_boolean() -> None:
    provider = create_llm_provider("vault", verbose=1, n_parallel="3", share=2)
    assert (provider.settings.verbose, provider.settings.n_parallel, provider.settings.share) == (True, 3, 2.0)  # type: ignore[attr-defined]
