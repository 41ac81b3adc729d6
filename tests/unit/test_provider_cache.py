"""The cache of providers: one for all, closed when it is dropped and its last stream has ended."""

from __future__ import annotations

import asyncio
import copy
import gc
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from providers import (
    LLMConfig,
    LLMProvider,
    LLMProviderConfigurationError,
    ModelProfile,
    clear_provider_cache,
    get_cached_provider,
    register_provider,
)
from providers.factory import ProviderCache

from .acme import Acme, Other


def used(provider: Any) -> Any:
    """The provider, opened."""
    asyncio.run(provider.warm_cache())
    return provider


pytestmark = pytest.mark.usefixtures("house", "acme")


def test_the_same_arguments_give_the_same_provider() -> None:
    """F-140."""
    provider = get_cached_provider(
        provider_type="acme", model_name="m", api_type="chat_completion", stream_mode="disabled"
    )
    assert get_cached_provider("acme", "m", "chat_completion", "disabled") is provider
    assert get_cached_provider("acme", "m", stream_mode="disabled", api_type="chat_completion") is provider
    assert len(Acme.made) == 1


DIFFERENT: list[dict[str, Any]] = [
    {},
    {"temperature": 1},
    {"temperature": 1.0},
    {"temperature": 0},
    {"temperature": 0.7},
    {"seed": 1},
    {"stop": ["a"]},
    {"stop": ["b"]},
    {"stop": "a"},
    {"stop": []},
    {"extra_params": {"a": 1}},
    {"extra_params": {"a": True}},
    {"extra_params": {"a": {"b": [1]}}},
    {"extra_params": {"a": {"b": [2]}}},
    {"extra_params": {"a": {1: 2, "b": 3}}},
    {"api_key": "k"},
    {"api_key": "other"},
    {"url": "http://x"},
    {"config": LLMConfig("m", top_p=0.5)},
    {"config": LLMConfig("m", top_p=0.6)},
    {"config": LLMConfig("m", temperature=0.7)},
    {"config": LLMConfig("m")},
    {"model_name": "other"},
    {"provider_type": "other"},
]


def test_different_arguments_give_different_providers_and_equal_ones_the_same() -> None:
    """C-21, bad input 13, 69: keyed by all settings; unhashable ones are compared by value."""
    found = []
    for options in DIFFERENT:
        arguments = {"provider_type": "acme", "model_name": "m", **options}
        provider = get_cached_provider(**arguments)
        assert get_cached_provider(**copy.deepcopy(arguments)) is provider, options
        found.append(provider)
    assert len(set(map(id, found))) == len(DIFFERENT)


def test_a_profile_stands_for_its_models_name() -> None:
    """F-062."""
    assert get_cached_provider("acme", ModelProfile("m", context_window=5)) is get_cached_provider("acme", "m")
    for bad in (["m"], {"a": 1}):
        with pytest.raises(LLMProviderConfigurationError):
            get_cached_provider("acme", bad)
        with pytest.raises(LLMProviderConfigurationError):
            get_cached_provider(bad, "m")  # type: ignore[arg-type]


def test_a_value_without_equality_is_compared_by_identity() -> None:
    session = {1, 2}
    options: Any = {"extra_params": {"s": session}}
    assert get_cached_provider("acme", "m", **options) is get_cached_provider("acme", "m", **options)
    assert get_cached_provider("acme", "m", extra_params={"s": {3}}) is not get_cached_provider("acme", "m", **options)


def test_a_change_of_the_environment_gives_a_new_one(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C-21: the full settings fingerprint."""
    first = used(get_cached_provider("acme", "m"))
    monkeypatch.setenv("ACME_API_KEY", "k")
    second = get_cached_provider("acme", "m")
    assert second is not first
    assert second.require("api_key") == "k"
    assert get_cached_provider("acme", "m") is second
    monkeypatch.setenv("UNRELATED", "x")
    assert get_cached_provider("acme", "m") is second
    assert first.shuts == 1


def test_the_default_provider_is_cached_by_what_chose_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_LLM_PROVIDER", "acme")
    first = get_cached_provider()
    assert get_cached_provider() is first
    monkeypatch.setenv("DEFAULT_LLM_PROVIDER", "other")
    assert type(get_cached_provider()) is Other


def test_twenty_threads_get_one_provider() -> None:
    """Bad input 13."""

    class Slow(Acme):
        name = "slow"

        def __init__(self, *args: Any, **options: Any) -> None:
            time.sleep(0.05)
            super().__init__(*args, **options)

    register_provider("slow", Slow)
    barrier = threading.Barrier(20)
    found: list[Any] = []

    def work() -> None:
        barrier.wait()
        found.append(get_cached_provider("slow", "m", extra_params={"a": [1]}))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert len(Acme.made) == 1


def test_making_one_does_not_hold_up_another() -> None:
    started, go = threading.Event(), threading.Event()

    class Slow(Acme):
        name = "slow"

        def __init__(self, *args: Any, **options: Any) -> None:
            started.set()
            assert go.wait(5)
            super().__init__(*args, **options)

    register_provider("slow", Slow)
    thread = threading.Thread(target=get_cached_provider, args=("slow", "m"))
    thread.start()
    assert started.wait(5)
    before = time.monotonic()
    get_cached_provider("acme", "m")
    assert time.monotonic() - before < 1
    go.set()
    thread.join()


def test_a_failure_is_not_cached_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ProviderCache()
    for _ in range(3):
        with pytest.raises(LLMProviderConfigurationError):
            cache.get("acme", "m", {"temperature": "hot"})
    assert len(cache) == 0
    assert cache._locks == {}
    assert cache.get("acme", "m", {"temperature": 1}) is cache.get("acme", "m", {"temperature": 1})
    assert cache._locks == {}


def test_a_provider_that_somebody_closed_is_not_given_out_again() -> None:
    """Bad input 59: `async with get_cached_provider(...)`."""

    async def use() -> LLMProvider:
        async with get_cached_provider("acme", "m") as provider:
            await provider.execute("hi")
            return provider

    first = asyncio.run(use())
    second = asyncio.run(use())
    assert second is not first


def test_what_falls_out_of_a_full_cache_rests_and_can_be_used_again() -> None:
    cache = ProviderCache(size=2)
    one, two = used(cache.get("acme", "1", {})), used(cache.get("acme", "2", {}))
    three = cache.get("acme", "3", {})
    assert (one.shuts, two.shuts, three.shuts, len(cache)) == (1, 0, 0, 2)
    assert cache.get("acme", "1", {}) is not one
    # Whoever got it before holds it still.
    assert asyncio.run(one.execute("hi")).content == "ab"


def test_a_change_of_the_files_gives_a_new_one(house: Path) -> None:
    """F-140, C-21: a key that was rotated in `.env` is used, after a second at most."""
    (house / ".env").write_text("ACME_API_KEY=first", encoding="utf-8")
    clear_provider_cache()
    first = get_cached_provider("acme", "m")
    assert first.require("api_key") == "first"
    (house / ".env").write_text("ACME_API_KEY=another", encoding="utf-8")
    time.sleep(1.1)
    second = get_cached_provider("acme", "m")
    assert second is not first
    assert second.require("api_key") == "another"
    assert get_cached_provider("acme", "m") is second


def test_another_spelling_of_the_name_is_the_same_provider() -> None:
    assert get_cached_provider(" Acme", "m") is get_cached_provider("acme", "m") is get_cached_provider("ACME", "m")


async def test_what_is_evicted_is_closed_only_after_its_last_stream() -> None:
    """C-21."""
    cache = ProviderCache(size=1)
    provider = cache.get("acme", "1", {})
    provider.gate = asyncio.Event()
    stream = provider.stream("hi")
    await anext(stream)
    other = asyncio.create_task(provider.execute("hi"))
    await asyncio.sleep(0)
    cache.get("acme", "2", {})
    await asyncio.sleep(0.02)
    assert provider.shuts == 0
    provider.gate.set()
    assert (await other).content == "ab"
    await asyncio.sleep(0.02)
    assert provider.shuts == 0
    assert [event.type.value async for event in stream][-1] == "done"
    assert provider.shuts == 1


async def test_clearing_while_streaming() -> None:
    """F-140."""
    provider = get_cached_provider("acme", "m", stream_mode="enabled")
    stream = await provider.execute("hi")
    assert await anext(stream) == "a"
    clear_provider_cache()
    await asyncio.sleep(0.02)
    assert get_cached_provider("acme", "m", stream_mode="enabled") is not provider
    assert "".join([chunk async for chunk in stream]) == "b"
    assert provider.shuts == 1


def test_clearing_outside_a_loop_closes_at_once() -> None:
    providers = [used(get_cached_provider("acme", str(number))) for number in range(5)]
    clear_provider_cache()
    assert [provider.shuts for provider in providers] == [1] * 5
    clear_provider_cache()


def test_one_that_cannot_be_shut_does_not_keep_the_others_open(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(Acme):
        name = "stuck"

        async def shut(self) -> None:
            raise OSError("stuck")

    register_provider("stuck", Stuck)
    used(get_cached_provider("stuck", "m"))
    good = used(get_cached_provider("acme", "m"))
    clear_provider_cache()
    assert good.shuts == 1
    assert "stuck" in caplog.text

    async def inside() -> None:
        await get_cached_provider("stuck", "m").warm_cache()
        clear_provider_cache()
        await asyncio.sleep(0.02)

    asyncio.run(inside())
    gc.collect()


def test_one_provider_in_several_loops() -> None:
    """Bad input 55, 57."""
    answers: list[str] = []

    def work() -> None:
        for _ in range(3):
            answers.append(asyncio.run(get_cached_provider("acme", "m").execute("hi")).content)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["ab"] * 24
    assert len(Acme.made) == 1
