"""Settings: argument, environment, `.env`, toml, default; what is refused names its source, and no key is shown."""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from providers import (
    ConfigurationWarning,
    LLMProvider,
    LLMProviderConfigurationError,
    MissingCredentialsError,
    ProviderSettings,
    Secret,
    setting,
)
from providers.settings import all_variables, find_variable, missing_key

pytestmark = pytest.mark.usefixtures("house")
CANARY = "sk-canary-1234"


class Engine:
    """A thing that only its maker can check."""


@dataclass(kw_only=True, eq=False)
class AcmeSettings(ProviderSettings):
    env_prefix = "ACME_"

    api_key: Secret | None = setting(env=("ACME_API_KEY", "ACME_OLD_KEY"))
    url: str | None = setting("http://default")
    workers: int = setting(4)
    ratio: float = setting(0.5)
    fast: bool = setting(True)
    mode: Literal["a", "b"] = setting("a")
    headers: dict[str, str] = setting(None)
    names: list[str] = setting(None)
    options: dict[str, Any] | None = setting(None)
    anything: Any = setting(None)
    engine: Engine | None = setting(None)
    strict_engine: Engine = setting(None)


class Acme(LLMProvider):
    name = "acme"
    Settings = AcmeSettings


def resolve(**arguments: Any) -> AcmeSettings:
    return AcmeSettings.resolve("acme", arguments)


def key(settings: AcmeSettings) -> str | None:
    return settings.api_key.get_secret_value() if settings.api_key is not None else None


# --- precedence


def test_the_order_of_sources(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-005, C-22: argument, environment, `.env`, toml, default."""
    assert (resolve().url, resolve().sources) == ("http://default", {})
    (house / "config").mkdir()
    (house / "config" / "providers.toml").write_text("[providers.acme]\nurl = 'http://toml'\n", encoding="utf-8")
    assert resolve().url == "http://toml"
    assert "[providers.acme]" in resolve().sources["url"]
    (house / ".env").write_text("X=1\n\n# why\n\nACME_URL=http://dotenv\n", encoding="utf-8")
    assert resolve().url == "http://dotenv"
    assert resolve().sources["url"] == f"ACME_URL in {house / '.env'}, line 5"
    monkeypatch.setenv("ACME_URL", "http://environment")
    assert resolve().url == "http://environment"
    assert resolve().sources["url"] == "environment variable ACME_URL"
    assert resolve(url="http://argument").url == "http://argument"
    assert resolve(url="http://argument").sources["url"] == "argument"
    assert resolve(url=None).url == "http://environment"


@pytest.mark.parametrize("blank", ["", " ", "\t", "\n"], ids=repr)
def test_a_blank_variable_is_not_set(house: Path, monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    """Bad input 2."""
    (house / ".env").write_text("ACME_URL=http://dotenv\n", encoding="utf-8")
    monkeypatch.setenv("ACME_URL", blank)
    assert resolve().url == "http://dotenv"
    (house / ".env").write_text("ACME_URL=\n", encoding="utf-8")
    assert resolve().url == "http://default"


def test_zero_and_false_are_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_WORKERS", "7")
    monkeypatch.setenv("ACME_FAST", "1")
    found = resolve(workers=0, fast=False, ratio=0.0, names=[])
    assert (found.workers, found.fast, found.ratio, found.names) == (0, False, 0.0, [])
    monkeypatch.setenv("ACME_WORKERS", "0")
    monkeypatch.setenv("ACME_FAST", "false")
    found = resolve()
    assert (found.workers, found.fast) == (0, False)


def test_white_space_around_a_value_is_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input 2."""
    monkeypatch.setenv("ACME_API_KEY", f"{CANARY}\n")
    monkeypatch.setenv("ACME_URL", " http://x ")
    found = resolve()
    assert (key(found), found.url) == (CANARY, "http://x")


def test_the_first_of_two_names_wins_and_a_clash_is_told(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C-22; users: key names that clash."""
    monkeypatch.setenv("ACME_OLD_KEY", "old")
    assert key(resolve()) == "old"
    monkeypatch.setenv("ACME_API_KEY", CANARY)
    with pytest.warns(ConfigurationWarning, match="ACME_API_KEY and ACME_OLD_KEY hold different values") as caught:
        assert key(resolve()) == CANARY
    assert CANARY not in str(caught[0].message)
    assert "old" not in str(caught[0].message).replace("hold", "").replace("OLD", "")
    for same in (CANARY, f"{CANARY} \n", ""):
        monkeypatch.setenv("ACME_OLD_KEY", same)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert key(resolve()) == CANARY


def test_one_source_is_asked_for_all_names_before_the_next(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (house / ".env").write_text("ACME_API_KEY=dotenv\n", encoding="utf-8")
    monkeypatch.setenv("ACME_OLD_KEY", "environment")
    assert key(resolve()) == "environment"


def test_settings_are_read_anew_at_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_variable("ACME_URL") is None
    monkeypatch.setenv("ACME_URL", "x")
    found = find_variable("ACME_URL")
    assert found is not None
    assert (found.value, found.name) == ("x", "ACME_URL")


def test_the_environment_is_never_changed(house: Path) -> None:
    """C-22."""
    (house / ".env").write_text(f"ACME_API_KEY={CANARY}\nACME_WORKERS=3\n", encoding="utf-8")
    before = dict(os.environ)
    assert resolve().workers == 3
    Acme("m")
    assert dict(os.environ) == before


def test_an_unknown_name_in_the_toml_table_is_told(house: Path) -> None:
    """Bad input 7: nothing is dropped silently."""
    (house / "providers.toml").write_text("[providers.acme]\nwrokers = 5\nurl = 'x'\n", encoding="utf-8")
    with pytest.warns(ConfigurationWarning, match=r"wrokers.*did you mean 'workers'"):
        assert resolve().url == "x"


# --- types


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("WORKERS", "12", 12),
        ("RATIO", "0.25", 0.25),
        ("RATIO", "3", 3.0),
        ("FAST", "no", False),
        ("FAST", "TRUE", True),
        ("MODE", "b", "b"),
        ("HEADERS", '{"X-A": "1"}', {"X-A": "1"}),
        ("NAMES", '["a", "b"]', ["a", "b"]),
        ("OPTIONS", '{"a": [1]}', {"a": [1]}),
        ("ANYTHING", "text", "text"),
    ],
)
def test_variables_become_their_fields_types(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: Any
) -> None:
    monkeypatch.setenv(f"ACME_{name}", text)
    found = getattr(resolve(), name.lower())
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WORKERS", "many"),
        ("WORKERS", "1.5"),
        ("RATIO", "x"),
        ("FAST", "perhaps"),
        ("MODE", "c"),
        ("HEADERS", "X-A: 1"),
        ("HEADERS", '{"X-A": '),
        ("HEADERS", '["x"]'),
        ("NAMES", "a,b"),
        ("NAMES", '{"a": 1}'),
    ],
)
def test_what_is_of_the_wrong_type_names_field_and_source(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    variable = f"ACME_{name}"
    monkeypatch.setenv(variable, text)
    with pytest.raises(LLMProviderConfigurationError, match=rf"^{name.lower()} \(environment variable {variable}\)"):
        resolve()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", "x"),
        ("workers", []),
        ("url", 5),
        ("headers", "x"),
        ("headers", ["x"]),
        ("names", "x"),
        ("options", 5),
    ],
)
def test_arguments_of_the_wrong_type(name: str, value: Any) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=rf"^{name} \(argument\)"):
        resolve(**{name: value})


def test_the_toml_files_line_is_its_table(house: Path) -> None:
    (house / "providers.toml").write_text("[providers.acme]\nworkers = 'many'\n", encoding="utf-8")
    with pytest.raises(
        LLMProviderConfigurationError, match=r"workers \(\[providers.acme\] of .*providers.toml, line 2\)"
    ):
        resolve()


def test_an_object_that_nobody_knows_is_passed_through() -> None:
    engine = type("Better", (Engine,), {})()
    assert resolve(engine=engine, strict_engine=engine, anything=engine).strict_engine is engine


def test_arguments_are_taken_as_they_are() -> None:
    headers = {"a": "b"}
    found = resolve(headers=headers, names=["x"], anything={"a": 1}, mode="b")
    assert (found.headers, found.names, found.anything, found.mode) == (headers, ["x"], {"a": 1}, "b")


def test_a_class_that_is_no_dataclass_is_told_to_its_author() -> None:
    class Forgot(ProviderSettings):
        env_prefix = "ACME_"
        api_key: Secret | None = setting()

    class Bad(LLMProvider):
        name = "bad"
        Settings = Forgot

    with pytest.raises(LLMProviderConfigurationError, match=r"Forgot.*@dataclass"):
        Bad("m")


def test_the_variables_of_a_class_are_known() -> None:
    found = all_variables(AcmeSettings)
    assert found[:3] == ("ACME_API_KEY", "ACME_OLD_KEY", "ACME_URL")
    assert "ACME_SOURCES" not in found


# --- keys


def test_a_missing_key_names_the_variables_and_the_files(house: Path) -> None:
    """Bad input 1."""
    text = missing_key(AcmeSettings, "api_key")
    assert "ACME_API_KEY or ACME_OLD_KEY" in text
    assert str(house / ".env") in text
    assert "providers.toml" in text
    with pytest.raises(MissingCredentialsError, match="ACME_API_KEY") as caught:
        Acme("m").require("api_key")
    assert caught.value.provider == "acme"


@pytest.mark.parametrize("blank", ["", "  ", "\n"], ids=repr)
def test_a_blank_key_is_a_missing_key(blank: str) -> None:
    """Bad input 1, 2: never a request with an empty Authorization."""
    with pytest.raises(MissingCredentialsError):
        Acme("m", api_key=blank).require("api_key")


def test_a_required_setting_is_asked_for_when_the_provider_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(kw_only=True, eq=False)
    class Strict(ProviderSettings):
        env_prefix = "ACME_"
        api_key: Secret | None = setting(required=True)

    class StrictAcme(LLMProvider):
        name = "acme"
        Settings = Strict

    with pytest.raises(MissingCredentialsError, match="ACME_API_KEY"):
        StrictAcme("m")
    monkeypatch.setenv("ACME_API_KEY", CANARY)
    assert StrictAcme("m").require("api_key") == CANARY


@pytest.mark.parametrize("bad", [5, b"x", ["x"], f"{CANARY}\nInjected: 1"], ids=lambda value: type(value).__name__)
def test_a_bad_key_is_refused_without_showing_it(bad: Any) -> None:
    """Bad input 2."""
    with pytest.raises(LLMProviderConfigurationError, match=r"api_key \(argument\)") as caught:
        resolve(api_key=bad)
    assert CANARY not in "".join(traceback.format_exception_only(caught.value))


def test_no_key_is_shown_anywhere(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input "the usual"; users: keys in exceptions and logs."""
    monkeypatch.setenv("ACME_API_KEY", CANARY)
    with caplog.at_level(logging.DEBUG):
        provider = Acme("m")
        shown = [
            repr(provider),
            repr(provider.settings),
            str(provider.get_model_info()),
            str(provider.settings.sources),
        ]
        try:
            Acme("m", workers="x")
        except LLMProviderConfigurationError as error:
            shown += traceback.format_exception(error)
    for text in [*shown, caplog.text]:
        assert CANARY not in text
    assert provider.settings.secrets() == [CANARY]
    assert provider.require("api_key") == CANARY


def test_the_sources_are_told() -> None:
    """Users: where does this value come from?"""
    assert Acme("m", api_key=CANARY).get_model_info()["sources"] == {"api_key": "argument"}
