"""The bound of calls under way over a reload: what is under way counts on, and what was learned is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from providers import LLMProvider, LLMProviderRateLimitError, Request, StreamEvent

pytestmark = pytest.mark.usefixtures("house")


class Held(LLMProvider):
    """Waits at its second piece until it may go on; refuses what says so."""

    name = "held"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate = asyncio.Event()
        self.begun = 0

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        self.begun += 1
        if "refuse" in request.messages.last_text:
            raise LLMProviderRateLimitError("no", retry_after=0.01)
        yield StreamEvent.token("a")
        if "wait" in request.messages.last_text:
            await self.gate.wait()
        yield StreamEvent.token("b")
        yield StreamEvent.finish("stop")


async def test_a_stream_from_before_counts_in_the_bound_afterwards() -> None:
    """Issue: live settings; C-15. Else each reload would let in as many calls more as are under way."""
    async with Held("m", max_concurrency=1) as provider, aclosing(provider.stream("wait")) as stream:
        await anext(stream)
        await provider.reload()
        waiting = asyncio.create_task(provider.execute("Hi"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert (provider.begun, waiting.done()) == (1, False)
        provider.gate.set()
        async for _ in stream:
            pass
        assert (await asyncio.wait_for(waiting, 10)).content == "ab"
        assert provider.begun == 2


async def test_another_bound_counts_from_the_next_call_on() -> None:
    """Issue: a changed limit is taken for the next call."""
    async with Held("m", max_concurrency=1) as provider, aclosing(provider.stream("wait")) as stream:
        await anext(stream)
        await provider.reload(max_concurrency=2)
        assert (await asyncio.wait_for(provider.execute("Hi"), 10)).content == "ab"
        assert provider.begun == 2


async def test_what_a_refusal_has_taught_is_kept() -> None:
    """The bound was halved; the same settings, read again, do not raise it."""
    async with Held("m", max_concurrency=4, max_retries=0) as provider:
        with pytest.raises(LLMProviderRateLimitError):
            await provider.execute("refuse")
        await provider.reload()
        calls = [asyncio.create_task(provider.execute("wait")) for _ in range(4)]
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if provider.begun == 3:
                break
        for _ in range(20):  # for one more, if it were let in
            await asyncio.sleep(0.001)
        assert provider.begun == 1 + 2
        provider.gate.set()
        assert {answer.content for answer in await asyncio.gather(*calls)} == {"ab"}
