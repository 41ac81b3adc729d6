"""The limit layer: each attempt within the limits, its account settled, its refusals heard by all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from providers import (
    LLMProviderError,
    LLMProviderOverloadedError,
    LLMProviderQuotaError,
    LLMProviderRateLimitError,
    LLMProviderServerError,
    Request,
    StreamEvent,
    StreamMode,
    Usage,
)
from providers.layers.limit import LimitLayer
from providers.layers.retrying import retry
from providers.pipeline import collecting, compose, compose_whole
from providers.profiles import ModelProfile, ProfileTable
from providers.resilience.concurrency import Concurrency
from providers.resilience.limiter import LocalLimits
from providers.resilience.shared_limits import SQLiteLimits
from providers.testing import ScriptedProvider
from providers.types import LLMResponse, Messages

Virtually = Callable[[Any], Any]
FORMS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def request(stream: bool = False, model: str = "m", text: str = "hello", **params: Any) -> Request:
    return Request(model, Messages.of(text), params=params, stream=stream)


class Backend:
    """A handler that answers with the next of a row of usages, or raises."""

    def __init__(self, *answers: Usage | LLMProviderError, takes: float = 0.0) -> None:
        self.answers = list(answers)
        self.takes = takes
        self.calls: list[float] = []
        self.closed = 0

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        self.calls.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0) if self.answers else Usage(1, 1)
        try:
            await asyncio.sleep(self.takes)
            if isinstance(answer, LLMProviderError):
                raise answer
            yield StreamEvent.token("a")
            yield StreamEvent.token("b")
            yield StreamEvent.usage(answer)
            yield StreamEvent.finish("stop")
        finally:
            self.closed += 1


async def ask(layers: tuple[Any, ...], backend: Backend, what: Request) -> str:
    if what.stream:
        events = [event async for event in compose(layers, backend.generate)(what)]
    else:
        events = list(await compose_whole(layers, backend.generate, collecting(backend.generate))(what))
    return "".join(event.data for event in events if event.type.name == "TOKEN")


def levels(layer: LimitLayer, model: str = "m") -> list[float]:
    limiter = layer.limiter(model)
    assert isinstance(limiter.store, LocalLimits)
    return limiter.store.gate(limiter.key, limiter.rates).levels()


def virtual_layer(**options: Any) -> LimitLayer:
    return LimitLayer("acme", "key", store=LocalLimits(asyncio.get_running_loop().time), **options)


@FORMS
def test_requests_come_at_the_pace_of_the_profile(stream: bool, virtually: Virtually) -> None:
    """F-110: from the model's profile, without being told."""

    async def main() -> None:
        profile = ModelProfile("m", requests_per_minute=60)
        layer, backend = virtual_layer(profile=lambda _: profile), Backend()
        await asyncio.gather(*(ask((layer,), backend, request(stream)) for _ in range(62)))
        assert len(backend.calls) == 62
        assert backend.calls[59] < 62
        assert backend.calls[60] - backend.calls[0] > 60
        await ask((layer,), backend, request(stream, model="m"))

    virtually(main)


@FORMS
def test_each_attempt_passes_the_limit_and_a_refusal_is_heard_by_all(stream: bool, virtually: Virtually) -> None:
    """C-14, C-15: retry outside, limit inside; the second caller waits for the first one's cooldown."""

    async def main() -> None:
        refusal = LLMProviderRateLimitError("no", retry_after=5)
        layer, backend = virtual_layer(), Backend(refusal)

        async def late() -> str:
            await asyncio.sleep(1)
            return await ask((retry, layer), backend, request(stream))

        answers = await asyncio.gather(ask((retry, layer), backend, request(stream)), late())
        assert list(answers) == ["ab", "ab"]
        assert len(backend.calls) == 3
        assert backend.calls[0] == 0
        assert all(5 <= call <= 6 for call in backend.calls[1:])

    virtually(main)


@FORMS
@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (LLMProviderRateLimitError("no"), 1),
        (LLMProviderRateLimitError("no", retry_after=7), 7),
        (LLMProviderOverloadedError("no", retry_after=7), 7),
        (LLMProviderOverloadedError("no"), 0),
        (LLMProviderQuotaError("no", retry_after=7), 0),
        (LLMProviderServerError("no", retry_after=7), 0),
    ],
)
def test_which_failures_begin_a_cooldown(
    error: LLMProviderError, waits: float, stream: bool, virtually: Virtually
) -> None:
    async def main() -> None:
        layer, backend = virtual_layer(), Backend(error)
        with pytest.raises(type(error)):
            await ask((layer,), backend, request(stream))
        await ask((layer,), backend, request(stream))
        assert backend.calls[1] == pytest.approx(waits, abs=0.01)

    virtually(main)


@FORMS
def test_tokens_are_estimated_before_and_settled_after(stream: bool, virtually: Virtually) -> None:
    async def main() -> None:
        layer = virtual_layer(tokens_per_minute=100_000)
        full = levels(layer)[1]
        backend = Backend(Usage(100, 50), Usage(None, None), Usage(10, 10), takes=0)
        await ask((layer,), backend, request(stream, max_tokens=2000))
        assert levels(layer)[1] == pytest.approx(full - 150)
        # What is not known stays as it was estimated.
        await ask((layer,), backend, request(stream, max_tokens=1000))
        rest = levels(layer)[1]
        assert full - 150 - 1100 < rest < full - 150 - 1000
        await ask((layer,), backend, request(stream))
        assert levels(layer)[1] == pytest.approx(rest - 20)

    virtually(main)


def test_a_prompt_above_the_limit_is_not_refused_for_its_estimate(virtually: Virtually) -> None:
    async def main() -> None:
        layer = virtual_layer(tokens_per_minute=1000)
        assert await ask((layer,), Backend(), request(text="word " * 5000, max_tokens=9000)) == "ab"

    virtually(main)


async def test_a_stream_that_is_left_settles_and_closes_what_it_reads() -> None:
    layer = LimitLayer("acme", "left", store=LocalLimits(), tokens_per_minute=100_000, concurrency=Concurrency(1, 1))
    backend = Backend()
    for _ in range(2):
        async with aclosing(compose((layer,), backend.generate)(request(True))) as events:  # type: ignore[type-var]
            async for _event in events:
                break
    assert backend.closed == 2


@FORMS
async def test_a_cancelled_call_gives_its_turn_back(stream: bool) -> None:
    layer, backend = LimitLayer("acme", store=LocalLimits(), requests_per_minute=60), Backend()
    for _ in range(2):
        await ask((layer,), backend, request(stream))
    waiting = [asyncio.ensure_future(ask((layer,), backend, request(stream))) for _ in range(5)]
    await asyncio.sleep(0.05)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len(backend.calls) == 2
    begun = time.monotonic()
    await ask((layer,), backend, request(stream))
    assert time.monotonic() - begun < 1.2


@FORMS
def test_the_bound_of_calls_under_way_is_learned(stream: bool, virtually: Virtually) -> None:
    async def main() -> None:
        concurrency = Concurrency(start=4, most=8)
        layer = virtual_layer(concurrency=concurrency)
        backend = Backend(*(LLMProviderRateLimitError("no", retry_after=1) for _ in range(4)), takes=1)
        tasks = [ask((layer,), backend, request(stream)) for _ in range(10)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, LLMProviderRateLimitError) for result in results) == 4
        assert sum(call < 1 for call in backend.calls) == 4
        assert sum(1 <= call < 2.5 for call in backend.calls) == 2
        assert concurrency.under_way == 0

    virtually(main)


def test_a_changed_profile_holds_for_the_next_call(house: Path) -> None:
    (house / "config").mkdir()
    file = house / "config" / "models.toml"
    file.write_text('[models."m"]\nrequests_per_minute = 500\n', encoding="utf-8")
    layer = LimitLayer("acme", profile=ProfileTable().get, store=LocalLimits())
    assert layer.limiter("m").requests_per_minute == 500
    assert layer.limiter("m") is layer.limiter("m")
    time.sleep(0.02)
    file.write_text('[models."m"]\nrequests_per_minute = 50\n', encoding="utf-8")
    assert layer.limiter("m").requests_per_minute == 50
    assert layer.limiter("other").requests_per_minute is None


@FORMS
async def test_a_provider_with_the_layer_and_the_shared_store(stream: bool, tmp_path: Path) -> None:
    """Two providers with one key share the file; verbs and streams go through the layer."""
    stores = [SQLiteLimits(tmp_path / "limits.sqlite") for _ in range(2)]

    def provider(store: SQLiteLimits) -> ScriptedProvider:
        class Limited(ScriptedProvider):
            layers = (retry, LimitLayer("acme", "k", store=store, requests_per_minute=600, burst=0.005))

        return Limited(lambda _: LLMResponse("fine", "m", usage=Usage(3, 1)), model="m")

    providers = [provider(store) for store in stores]

    async def one(number: int) -> str:
        chosen = providers[number % 2]
        if stream:
            return "".join([piece async for piece in await chosen.execute("hi", stream_mode=StreamMode.ENABLED)])
        return (await chosen.execute("hi")).content

    begun = time.monotonic()
    assert await asyncio.gather(*(one(number) for number in range(9))) == ["fine"] * 9
    # Three at once, six at about ten a second.
    assert 0.55 < time.monotonic() - begun < 2
    for store in stores:
        store.close()
