"""Streams: they spell the answer, in order, and end when nobody listens."""

from __future__ import annotations

import asyncio
import time

from ...base import LLMProvider
from ...text_stream import TextStream
from ...types import LLMResponse, StreamEventType
from .kit import Kit


class StreamTests(Kit):
    """What a stream must be."""

    def test_a_stream_spells_the_answer(self) -> None:
        """F-071, F-073: tokens, usage before DONE, DONE last and once."""
        events = self._run(self._events)
        kinds = [event.type for event in events]
        assert StreamEventType.ERROR not in kinds, events[-1].data
        assert kinds[-1] is StreamEventType.DONE
        assert kinds.count(StreamEventType.DONE) == 1
        done = events[-1].data
        assert "".join(event.data for event in events if event.type is StreamEventType.TOKEN) == done.content
        assert done.content
        assert done.finish_reason
        if self.reports_usage:
            assert StreamEventType.USAGE in kinds
            assert done.usage.total_tokens

    def test_streamed_and_whole_answers_agree(self) -> None:
        """Stream first, fold later: text, finish reason and usage are the same either way."""

        async def work(provider: LLMProvider) -> tuple[LLMResponse, LLMResponse]:
            return await self._answer(provider), (await self._events(provider))[-1].data

        whole, streamed = self._run(work)
        if self.deterministic:
            assert streamed.content == whole.content
            assert streamed.finish_reason == whole.finish_reason
            assert (streamed.usage.input_tokens, streamed.usage.output_tokens) == (
                whole.usage.input_tokens,
                whole.usage.output_tokens,
            )
        assert streamed.model == whole.model
        assert streamed.provider_type == whole.provider_type

    def test_execute_streams_text(self) -> None:
        """F-129: an iterator of text; the whole answer is at hand afterwards. F-130: AUTO does either."""

        async def work(provider: LLMProvider) -> None:
            stream = await provider.execute(self.prompt, **self.options)
            assert isinstance(stream, TextStream)
            text = "".join([chunk async for chunk in stream])
            assert text
            assert stream.response is not None
            assert stream.response.content == text
            auto = await provider.execute(self.prompt, stream_mode="auto", **self.options)
            assert isinstance(auto, TextStream)
            assert (await auto).content

        self._run(work, stream_mode="enabled")

    def test_an_abandoned_stream_ends(self) -> None:
        """A consumer that leaves the loop ends the call within a second, and the next call works."""

        async def work(provider: LLMProvider) -> None:
            async for _ in provider.stream(self.prompt, **self.options):
                break
            stream = await provider.execute(self.prompt, stream_mode="enabled", **self.options)
            assert isinstance(stream, TextStream)
            async for _ in stream:
                break
            await stream.aclose()
            for _ in range(100):
                if provider.calls_under_way:
                    await asyncio.sleep(0.01)
            assert provider.calls_under_way == 0
            assert (await self._answer(provider)).ok

        self._run(work)

    def test_cancelling_passes_at_once(self) -> None:
        """task.cancel() ends a call within a second, as CancelledError, and the next call works."""

        async def work(provider: LLMProvider) -> None:
            await provider.warm_cache()
            task = asyncio.create_task(self._answer(provider, max_tokens=256))
            await asyncio.sleep(0.01)
            began = time.monotonic()
            task.cancel()
            await asyncio.wait([task])
            assert time.monotonic() - began < 1
            assert task.cancelled() or task.result().ok
            assert (await self._answer(provider)).ok

        self._run(work)
