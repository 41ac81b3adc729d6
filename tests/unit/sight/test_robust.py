"""What goes wrong in sight never costs a call: exporters, handlers, threads, several event loops."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from providers import LLMProvider, LLMProviderServerError, StreamEvent, StreamEventType, Usage
from providers.layers.observe import Observe, attempt
from providers.pipeline import collecting
from providers.sight import Metrics
from providers.sight.record import CURRENT

ANSWER = [StreamEvent.token("Hi"), StreamEvent.usage(Usage(3, 1)), StreamEvent.finish("stop")]


class Broken(SpanProcessor):
    """Raises wherever it is asked."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("start is broken")

    def on_end(self, span: Any) -> None:
        raise KeyError("end is broken")


class BrokenMetrics(Metrics):
    def begin(self, record: Any) -> None:
        raise ValueError("begin is broken")

    def end(self, record: Any) -> None:
        raise ValueError("end is broken")


class BrokenHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("disk full")


async def read(provider: Any) -> str:
    return "".join([event.data async for event in provider.stream("x") if event.type.value == "token"])


@pytest.mark.asyncio
async def test_broken_exporters_and_handlers_cost_a_warning_each(
    sight: Any, caplog: pytest.LogCaptureFixture, calls_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, logger="providers.sight")
    handler = BrokenHandler()
    logging.getLogger("providers.calls").addHandler(handler)
    tracers = TracerProvider()
    tracers.add_span_processor(Broken())
    try:
        provider = sight.provider(
            *[ANSWER] * 4, layers=sight.layers(tracer_provider=tracers, prometheus=BrokenMetrics())
        )
        for _ in range(2):
            assert (await provider.execute("x")).content == "Hi"
            assert await read(provider) == "Hi"
    finally:
        logging.getLogger("providers.calls").removeHandler(handler)
        tracers.shutdown()
    told = [record.getMessage() for record in caplog.records if record.name == "providers.sight"]
    assert len(told) == 3  # of each kind one: begin of the span, Metrics, the log
    assert {kind for text in told for kind in ("RuntimeError", "ValueError", "OSError") if kind in text} == {
        "RuntimeError", "ValueError", "OSError",
    }  # fmt: skip
    assert sum(point.count for _, point in sight.points("gen_ai.client.operation.duration")) == 4
    assert (CURRENT.get(), context.get_current()) == (None, {})


@pytest.mark.asyncio
async def test_a_processor_that_breaks_at_the_end_leaves_errors_as_they_are(sight: Any) -> None:
    class BrokenEnd(Broken):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            pass

    tracers = TracerProvider()
    tracers.add_span_processor(BrokenEnd())
    failure = LLMProviderServerError("down", status_code=500)
    provider = sight.provider(failure, layers=sight.layers(tracer_provider=tracers))
    with pytest.raises(LLMProviderServerError) as caught:
        await provider.execute("x", attempts=1)
    assert caught.value is failure
    assert failure.__cause__ is None
    tracers.shutdown()


@pytest.mark.asyncio
async def test_an_answer_that_makes_no_sense_fails_where_it_would_without_sight(sight: Any) -> None:
    """The figures of a backend are not sight's to check."""
    odd = [
        StreamEvent.token("Hi"),
        StreamEvent(StreamEventType.USAGE, "much"),
        StreamEvent.meta(attempts=3, cache="yes", model=7),
        StreamEvent(StreamEventType.META, None),
    ]
    inner = sight.provider(layers=())
    request, layer = inner._request("x", None, {}, True), sight.observe()

    async def handler(request: Any) -> Any:
        for event in odd:
            yield event

    assert [event async for event in layer(request, handler)] == odd
    assert await layer.whole(request, collecting(handler)) == odd
    assert sight.samples("calls_total", outcome="ok") == 2
    assert ["gen_ai.response.model" in span.attributes for span in sight.spans()] == [False, False]


@pytest.mark.asyncio
async def test_where_nobody_samples_nothing_is_worked_out(sight: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is inside learns that this trace is not recorded."""
    worked: list[Any] = []
    monkeypatch.setattr("providers.sight.spans._attributes", worked.append)
    tracers = TracerProvider(sampler=ALWAYS_OFF)
    seen: list[Any] = []

    class Looking(LLMProvider):
        name = "looking"

        async def generate(self, request: Any) -> Any:
            from opentelemetry import trace

            seen.append(trace.get_current_span().get_span_context())
            yield StreamEvent.finish("stop")

    await Looking("m", layers=(Observe(tracer_provider=tracers),)).execute("x")
    assert worked == []
    assert [(item.is_valid, item.trace_flags.sampled) for item in seen] == [(True, False)]


def test_threads_and_event_loops_share_one_layer(sight: Any) -> None:
    layers = sight.layers()
    problems: list[BaseException] = []

    def work(number: int) -> None:
        async def main() -> None:
            own = sight.provider(*[ANSWER] * 40, layers=layers)
            for _ in range(5):
                await asyncio.gather(*(own.execute("x") for _ in range(4)), *(read(own) for _ in range(4)))

        try:
            asyncio.run(main())
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(sight.spans()) == 160
    assert {span.parent for span in sight.spans()} == {None}
    assert sight.samples("calls_total") == 160
    assert sight.samples("tokens_total", type="input") == 480
    assert sight.samples("calls_in_flight") == 0
    assert sum(point.sum for _, point in sight.points("gen_ai.client.token.usage")) == 160 * 4


@pytest.mark.asyncio
async def test_a_task_that_outlives_its_call_keeps_nothing_large(sight: Any) -> None:
    """Tasks and timers copy the context that they are started in, and hold it as long as they live."""

    class Starting(LLMProvider):
        name = "starting"
        started: list[Context] = []  # noqa: RUF012

        async def generate(self, request: Any) -> Any:
            self.started.append(copy_context())
            for event in ANSWER:
                yield event

    provider = Starting("m", layers=sight.layers())
    await provider.execute("x")
    [started] = Starting.started
    record = started[CURRENT]
    assert record is not None
    assert record.ended
    assert (record.request, record._last, record._facts) == (None, None, {})
    # A call made in such a task is none inside the one that has ended.
    inner = sight.provider(ANSWER)
    await asyncio.create_task(inner.execute("x"), context=started)
    assert sight.samples("tokens_total") == 2 * (3 + 1)
    assert record._counted == []


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_are_not_kept_alive(sight: Any, stream: bool) -> None:
    """No circle of frames and errors: what a failed call held is gone without the garbage collector."""

    class Held(LLMProviderServerError):
        """An error that can be watched."""

    async def fail(request: Any) -> Any:
        raise Held("down", status_code=500)
        yield

    request = sight.provider()._request("x", None, {}, stream)
    layer = sight.observe()
    gc.collect()
    gc.disable()
    try:
        watched = await _fail(layer, request, fail, stream)
        assert watched() is None
    finally:
        gc.enable()


async def _fail(layer: Any, request: Any, fail: Any, stream: bool) -> Any:
    try:
        if stream:
            async for _ in layer(request, partial(attempt, inner=fail)):
                pass
        else:
            await layer.whole(request, partial(attempt.whole, inner=collecting(fail)))  # type: ignore[attr-defined]
    except LLMProviderServerError as error:
        return weakref.ref(error)
