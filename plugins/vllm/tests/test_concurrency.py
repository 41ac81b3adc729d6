"""Many callers: computed together, from any loop and thread, cancelled, timed out and closed at any time."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import pytest

from llm_provider_vllm import VLLMProvider
from providers import Client
from providers.exceptions import LLMProviderServerError, LLMProviderTimeoutError
from providers.testing import LocalConformance
from providers.types import StreamEventType

from .conftest import COLORS, LONG, SHORT, STORY, Make, answer


def running(provider: VLLMProvider) -> int:
    """Requests that vLLM works on."""
    engine = provider._found_engine
    assert engine is not None
    return int(engine._core.llm.llm_engine.get_num_unfinished_requests())


async def until_running(provider: VLLMProvider, count: int = 1) -> None:
    for _ in range(5000):
        if running(provider) >= count:
            return
        await asyncio.sleep(0.001)
    pytest.fail("vLLM never began")


async def seconds_until_free(provider: VLLMProvider) -> float:
    start = time.perf_counter()
    while running(provider):
        assert time.perf_counter() - start < 10
        await asyncio.sleep(0.005)
    return time.perf_counter() - start


class TestVLLM(LocalConformance):
    prompts = (COLORS, STORY)
    long = LONG
    busy = LONG
    read = "fox " * 600
    counted = "fox " * 500
    calls = 10
    closes_within = 10.0  # its engine takes itself apart

    @pytest.fixture(autouse=True)
    def _folder(self, request: pytest.FixtureRequest, tiny: Path, provider: VLLMProvider) -> None:
        self.folder = tiny
        if "loaded" not in request.fixturenames:
            # vLLM has room for one in a process.
            asyncio.run(provider.rest_when_idle())

    @pytest.fixture
    def loaded(self, provider: VLLMProvider) -> VLLMProvider:
        return provider

    def make_provider(self) -> VLLMProvider:
        return VLLMProvider(str(self.folder), **SHORT)

    def holds(self, provider: VLLMProvider) -> bool:
        return provider._found_engine is not None

    async def until_free(self, provider: VLLMProvider) -> None:
        await seconds_until_free(provider)


async def test_calls_are_computed_together(provider: VLLMProvider) -> None:
    """F-050: one that comes later does not wait for the end of those before it, and each answer is as if alone."""
    alone = (await answer(provider, STORY, max_tokens=60, extra={"ignore_eos": True})).content
    begun: list[str] = []

    async def stream(name: str) -> str:
        text = ""
        async for event in provider.stream(STORY, max_tokens=60, extra={"ignore_eos": True}):
            if event.type is StreamEventType.TOKEN:
                begun.append(name)
                text += event.data
        return text

    assert await asyncio.gather(stream("one"), stream("two")) == [alone, alone]
    assert sum(one != two for one, two in pairwise(begun)) > 5


async def test_gather_of_many(provider: VLLMProvider) -> None:
    """F-143: more than are computed together; each gets its own answer, the same as alone."""
    prompts = [f"Write one word about the number {number}." for number in range(20)]
    alone = [(await answer(provider, prompt, max_tokens=8)).content for prompt in prompts]
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, running(provider))
            await asyncio.sleep(0.001)

    watcher = asyncio.create_task(watch())
    together = await asyncio.gather(*(answer(provider, prompt, max_tokens=8) for prompt in prompts))
    watcher.cancel()
    assert [response.content for response in together] == alone
    assert 1 < most <= 8


async def test_leaving_a_stream_frees_the_model(provider: VLLMProvider) -> None:
    """F-129: vLLM is told at its next step."""
    async with aclosing(provider.stream(STORY, **LONG)) as events:
        async for event in events:
            if event.type is StreamEventType.TOKEN:
                break
    assert await seconds_until_free(provider) < 1
    text = await provider.execute(STORY, stream_mode="enabled", **LONG)
    async with text:
        async for _ in text:
            break
    assert await seconds_until_free(provider) < 1


async def test_cancelling_a_call_frees_the_model(provider: VLLMProvider) -> None:
    """F-143: of a whole answer too, with several choices, beside others that go on."""
    await provider.warm_cache()
    stays = asyncio.create_task(answer(provider, STORY, **LONG))
    goes = asyncio.create_task(answer(provider, COLORS, temperature=1.0, **{**LONG, "extra": {"n": 3}}))
    await until_running(provider, 2)
    goes.cancel()
    with pytest.raises(asyncio.CancelledError):
        await goes
    assert (await stays).completion_tokens == 900
    assert await seconds_until_free(provider) < 1


async def test_timeouts(provider: VLLMProvider) -> None:
    """F-144: for all of an answer, or for the next piece of a stream."""
    await provider.warm_cache()
    with pytest.raises(LLMProviderTimeoutError, match=r"no whole answer within 0\.05 s") as caught:
        await provider.execute(STORY, timeout=0.05, **LONG)
    assert caught.value.attempts == 1  # the same model would be as slow again
    assert await seconds_until_free(provider) < 1
    events = [event async for event in provider.stream(STORY, timeout=2, max_tokens=60)]
    assert events[-1].type is StreamEventType.DONE


def test_batches(provider: VLLMProvider) -> None:
    """F-037, F-047: a batch goes to the engine together and comes back in order; conversations in place of inputs."""
    client = Client(provider)
    prompts = [COLORS, STORY, "Hi"]
    expected = [asyncio.run(answer(provider, prompt)).content for prompt in prompts]
    batch = client.submit_batch(prompts)
    assert batch.wait().normalized_status() == "completed"
    assert batch.results() == expected
    talks = [[{"role": "user", "content": prompt}] for prompt in prompts]
    config = {"extra": {"conversations": talks}}
    assert client.submit_batch(["", "", ""], config).results() == expected
    with pytest.raises(ValueError, match="3 conversations"):
        client.submit_batch(["a", "b", "c"], {"extra": {"conversations": talks[:2]}})
    assert client.submit_batch([]).results() == []


async def test_a_dropped_provider_frees_its_model(make: Make) -> None:
    """F-077: thread and engine go with the last reference; and one that failed is loaded anew by the next call."""
    await make().close()
    provider = VLLMProvider(make().config, **{"llm_kwargs": make().settings.llm_kwargs, "max_tokens": 4})
    first = await answer(provider, COLORS)
    engine = provider._found_engine
    assert engine is not None

    def fail() -> None:
        raise RuntimeError("a kernel failed")

    # The engine's own failure cannot be had on order: its step is made to raise where vLLM's would.
    engine._core.llm.llm_engine.step = fail
    with pytest.raises(LLMProviderServerError, match="a kernel failed") as caught:
        await provider.execute(COLORS, attempts=1)
    assert caught.value.retryable
    assert (await answer(provider, COLORS)).content == first.content
    # An engine whose process is gone refuses to take calls out, too.
    goes = asyncio.create_task(provider.execute(STORY, attempts=1, **LONG))
    stays = asyncio.create_task(provider.execute(STORY, attempts=1, **LONG))
    await until_running(provider, 2)
    engine = provider._found_engine
    engine._core.llm.llm_engine.abort_request = lambda ids: fail()  # type: ignore[union-attr]
    goes.cancel()
    with pytest.raises(LLMProviderServerError, match="a kernel failed"):
        await asyncio.wait_for(stays, 30)
    await asyncio.wait([goes])
    assert (await answer(provider, COLORS)).content == first.content
    core = weakref.ref(provider._found_engine._core)  # type: ignore[union-attr]
    del engine, caught, provider, goes, stays
    for _ in range(200):
        gc.collect()
        if core() is None or core().llm is None:  # type: ignore[union-attr]
            break
        await asyncio.sleep(0.05)
    assert core() is None or core().llm is None  # type: ignore[union-attr]
