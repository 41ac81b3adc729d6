"""The cache layer: who waits for whom, who leaves, what a store that is down costs, and what a caller is told."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from providers import LLMProvider, total_usage
from providers.caches import FSCache, MemoryCache, SQLiteCache
from providers.exceptions import LLMProviderConnectionError, LLMProviderRateLimitError
from providers.layers import retry
from providers.layers.cache import ResponseCache
from providers.request_builder import RequestBuilder
from providers.testing import ScriptedProvider
from providers.types import (
    LLMConfig,
    LLMResponse,
    RetryPolicy,
    StreamEventType,
    StructuredOutput,
    Usage,
)
from providers.types.policy import CachePolicy

from .callers import Backend, Caller, ask


async def quiet() -> None:
    """No task but this one is left."""
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("leader", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("follower", [False, True], ids=["whole", "stream"])
async def test_where_the_leader_is_cancelled_the_request_goes_on_for_the_others(leader: bool, follower: bool) -> None:
    backend = Backend()
    caller = Caller(backend)
    first = asyncio.create_task(caller(ask(leader)))
    await asyncio.sleep(0.005)
    others = [asyncio.create_task(caller(ask(follower))) for _ in range(5)]
    await asyncio.sleep(0.01)
    first.cancel()
    answers = await asyncio.gather(*others)
    assert {answer.content for answer in answers} == {"one two 1"}
    assert all(answer.metadata["cache"]["hit"] for answer in answers)
    assert (backend.calls, backend.ended, backend.closed) == (1, 1, 0)
    assert first.cancelled()
    await quiet()


@pytest.mark.parametrize("stream", [False, True])
async def test_where_the_last_one_leaves_the_request_ends_at_once(stream: bool) -> None:
    backend = Backend(wait=0.05)
    caller = Caller(backend)
    tasks = [asyncio.create_task(caller(ask(stream))) for _ in range(3)]
    await asyncio.sleep(0.07)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (backend.calls, backend.ended, backend.closed) == (1, 0, 1)
    await quiet()
    assert (await caller(ask(stream))).content == "one two 2"


async def test_a_stream_that_is_left_early_ends_on_the_wire() -> None:
    backend = Backend()
    caller = Caller(backend)
    async with aclosing(caller.streamed(ask(True))) as events:  # type: ignore[type-var]
        assert (await anext(events)).data == "one "
    assert backend.closed == 1
    await quiet()


async def test_a_reader_that_dawdles_holds_nobody_up() -> None:
    backend = Backend()
    caller = Caller(backend)
    slow = caller.streamed(ask(True))
    assert (await anext(slow)).data == "one "
    async with asyncio.timeout(5):
        assert (await caller(ask())).content == "one two 1"
    assert [event.data async for event in slow if event.type is StreamEventType.TOKEN] == ["two ", "1"]
    assert backend.calls == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_is_the_leaders_and_the_others_go_alone(stream: bool) -> None:
    backend = Backend(failures=1)
    caller = Caller(backend)
    answers = await asyncio.gather(*(caller(ask(stream)) for _ in range(5)), return_exceptions=True)
    assert isinstance(answers[0], LLMProviderConnectionError)
    assert sorted(answer.content for answer in answers[1:]) == [f"one two {n}" for n in range(2, 6)]  # type: ignore[union-attr]
    assert not any(answer.metadata["cache"]["hit"] for answer in answers[1:])  # type: ignore[union-attr]
    assert backend.calls == 5
    assert (await caller(ask(stream))).metadata["cache"]["hit"]
    await quiet()
    gc.collect()


async def test_a_call_that_shall_not_read_waits_for_none_that_may() -> None:
    backend = Backend()
    caller = Caller(backend)
    await caller(ask())
    rewrite, regen = (ask().replace(cache=CachePolicy(rewrite=one, regen=not one)) for one in (True, False))
    hit, new, other = await asyncio.gather(caller(ask()), caller(rewrite), caller(regen))
    assert [answer.metadata["cache"]["hit"] for answer in (hit, new, other)] == [True, False, False]
    assert backend.calls == 3


async def test_nobody_waits_under_another_ones_limits() -> None:
    backend = Backend()
    caller = Caller(backend)
    await asyncio.gather(caller(ask(timeout=5)), caller(ask(timeout=6)), caller(ask(timeout=5)))
    assert backend.calls == 2


async def test_retries_stay_inside_the_one_request() -> None:
    backend = Backend(failures=2)
    caller = Caller(backend, None, retry)
    policy = RetryPolicy(3, 0.0, jitter=False)
    answers = await asyncio.gather(*(caller(ask(bool(n % 2), retry=policy)) for n in range(10)))
    assert {answer.content for answer in answers} == {"one two 3"}
    assert backend.calls == 3


async def test_cancelled_at_every_await_nothing_is_left() -> None:
    for stream in (False, True):
        for turns in range(40):
            backend = Backend(wait=0)
            caller = Caller(backend)
            task, other = asyncio.create_task(caller(ask(stream))), asyncio.create_task(caller(ask(not stream)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            assert (await other).content == f"one two {backend.calls}"
            await asyncio.wait({task})
            assert backend.calls == 1, turns
            await quiet()
            assert all(not flights for flights in caller.layer._flights.values())


def test_loops_and_threads_share_the_store_not_the_request() -> None:
    backend = Backend()
    caller = Caller(backend)
    answers: list[LLMResponse] = []

    def run() -> None:
        async def work() -> None:
            answers.extend(await asyncio.gather(*(caller(ask(bool(n % 2))) for n in range(10))))

        asyncio.run(work())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert 1 <= backend.calls <= 4
    calls = backend.calls
    run()
    assert backend.calls == calls
    assert sum(answer.usage.total_tokens or 0 for answer in answers) == 6 * calls
    gc.collect()
    assert len(caller.layer._flights) == 0


async def test_what_no_key_can_be_made_of_is_asked_every_time() -> None:
    backend = Backend(wait=0)
    caller = Caller(backend)
    with pytest.warns(UserWarning, match="without the response cache: .*object"):
        await caller(ask(extras={"x": object()}))
    assert (await caller(ask(True, extras={"x": object()}))).content == "one two 2"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"schema":0}', '{"schema":1,"content":3}', "\x00", "[" * 9999]
)
async def test_a_stored_text_that_is_none_is_a_miss_and_replaced(text: str) -> None:
    store, backend = MemoryCache(), Backend(wait=0)
    caller = Caller(backend, ResponseCache(store, "acme"))
    key = caller.layer._key(ask(), CachePolicy())
    assert key is not None
    await store.put(key, text)
    assert (await caller(ask())).content == "one two 1"
    assert (await caller(ask())).metadata["cache"]["hit"]


async def test_a_parser_runs_once_for_each_answer_and_its_refusal_is_not_stored() -> None:
    runs: list[Any] = []

    def parse(value: Any) -> Any:
        runs.append(value)
        if len(runs) <= 2:
            raise ValueError("not good enough")
        return len(runs)

    provider = ScriptedProvider(lambda request: '{"a": 1}')
    caller = Caller(provider)
    output = StructuredOutput(parser=parse)
    with pytest.raises(ValueError, match="not good enough"):
        await caller(ask(output=output))
    runs[2:] = []
    assert (await caller(ask(output=output))).parsed == 3
    assert (await caller(ask(True, output=output))).parsed == 4
    assert len(provider.requests) == 2


async def test_an_answer_that_does_not_fit_todays_model_is_asked_for_again() -> None:
    """The schema is the same, a validator was changed since."""
    from pydantic import field_validator

    strict = [False]

    class Answer(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def check(cls, value: int) -> int:
            if strict[0] and value < 10:
                raise ValueError("too small")
            return value

    caller = Caller(provider := ScriptedProvider(['{"x": 1}', '{"x": 11}']))
    output = StructuredOutput.coerce(Answer)
    assert (await caller(ask(output=output))).parsed == Answer(x=1)
    assert (await caller(ask(output=output))).parsed == Answer(x=1)
    strict[0] = True
    assert (await caller(ask(output=output))).parsed == Answer(x=11)
    assert (await caller(ask(output=output))).parsed == Answer(x=11)
    assert len(provider.requests) == 2


def provider_with(layer: ResponseCache, script: Any) -> LLMProvider:
    class Cached(ScriptedProvider):
        layers = (layer, retry)

        def __init__(self) -> None:
            super().__init__(script)
            self._builder = RequestBuilder(self.name, self.config, cached=True)

    return Cached()


async def test_a_provider_with_the_layer() -> None:
    """F-064, F-106, F-108 through the verbs; the sum of usage is the backend's."""
    provider = provider_with(ResponseCache(MemoryCache(), "acme"), iter(["first answer", "second answer"]))
    async with provider:
        first = await provider.complete("Hello", cache_response=True)
        assert first.metadata["cache"]["hit"] is False
        hit = await provider.complete("Hello", cache_response=True, timeout=5, attempts=1)
        assert (hit.content, hit.metadata["cache"]["hit"]) == ("first answer", True)
        assert hit.metadata["params"] == first.metadata["params"]
        events = [event async for event in provider.stream("Hello", cache_response=True)]
        assert [event.data for event in events if event.type is StreamEventType.TOKEN] == ["first", " answer"]
        assert events[-1].data.finish_reason == "stop"
        assert (first.usage + hit.usage + events[-1].data.usage).total_tokens == first.usage.total_tokens
        assert (await provider.execute("Hello", cache_response=True, rewrite_cache=True)).content == "second answer"
        assert (await provider.execute("Hello", cache_response=True)).content == "second answer"


async def test_a_failure_through_a_provider_keeps_its_class() -> None:
    provider = provider_with(ResponseCache(MemoryCache(), "acme"), iter([LLMProviderRateLimitError("slow down"), "ok"]))
    with pytest.raises(LLMProviderRateLimitError):
        await provider.execute("Hello", cache_response=True, attempts=1)
    assert (await provider.execute("Hello", cache_response=True, attempts=1)).content == "ok"
    await provider.close()


def test_no_secret_and_no_request_is_in_a_cache_file(tmp_path: Path) -> None:
    canary = "canary-7f3a"

    async def work() -> None:
        for store in (FSCache(tmp_path / "fs"), SQLiteCache(tmp_path / "cache.db")):
            caller = Caller(Backend(wait=0), ResponseCache(store, "acme", scope={"org": canary}))
            await caller(ask(text=canary, system=canary, extras={"key": canary}))
            await caller.layer.close()

    asyncio.run(work())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    assert not any(canary.encode() in path.read_bytes() for path in files)


def test_the_warning_stays_where_there_is_no_layer() -> None:
    with pytest.warns(UserWarning, match="no response cache"):
        RequestBuilder("acme", LLMConfig("m")).build("x", None, {"cache_response": True}, False)


@pytest.mark.parametrize("known", [False, True])
async def test_failed_attempts_are_the_first_callers_and_not_the_answers(known: bool) -> None:
    """C-17: a hit has made no attempts; what those of the first call used is not counted twice."""
    error = LLMProviderRateLimitError("slow down", retry_after=0.001)
    error.usage = Usage(7, 0) if known else None
    async with ScriptedProvider([error, "a"], model_name="m", cache_backend="memory") as provider:
        first = await provider.complete("x", cache_response=True)
        again = await provider.complete("x", cache_response=True)
    assert [attempt["usage"] for attempt in first.metadata["attempts"]] == [error.usage]
    assert again.metadata["cache"]["hit"]
    assert "attempts" not in again.metadata
    assert total_usage(again).input_tokens == 0
