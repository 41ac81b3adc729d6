"""Streams under sight: when their span ends, what is current meanwhile, and that nothing leaks into the consumer."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import aclosing
from contextvars import copy_context
from typing import Any, cast

import pytest
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, StatusCode

from providers import LLMProvider, LLMProviderServerError, StreamEvent, StreamMode, Usage
from providers.layers.observe import Observe
from providers.sight.record import CURRENT

pytestmark = pytest.mark.asyncio

PIECES = [
    StreamEvent.token("a"),
    StreamEvent.usage(Usage(9, 1)),
    StreamEvent.token("b"),
    StreamEvent.token("c"),
    StreamEvent.usage(Usage(9, 3)),
    StreamEvent.finish("stop"),
]


class Watcher(LLMProvider):
    """Notes what is current at each of its steps, and when it is closed."""

    name = "watcher"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.current: list[Any] = []
        self.closed: list[Any] = []

    async def generate(self, request: Any) -> Any:
        try:
            for event in PIECES:
                await asyncio.sleep(0)
                self.current.append(trace.get_current_span())
                yield event
        finally:
            self.closed.append(trace.get_current_span())


@pytest.fixture
def otel_log(caplog: pytest.LogCaptureFixture) -> Any:
    """OpenTelemetry says there what is wrong with its contexts."""
    caplog.set_level(logging.DEBUG, logger="opentelemetry")
    return caplog


async def test_the_span_is_current_inside_and_never_outside(sight: Any, otel_log: Any) -> None:
    provider = Watcher("m", layers=sight.layers())
    tracer = sight.tracers.get_tracer("test")
    seen = []
    with tracer.start_as_current_span("around") as around:
        async for _ in provider.stream("x"):
            seen.append(trace.get_current_span())
            assert CURRENT.get() is None
            with tracer.start_as_current_span("of the consumer"):
                await asyncio.sleep(0)
    assert set(seen) == {around}
    [call] = [span for span in sight.spans() if span.name == "chat m"]
    inside = {span.get_span_context().span_id for span in (*provider.current, *provider.closed)}
    assert inside == {call.context.span_id}
    consumers = [span for span in sight.spans() if span.name == "of the consumer"]
    assert {span.parent.span_id for span in consumers} == {around.get_span_context().span_id}
    assert not otel_log.records


async def test_a_stream_that_is_read_to_its_end(sight: Any) -> None:
    async for event in sight.provider(PIECES).stream("x"):
        assert bool(sight.spans()) is (event.type.value == "done")
    span = sight.span()
    assert span.attributes["gen_ai.request.stream"] is True
    assert span.attributes["gen_ai.usage.output_tokens"] == 3
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert 0 < span.attributes["gen_ai.response.time_to_first_chunk"] <= (span.end_time - span.start_time) / 1e9
    assert "llm_provider.outcome" not in span.attributes


async def test_a_stream_that_is_left_ends_its_span_with_what_was_used(sight: Any, otel_log: Any) -> None:
    provider = Watcher("m", layers=sight.layers())
    async with aclosing(provider.stream("x")) as events:
        async for event in events:
            if event.data == "b":
                break
    span = sight.span()
    assert span.attributes["gen_ai.usage.output_tokens"] == 1
    assert span.attributes["llm_provider.outcome"] == "left"
    assert span.status.status_code is StatusCode.UNSET
    assert "gen_ai.response.finish_reasons" not in span.attributes
    # The backend's stream was closed under the call's span, before that ended.
    assert [span.get_span_context().span_id for span in provider.closed] == [span.context.span_id]
    assert sight.samples("calls_total", outcome="left") == 1
    assert not otel_log.records


async def test_a_stream_that_is_cancelled_ends_its_span(sight: Any, otel_log: Any) -> None:
    class Slow(LLMProvider):
        name = "slow"

        async def generate(self, request: Any) -> Any:
            yield StreamEvent.token("a")
            yield StreamEvent.usage(Usage(9, 1))
            await asyncio.sleep(60)

    provider, begun = Slow("m", layers=sight.layers()), asyncio.Event()

    async def read() -> None:
        async for _ in provider.stream("x"):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    span = sight.span()
    assert span.attributes["llm_provider.outcome"] == "cancelled"
    assert span.attributes["gen_ai.usage.output_tokens"] == 1
    assert span.status.status_code is StatusCode.UNSET
    assert sight.samples("calls_in_flight") == 0
    assert not otel_log.records


async def test_a_stream_that_is_dropped_ends_too(sight: Any, otel_log: Any) -> None:
    """Nobody closes it: the event loop does, in a task, and so a context, of its own."""
    provider = Watcher("m", layers=sight.layers())
    with sight.tracers.get_tracer("test").start_as_current_span("around"):
        stream = await provider.execute("x", stream_mode=StreamMode.ENABLED)
        async for _ in stream:
            break
        del stream
    gc.collect()
    for _ in range(20):
        await asyncio.sleep(0)
    [call] = [span for span in sight.spans() if span.name == "chat m"]
    assert call.attributes["llm_provider.outcome"] == "left"
    assert trace.get_current_span() is INVALID_SPAN
    assert not otel_log.records


async def test_a_stream_that_breaks_ends_with_the_error_and_what_was_used(sight: Any) -> None:
    broken = [StreamEvent.token("a"), StreamEvent.usage(Usage(9, 1)), LLMProviderServerError("cut", status_code=502)]
    events = [event async for event in sight.provider(broken).stream("x")]
    assert events[-1].type.value == "error"
    span = sight.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "LLMProviderServerError"
    assert span.attributes["gen_ai.usage.output_tokens"] == 1


async def test_a_consumer_that_leaves_after_the_last_word_has_the_whole_answer(sight: Any) -> None:
    provider = sight.provider(PIECES)
    async with aclosing(sight.observe()(_request(provider), provider.generate)) as events:
        async for event in events:
            if event == PIECES[-1]:
                break
    assert "llm_provider.outcome" not in sight.span().attributes
    assert sight.samples("calls_total", outcome="ok") == 1


async def test_a_stream_that_is_never_begun_has_no_span(sight: Any) -> None:
    provider = sight.provider(PIECES)
    await provider.stream("x").aclose()
    assert sight.spans() == []
    assert sight.samples("calls_in_flight") == 0


async def test_a_call_whose_task_is_forgotten_does_no_harm(sight: Any, otel_log: Any) -> None:
    """Its coroutine is closed by hand, outside of the context that it ran in."""
    provider = sight.provider(PIECES)

    async def never(request: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    call = sight.observe().whole(_request(provider), never)
    copy_context().run(call.send, None)
    copy_context().run(call.close)
    assert sight.span().attributes["llm_provider.outcome"] == "left"
    assert CURRENT.get() is None
    assert not otel_log.records


async def test_many_streams_at_once_keep_to_themselves(sight: Any, otel_log: Any) -> None:
    provider = Watcher("m", layers=sight.layers())
    tracer = sight.tracers.get_tracer("test")

    async def one(number: int) -> None:
        with tracer.start_as_current_span(f"task {number}") as mine:
            async for _ in provider.stream("x"):
                assert trace.get_current_span() is mine
                await asyncio.sleep(0)

    await asyncio.gather(*(one(number) for number in range(20)))
    around = {span.context.span_id: span.name for span in sight.spans() if span.name.startswith("task")}
    calls = [span for span in sight.spans() if span.name == "chat m"]
    assert sorted(around[span.parent.span_id] for span in calls) == sorted(around.values())
    assert not otel_log.records


def _request(provider: Any) -> Any:
    return provider._request("x", None, {}, True)


async def test_without_a_listener_the_layer_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """opentelemetry-api alone: the inner handler's own generator is handed out."""
    provider = Watcher("m", layers=())
    layer = Observe()
    request = _request(provider)
    made = cast(Any, provider.generate(request))
    same = layer(request, lambda _: made) is made
    assert same
    await made.aclose()
