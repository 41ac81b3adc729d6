"""Text streams: awaited or iterated, ended at once when left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers import (
    LLMProvider,
    LLMProviderServerError,
    LLMResponse,
    ProviderClosedError,
    Request,
    StreamEvent,
    StreamMode,
    TextStream,
    Usage,
)
from providers.testing import ScriptedProvider

TEXT = "one two three"


def streaming(mode: Any = StreamMode.ENABLED, script: Any = None) -> ScriptedProvider:
    return ScriptedProvider(script or (lambda _: TEXT), stream_mode=mode, max_retries=0)


class Endless(LLMProvider):
    name = "endless"

    def __init__(self, **options: Any) -> None:
        super().__init__("m", stream_mode="enabled", **options)
        self.closed = asyncio.Event()
        self.running = 0

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        self.running += 1
        try:
            while True:
                yield StreamEvent.token("x")
                await asyncio.sleep(0)
        finally:
            self.running -= 1
            self.closed.set()


async def test_it_gives_pieces_of_text_and_the_answer_afterwards() -> None:
    """F-129, C-07."""
    stream = await streaming().execute("hi")
    assert isinstance(stream, TextStream)
    assert stream.response is None
    chunks = [chunk async for chunk in stream]
    assert all(isinstance(chunk, str) for chunk in chunks)
    assert len(chunks) == 3
    assert "".join(chunks) == TEXT
    assert isinstance(stream.response, LLMResponse)
    assert (stream.response.content, stream.response.finish_reason) == (TEXT, "stop")
    assert stream.response.total_tokens


async def test_nothing_is_sent_before_the_first_piece_is_asked_for() -> None:
    provider = streaming()
    stream = await provider.execute("hi")
    assert provider.requests == []
    await anext(stream)
    assert [request.stream for request in provider.requests] == [True]
    await stream.aclose()


async def test_auto_streams_where_it_is_iterated_and_does_not_where_it_is_awaited() -> None:
    """F-130, C-07."""
    provider = streaming("auto")
    iterated = await provider.execute("hi")
    assert "".join([chunk async for chunk in iterated]) == TEXT
    awaited = await (await provider.execute("hi"))
    assert awaited.content == TEXT
    assert [request.stream for request in provider.requests] == [True, False]


async def test_awaiting_reads_the_rest_where_reading_has_begun() -> None:
    for mode in ("auto", "enabled"):
        provider = streaming(mode)
        stream = await provider.execute("hi")
        await anext(stream)
        assert (await stream).content == TEXT
        assert (await stream).content == TEXT
        assert len(provider.requests) == 1


async def test_awaiting_an_enabled_stream_streams() -> None:
    provider = streaming()
    assert (await (await provider.execute("hi"))).content == TEXT
    assert [request.stream for request in provider.requests] == [True]


async def test_awaiting_twice_asks_once() -> None:
    provider = streaming("auto")
    stream = await provider.execute("hi")
    assert (await stream) is (await stream)
    assert len(provider.requests) == 1


async def test_a_mode_of_the_call_goes_before_the_configurations() -> None:
    provider = streaming("enabled")
    assert isinstance(await provider.execute("hi", stream_mode="disabled"), LLMResponse)
    assert isinstance(await provider.execute("hi", stream_mode=StreamMode.AUTO), TextStream)


async def test_break_and_drop_ends_the_call_at_once_without_the_garbage_collector() -> None:
    """Bad input 50; users: abandoned streams keep generating."""
    provider = Endless()
    gc.disable()
    try:
        stream = await provider.execute("hi")
        async for _ in stream:
            break
        assert provider.running == 1
        del stream
        await asyncio.wait_for(provider.closed.wait(), 1)
        assert provider.running == 0
        await asyncio.sleep(0.01)
        assert provider.calls_under_way == 0
    finally:
        gc.enable()


async def test_aclose_and_async_with_end_the_call_before_they_return() -> None:
    provider = Endless()
    stream = await provider.execute("hi")
    await anext(stream)
    await stream.aclose()
    assert (provider.running, provider.calls_under_way) == (0, 0)
    await stream.aclose()
    async with await provider.execute("hi") as other:
        async for _ in other:
            break
    assert (provider.running, provider.calls_under_way) == (0, 0)


async def test_two_streams_do_not_mix() -> None:
    """Bad input 51."""
    provider = streaming(script=[f"a{i} b{i} c{i}" for i in range(2)])
    first, second = await provider.execute("1"), await provider.execute("2")
    seen: list[list[str]] = [[], []]
    for _ in range(3):
        seen[0].append(await anext(first))
        seen[1].append(await anext(second))
    assert ["".join(texts) for texts in seen] == ["a0 b0 c0", "a1 b1 c1"]
    await first.aclose()
    await second.aclose()


async def test_a_stream_that_was_closed_has_no_whole_answer() -> None:
    stream = await streaming().execute("hi")
    await anext(stream)
    await stream.aclose()
    assert stream.response is None
    with pytest.raises(RuntimeError, match="left before its end"):
        await stream
    assert [chunk async for chunk in stream] == []


async def test_an_error_in_the_middle_carries_the_text_so_far() -> None:
    """Bad input 40, 48."""
    cut = [StreamEvent.token("one "), StreamEvent.usage(Usage(1, 1)), LLMProviderServerError("cut")]
    stream = await streaming(script=[cut]).execute("hi")
    assert await anext(stream) == "one "
    with pytest.raises(LLMProviderServerError) as caught:
        await anext(stream)
    assert caught.value.response.content == "one "
    assert caught.value.response.usage == Usage(1, 1)
    assert stream.response is None


async def test_cancelling_a_reader_ends_the_call() -> None:
    """Bad input 50, 54."""
    closed = asyncio.Event()

    class Stalls(LLMProvider):
        name = "stalls"

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            try:
                yield StreamEvent.token("x")
                await asyncio.sleep(60)
            finally:
                closed.set()

    provider = Stalls("m", stream_mode="enabled")

    async def read() -> None:
        async for _ in await provider.execute("hi"):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
    assert provider.calls_under_way == 0


async def test_a_stream_of_a_closed_provider_says_so() -> None:
    provider = streaming()
    stream = await provider.execute("hi")
    await provider.close()
    with pytest.raises(ProviderClosedError):
        await anext(stream)


async def test_only_text_is_given() -> None:
    events = [StreamEvent.meta(a=1), StreamEvent.reasoning("hm"), StreamEvent.token("x"), StreamEvent.finish("stop")]
    stream = await streaming(script=[events]).execute("hi")
    assert [chunk async for chunk in stream] == ["x"]
    assert stream.response is not None
    assert stream.response.reasoning == "hm"
