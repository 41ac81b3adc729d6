"""The limiter: a model's requests and tokens per minute, settled after each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import LLMProviderConfigurationError, LLMProviderRateLimitError
from providers.profiles import ModelProfile, ProfileTable
from providers.resilience.levels import UNLIMITED
from providers.resilience.limiter import IN_PROCESS, Limiter, LocalLimits, limit_key

from .conftest import run_virtually

Virtually = Callable[[Any], Any]
GPT5 = ModelProfile("gpt-5", requests_per_minute=600, tokens_per_minute=60_000)


def levels(limiter: Limiter) -> list[float]:
    store = limiter.store
    assert isinstance(store, LocalLimits)
    return store.gate(limiter.key, limiter.rates).levels()


def test_the_documented_example_charges_the_answer_afterwards(virtually: Virtually) -> None:
    """F-111."""

    async def main() -> None:
        limiter = Limiter(model_profile=GPT5, store=LocalLimits(asyncio.get_running_loop().time))
        before = levels(limiter)
        async with limiter.limit(tokens=1000, requests=1) as ctx:
            assert levels(limiter) == [before[0] - 1, before[1] - 1000]
            ctx.output_tokens = 300
        assert levels(limiter) == [before[0] - 1, before[1] - 1300]

    virtually(main)


def test_what_was_kept_for_the_answer_is_given_back(virtually: Virtually) -> None:
    async def main() -> None:
        limiter = Limiter(GPT5, store=LocalLimits(asyncio.get_running_loop().time))
        before = levels(limiter)
        async with limiter.limit(tokens=1000, output=500) as ctx:
            assert levels(limiter)[1] == before[1] - 1500
            ctx.input_tokens, ctx.output_tokens = 900, 20
        assert levels(limiter)[1] == before[1] - 920
        with pytest.raises(RuntimeError):
            async with limiter.limit(tokens=100, output=50):
                raise RuntimeError("what it took is not known")
        assert levels(limiter)[1] == before[1] - 920 - 150
        with pytest.raises(LLMProviderRateLimitError):
            async with limiter.limit(tokens=100, output=50):
                raise LLMProviderRateLimitError("nothing was done", retry_after=0.001)
        # The tokens came back; what is left behind a refusal is next to nothing, for a slow start.
        assert levels(limiter)[1] <= 1
        await asyncio.sleep(60)
        assert levels(limiter) == pytest.approx(before)

    virtually(main)


@pytest.mark.parametrize("how", ["class", "data", "arguments", "field"])
def test_it_is_configured_from_the_profile(how: str) -> None:
    """F-110."""
    figures = {"requests_per_minute": 500, "tokens_per_minute": 30_000}
    profile: Any = ModelProfile("m", data=figures) if how == "data" else ModelProfile("m", **figures)  # type: ignore[arg-type]
    if how == "class":
        profile = type("M", (), {"model_name": "m", **figures})
    limiter = Limiter(model="m", **figures) if how == "arguments" else Limiter(model_profile=profile)  # type: ignore[arg-type]
    assert (limiter.model, limiter.requests_per_minute, limiter.tokens_per_minute) == ("m", 500, 30_000)
    assert UNLIMITED not in limiter.rates


def test_the_users_file_says_what_the_account_may(house: Path) -> None:
    """F-110: `config/models.toml`."""
    (house / "config").mkdir()
    (house / "config" / "models.toml").write_text('[models."m"]\nrequests_per_minute = 500\n', encoding="utf-8")
    limiter = Limiter(ProfileTable().get("m"))
    assert (limiter.requests_per_minute, limiter.tokens_per_minute) == (500, None)
    (house / "config" / "models.toml").write_text('[models."m"]\ntokens_per_minute = "many"\n', encoding="utf-8")
    with pytest.raises(LLMProviderConfigurationError, match="tokens_per_minute"):
        ProfileTable().get("m")


async def test_without_limits_nobody_waits() -> None:
    """Unknown limits are none."""
    limiter = Limiter(ModelProfile("m"))
    for _ in range(1000):
        async with limiter.limit(tokens=10**9) as ctx:
            ctx.output_tokens = 10**9


@pytest.mark.parametrize("figures", [{"requests": 601}, {"tokens": 60_001}, {"tokens": 60_000, "output": 1}])
async def test_more_than_a_minutes_limit_fails_fast(figures: dict[str, Any]) -> None:
    with pytest.raises(LLMProviderConfigurationError, match="more than the limit"):
        Limiter(GPT5).limit(**figures)


@pytest.mark.parametrize(
    "figures", [{"requests_per_minute": 0}, {"tokens_per_minute": float("nan")}, {"burst": 0}, {"burst": 1}]
)
def test_figures_are_checked(figures: dict[str, Any]) -> None:
    with pytest.raises(LLMProviderConfigurationError):
        Limiter(GPT5, **figures)


def test_limiters_of_one_key_share_one_limit(virtually: Virtually) -> None:
    """C-15: whoever uses the same provider, key and model; in this process without being told of each other."""

    async def main() -> None:
        one = Limiter(GPT5, provider="acme", credential="k")
        assert one.store is IN_PROCESS
        async with one.limit(tokens=2000):
            pass
        same, other = Limiter(GPT5, provider="acme", credential="k"), Limiter(GPT5, provider="acme", credential="l")
        assert levels(same)[1] < 500 < 2000 < levels(other)[1]

    virtually(main)


def test_the_key_is_not_told() -> None:
    key = limit_key("acme", "sk-canary-0123456789", "m")
    assert "canary" not in key
    assert "canary" not in repr(Limiter(GPT5, provider="acme", credential="sk-canary-0123456789"))
    assert key != limit_key("acme", "sk-canary-0123456780", "m")


@given(
    st.integers(1, 400),
    st.sampled_from([0.01, 0.04, 0.2, 0.5]),
    st.lists(st.floats(0, 20), min_size=1, max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_no_minute_has_more_requests_than_the_limit(limit: int, burst: float, pauses: list[float]) -> None:
    """For every limit, burst and rhythm; and whoever asks for more than the limit all the time gets most of it."""

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        limiter = Limiter(requests_per_minute=limit, burst=burst, store=LocalLimits(clock))
        went: list[float] = []

        async def one() -> None:
            async with limiter.limit():
                went.append(clock())

        tasks = [asyncio.ensure_future(one()) for _ in range(limit + 20)]
        for pause in pauses:
            await asyncio.sleep(pause)
            tasks += [asyncio.ensure_future(one()) for _ in range(10)]
        await asyncio.gather(*tasks)
        first = 0
        for at, time in enumerate(went):
            while went[first] <= time - 60:
                first += 1
            assert at - first + 1 <= limit

    run_virtually(main)


@pytest.mark.parametrize("limit", [10, 60, 600, 6000])
def test_nine_tenths_of_the_limit_can_be_used(limit: int, virtually: Virtually) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        limiter = Limiter(requests_per_minute=limit, store=LocalLimits(clock))
        went: list[float] = []

        async def one() -> None:
            async with limiter.limit():
                went.append(clock())

        await asyncio.gather(*(one() for _ in range(3 * limit)))
        for begin in (0, 30, 60, 100):
            assert sum(begin <= time < begin + 60 for time in went) >= 0.9 * limit

    virtually(main)


def test_a_changed_limit_holds_for_those_that_wait(virtually: Virtually) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        store = LocalLimits(clock)
        slow = Limiter(requests_per_minute=1, model="m", store=store)
        async with slow.limit():
            pass
        waiter = asyncio.ensure_future(slow.limit().__aenter__())
        await asyncio.sleep(1)
        fast = Limiter(requests_per_minute=6000, model="m", store=store)
        async with fast.limit():
            pass
        await waiter
        assert clock() < 5

    virtually(main)


def test_limiters_that_know_other_limits_share_the_cooldown(virtually: Virtually) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        store = LocalLimits(clock)
        with pytest.raises(LLMProviderRateLimitError):
            async with Limiter(model="m", store=store).limit():
                raise LLMProviderRateLimitError("no", retry_after=5)
        async with Limiter(requests_per_minute=60, model="m", store=store).limit():
            assert clock() == pytest.approx(5, abs=0.01)
        async with Limiter(tokens_per_minute=60, model="m", store=store).limit():
            assert clock() < 6

    virtually(main)


def test_who_knows_no_limit_takes_none_away_from_those_who_do(virtually: Virtually) -> None:
    """Of two with one key, where that was told to wait once."""

    async def main() -> tuple[int, int]:
        store, let_in = LocalLimits(asyncio.get_running_loop().time), [0, 0]
        known = Limiter(requests_per_minute=600, model="m", store=store)
        free = Limiter(model="m", store=store)
        store.cool(known.key, known.rates, 0, 0.01)

        async def call(limiter: Limiter, at: int) -> None:
            while True:
                async with limiter.limit():
                    let_in[at] += 1
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(call(*one)) for one in [(known, 0)] * 5 + [(free, 1)]]
        await asyncio.sleep(60)
        for task in tasks:
            task.cancel()
        return let_in[0], let_in[1]

    limited, unlimited = virtually(main)
    assert 500 < limited <= 600
    assert unlimited > 500
