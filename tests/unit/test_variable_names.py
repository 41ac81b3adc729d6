"""Variables that are spelt like ours and that nothing reads are told, once, with the nearest name that exists."""

from __future__ import annotations

import warnings
from pathlib import Path
from timeit import repeat

import pytest

from providers import ConfigurationWarning, LLMProviderConfigurationError, create_llm_provider, layer_settings
from providers.sources import forget_files, read_dotenv
from providers.testing import EchoProvider

pytestmark = pytest.mark.usefixtures("house")


@pytest.fixture(autouse=True)
def as_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_settings, "_told", set())
    monkeypatch.setattr(layer_settings, "_looked_at_environment", False)
    monkeypatch.setattr(layer_settings, "_looked_at", None)


def told() -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        EchoProvider("m")
    assert all(item.category is ConfigurationWarning and item.filename == __file__ for item in caught)
    return sorted(str(item.message) for item in caught)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("LLM_PROVIDERS_BUGDET", "LLM_PROVIDERS_BUDGET"),
        ("LLM_PROVIDERS_CACHE_BACKND", "LLM_PROVIDERS_CACHE_BACKEND"),
        ("LLM_PROVIDER_CACHE_BACKEND", "LLM_PROVIDERS_CACHE_BACKEND"),
        ("LLM_PROVIDER_BUGDET", "LLM_PROVIDERS_BUDGET"),
        ("LLM_PROVIDERS_NODOTENV", "LLM_PROVIDERS_NO_DOTENV"),
        ("LLM_PROVIDERS_MODEL", "LLM_PROVIDERS_MODELS"),
    ],
)
def test_a_misspelt_variable_is_told_once(house: Path, name: str, near: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "value-of-it")
    assert told() == [f"nothing reads {name} of the environment; did you mean {near}?"]
    assert told() == []
    monkeypatch.delenv(name)
    (house / ".env").write_text(f"A=1\n{name}=value-of-it\n", encoding="utf-8")
    assert told() == [], "once for each name"


def test_one_of_the_file_is_told_with_its_line_and_anew_for_each_state(house: Path) -> None:
    file = house / ".env"
    file.write_text("A=1\nLLM_PROVIDERS_BUGDET=secret-value\n", encoding="utf-8")
    assert told() == [f"nothing reads LLM_PROVIDERS_BUGDET of {file}, line 2; did you mean LLM_PROVIDERS_BUDGET?"]
    assert told() == []
    file.write_text("LLM_PROVIDERS_BUGDET=secret-value\nLLM_PROVIDERS_WHATEVER=1\n", encoding="utf-8")
    assert told() == [f"nothing reads LLM_PROVIDERS_WHATEVER of {file}, line 2"]


def test_known_names_and_those_of_others_are_left_alone(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROVIDER_REQUIRE_ENGINES", "0")
    monkeypatch.setenv("LLM_PROVIDER_ACME_MULTIPROCESS", "1")
    monkeypatch.setenv("LLM_PROVIDERS_CACHE_DIR", "cache")
    monkeypatch.setenv("LLM_PROVIDERS_TELEMETRY", "")
    for name in ("ENV_FILE", "CONFIG", "MODELS", "NO_DOTENV"):
        (house / "there").write_text("", encoding="utf-8")
        monkeypatch.setenv(f"LLM_PROVIDERS_{name}", "0" if name == "NO_DOTENV" else "there")
    assert told() == []


def test_a_look_costs_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told()
    assert min(repeat(layer_settings._tell_strangers, number=1000, repeat=5)) < 0.02, "20 us each"


@pytest.mark.parametrize("word", ["false", "no", "off", "0", "False", " OFF ", "n", "f"])
def test_no_to_no_dotenv_leaves_the_file_on(house: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (house / ".env").write_text("A=1", encoding="utf-8")
    monkeypatch.setenv("LLM_PROVIDERS_NO_DOTENV", word)
    assert read_dotenv()["A"].value == "1"


def test_neither_yes_nor_no(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_files()
    monkeypatch.setenv("LLM_PROVIDERS_NO_DOTENV", "maybe")
    with pytest.raises(
        LLMProviderConfigurationError, match="LLM_PROVIDERS_NO_DOTENV must be true or false, not 'maybe'"
    ):
        create_llm_provider()
