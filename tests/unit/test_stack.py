"""Which layers settings put around a provider's calls, and what becomes of values that make no sense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from providers import (
    Budget,
    BudgetExceededError,
    Concurrency,
    ConfigurationWarning,
    FSCache,
    LLMProvider,
    LLMProviderConfigurationError,
    LLMProviderRateLimitError,
    LocalLimits,
    MemoryCache,
    MissingDependencyError,
    ProviderSettings,
    Request,
    Secret,
    SQLiteLimits,
    StreamEvent,
    UnknownOptionError,
    Usage,
    client,
    get_cached_provider,
    get_response,
    register_provider,
    setting,
)
from providers.layers import retry
from providers.layers.cache import ResponseCache
from providers.layers.limit import LimitLayer
from providers.layers.pricing import Priced

pytestmark = pytest.mark.usefixtures("house")


@dataclass(kw_only=True, eq=False)
class CountedSettings(ProviderSettings):
    env_prefix = "COUNTED_"
    api_key: Secret | None = setting()
    base_url: str | None = setting()


class Counted(LLMProvider):
    """Answers with the number of its call."""

    name = "counted"
    Settings = CountedSettings
    calls = 0
    fails: tuple[Exception, ...] = ()

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        Counted.calls += 1
        if Counted.fails:
            error, *rest = Counted.fails
            Counted.fails = tuple(rest)
            raise error
        yield StreamEvent.token(f"answer {Counted.calls}")
        yield StreamEvent.usage(Usage(10, 5))
        yield StreamEvent.finish("stop")


@pytest.fixture(autouse=True)
def fresh() -> None:
    Counted.calls, Counted.fails = 0, ()


def kinds(provider: LLMProvider) -> list[Any]:
    return [layer if layer is retry else type(layer) for layer in provider._stack.layers]


def ask(provider: LLMProvider, **options: Any) -> Any:
    async def once() -> Any:
        async with provider:
            return await provider.execute("Hi", **options)

    return asyncio.run(once())


def test_what_stands_there_by_default() -> None:
    """F-110: prices, retries, and the limits of the model's profile."""
    assert kinds(Counted("m")) == [Priced, retry, LimitLayer]
    assert kinds(Counted("m", limits="off")) == [Priced, retry]
    assert kinds(Counted("m", limits=" Process ", cache_backend="off")) == [Priced, retry, LimitLayer]
    assert kinds(Counted("m", layers=())) == []


def test_the_order_of_all_of_them(tmp_path: Path) -> None:
    provider = Counted("m", cache_backend="fs", cache_dir=str(tmp_path), budget={"max_requests": 1})
    assert [kind.__name__ for kind in kinds(provider)] == [
        "ResponseCache",
        "Priced",
        "retry",
        "LimitLayer",
        "BudgetedCalls",
    ]


@pytest.mark.parametrize("name", ["memory", "sqlite", "fs", " FS "])
def test_caches_by_name(name: str, tmp_path: Path) -> None:
    """F-061, F-106, F-109."""
    provider = Counted("m", cache_backend=name, cache_dir=str(tmp_path / "c"))

    async def twice() -> list[str]:
        async with provider:
            answers = [await provider.execute("Hi", cache_response=True) for _ in range(2)]
            answers.append(await provider.execute("Hi"))
            answers.append(await provider.execute("Hi", cache_response=True, rewrite_cache=True))
            answers.append(await provider.execute("Hi", cache_response=True))
        return [answer.content for answer in answers]

    assert asyncio.run(twice()) == ["answer 1", "answer 1", "answer 2", "answer 3", "answer 3"]
    assert (tmp_path / "c").exists() is (name != "memory")


def test_a_store_of_ones_own_and_its_options() -> None:
    store = MemoryCache()
    first, second = Counted("m", cache_backend=store), Counted("m", cache_backend=store)
    assert ask(first, cache_response=True).content == ask(second, cache_response=True).content == "answer 1"
    provider = Counted("m", cache_backend="memory", cache_options={"max_entries": 1})
    layer = provider._stack.layers[0]
    assert isinstance(layer, ResponseCache)
    assert layer.store._most == 1  # type: ignore[attr-defined]


def test_settings_come_from_everywhere(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-005, F-060: argument, environment, `.env`, toml."""
    (house / "providers.toml").write_text(
        '[settings.layers]\ncache_backend = "sqlite"\ncache_dir = "from-toml"\n'
        "[providers.counted]\nrequests_per_minute = 30\n",
        encoding="utf-8",
    )
    provider = Counted("m")
    assert isinstance(provider._stack.layers[0], ResponseCache)
    limiter = provider._stack.layers[-1].limiter("m")  # type: ignore[attr-defined]
    assert limiter.requests_per_minute == 30
    sources = provider.get_model_info()["sources"]
    assert sources["requests_per_minute"].startswith("[providers.counted] of")
    assert sources["cache_dir"].startswith("[settings.layers] of")
    (house / ".env").write_text("LLM_PROVIDERS_REQUESTS_PER_MINUTE=40\n", encoding="utf-8")
    assert Counted("m")._stack.layers[-1].limiter("m").requests_per_minute == 40  # type: ignore[attr-defined]
    monkeypatch.setenv("LLM_PROVIDERS_REQUESTS_PER_MINUTE", "50.5")
    assert Counted("m")._stack.layers[-1].limiter("m").requests_per_minute == 50.5  # type: ignore[attr-defined]
    given = Counted("m", requests_per_minute=60)
    assert given._stack.layers[-1].limiter("m").requests_per_minute == 60  # type: ignore[attr-defined]


def test_the_cache_of_providers_sees_those_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-140, C-21."""
    register_provider("counted", Counted)
    plain = get_cached_provider("counted", "m")
    assert get_cached_provider("counted", "m") is plain
    monkeypatch.setenv("LLM_PROVIDERS_CACHE_BACKEND", "memory")
    cached = get_cached_provider("counted", "m")
    assert cached is not plain
    assert get_cached_provider("counted", "m") is cached
    monkeypatch.setenv("LLM_PROVIDERS_CACHE_COLLECTION", "other")
    assert get_cached_provider("counted", "m") is not cached


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache_backend": "flie"}, r"cache_backend \(argument\) must be one of fs, memory.* not 'flie'"),
        ({"cache_backend": 7}, r"cache_backend \(argument\) must be a name or a CacheStore, not int"),
        ({"cache_backend": "fs", "cache_options": {"tll": 1}}, r"cache_options \(argument\) has no 'tll'; it takes"),
        ({"cache_backend": "fs", "cache_options": {"ttl": -1}}, "ttl"),
        ({"cache_dir": 7}, r"cache_dir \(argument\)"),
        ({"limits": "machina"}, r"limits \(argument\) must be one of machine.* not 'machina'"),
        ({"limits": object()}, r"limits \(argument\) must be a name or a LimitStore, not object"),
        ({"requests_per_minute": 0}, r"requests_per_minute \(argument\) must be a finite number of at least 1"),
        ({"tokens_per_minute": float("inf")}, r"tokens_per_minute \(argument\) must be a finite number"),
        ({"requests_per_minute": "many"}, r"requests_per_minute \(argument\)"),
        (
            {"limits": "off", "requests_per_minute": 5},
            r"requests_per_minute \(argument\) has no effect with limits='off'",
        ),
        ({"limits": " OFF ", "max_concurrency": 5}, r"max_concurrency \(argument\) has no effect with limits='off'"),
        ({"max_concurrency": 0}, r"max_concurrency \(argument\) must be a whole number from 1"),
        ({"max_concurrency": "many"}, r"max_concurrency \(argument\) must be a whole number from 1"),
        ({"budget": {"max_dollars": 1}}, r"budget \(argument\) has no 'max_dollars'; it takes .*max_cost"),
        ({"budget": {"max_cost": -1}}, "max_cost"),
        ({"budget": 3}, r"budget \(argument\) must be a Budget or a dict, not int"),
        ({"budget": "{"}, r"budget \(argument\) is no JSON"),
        ({"layers": (), "cache_backend": "fs"}, "cache_backend has no effect where layers were composed by hand"),
    ],
)
def test_values_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=words):
        Counted("m", **options)


def test_a_misspelt_option_is_told_what_it_may_have_meant() -> None:
    with pytest.raises(UnknownOptionError, match="cache_backend"):
        Counted("m", cache_backnd="fs")


@pytest.mark.parametrize("name", ["pg_redis", "qdrant"])
def test_a_store_whose_package_is_missing(name: str) -> None:
    """F-109: a clear ImportError; in an environment that has the packages, the address is what is missing."""
    with pytest.raises((MissingDependencyError, LLMProviderConfigurationError)) as caught:
        Counted("m", cache_backend=name)
    text = str(caught.value)
    assert "pip install" in text or "PG_DSN" in text or "embedd" in text
    assert isinstance(caught.value, ImportError | LLMProviderConfigurationError)


def test_limits_of_this_machine_are_one_object_for_each_file(tmp_path: Path) -> None:
    """C-15."""
    path = str(tmp_path / "limits.sqlite")
    first, second = (Counted("m", limits="machine", limits_file=path, requests_per_minute=6000) for _ in range(2))
    stores = [provider._stack.layers[-1]._store for provider in (first, second)]  # type: ignore[attr-defined]
    assert isinstance(stores[0], SQLiteLimits)
    assert stores[0] is stores[1]
    assert ask(first).content == "answer 1"
    assert Path(path).exists()
    own = LocalLimits()
    assert Counted("m", limits=own)._stack.layers[-1]._store is own  # type: ignore[attr-defined]


def test_limits_are_shared_by_key_and_address() -> None:
    """C-15: another key, or another server, is another limit."""

    def key(**options: Any) -> str:
        layer: Any = Counted("m", **options)._stack.layers[-1]
        return str(layer.limiter("m").key)

    keys = {
        key(),
        key(api_key="sk-one"),
        key(api_key="sk-two"),
        key(api_key="sk-one", base_url="http://a"),
        key(api_key="sk-one", base_url="http://b"),
    }
    assert len(keys) == 5
    assert key(api_key="sk-one") in keys
    assert key() not in keys, "without key and address a backend is that of one object"
    assert key(limits=LocalLimits()) == key(limits=LocalLimits())
    assert not any("sk-one" in found for found in keys)


async def test_after_too_many_requests_all_callers_of_a_key_wait() -> None:
    """C-15: for as long as the backend asks; another key does not wait."""
    loop = asyncio.get_running_loop()
    Counted.fails = (LLMProviderRateLimitError("slow down", retry_after=0.3),)
    first = Counted("m", api_key="sk-shared", max_retries=0)
    with pytest.raises(LLMProviderRateLimitError):
        await first.execute("Hi")
    began = loop.time()
    await Counted("m", api_key="sk-other").execute("Hi")
    assert loop.time() - began < 0.25
    await Counted("m", api_key="sk-shared").execute("Hi")
    assert 0.2 <= loop.time() - began < 5
    Counted.fails = (LLMProviderRateLimitError("slow down", retry_after=30),)
    free = Counted("m", api_key="sk-free", max_retries=0, limits="off")
    with pytest.raises(LLMProviderRateLimitError):
        await free.execute("Hi")
    await asyncio.wait_for(free.execute("Hi"), 5)


async def test_a_pause_that_nobody_named_is_that_of_the_calls_own_retry() -> None:
    Counted.fails = (LLMProviderRateLimitError("slow down"),)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await Counted("m", api_key="sk-quick", retry_delay=0.01).execute("Hi")
    assert loop.time() - began < 0.5


@pytest.mark.parametrize(("given", "most"), [(3, 3), (" 3 ", 3), ("adaptive", 8), (Concurrency(2, most=2), 2)])
async def test_calls_under_way_are_bounded(given: Any, most: int) -> None:
    """Issue: adaptive concurrency; a refusal halves the bound."""
    under_way, peak = 0, 0

    class Slow(Counted):
        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            nonlocal under_way, peak
            under_way += 1
            peak = max(peak, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            yield StreamEvent.token("x")

    provider = Slow("m", max_concurrency=given)
    await asyncio.gather(*(provider.execute("Hi") for _ in range(most)))
    assert peak <= most
    peak = 0
    await asyncio.gather(*(provider.execute("Hi") for _ in range(3 * most)))
    assert most <= peak <= most + 3
    bound = provider._stack.layers[-1]._concurrency.bound  # type: ignore[attr-defined]
    Counted.fails = (LLMProviderRateLimitError("slow down", retry_after=0.001),)
    await Counted("m", max_concurrency=provider._stack.layers[-1]._concurrency).execute("Hi")  # type: ignore[attr-defined]
    assert provider._stack.layers[-1]._concurrency.bound <= max(1, bound // 2) + 1  # type: ignore[attr-defined]


def test_a_budget_as_an_option_and_shared() -> None:
    spend = Budget(max_requests=2)
    one, two = Counted("m", budget=spend), Counted("m", budget=spend)
    ask(one), ask(two)
    with pytest.raises(BudgetExceededError):
        ask(Counted("m", budget=spend))
    own = Counted("m", budget='{"max_requests": 0}')
    with pytest.raises(BudgetExceededError):
        ask(own)


def test_costs_are_there_without_asking(house: Path) -> None:
    """F-118, F-121."""
    (house / "config").mkdir()
    (house / "config" / "models.toml").write_text(
        "[models.m]\ninput_price = 1.0\noutput_price = 2.0\n", encoding="utf-8"
    )
    usage = ask(Counted("m")).usage
    assert (usage.input_cost, usage.output_cost, usage.total_cost) == (1e-05, 1e-05, 2e-05)
    assert ask(Counted("unknown model")).usage.total_cost is None


async def test_the_provider_closes_the_stores_that_it_made_and_no_others(tmp_path: Path) -> None:
    store = FSCache(tmp_path / "own")
    for backend in ("sqlite", store):
        provider = Counted("m", cache_backend=backend, cache_dir=str(tmp_path))
        await provider.warm_cache()
        layer: Any = provider._stack.layers[0]
        assert layer.store._executor is not None
        await provider.close()
        assert (layer.store._executor is None) is (backend == "sqlite")
    await store.close()


def test_a_name_that_nothing_reads_is_told(house: Path) -> None:
    (house / "providers.toml").write_text("[settings.layers]\nrequest_per_minute = 60\n", encoding="utf-8")
    with pytest.warns(ConfigurationWarning, match="did you mean 'requests_per_minute'"):
        Counted("m")


@pytest.mark.parametrize("layers", [retry, "retry", ("retry",), (5,), (Budget,)])
def test_what_are_no_layers(layers: Any) -> None:
    with pytest.raises(LLMProviderConfigurationError, match="layers must"):
        Counted("m", layers=layers)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("LLM_PROVIDERS_TELEMETRY", "lgs", "telemetry must be .*environment variable LLM_PROVIDERS_TELEMETRY"),
        ("LLM_PROVIDERS_BUDGET", '{"max_tokens": -5}', "max_tokens .*environment variable LLM_PROVIDERS_BUDGET"),
        ("LLM_PROVIDERS_CACHE_BACKEND", "sqlit", "environment variable .*did you mean 'sqlite'"),
        ("LLM_PROVIDERS_LIMITS", "machin", "must be one of machine, off, process.* did you mean 'machine'"),
    ],
)
def test_the_place_of_a_wrong_value_is_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    """F-172."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(LLMProviderConfigurationError, match=words):
        Counted("m")


def test_off_turns_off_what_stands_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROVIDERS_REQUESTS_PER_MINUTE", "5")
    monkeypatch.setenv("LLM_PROVIDERS_CACHE_BACKEND", "memory")
    monkeypatch.setenv("LLM_PROVIDERS_TELEMETRY", "logs")
    assert kinds(Counted("m", limits="off", cache_backend="off", telemetry="none")) == [Priced, retry]


def test_the_sync_functions_reach_the_cache() -> None:
    """F-064."""
    register_provider("counted", Counted)
    for _ in range(2):
        assert get_response("counted", "m", "Hi", cache_backend="memory", cache_response=True) == "answer 1"
    with client("counted", "m", cache_backend="memory") as ours:
        assert [ours.get_response("Hi", cache_response=True) for _ in range(2)] == ["answer 2"] * 2


def test_a_misspelt_key_of_a_config_is_told() -> None:
    register_provider("counted", Counted)
    with pytest.warns(UserWarning, match="'max_token' goes to the backend as it is; did you mean 'max_tokens'"):
        get_response("counted", "m", "Hi", config={"max_token": 5})
