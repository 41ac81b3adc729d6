"""What can only fail later is refused when a provider is made, and what is off in one place is off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers import (
    Budget,
    LLMProviderConfigurationError,
    MemoryCache,
    MissingCredentialsError,
    Observe,
    create_llm_provider,
    register_provider,
)
from providers.resilience.limiter import LocalLimits
from providers.testing import EchoProvider

from .conftest import Install, Run
from .test_remote import Acme as Remote

pytestmark = pytest.mark.usefixtures("house", "acme")


def toml(house: Path, text: str, name: str = "providers.toml") -> Path:
    path = house / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ("[presets.fast]\nprovider = 'acme'\n[presets.fast.config]\ntemperature = 0", 3, "config"),
        ("[presets.fast]\nprovider = 'acme'\npreset = 'slow'", 3, "preset"),
        ("[presets.fast]\nself = 'x'\nprovider = 'acme'", 2, "self"),
        ("[presets.fast]\nprovider = 'acme'\ncls = 'x'", 3, "cls"),
        ("[presets.fast]\nprovider = 'acme'\noptions = 'x'", 3, "options"),
        ("[presets.fast]\nprovider = 'acme'\nargs = 'x'", 3, "args"),
    ],
)
def test_names_in_a_preset_that_mean_something_else(house: Path, text: str, line: int, name: str) -> None:
    """They were a TypeError of Python's, without a line."""
    toml(house, text)
    for options in ({}, {"provider_type": "other"}):
        with pytest.raises(LLMProviderConfigurationError, match=rf"providers\.toml, line {line}.* no .*'{name}'"):
            create_llm_provider(preset="fast", **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [("limits", LocalLimits), ("cache_backend", MemoryCache), ("budget", Budget), ("telemetry", Observe)],
)
def test_a_class_in_the_place_of_an_object(name: str, value: type) -> None:
    """They were taken, and failed at the first call."""
    wanted = rf"{name} \(argument\) must be an object, not the class {value.__name__}: give {value.__name__}\(\.\.\.\)"
    with pytest.raises(LLMProviderConfigurationError, match=wanted):
        create_llm_provider("acme", **{name: value})


@pytest.mark.parametrize("word", ["off", "OFF", " none "])
def test_off_for_one_provider_what_is_on_for_all(house: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = "[settings.layers]\nbudget = {max_requests = 1}\nmax_concurrency = 2\n"
    toml(house, f"{shared}[providers.acme]\nbudget = '{word}'\nmax_concurrency = '{word}'")
    parts = create_llm_provider("acme")._stack.parts
    assert "budget" not in parts
    assert "concurrency" not in parts
    assert {"budget", "concurrency"} <= create_llm_provider("other")._stack.parts.keys()
    monkeypatch.setenv("LLM_PROVIDERS_BUDGET", '{"max_requests": 5}')
    assert "budget" in create_llm_provider("acme")._stack.parts, "a variable goes before the file"
    assert "budget" not in create_llm_provider("acme", budget=word)._stack.parts


@pytest.mark.parametrize("text", ["'five dollars'", "'{max_cost: 5}'"])
def test_a_budget_that_is_none_says_what_is_one(house: Path, text: str) -> None:
    toml(house, f"[settings.layers]\nbudget = {text}")
    wanted = (
        r"budget \(\[settings\.layers\] of .*, line 2\) is no JSON .*must be a Budget, a dict of its arguments, .*max_c"
    )
    with pytest.raises(LLMProviderConfigurationError, match=wanted):
        create_llm_provider("acme")


def test_only_files_that_were_read_are_said_to_be_searched(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_API_KEY", raising=False)
    register_provider("remote", Remote)
    second = toml(house, "[presets.z]\nprovider = 'acme'")
    create_llm_provider("acme", preset="z")
    first = toml(house, "", "config/providers.toml")
    with pytest.raises(LLMProviderConfigurationError) as caught:
        create_llm_provider(preset="z")
    assert caught.value.message == (f"no preset 'z' in {first} ({second} is not read beside it); presets there: none")
    second.unlink()
    with pytest.raises(MissingCredentialsError) as missing:
        create_llm_provider("remote")
    assert str(first) in missing.value.message
    assert str(second) not in missing.value.message
    first.unlink()
    with pytest.raises(LLMProviderConfigurationError) as caught:
        create_llm_provider(preset="z")
    assert caught.value.message == f"no preset 'z' in {first} and {second}; presets there: none"


@pytest.mark.parametrize(
    ("requires", "told"),
    [
        ("Requires-Dist: an-engine>=1\n", "; pip install llm-provider-needy brings what it needs"),
        (
            "Provides-Extra: cuda\nProvides-Extra: cpu\nRequires-Dist: llm-provider-system>=0.1\n"
            "Requires-Dist: an-engine>=1; extra == 'cuda'\nRequires-Dist: an-engine-cpu>=1; extra == 'cpu'\n",
            "; pip install 'llm-provider-needy[cpu]' or pip install 'llm-provider-needy[cuda]' brings it",
        ),
        ("Requires-Dist: llm-provider-system>=0.1\n", "; llm-provider-needy does not say what brings it"),
    ],
)
def test_the_hint_for_a_missing_package_is_true(
    python: Run, install: Install, site: Path, requires: str, told: str
) -> None:
    """A plugin whose engine comes with an extra does not bring it by itself."""
    code = """
        from providers import LLMProvider

        class Needy(LLMProvider):
            requires = ("an_engine",)

            async def generate(self, request):
                yield
    """
    install("llm-provider-needy", {"llm_providers": {"needy": "needy_plugin:Needy"}}, {"needy_plugin": code})
    with (site / "llm_provider_needy-1.2.dist-info" / "METADATA").open("a", encoding="utf-8") as file:
        file.write(requires)
    said: Any = python(
        """
        from providers import MissingDependencyError, create_llm_provider

        try:
            create_llm_provider("needy")
        except MissingDependencyError as error:
            print(error.message)
        """,
        path=[Path(__file__).resolve().parents[2] / "src", site],
    ).stdout
    assert said.strip() == f"the provider 'needy' needs the package an_engine, which is not installed{told}"


def test_what_the_installed_plugins_say() -> None:
    from providers.plugins import manager
    from providers.registry import _what_brings

    wanted = {
        ("llm-provider-vllm", "vllm"): "pip install 'llm-provider-vllm[cpu]' or pip install 'llm-provider-vllm[cuda]'",
        ("llm-provider-transformers", "torch"): "pip install llm-provider-transformers brings",
        ("llm-provider-mlx", "mlx_lm"): "pip install llm-provider-mlx brings",
        ("llm-provider-llamacpp", "xllamacpp"): "pip install llm-provider-llamacpp brings",
    }
    installed = {plugin.info.distribution for plugin in manager.find().values()}
    for (distribution, package), text in wanted.items():
        if distribution in installed:
            assert text in _what_brings(distribution, [package])


def test_what_is_off_makes_no_part() -> None:
    assert EchoProvider("m", budget="off", max_concurrency="off", telemetry="off")._stack.parts.keys() <= {
        *("limits", "account")
    }
