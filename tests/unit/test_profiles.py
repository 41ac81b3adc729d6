"""Profiles of models: data of the plugin, overlaid by the user's; and the estimate of tokens."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from providers import (
    LLMProvider,
    LLMProviderConfigurationError,
    LLMProviderUnsupportedOperationError,
    ModelProfile,
    StreamEvent,
    register_provider,
    unregister_provider,
)
from providers.profiles import ProfileTable, estimate_tokens

pytestmark = pytest.mark.usefixtures("house")


@pytest.fixture
def table(house: Path) -> ProfileTable:
    path = house / "own.json"
    models = {
        "fast-2-think*": {"reasoning_model": True, "accepts_default_temperature": False},
        "fast-2": {"context_window": 2000, "refuses": {"top_p": "no"}, "reasoning_efforts": ["low"]},
        "fast-2*": {"reasoning_efforts": ["high"], "max_output_tokens": 3},
        "fast*": {"context_window": 1000, "refuses": {"seed": "no"}, "price": 1},
    }
    path.write_text(json.dumps({"default_model": "fast-2", "models": models}), encoding="utf-8")
    return ProfileTable(path)


def test_entries_are_laid_over_each_other_the_longest_key_last(table: ProfileTable) -> None:
    """F-117."""
    assert table.get("fast-1").context_window == 1000
    found = table.get("fast-2")
    assert (found.context_window, dict(found.refuses), found.known) == (2000, {"seed": "no", "top_p": "no"}, True)
    # "fast-2*" is longer than the model's whole name, which comes last all the same.
    assert (found.reasoning_efforts, found.max_output_tokens, found.data) == (["low"], 3, {"price": 1})
    assert table.get("fast-2-thinking").reasoning_model
    assert table.get("fast-2-thinking").context_window == 1000
    assert table.get("fast-2-thinking").accepts_default_temperature is False
    assert table.get("fast-2") is table.get("fast-2")


@pytest.fixture
def two_providers(house: Path, table: ProfileTable) -> Iterator[ProfileTable]:
    """`beta` knows names, `alpha` knows only how names begin, and comes first."""
    path = house / "alpha.json"
    path.write_text(json.dumps({"models": {"*": {"context_window": 1}}}), encoding="utf-8")

    class Alpha(LLMProvider):
        name = "alpha"
        profiles = ProfileTable(path)

        async def generate(self, request: object) -> AsyncIterator[StreamEvent]:  # type: ignore[override]
            yield StreamEvent.finish("stop")

    class Beta(Alpha):
        name = "beta"
        profiles = table

    register_provider("alpha", Alpha)
    register_provider("beta", Beta)
    yield table
    unregister_provider("alpha")
    unregister_provider("beta")


def test_a_profile_is_found_by_name_in_whatever_provider_has_data_of_it(two_providers: ProfileTable) -> None:
    """F-117: the exact name first, whichever provider comes first; then the beginning of names."""
    assert ModelProfile.get("fast-2") is two_providers.get("fast-2")
    assert ModelProfile.get("fast-2").context_window == 2000
    assert ModelProfile.get("slow-1").context_window == 1


def test_a_profile_is_found_in_the_users_file(two_providers: ProfileTable, house: Path) -> None:
    """F-117, C-26."""
    (house / "config").mkdir()
    path = house / "config" / "models.toml"
    path.write_text('[models."fast-2"]\ncontext_window = 9\n[models.mine]\nmax_input_tokens = 8\n', encoding="utf-8")
    assert ModelProfile.get("fast-2").context_window == 9
    assert ModelProfile.get("mine").max_input_tokens == 8
    path.write_text("[models.mine]\nmax_input_tokens = true\n", encoding="utf-8")
    with pytest.raises(LLMProviderConfigurationError, match="max_input_tokens"):
        ModelProfile.get("mine")


def test_a_name_that_no_data_know_is_refused_with_those_that_are_near(two_providers: ProfileTable) -> None:
    """F-117."""
    unregister_provider("alpha")  # whose data fit any name
    with pytest.raises(LLMProviderConfigurationError, match=r"'fsat-2'; did you mean .*fast-2.*\?"):
        ModelProfile.get("fsat-2")
    with pytest.raises(ValueError, match=r"'entirely different'; known by name: .*fast-2"):
        ModelProfile.get("entirely different")
    with pytest.raises(LLMProviderConfigurationError, match="must be a text"):
        ModelProfile.get(5)  # type: ignore[arg-type]


def test_a_class_of_a_plugins_own_makes_its_profiles(house: Path) -> None:
    """F-118: so a plugin counts exactly."""

    class Exact(ModelProfile):
        __slots__ = ()

        def count_tokens(self, text: str) -> int:
            return 42

    path = house / "own.json"
    path.write_text('{"models": {"m*": {"context_window": 7}}}', encoding="utf-8")
    found = ProfileTable(path, Exact).get("m1")
    assert (type(found), found.context_window, found.count_tokens("x")) == (Exact, 7, 42)


def test_any_profile_estimates_tokens_and_says_so(table: ProfileTable) -> None:
    """F-118."""
    found = table.get("fast-2")
    assert (found.count_tokens("four" * 10), found.token_counter) == (10, "estimate")
    with pytest.raises(LLMProviderConfigurationError, match="takes a text, not NoneType"):
        found.count_tokens(None)  # type: ignore[arg-type]
    with pytest.raises(LLMProviderUnsupportedOperationError):
        found.parse_usage({})


def test_a_profile_can_be_a_key(table: ProfileTable) -> None:
    assert {table.get("fast-2"): 1}[table.get("fast-2")] == 1


def test_any_name_is_accepted(table: ProfileTable) -> None:
    found = table.get("nobody-knows-it")
    assert (found.known, found.context_window, found.accepts_default_temperature) == (False, None, None)
    assert table.get("").known is False
    assert ProfileTable().get("x") == ModelProfile("x")


def test_the_users_file_goes_over_it_field_by_field(table: ProfileTable, house: Path) -> None:
    (house / "config").mkdir()
    path = house / "config" / "models.toml"
    assert table.get("fast-2").context_window == 2000
    path.write_text('[models."fast-2"]\ncontext_window = 5\n', encoding="utf-8")
    found = table.get("fast-2")
    assert (found.context_window, dict(found.refuses)) == (5, {"seed": "no", "top_p": "no"})
    path.write_text('\ufeff[models."mine-*"]\r\ncontext_window = 66\r\n', encoding="utf-8")
    assert table.get("mine-1").context_window == 66
    assert table.get("fast-2").context_window == 2000


def test_another_file_may_be_named(table: ProfileTable, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROVIDERS_MODELS", str(house / "mine.toml"))
    with pytest.raises(LLMProviderConfigurationError, match=r"LLM_PROVIDERS_MODELS names .*mine\.toml"):
        table.get("fast-2")
    (house / "mine.toml").write_text('[models."fast-2"]\ncontext_window = 7\n', encoding="utf-8")
    assert table.get("fast-2").context_window == 7


@pytest.mark.parametrize(
    "text",
    [
        "[models",
        "models = 5",
        "[models]\nx = 5",
        '[models."fast-2"]\ncontext_window = "many"',
        '[models."*"]\nrefuses = 5',
    ],
    ids=str,
)
def test_a_bad_file_is_named(table: ProfileTable, house: Path, text: str) -> None:
    """Bad input "malformed toml"."""
    (house / "config").mkdir()
    path = house / "config" / "models.toml"
    path.write_text(text, encoding="utf-8")
    for _ in range(2):
        with pytest.raises(LLMProviderConfigurationError, match=r"models\.toml"):
            table.get("fast-2")
    path.unlink()
    assert table.get("fast-2").context_window == 2000


def test_the_limit_of_tokens(table: ProfileTable) -> None:
    """F-133, F-141: as configured, else as the profile says, else 8192."""

    class Acme(LLMProvider):
        name = "acme"
        profiles = table

    assert Acme("fast-1").token_limit == 1000
    assert Acme("nobody").token_limit == 8192
    assert Acme("fast-1", token_limit=8192).token_limit == 8192
    assert Acme("fast-1").get_model_info()["token_limit"] == 1000
    assert Acme("fast-1").profile.context_window == 1000


def test_the_estimate() -> None:
    """F-141."""
    assert estimate_tokens("") == 0
    assert estimate_tokens("a") == 1
    assert estimate_tokens("four" * 100) == 100
    assert estimate_tokens("漢" * 150) == 120
    assert estimate_tokens("\ud83d") == 1


def test_twenty_megabytes_are_estimated_quickly() -> None:
    """Bad input 25."""
    started = time.perf_counter()
    assert estimate_tokens("word " * 4_000_000) == 5_000_000
    assert estimate_tokens("wörd " * 400_000) > 0
    assert time.perf_counter() - started < 2


def test_whether_a_prompt_fits() -> None:
    """F-141."""
    provider = LLMProvider("m", token_limit=100)
    assert provider.validate_token_limit("x" * 400)
    assert not provider.validate_token_limit("x" * 404)
    assert not provider.validate_token_limit("x" * 400, max_tokens=1)
    assert provider.validate_token_limit("x" * 200, max_tokens=50)
    provider = LLMProvider("m", token_limit=100, max_tokens=50)
    assert not provider.validate_token_limit("x" * 400)
    assert provider.validate_token_limit("x" * 400, max_tokens=0)
    assert provider.estimate_tokens("x" * 400) == 100
