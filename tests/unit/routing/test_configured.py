"""Fallbacks from configuration: names, presets, tables; what is wrong is named with its file and key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers import (
    LLMProvider,
    LLMProviderConfigurationError,
    MissingCredentialsError,
    ProviderSettings,
    Secret,
    UnknownProviderError,
    available_providers,
    clear_provider_cache,
    create_llm_provider,
    get_cached_provider,
    register_provider,
    setting,
    unregister_provider,
)
from providers.registry import _registered, _resolved
from providers.routing import FallbackProvider
from providers.sources import forget_files
from providers.testing import EchoProvider

from .backend import ask


def write(text: str) -> None:
    Path("config").mkdir(exist_ok=True)
    Path("config/providers.toml").write_text(text, encoding="utf-8")


@pytest.fixture(autouse=True)
def house(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from dataclasses import dataclass

    @dataclass(kw_only=True, eq=False)
    class Settings(ProviderSettings):
        env_prefix = "KEYED_"
        api_key: Secret | None = setting(required=True)

    class Keyed(EchoProvider):
        name = "keyed"

    Keyed.Settings = Settings
    before = dict(_registered)
    monkeypatch.delenv("KEYED_API_KEY", raising=False)
    forget_files()
    register_provider("echo", EchoProvider)
    register_provider("keyed", Keyed)
    yield
    clear_provider_cache()
    forget_files()
    _registered.clear()
    _registered.update(before)
    _resolved.clear()


def told(fallback: LLMProvider) -> list[tuple[str, str, str | None]]:
    assert isinstance(fallback, FallbackProvider)
    return [
        (item["target"], item["provider_type"], item["model_name"]) for item in fallback.get_model_info()["targets"]
    ]


PRESETS = """
[presets.fast]
provider = "echo"
model_name = "quick"
temperature = 0.25

[presets.pair]
provider = "fallback"
targets = [
    "fast", "echo/a/b", "echo",
    {provider = "keyed", model = "k", api_key = "key-1"}, {preset = "fast", model = "m"},
]
choice = "weighted"
weights = [0, 0, 0, 0, 1]
max_tokens = 3

[presets.nest]
provider = "Fallback "
targets = ["pair", "fast"]
"""


async def test_names_presets_and_tables() -> None:
    write(PRESETS)
    fallback = create_llm_provider(preset="pair", seed=4)
    assert told(fallback) == [
        ("fast", "echo", "quick"),
        ("echo/a/b", "echo", "a/b"),
        ("echo/echo", "echo", "echo"),
        ("keyed/k", "keyed", "k"),
        ("fast #2", "echo", "m"),
    ]
    response = await ask(fallback, "one two three four five")
    assert response.metadata["target"] == "fast #2"
    assert response.metadata["params"]["sent"] == {"temperature": 0.25, "max_tokens": 3, "seed": 4}
    assert response.content == "one two three"
    nested = create_llm_provider(preset="nest")
    assert told(nested)[0][:2] == ("pair", "fallback")
    await nested.close()
    assert nested.targets[0].targets[3].is_closed  # type: ignore[attr-defined]


async def test_from_code_with_providers_that_stay_open() -> None:
    mine = EchoProvider("mine")
    fallback = create_llm_provider("fallback", targets=[mine, "echo/x"], replay=True, temperature=0.5)
    assert told(fallback) == [("echo/mine", "echo", "mine"), ("echo/x", "echo", "x")]
    assert (await ask(fallback)).metadata["params"]["sent"] == {"temperature": 0.5}
    await fallback.close()
    assert (mine.is_closed, fallback.targets[1].is_closed) == (False, True)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["fallback", " FallBack "])
def test_the_default_model_is_not_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_MODEL_NAME", "default")
    fallback = create_llm_provider(name, targets=["echo"])
    assert fallback.config.model_name == "echo/default"
    assert create_llm_provider(name, "shown", targets=["echo"]).config.model_name == "shown"


def test_circles_of_presets_are_refused() -> None:
    write(
        '[presets.a]\nprovider = "fallback"\ntargets = ["b"]\n'
        '[presets.b]\nprovider = "fallback"\ntargets = ["echo", "a"]\n'
        '[presets.me]\nprovider = "fallback"\ntargets = [{preset = "me"}]\n'
        '[presets.twice]\nprovider = "fallback"\ntargets = ["fine", "fine"]\n[presets.fine]\nprovider = "echo"\n'
    )
    with pytest.raises(LLMProviderConfigurationError, match=r"providers\.toml go round in a circle: a -> b -> a"):
        create_llm_provider(preset="a")
    with pytest.raises(LLMProviderConfigurationError, match="me -> me"):
        create_llm_provider(preset="me")
    assert len(told(create_llm_provider(preset="twice"))) == 2


@pytest.mark.parametrize(
    ("targets", "error", "said"),
    [
        ("'echo'", LLMProviderConfigurationError, "must be a list, not str"),
        ("[]", LLMProviderConfigurationError, "at least one provider"),
        ("['eco']", UnknownProviderError, "'eco': .*did you mean 'echo'.*presets of .*providers.toml: bad"),
        ("['echo/m', 3]", LLMProviderConfigurationError, "entry 2: a target is a provider.*not int"),
        ("['keyed/m']", MissingCredentialsError, "'keyed/m': .*set KEYED_API_KEY"),
        ("[{model = 'm'}]", LLMProviderConfigurationError, "entry 1: it needs a text under 'provider'"),
        ("[{preset = 'no'}]", LLMProviderConfigurationError, "entry 1: no preset 'no'"),
        ("[{provider = 'echo', temprature = 1}]", TypeError, "entry 1: .*did you mean 'temperature'"),
        ("[{provider = 'echo', temperature = 'hot'}]", LLMProviderConfigurationError, "entry 1: .*temperature"),
        ("[{provider = 'fallback', targets = ['x/y']}]", UnknownProviderError, "entry 1: targets, 'x/y': "),
    ],
)
def test_wrong_entries_name_file_and_key(targets: str, error: type[Exception], said: str) -> None:
    write(f'[presets.bad]\nprovider = "fallback"\ntargets = {targets}\n')
    with pytest.raises(error, match=said) as caught:
        create_llm_provider(preset="bad")
    if said != "at least one provider":
        assert f"targets of [presets.bad] of {Path('config/providers.toml').absolute()}" in str(caught.value)
        with pytest.raises(LLMProviderConfigurationError, match=r"^targets, 'eco'"):
            create_llm_provider("fallback", preset="bad", targets=["eco"])


def test_a_table_with_a_key_is_never_shown() -> None:
    with pytest.raises(LLMProviderConfigurationError) as caught:
        create_llm_provider("fallback", targets=[{"provider": "keyed", "api_key": "sk-canary", "temperature": "hot"}])
    assert "canary" not in str(caught.value)


def test_arguments_from_a_file_are_checked() -> None:
    write('[presets.bad]\nprovider = "fallback"\ntargets = ["echo"]\nreplay = "yes"\n')
    with pytest.raises(LLMProviderConfigurationError, match="replay must be true or false"):
        create_llm_provider(preset="bad")


def test_one_for_the_same_arguments_and_a_new_one_for_a_new_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYED_API_KEY", "key-1")
    fallback = get_cached_provider("fallback", targets=["keyed/m", "echo"])
    assert get_cached_provider("fallback", targets=["keyed/m", "echo"]) is fallback
    assert get_cached_provider("fallback", targets=["echo", "keyed/m"]) is not fallback
    monkeypatch.setenv("KEYED_API_KEY", "key-2")
    renewed: Any = get_cached_provider("fallback", targets=["keyed/m", "echo"])
    assert renewed is not fallback
    assert renewed.targets[0].require("api_key") == "key-2"


def test_this_process_may_take_the_name_but_only_with_a_word() -> None:
    class Mine(EchoProvider):
        name = "fallback"

    register_provider("fallback", Mine, replace=True)
    assert type(create_llm_provider("fallback")) is Mine
    unregister_provider("fallback")
    assert type(create_llm_provider("fallback", targets=["echo"])) is FallbackProvider


def test_the_name_is_the_cores_own() -> None:
    """A plugin of that name is not used, and `available_providers` says so."""
    info = available_providers(check=False)["fallback"]
    assert (info.state, info.reason) == ("built-in", None)

    class Mine(EchoProvider):
        name = "fallback"

    with pytest.raises(LLMProviderConfigurationError, match="belongs to the core's own provider"):
        register_provider("fallback", Mine)
    with pytest.raises(UnknownProviderError, match="did you mean 'fallback'"):
        create_llm_provider("fallbak", targets=["echo"])


def test_an_installed_plugin_cannot_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from providers import plugins

    class Thief(EchoProvider):
        name = "fallback"

    monkeypatch.setattr(plugins, "Thief", Thief, raising=False)
    entry = EntryPoint("fallback", "providers.plugins:Thief", plugins.GROUP)
    found = {plugins.GROUP: [entry], f"{plugins.GROUP}.names": [], f"{plugins.GROUP}.default": []}
    monkeypatch.setattr(plugins, "_entry_points", lambda: found)
    plugins.manager.forget()
    try:
        assert type(create_llm_provider("fallback", targets=["echo"])) is FallbackProvider
        info = available_providers()["fallback"]
        assert (info.state, info.reason) == ("built-in", "an unknown package claims this name too, and is not used")
    finally:
        monkeypatch.undo()
        plugins.manager.forget()
