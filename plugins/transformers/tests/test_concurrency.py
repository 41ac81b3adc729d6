"""Many calls at once: runs of several, each call with its own choice and end, loops that never wait, a fair queue."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llm_provider_transformers import TransformersProvider, engine
from providers.exceptions import (
    LLMProviderServerError,
    LLMProviderTimeoutError,
    LLMProviderTokenLimitError,
)
from providers.testing import LocalConformance
from providers.testing.loops import loop_delays
from providers.types import StreamEventType

from .conftest import SHORT, Make, answer

LONG: dict[str, Any] = {"max_tokens": 1500}
"""An answer that takes seconds."""

PROMPTS = [f"{'Tell me more. ' * (number % 3)}What is {number}?" for number in range(8)]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls each run of the engine had."""
    sizes: list[int] = []
    inner = engine.run

    def counted(loaded: Any, rows: Any) -> None:
        sizes.append(len(rows))
        inner(loaded, rows)

    monkeypatch.setattr(engine, "run", counted)
    return sizes


@asynccontextmanager
async def busy(provider: TransformersProvider) -> AsyncIterator[None]:
    """Holds the model with a run that nothing joins, until what is begun inside waits in its order."""
    alone = answer(provider, "Hi", max_tokens=1, extra={"logits_processor": [lambda ids, scores: hold(scores)]})
    held, wait = threading.Event(), threading.Event()

    def hold(scores: Any) -> Any:
        held.set()
        wait.wait(60)
        return scores

    task = asyncio.create_task(alone)
    await asyncio.to_thread(held.wait, 60)
    yield
    await asyncio.sleep(0.1)
    wait.set()
    await task


class TestTransformers(LocalConformance):
    prompts = tuple(PROMPTS[:2])
    busy: ClassVar[dict[str, Any]] = {"max_tokens": 400}
    counted = "word " * 20_000
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _folder(self, tiny: Path) -> None:
        self.folder = tiny

    def make_provider(self) -> TransformersProvider:
        return TransformersProvider(str(self.folder), **SHORT, **self.options)

    def holds(self, provider: TransformersProvider) -> bool:
        return provider._engine is not None

    def work(self, provider: TransformersProvider) -> list[Awaitable[Any]]:
        return [provider.embed(["some words"] * 50)]


class TestTransformersTwoByTwo(TestTransformers):
    options: ClassVar[dict[str, Any]] = {"max_batch_size": 2}


# --- several calls in one run


async def test_calls_that_wait_together_run_together(provider: TransformersProvider, runs: list[int]) -> None:
    """F-037: one padded run, each answer the same as alone."""
    alone = [(await answer(provider, prompt)).content for prompt in PROMPTS]
    assert runs == [1] * 8
    together = await asyncio.gather(*(answer(provider, prompt) for prompt in PROMPTS))
    assert [response.content for response in together] == alone
    assert len(runs) < 8 + 3
    assert [response.prompt_tokens for response in together] == [await provider.count_tokens(text) for text in PROMPTS]


async def test_each_row_is_its_own_call(provider: TransformersProvider, runs: list[int]) -> None:
    """Sampling, seed, stop strings, structure, length, stream: each as if it were alone."""
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    plain = (await answer(provider, PROMPTS[0], max_tokens=30)).content
    kinds: list[dict[str, Any]] = [
        {"max_tokens": 30},
        {"max_tokens": 3},
        {"temperature": 1.0, "seed": 1},
        {"temperature": 1.5, "seed": 2, "top_p": 0.9},
        {"stop": plain[8:11], "max_tokens": 30},
        {"schema": schema},
        {"frequency_penalty": 2.0, "max_tokens": 30},
    ]
    alone = [await answer(provider, PROMPTS[0], **kind) for kind in kinds]
    runs.clear()

    async def streamed() -> str:
        events = [event async for event in provider.stream(PROMPTS[0], max_tokens=20)]
        return "".join(event.data for event in events if event.type is StreamEventType.TOKEN)

    async with busy(provider):
        calls = asyncio.gather(*(answer(provider, PROMPTS[0], **kind) for kind in kinds), streamed())
    *together, text = await calls
    assert runs == [1, 8]
    for one, two, kind in zip(alone, together, kinds, strict=True):
        assert (one.content, one.usage, one.finish_reason) == (two.content, two.usage, two.finish_reason), kind
    assert text == (await answer(provider, PROMPTS[0], max_tokens=20)).content


async def test_what_cannot_share_a_run_does_not(make: Make, runs: list[int]) -> None:
    """F-048: other parameters of the engine, a search, a prompt of quite another length; all in order."""
    provider = make(max_batch_size=4)
    await provider.warm_cache()
    ended: list[int] = []

    async def call(number: int, prompt: str, **options: Any) -> None:
        await answer(provider, prompt, **options)
        ended.append(number)

    plain: dict[str, Any] = {"max_tokens": 2}
    strict: dict[str, Any] = {"max_tokens": 2, "extra": {"repetition_penalty": 1.5}}
    search: dict[str, Any] = {"max_tokens": 2, "extra": {"num_beams": 2}}
    kinds = [
        ("a", plain),
        ("a", plain),
        ("a", strict),
        ("a", strict),
        ("a", search),
        ("a", search),
        ("a " * 900, plain),
    ]
    async with busy(provider):
        calls = [asyncio.create_task(call(place, prompt, **kind)) for place, (prompt, kind) in enumerate(kinds)]
    await asyncio.gather(*calls)
    assert runs == [1, 2, 2, 1, 1, 1]
    assert [(0, 0, 1, 1, 2, 3, 4)[place] for place in ended] == [0, 0, 1, 1, 2, 3, 4]
    runs.clear()
    async with busy(provider):
        calls = [asyncio.create_task(call(place, "a", **plain)) for place in range(9)]
    await asyncio.gather(*calls)
    assert runs == [1, 4, 4, 1]
    assert [place // 4 for place in ended[7:]] == [0] * 4 + [1] * 4 + [2]


async def test_one_call_alone_in_each_run(make: Make, runs: list[int]) -> None:
    provider = make(max_batch_size=1)
    await provider.warm_cache()
    await asyncio.gather(*(answer(provider, "Hi", max_tokens=2) for _ in range(4)))
    assert runs == [1] * 4


async def test_one_bad_call_does_not_take_the_others_away(provider: TransformersProvider) -> None:
    """F-038"""
    good, long, also = await asyncio.gather(
        answer(provider, "Hi"), answer(provider, "word " * 3000), answer(provider, "Hi"), return_exceptions=True
    )
    assert isinstance(long, LLMProviderTokenLimitError)
    assert good.content == also.content  # type: ignore[union-attr]


async def test_an_engine_that_fails_tells_its_callers(provider: TransformersProvider, runs: list[int]) -> None:
    """Bad inputs 32: whatever the model's own code raises; and the next call works."""

    def leave(input_ids: Any, scores: Any) -> Any:
        raise SystemExit("no more")

    calls = (answer(provider, "Hi", extra={"logits_processor": [leave]}) for _ in range(2))
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert runs == [1, 1]  # objects of the caller's are not shared
    for error in errors:
        assert isinstance(error, LLMProviderServerError)
        assert "SystemExit: no more" in str(error)
        assert not error.retryable
    assert (await answer(provider, "Hi", max_tokens=1)).ok


async def test_leaving_one_stream_leaves_the_others(provider: TransformersProvider) -> None:
    """F-129: the row ends, the run goes on without it."""
    wanted = (await answer(provider, PROMPTS[1], max_tokens=60)).content

    async def leave() -> None:
        async with aclosing(provider.stream(PROMPTS[0], **LONG)) as events:
            async for event in events:
                if event.type is StreamEventType.TOKEN:
                    return

    start = time.perf_counter()
    _, response = await asyncio.gather(leave(), answer(provider, PROMPTS[1], max_tokens=60))
    assert response.content == wanted
    assert (await answer(provider, "Hi", max_tokens=1)).ok
    assert time.perf_counter() - start < 3


# --- an end at any time


async def seconds_until_free(provider: TransformersProvider) -> float:
    start = time.perf_counter()
    await provider.execute("Hi", max_tokens=1)
    return time.perf_counter() - start


async def test_leaving_a_stream_frees_the_model(provider: TransformersProvider) -> None:
    """F-129: within a second; a run of 1500 tokens takes longer."""
    async with aclosing(provider.stream("Hi", **LONG)) as events:
        async for event in events:
            if event.type is StreamEventType.TOKEN:
                break
    assert await seconds_until_free(provider) < 1


@pytest.mark.parametrize("extra", [{}, {"num_beams": 2}], ids=["greedy", "search"])
async def test_cancelling_a_call_frees_the_model(provider: TransformersProvider, extra: dict[str, Any]) -> None:
    """F-143"""
    await provider.warm_cache()
    task = asyncio.create_task(answer(provider, "Hi", extra=extra, **LONG))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await seconds_until_free(provider) < 1


@pytest.mark.slow
async def test_cancelling_while_a_prompt_is_read(smollm2: Path, make: Make) -> None:
    """F-143: reading this prompt takes a processor many seconds; it is given up between two steps."""
    provider = make(smollm2)
    await provider.warm_cache()
    taken: list[float] = []
    for _ in range(3):  # the machine may be busy with other things too
        task = asyncio.create_task(answer(provider, "word " * 6000, max_tokens=1, timeout=None))
        await asyncio.sleep(1)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        taken.append(await seconds_until_free(provider))
        if taken[-1] < 1:
            return
    # A step of this prompt, and a prompt and a token of its own.
    assert min(taken) < 2.5, taken


async def test_timeouts(make: Make) -> None:
    """F-144: for all of an answer, or for the next piece of a stream; waiting for the model does not count."""
    provider = make(max_batch_size=1)
    await provider.warm_cache()
    with pytest.raises(LLMProviderTimeoutError, match=r"no whole answer within 0\.2 s") as caught:
        await answer(provider, "Hi", timeout=0.2, **LONG)
    assert caught.value.attempts == 1
    assert await seconds_until_free(provider) < 1
    events = [event async for event in provider.stream("Hi", timeout=0.5, max_tokens=300)]
    assert events[-1].type is StreamEventType.DONE
    running = asyncio.create_task(answer(provider, "Hi", **LONG))
    await asyncio.sleep(0.02)
    assert (await answer(provider, "Hi", max_tokens=1, timeout=1)).ok  # the other takes seconds
    assert (await running).ok


async def test_a_provider_rests_and_wakes(make: Make) -> None:
    """F-077: what the cache drops gives its memory back and may be called again."""
    provider = make()
    before = (await answer(provider, "Hi")).content
    loaded = weakref.ref(provider._engine._loaded.model)  # type: ignore[union-attr]
    await provider.rest_when_idle()
    gc.collect()
    assert loaded() is None
    assert (await answer(provider, "Hi")).content == before


def test_a_provider_that_is_dropped_frees_its_model(tiny: Path) -> None:
    """F-077: thread and memory go with the last reference."""
    provider = TransformersProvider(str(tiny))
    asyncio.run(answer(provider, "Hi", max_tokens=1))
    loaded = weakref.ref(provider._engine._loaded.model)  # type: ignore[union-attr]
    threads = [thread for thread in threading.enumerate() if thread.name == "transformers-0"]
    before = len(threads)
    del provider
    gc.collect()
    deadline = time.monotonic() + 5
    while loaded() is not None and time.monotonic() < deadline:
        time.sleep(0.02)
        gc.collect()
    assert loaded() is None
    while sum(t.name == "transformers-0" for t in threading.enumerate()) >= before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sum(thread.name == "transformers-0" for thread in threading.enumerate()) == before - 1


# --- loops and threads


async def test_the_loop_does_not_wait_while_a_model_is_loaded(make: Make) -> None:
    """F-143: loading happens in another thread."""
    await make().warm_cache()  # imports, which are once in a process
    longest: list[float] = []
    for _ in range(4):
        async with loop_delays() as gaps:
            await make().warm_cache()
        longest.append(max(gaps))
    assert min(longest) < 0.2, longest
