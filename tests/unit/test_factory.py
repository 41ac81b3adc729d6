"""From a name to a provider: presets, defaults, overrides."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from providers import (
    APIType,
    LLMConfig,
    LLMProvider,
    LLMProviderConfigurationError,
    LLMProviderUnsupportedOperationError,
    ModelProfile,
    StreamMode,
    UnknownOptionError,
    UnknownProviderError,
    create_llm_provider,
    get_cached_provider,
    register_provider,
)
from providers.profiles import ProfileTable

from .acme import Acme, Other

pytestmark = pytest.mark.usefixtures("house", "acme")


def toml(house: Path, text: str) -> None:
    (house / "config").mkdir(exist_ok=True)
    (house / "config" / "providers.toml").write_text(text, encoding="utf-8")


# --- making


def test_by_name_position_and_keyword() -> None:
    """F-126."""
    for provider in (create_llm_provider("acme", "m"), create_llm_provider(provider_type="acme", model_name="m")):
        assert type(provider) is Acme
        assert provider.config.model_name == "m"
    assert create_llm_provider("acme", model="m").config.model_name == "m"
    assert create_llm_provider("acme", ModelProfile("m")).config.model_name == "m"


def test_fields_as_keywords_override_the_configuration() -> None:
    """F-127, F-130."""
    config = LLMConfig("m", api_type=APIType.RESPONSES, temperature=0.8, max_tokens=2000, stop=["x"], seed=5)
    before = copy.deepcopy(config)
    provider = create_llm_provider("acme", config=config, temperature=0.0, stop=[], seed=None, stream_mode="enabled")
    found = provider.config
    assert (found.temperature, found.stop, found.seed, found.max_tokens) == (0.0, [], 5, 2000)
    assert (found.model_name, found.api_type, found.stream_mode) == ("m", APIType.RESPONSES, StreamMode.ENABLED)
    assert create_llm_provider("acme", "other", config=config).config.model_name == "other"
    assert config == before
    provider.update_config(extra_params={"a": 1})
    assert config == before


def test_a_configuration_may_be_a_dict_of_fields() -> None:
    """Users: `config={...}`, as in `get_response`; what is given beside it goes before it."""
    config = {"model": "m", "api_type": "responses", "stop": ["x"], "timeout": None, "extra_params": {"a": 1}}
    before = copy.deepcopy(config)
    for provider in (
        create_llm_provider("acme", config=config, temperature=0.0, max_tokens=3),
        Acme(config, temperature=0.0, max_tokens=3),
        create_llm_provider("fallback", targets=[{"provider": "acme", "config": config}]).targets[0],  # type: ignore[attr-defined]
    ):
        found = provider.config
        assert (found.model_name, found.api_type, found.stop, found.timeout) == ("m", APIType.RESPONSES, ["x"], None)
        provider.update_config(extra_params={"b": 2})
        found.stop.append("y")
        assert config == before
    assert create_llm_provider("acme", config={"default_temperature": 0.7}).config.given() == {"temperature"}
    assert create_llm_provider("acme", config={}).config.given() == frozenset()
    assert get_cached_provider("acme", "m", config={"seed": 1}) is get_cached_provider("acme", "m", config={"seed": 1})


def test_a_default_survives_the_factory() -> None:
    """C-04."""
    assert create_llm_provider("acme", "m").config.given() == frozenset()
    assert create_llm_provider("acme", config=LLMConfig("m")).config.given() == frozenset()
    assert create_llm_provider("acme", "m", temperature=0.7).config.given() == {"temperature"}


def test_settings_go_to_the_provider() -> None:
    """F-005, F-044."""
    provider = create_llm_provider("acme", "m", api_key="k", url="http://x")
    assert provider.require("api_key") == "k"
    assert provider.require("url") == "http://x"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"temprature": 1}, UnknownOptionError, "'temprature'; did you mean 'temperature'"),
        ({"ulr": "x"}, UnknownOptionError, "'ulr'; did you mean 'url'"),
        ({"temperature": "hot"}, LLMProviderConfigurationError, "temperature"),
        ({"config": {"temperature": "hot"}}, LLMProviderConfigurationError, r"temperature \(config\)"),
        ({"config": {"temprature": 1}}, UnknownOptionError, "config: .*did you mean 'temperature'"),
        ({"config": {"url": "x"}}, UnknownOptionError, "'url'.*options beside config"),
        ({"config": {5: "x"}}, UnknownOptionError, "config: .*'5'"),
        ({"config": "m"}, LLMProviderConfigurationError, "or a dict of its fields, not str; .*model_name"),
        ({"preset": "fast"}, LLMProviderConfigurationError, "no preset 'fast'"),
        ({"provider_type": "acmee"}, UnknownProviderError, "did you mean 'acme'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(options: dict[str, Any], error: type[Exception], said: str) -> None:
    """Bad input 7, 8."""
    with pytest.raises(error, match=said):
        create_llm_provider(**{"provider_type": "acme", "model_name": "m", **options})
    assert Acme.made == []


def test_the_defaults_of_the_house(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-126, F-142: environment, then `.env`, then toml."""
    toml(house, "[settings]\ndefault_llm_provider = 'acme'\ndefault_model_name = 'from-toml'\n")
    assert create_llm_provider().config.model_name == "from-toml"
    (house / ".env").write_text("DEFAULT_LLM_PROVIDER=other\nDEFAULT_MODEL_NAME=from-dotenv\n", encoding="utf-8")
    provider = create_llm_provider()
    assert (type(provider), provider.config.model_name) == (Other, "from-dotenv")
    monkeypatch.setenv("DEFAULT_LLM_PROVIDER", " ACME ")
    monkeypatch.setenv("DEFAULT_MODEL_NAME", " from-env\n")
    provider = create_llm_provider(stream_mode=StreamMode.ENABLED)
    assert (type(provider), provider.config.model_name) == (Acme, "from-env")
    assert provider.config.stream_mode is StreamMode.ENABLED


def test_the_default_model_is_the_default_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-126: another provider does not get a model that it cannot know."""
    monkeypatch.setenv("DEFAULT_MODEL_NAME", "m")
    assert create_llm_provider("acme").config.model_name == "m"
    monkeypatch.setenv("DEFAULT_LLM_PROVIDER", "Acme")
    assert create_llm_provider("acme").config.model_name == "m"
    assert create_llm_provider("other").config.model_name is None
    assert create_llm_provider("acme", config=LLMConfig("mine")).config.model_name == "mine"
    assert create_llm_provider("acme", "given").config.model_name == "given"


def test_the_providers_own_default_model(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = house / "models.json"
    path.write_text('{"default_model": "own", "models": {}}', encoding="utf-8")
    monkeypatch.setattr(Acme, "profiles", ProfileTable(path))
    assert create_llm_provider("acme").config.model_name == "own"
    monkeypatch.setenv("DEFAULT_MODEL_NAME", "m")
    assert create_llm_provider("acme").config.model_name == "m"


def test_an_unknown_default_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_LLM_PROVIDER", "nobody")
    with pytest.raises(UnknownProviderError, match="nobody"):
        create_llm_provider()


# --- presets


def test_a_preset_is_a_provider_and_any_options(house: Path) -> None:
    toml(
        house, "[presets.fast]\nprovider = 'acme'\nmodel_name = 'm'\ntemperature = 0\nurl = 'http://x'\nstop = ['a']\n"
    )
    provider = create_llm_provider(preset="fast")
    assert (type(provider), provider.config.model_name, provider.config.temperature) == (Acme, "m", 0)
    assert (provider.require("url"), provider.config.stop) == ("http://x", ["a"])
    assert "temperature" in provider.config.given()


def test_what_the_call_says_comes_first(house: Path) -> None:
    toml(house, "[presets.fast]\nprovider = 'acme'\nmodel = 'm'\ntemperature = 0.5\nurl = 'http://x'\n")
    provider = create_llm_provider(preset="fast", model_name="mine", temperature=0.0, url=None)
    assert (provider.config.model_name, provider.config.temperature, provider.require("url")) == (
        "mine",
        0.0,
        "http://x",
    )
    assert create_llm_provider("ACME", preset="fast").config.model_name == "m"
    other = create_llm_provider("other", preset="fast")
    assert (type(other), other.config.model_name, other.config.temperature) == (Other, None, 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[presets.fast]\nmodel = 'm'", "needs a text under 'provider'"),
        ("[presets.fast]\nprovider = 5", "needs a text under 'provider'"),
        ("\n[presets.fast]\nprovider = 'acmee'", r"\[presets.fast\] of .*, line 2 says: .*did you mean 'acme'"),
        ("[presets.fast]\nprovider = 'acme'\ntemprature = 1", "temprature"),
        ("[presets.fast]\nprovider = 'acme'\ntemperature = 'hot'", "temperature"),
        ("[presets.slow]\nprovider = 'acme'", r"no preset 'fast' in .*providers\.toml.*: slow"),
        ("[presets]\nfast = 5", "must be a table"),
        ("presets = 5", "must be a table"),
    ],
)
def test_a_bad_preset_is_named(house: Path, text: str, said: str) -> None:
    toml(house, text)
    with pytest.raises(LLMProviderConfigurationError, match=said):
        create_llm_provider(preset="fast")


# --- the founding document's custom provider


async def test_the_founding_documents_custom_provider() -> None:
    """F-136, F-137: the snippet as it stands there."""

    class CustomProvider(LLMProvider):
        def __init__(self, config: LLMConfig, api_key: str | None = None, **kwargs: Any) -> None:
            super().__init__(config)
            self.api_key = api_key
            self.kwargs = kwargs

        async def execute(self, prompt: str, **kwargs: Any) -> Any:  # type: ignore[override]
            return f"{self.config.model_name}: {prompt}"

        async def execute_chat_completion(self, messages: Any, **kwargs: Any) -> Any:
            pass

        async def execute_responses_api(self, input_message: Any, **kwargs: Any) -> Any:
            raise LLMProviderUnsupportedOperationError("Responses API not supported")

    register_provider("custom", CustomProvider)
    provider = create_llm_provider(provider_type="custom", model_name="custom-model-v1")
    assert await provider.execute("hi") == "custom-model-v1: hi"
    other = create_llm_provider("custom", "m", api_key="k", temperature=0.2, special=1)
    assert (other.api_key, other.kwargs, other.config.temperature) == ("k", {"special": 1}, 0.2)
    with pytest.raises(LLMProviderUnsupportedOperationError):
        await provider.execute_responses_api("hi")
