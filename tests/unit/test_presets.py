"""Presets: what is refused names the preset's line, and `reload` reads the table anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from providers import (
    FallbackProvider,
    LLMConfig,
    LLMProvider,
    LLMProviderConfigurationError,
    LLMResponse,
    Request,
    StreamEvent,
    UnknownOptionError,
    create_llm_provider,
    register_provider,
    unregister_provider,
)
from providers.profiles import ProfileTable

from .acme import Acme, AcmeSettings

pytestmark = [
    pytest.mark.usefixtures("house", "acme", "presets"),
    pytest.mark.filterwarnings("ignore::providers.parameters.UnsupportedParameterWarning"),
]


class Remote(LLMProvider):
    """Answers with the address that it was opened with."""

    name = "remote"
    Settings = AcmeSettings
    settings: AcmeSettings

    def open(self) -> None:
        self.url = self.settings.url

    def detach(self) -> Callable[[], Awaitable[None]] | None:
        if self.settings.url == "nowhere":
            raise LLMProviderConfigurationError(f"url ({self.settings.sources['url']}) must be somewhere")
        return self.shut

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        yield StreamEvent.token(f"{request.model} at {self.url}, {request.params.get('temperature')}")


@pytest.fixture
def presets(house: Path) -> None:
    register_provider("remote", Remote)


def write(house: Path, text: str, name: str = "fast", provider: str = "remote") -> Path:
    path = house / "providers.toml"
    path.write_text(f"# presets\n[presets.{name}]\nprovider = '{provider}'\n{text}\n", encoding="utf-8")
    return path


async def said(provider: LLMProvider) -> str:
    answer = await provider.execute("Hi")
    assert isinstance(answer, LLMResponse)
    return answer.content


@pytest.mark.parametrize(
    ("text", "begins", "ends"),
    [
        ("cache_backend = 'flie'", "cache_backend (", ") must be one of"),
        ("requests_per_minute = 0", "requests_per_minute (", ") must be a finite number"),
        ("requests_per_minute = 'many'", "requests_per_minute (", "): Input should be"),
        ("limits = 'of'", "limits (", "did you mean 'off'?"),
        ("budget = {max_monny = 3}", "budget (", ") has no 'max_monny'"),
        ("budget = {max_requests = -3}", "max_requests", "(in budget, "),
        ("max_concurrency = -1", "max_concurrency (", ") must be a whole number"),
        ("telemetry = 'otle'", "telemetry must", "(in telemetry, "),
        ("url = 5", "url (", "): Input should be"),
        ("api_key = 5", "api_key (", "): a secret must be a string"),
        ("temperature = 'hot'", "temperature (", ") must be a number"),
        ("default_temperature = 'hot'", "temperature (", ") must be a number"),
        ("temprature = 1", "remote: ", "has no option 'temprature'; did you mean 'temperature'"),
    ],
    ids=str,
)
def test_what_is_refused_names_preset_file_and_line(house: Path, text: str, begins: str, ends: str) -> None:
    """Users: a preset's layer setting was told as an argument."""
    path = write(house, f"model = 'm'\n\n{text}")
    with pytest.raises((LLMProviderConfigurationError, UnknownOptionError)) as caught:
        create_llm_provider(preset="fast")
    message = str(caught.value)
    assert message.startswith(begins)
    assert ends in message
    assert f"[presets.fast] of {path}, line 6" in message
    assert "argument" not in message


def test_no_value_is_shown(house: Path) -> None:
    """Users: keys in logs."""
    write(house, "model = 'm'\napi_key = 'sk-canary'")
    provider = create_llm_provider(preset="fast")
    assert provider.require("api_key") == "sk-canary"
    assert "canary" not in f"{vars(provider)}"
    write(house, "model = 'm'\napi_key = 'sk-canary'\napi_kye = 'sk-canary'")
    with pytest.raises(UnknownOptionError) as caught:
        create_llm_provider(preset="fast")
    assert "canary" not in str(caught.value)


def test_what_is_given_beside_it_is_an_argument(house: Path) -> None:
    path = write(house, "url = 'a'\nlimits = 'off'\ntemperature = 0.5")
    provider = create_llm_provider(preset="fast", model_name="m", url="b", limits=None)
    line = f"[presets.fast] of {path}, line 5"
    assert provider.get_model_info()["sources"] == {"limits": line, "url": "argument"}
    assert (provider.settings.was_given("url"), provider.settings.was_given("api_key")) == (True, False)
    assert create_llm_provider(preset="fast", model="mine").config.model_name == "mine"
    with pytest.raises(LLMProviderConfigurationError, match=r"^requests_per_minute \(argument\)"):
        create_llm_provider(preset="fast", requests_per_minute=0)


async def test_reload_reads_the_preset_anew(house: Path) -> None:
    """Users: a changed preset had no effect."""
    write(house, "model = 'm'\nurl = 'a'\ntemperature = 0.25\nrequests_per_minute = 600\nmax_tokens = 7")
    async with create_llm_provider(preset="fast") as provider:
        assert await said(provider) == "m at a, 0.25"
        path = write(house, "model = 'n'\nurl = 'b'\ntemperature = 0.5\nrequests_per_minute = 6000\nseed = 3")
        assert await said(provider) == "m at a, 0.25"
        await provider.reload()
        assert await said(provider) == "n at b, 0.5"
        layer: Any = provider._stack.layers[-1]
        assert layer.limiter("n").requests_per_minute == 6000
        assert (provider.config.max_tokens, provider.config.seed) == (None, 3)
        assert provider.get_model_info()["sources"]["url"] == f"[presets.fast] of {path}, line 5"
        write(house, "model = 'n'")
        await provider.reload()
        assert await said(provider) == "n at None, 0.7"
        assert (provider.config.given(), provider.config.seed) == (frozenset(), None)
        write(house, "model = 'n'\nurl = 'c'\ntemperature = 0")
        await provider.reload()
        assert await said(provider) == "n at c, 0"


async def test_what_was_given_beside_it_stays(house: Path) -> None:
    write(house, "model = 'm'\nurl = 'a'\ntemperature = 0.25\nseed = 1\nmax_tokens = 5")
    config = LLMConfig(max_tokens=9, top_p=0.5)
    async with create_llm_provider(preset="fast", config=config, temperature=0.125, url="mine") as provider:
        provider.update_config(seed=2)
        config.max_tokens = 1  # the caller's own object
        write(house, "model = 'n'\nurl = 'b'\ntemperature = 0.5\nseed = 3\ntop_p = 0.75")
        await provider.reload()
        found = provider.config
        assert await said(provider) == "n at mine, 0.125"
        assert (found.seed, found.max_tokens, found.top_p) == (2, 9, 0.75)
        await provider.reload(url=None, temperature=0.75, model="o")
        assert await said(provider) == "o at b, 0.75"
        write(house, "model = 'p'\nurl = 'c'\ntemperature = 1")
        await provider.reload()
        assert await said(provider) == "o at c, 0.75"
        assert provider.config.top_p == 0.5


async def test_a_preset_for_another_provider_gives_it_no_model(house: Path) -> None:
    write(house, "model = 'm'\nurl = 'a'", provider="acme")
    async with create_llm_provider("remote", "mine", preset="fast") as provider:
        write(house, "model = 'n'\nurl = 'b'", provider="other")
        await provider.reload()
        assert await said(provider) == "mine at b, 0.7"


async def test_without_its_model_it_has_the_default_one_again(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (house / "models.json").write_text('{"default_model": "own", "models": {}}', encoding="utf-8")
    monkeypatch.setattr(Acme, "profiles", ProfileTable(house / "models.json"))
    write(house, "model = 'm'", provider="acme")
    provider = create_llm_provider(preset="fast")
    write(house, "seed = 1", provider="acme")
    await provider.reload()
    assert provider.config.model_name == "own"
    write(house, "model = 'n'", provider="acme")
    await provider.reload()
    assert provider.config.model_name == "n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[presets.fast]\nprovider = 'acme'", r"line 1 names the provider 'acme' now, not 'remote'; create a new"),
        ("[presets.fast]\nprovider = 'remote'\ntemperature = 9", r"temperature \(\[presets.fast\] of .*, line 3\)"),
        ("[presets.fast]\nprovider = 'remote'\nlimits = 'of'", r"limits \(\[presets.fast\] of .*, line 3\)"),
        ("[presets.fast]\nprovider = 'remote'\nurl = 'nowhere'", r"url \(\[presets.fast\] of .*, line 3\)"),
        ("[presets.fast]\nprovider = 'remote'\nulr = 'b'", r"line 3: reload has no option 'ulr'; did you mean 'url'"),
        ("[presets.slow]\nprovider = 'remote'", "no preset 'fast'"),
        ("", "no preset 'fast'"),
        ("[presets", "no valid toml"),
    ],
    ids=str,
)
async def test_what_reload_refuses_changes_nothing(house: Path, text: str, problem: str) -> None:
    path = write(house, "model = 'm'\nurl = 'a'\ntemperature = 0.25")
    async with create_llm_provider(preset="fast") as provider:
        before = (provider.config, provider.settings)
        path.write_text(text, encoding="utf-8")
        with pytest.raises((LLMProviderConfigurationError, UnknownOptionError), match=problem):
            await provider.reload(max_tokens=3)
        assert (provider.config, provider.settings) == before
        assert await said(provider) == "m at a, 0.25"
        write(house, "model = 'm'\nurl = 'b'\ntemperature = 0.5")
        await provider.reload()
        assert await said(provider) == "m at b, 0.5"


async def test_the_targets_of_a_fallback_read_theirs(house: Path) -> None:
    pair = "[presets.pair]\nprovider = 'fallback'\ntargets = ['fast', 'acme/x']\nchoice = 'ordered'\n"
    fast = "[presets.fast]\nprovider = 'remote'\nmodel = 'm'\nurl = '{}'\n"
    path = house / "providers.toml"
    path.write_text(pair + fast.format("a"), encoding="utf-8")
    async with create_llm_provider(preset="pair") as provider:
        assert isinstance(provider, FallbackProvider)
        assert (await said(provider)).startswith("m at a")
        path.write_text(pair + "max_tokens = 4\n" + fast.format("b"), encoding="utf-8")
        await provider.reload()
        assert (await said(provider)).startswith("m at b")
        assert provider.config.max_tokens == 4
        for text in (pair.replace("'acme/x'", "'acme/y'"), pair.replace("choice = 'ordered'\n", "")):
            path.write_text(text + fast.format("c"), encoding="utf-8")
            with pytest.raises(LLMProviderConfigurationError, match=r"\[presets.pair\].*has changed; create a new"):
                await provider.reload()
            assert (await said(provider)).startswith("m at b")


def test_limits_that_the_preset_itself_turns_off_are_refused(house: Path) -> None:
    """What stands in the preset was chosen, as an argument is."""
    write(house, "limits = 'off'\nrequests_per_minute = 4")
    with pytest.raises(LLMProviderConfigurationError, match=r"^requests_per_minute \(\[presets.fast\] of .*, line 5\)"):
        create_llm_provider(preset="fast", model_name="m")


def test_a_class_may_have_a_metaclass_of_its_own(house: Path) -> None:
    """Who counts or registers what is made sees what a preset makes, too; and a provider that another one makes while
    it is made has no preset."""
    write(house, "temperature = 0.25")
    made: list[Any] = []

    class Counted(type):
        def __call__(cls, *args: Any, **options: Any) -> Any:
            made.append(super().__call__(*args, **options))
            return made[-1]

    class Inner(Remote, metaclass=Counted):
        name = "inner"

    class Outer(Inner):
        name = "outer"

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.inner = Inner("m", url="here")

    register_provider("outer", Outer)
    try:
        provider = create_llm_provider("outer", preset="fast")
    finally:
        unregister_provider("outer")
    assert made == [provider.inner, provider]  # type: ignore[attr-defined]
    assert provider.config.temperature == 0.25
    assert provider.inner._preset is None  # type: ignore[attr-defined]
