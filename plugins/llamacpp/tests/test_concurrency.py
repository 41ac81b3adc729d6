"""Many calls at once: loops that never wait, threads with loops of their own, an end at any time, a fair queue."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llm_provider_llamacpp import LlamaCppProvider
from providers import Client
from providers.exceptions import LLMProviderTimeoutError
from providers.testing import LocalConformance
from providers.types import LLMResponse, StreamEventType

from .conftest import COLORS, FRANCE, SHORT, STORY, Make

LONG = {"max_tokens": 700}
"""An answer that takes seconds."""


async def answer(provider: LlamaCppProvider, *args: Any, **options: Any) -> LLMResponse:
    response = await provider.execute(*args, **options)
    assert isinstance(response, LLMResponse)
    return response


async def seconds_until_free(provider: LlamaCppProvider) -> float:
    """How long it takes until both slots have answered something short."""
    start = time.perf_counter()
    await asyncio.gather(*(provider.execute("Hi", max_tokens=1) for _ in range(2)))
    return time.perf_counter() - start


@pytest.fixture(scope="module")
def pair() -> Iterator[LlamaCppProvider]:
    """A model that answers two calls at a time."""
    found = LlamaCppProvider(**SHORT, n_parallel=2, n_batch=64)
    yield found
    asyncio.run(found.close())


class TestLlamaCpp(LocalConformance):
    prompts = (COLORS, "Say hello.")
    long = LONG
    busy: ClassVar[dict[str, Any]] = {"max_tokens": 40}
    calls = 3
    options: ClassVar[dict[str, Any]] = {}

    def make_provider(self) -> LlamaCppProvider:
        return LlamaCppProvider(**SHORT, **self.options)

    def holds(self, provider: LlamaCppProvider) -> bool:
        return provider._engines != {}


class TestLlamaCppInPairs(TestLlamaCpp):
    options: ClassVar[dict[str, Any]] = {"n_parallel": 2, "n_batch": 64}


async def test_two_answers_at_a_time(pair: LlamaCppProvider) -> None:
    """F-143: the second begins before the first has ended."""
    begun: list[str] = []

    async def stream(name: str) -> None:
        async for event in pair.stream(STORY):
            if event.type is StreamEventType.TOKEN:
                begun.append(name)

    await asyncio.gather(stream("one"), stream("two"))
    assert len(begun) > 20
    changes = sum(one != two for one, two in pairwise(begun))
    assert changes > 5


async def test_gather_of_many(provider: LlamaCppProvider) -> None:
    """F-143: each gets its own answer, the same as alone."""
    prompts = [f"Write one word about the number {number}." for number in range(10)]
    alone = [(await answer(provider, prompt, max_tokens=8)).content for prompt in prompts]
    together = await asyncio.gather(*(answer(provider, prompt, max_tokens=8) for prompt in prompts))
    assert [response.content for response in together] == alone


async def test_leaving_a_stream_frees_its_slot(pair: LlamaCppProvider) -> None:
    """F-129: the model stops at its next token."""
    async with aclosing(pair.stream(STORY, **LONG)) as events:
        async for event in events:
            if event.type is StreamEventType.TOKEN:
                break
    assert await seconds_until_free(pair) < 1
    text = await pair.execute(STORY, stream_mode="enabled", **LONG)
    async with text:
        async for _ in text:
            break
    assert await seconds_until_free(pair) < 1


@pytest.mark.parametrize("prompt", [STORY, "word " * 900], ids=["while it answers", "while it reads"])
async def test_cancelling_a_call_frees_its_slot(pair: LlamaCppProvider, prompt: str) -> None:
    """F-143: of a whole answer too, also while a long prompt is read."""
    await pair.warm_cache()
    task = asyncio.create_task(answer(pair, prompt, **LONG))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await seconds_until_free(pair) < 1


async def test_a_call_that_waits_can_be_cancelled(make: Make) -> None:
    """F-143: it leaves the queue without having begun."""
    provider = make()
    await provider.warm_cache()
    first = asyncio.create_task(answer(provider, STORY, max_tokens=60))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(answer(provider, STORY, **LONG))
    await asyncio.sleep(0.05)
    waiting.cancel()
    last = asyncio.create_task(answer(provider, COLORS))
    assert (await first).completion_tokens == 60
    start = time.perf_counter()
    assert "Red" in (await last).content
    assert time.perf_counter() - start < 1.5
    assert waiting.cancelled()


async def test_the_queue_is_fair(make: Make) -> None:
    """F-143: with one slot, calls end in the order in which they came."""
    provider = make()
    await provider.warm_cache()
    ended: list[int] = []

    async def call(number: int) -> None:
        await answer(provider, f"Number {number}.", max_tokens=2)
        ended.append(number)

    await asyncio.gather(*(call(number) for number in range(8)))
    assert ended == list(range(8))


async def test_timeouts(make: Make) -> None:
    """F-144: for all of an answer, or for the next piece of a stream; waiting in the queue does not count."""
    provider = make()
    await provider.warm_cache()
    with pytest.raises(LLMProviderTimeoutError, match=r"no whole answer within 0\.3 s") as caught:
        await provider.execute(STORY, timeout=0.3, **LONG)
    assert caught.value.attempts == 1  # the same model would be as slow again
    events = [event async for event in provider.stream(STORY, timeout=2, max_tokens=60)]
    assert events[-1].type is StreamEventType.DONE
    busy = asyncio.create_task(answer(provider, STORY, max_tokens=120))
    await asyncio.sleep(0.02)
    assert (await answer(provider, "Hi", max_tokens=1, timeout=0.7)).ok
    assert (await busy).ok


def test_the_sync_face() -> None:
    """F-001, F-003, F-025, F-037: answers, streams and batches, also inside a running loop."""
    with Client("llamacpp", **SHORT) if _installed() else Client(LlamaCppProvider(**SHORT)) as client:
        assert "Red" in client.get_response(COLORS)
        assert client.get_response(FRANCE[0], {"extra": {"system": FRANCE[1]}}) == "The capital of France is Paris."
        pieces = [event.data for event in client.stream(COLORS) if event.type is StreamEventType.TOKEN]
        assert len(pieces) > 3
        batch = client.submit_batch([COLORS, FRANCE[0]], {"max_tokens": 4}, batch_options={"system": FRANCE[1]})
        assert batch.wait().normalized_status() == "completed"
        assert [type(found) for found in batch.results()] == [str, str]

        async def inside() -> Any:
            return client.get_response(COLORS)

        assert "Red" in asyncio.run(inside())


def _installed() -> bool:
    from providers import available_providers

    return "llamacpp" in available_providers(check=False)


async def test_closing_one_model_leaves_the_others(make: Make) -> None:
    """F-077"""
    stays, goes = make(), make()
    await asyncio.gather(stays.warm_cache(), goes.warm_cache())
    running = asyncio.create_task(answer(stays, STORY, max_tokens=60))
    await asyncio.sleep(0.1)
    await goes.close()
    assert (await running).completion_tokens == 60


def test_a_provider_that_is_dropped_frees_its_model() -> None:
    """F-077: threads, socket and memory go with the last reference."""
    provider = LlamaCppProvider(**SHORT)
    asyncio.run(answer(provider, "Hi", max_tokens=1))
    engine = weakref.ref(provider._engines[False])
    folder = Path(engine()._address.host).parent  # type: ignore[union-attr]
    before = [thread for thread in threading.enumerate() if thread.name.startswith("llamacpp-")]
    assert folder.exists()
    assert folder.stat().st_mode & 0o777 == 0o700
    del provider
    gc.collect()
    for _ in range(100):
        if engine() is None and not folder.exists():
            break
        time.sleep(0.02)
    assert engine() is None
    assert not folder.exists()
    assert len([thread for thread in before if not thread.is_alive()]) == 1
