"""Many calls at once: one run for all, loops that never wait, threads with loops of their own, an end at any time."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llm_provider_mlx import MLXProvider, engine
from llm_provider_mlx.decoders import Batch
from llm_provider_mlx.engine import Run
from providers.exceptions import LLMProviderTimeoutError
from providers.testing import LocalConformance
from providers.types import StreamEventType

from .conftest import COLORS, SHORT, Make, answer

LONG = {"max_tokens": 1500}
"""An answer that takes seconds."""


async def seconds_until_free(provider: MLXProvider, slots: int = 2) -> float:
    """How long it takes until all slots have answered something short."""
    start = time.perf_counter()
    await asyncio.gather(*(provider.execute("Hi", max_tokens=1) for _ in range(slots)))
    return time.perf_counter() - start


class TestMLX(LocalConformance):
    prompts = tuple(f"Tell me about {name}." for name in ("red", "green", "blue", "the fox"))
    busy: ClassVar[dict[str, Any]] = {"max_tokens": 300}
    counted = "word " * 50_000
    embeds = False
    parallel = 4

    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        self.folder = folder

    def make_provider(self) -> MLXProvider:
        return MLXProvider(str(self.folder), **SHORT, n_parallel=self.parallel)

    def holds(self, provider: MLXProvider) -> bool:
        return provider._engine is not None


class TestMLXOneByOne(TestMLX):
    parallel = 1


async def test_calls_share_one_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-047, F-143: those that wait together, and those that come while others run, are computed together."""
    provider = make(n_parallel=6)
    await provider.warm_cache()
    sizes: list[int] = []
    real: Callable[[Batch], Any] = Batch.next

    def counted(self: Batch) -> Any:
        steps = real(self)
        sizes.append(len(steps))
        return steps

    monkeypatch.setattr(Batch, "next", counted)

    async def late(number: int) -> Any:
        await asyncio.sleep(0.01 * number)
        return await answer(provider, f"Number {number}.", max_tokens=150)

    alone = [(await answer(provider, f"Number {number}.", max_tokens=150)).content for number in range(4)]
    assert max(sizes) == 1
    together = await asyncio.gather(*(late(number) for number in range(4)))
    assert [response.content for response in together] == alone
    assert max(sizes) == 4


async def test_several_streams_take_turns(make: Make) -> None:
    """F-143: the second begins before the first has ended, on two models too."""
    one, other = make(), make()
    await asyncio.gather(one.warm_cache(), other.warm_cache())
    for pair in ((one, one), (one, other)):
        seen: list[int] = []

        async def stream(place: int, provider: MLXProvider, seen: list[int]) -> None:
            async for event in provider.stream(COLORS, max_tokens=100):
                if event.type is StreamEventType.TOKEN:
                    seen.append(place)

        await asyncio.gather(*(stream(place, each, seen) for place, each in enumerate(pair)))
        assert sum(first != second for first, second in pairwise(seen)) > 5


@pytest.mark.parametrize("parallel", [2, 1])
async def test_leaving_a_stream_frees_its_slot(make: Make, parallel: int) -> None:
    """F-129: the model stops at its next token."""
    provider = make(n_parallel=parallel)
    async with aclosing(provider.stream(COLORS, **LONG)) as events:
        async for event in events:
            if event.type is StreamEventType.TOKEN:
                break
    assert await seconds_until_free(provider, parallel) < 1
    text = await provider.execute(COLORS, stream_mode="enabled", **LONG)
    async with text:
        async for _ in text:
            break
    assert await seconds_until_free(provider, parallel) < 1


@pytest.mark.parametrize("parallel", [2, 1])
@pytest.mark.parametrize("prompt", [COLORS, "word " * 400], ids=["while it answers", "while it reads"])
async def test_cancelling_a_call_frees_its_slot(make: Make, prompt: str, parallel: int) -> None:
    """F-143: of a whole answer too, also while a long prompt is read; a neighbour is not disturbed."""
    provider = make(n_parallel=parallel, prefill_step=4)
    normal = (await answer(provider, COLORS, max_tokens=60)).content
    neighbour = asyncio.create_task(answer(provider, COLORS, max_tokens=60))
    task = asyncio.create_task(answer(provider, prompt, **LONG))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await seconds_until_free(provider, parallel) < 1
    assert (await neighbour).content == normal


async def test_a_call_that_waits_can_be_cancelled(make: Make) -> None:
    """F-143: it leaves the queue without having begun."""
    provider = make(n_parallel=1)
    await provider.warm_cache()
    first = asyncio.create_task(answer(provider, COLORS, max_tokens=100))
    await asyncio.sleep(0.02)
    waiting = asyncio.create_task(answer(provider, COLORS, **LONG))
    await asyncio.sleep(0.02)
    waiting.cancel()
    last = asyncio.create_task(answer(provider, COLORS))
    assert (await first).completion_tokens == 100
    start = time.perf_counter()
    assert (await last).ok
    assert time.perf_counter() - start < 1
    assert waiting.cancelled()


async def test_the_queue_is_fair(make: Make) -> None:
    """F-143: with one slot, calls end in the order in which they came."""
    provider = make(n_parallel=1)
    await provider.warm_cache()
    ended: list[int] = []

    async def call(number: int) -> None:
        await answer(provider, f"Number {number}.", max_tokens=2)
        ended.append(number)

    await asyncio.gather(*(call(number) for number in range(8)))
    assert ended == list(range(8))


async def test_timeouts(make: Make) -> None:
    """F-144: for all of an answer, or for the next piece of a stream; waiting in the queue does not count."""
    provider = make(n_parallel=1)
    await provider.warm_cache()
    with pytest.raises(LLMProviderTimeoutError, match=r"no whole answer within 0\.2 s") as caught:
        await provider.execute(COLORS, timeout=0.2, **LONG)
    assert caught.value.attempts == 1  # the same model would be as slow again
    busy = asyncio.create_task(answer(provider, COLORS, **LONG))
    await asyncio.sleep(0.02)
    assert (await answer(provider, "Hi", max_tokens=1, timeout=1)).ok  # the other takes seconds
    assert (await busy).ok


async def test_closing_while_nobody_waits_for_the_model(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-077: whoever asked for it went away while it was loaded; it is freed all the same."""
    real, loaded = engine.load_model, threading.Event()

    def slow(*args: Any) -> Any:
        found = real(*args)
        time.sleep(0.3)
        loaded.set()
        return found

    monkeypatch.setattr(engine, "load_model", slow)
    provider = make()
    call = asyncio.create_task(provider.execute("Hi"))
    await asyncio.sleep(0.1)
    call.cancel()
    await provider.close()
    await asyncio.to_thread(loaded.wait, 60)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        await asyncio.sleep(0.01)
        if not provider._loading.locked() and provider._engine is None:
            break
    assert provider._engine is None


async def test_closing_one_model_leaves_the_others(make: Make) -> None:
    """F-077: though they share a thread."""
    stays, goes = make(), make()
    await asyncio.gather(stays.warm_cache(), goes.warm_cache())
    running = asyncio.create_task(answer(stays, COLORS, max_tokens=200))
    await asyncio.sleep(0.05)
    await goes.close()
    assert (await running).completion_tokens == 200


def test_a_provider_that_is_dropped_frees_its_model(folder: Path) -> None:
    """F-077: memory goes with the last reference, and no thread is added by a second model."""
    import mlx.core as mx

    held = mx.get_active_memory()
    provider = MLXProvider(str(folder), **SHORT)
    asyncio.run(answer(provider, "Hi", max_tokens=1))
    threads = [thread for thread in threading.enumerate() if thread.name == "mlx"]
    assert len(threads) == 1
    size = mx.get_active_memory() - held
    assert size > 1_000_000
    engine = provider._engine
    assert engine is not None
    model = weakref.ref(engine._run.loaded.model)
    del provider, engine
    gc.collect()
    for _ in range(100):
        if model() is None and mx.get_active_memory() < held + size / 2:
            break
        time.sleep(0.02)
    assert model() is None
    assert mx.get_active_memory() < held + size / 2


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
async def test_an_engine_that_fails_is_made_anew(
    make: Make, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """All calls of the run get the error, none hangs, and the next call is answered, by the same thread."""
    provider = make()
    normal = (await answer(provider, COLORS)).content
    real = Run._advance
    failed: list[int] = []

    def advance(self: Run) -> None:
        if len(self._rows) == 3 and not failed:
            failed.append(1)

            def fail() -> Any:
                raise kind("a kernel failed")

            # The engine's own failure cannot be had on order: its step is made to raise where MLX's would.
            self._decoder.next = fail  # type: ignore[union-attr,method-assign]
        real(self)

    monkeypatch.setattr(Run, "_advance", advance)
    errors = await asyncio.gather(*(answer(provider, COLORS, attempts=1) for _ in range(3)), return_exceptions=True)
    assert failed
    assert all(f"MLX failed: {kind.__name__}: a kernel failed" in str(error) for error in errors), errors
    assert (await answer(provider, COLORS)).content == normal
