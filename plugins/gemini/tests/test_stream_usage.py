"""What a stream tells of its usage: two events at most, and the right figures wherever it is left or breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_provider_gemini.common import renew_usage, usage_of
from providers.exceptions import LLMProviderStreamError
from providers.pipeline import Assembler
from providers.testing.server import Fault, LoopbackServer, Reply
from providers.types import Messages, Request, StreamEventType, Usage

from . import bodies
from .conftest import Make

REQUEST = Request("m", Messages.of("Hi"), stream=True)
PLAIN: dict[str, int] = {}
THINKING = {"thoughtsTokenCount": 3, "cachedContentTokenCount": 4}


def growing(more: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Chunks of one letter without an end; each tells one token more, and real ones name the index 0."""
    for said in count(1):
        usage = {"promptTokenCount": 14, "candidatesTokenCount": said, "totalTokenCount": 14 + said, **more}
        if more:
            usage["totalTokenCount"] += more["thoughtsTokenCount"]
        part = bodies.candidate(bodies.text("a"), finish=None, index=0)
        yield {"candidates": [part], "usageMetadata": usage, **bodies.HEAD}


def used(said: int, more: dict[str, int]) -> Usage:
    """What has been used when so many tokens were said."""
    return Usage(14, said + 3, 14 + said + 3, 4, None, 3) if more else Usage(14, said, 14 + said)


@pytest.mark.parametrize("more", [PLAIN, THINKING], ids=["plain", "thinking"])
async def test_a_stream_that_is_left(make: Make, server: LoopbackServer, transport: str, more: dict[str, int]) -> None:
    """Leaving a stream ends the call on the wire at once, and what it used until then is known."""
    server.script("*", Reply.sse(lambda: growing(more), pause=0.01))
    stream, assembler = make(transport=transport).stream("Hi"), Assembler(REQUEST)
    tokens, usages = 0, []
    async for event in stream:
        assembler.feed(event)
        tokens += event.type is StreamEventType.TOKEN
        usages += [event.data] if event.type is StreamEventType.USAGE else []
        if tokens == 5:
            break
    await stream.aclose()
    assert await server.eventually(lambda: server.disconnects == 1)
    assert [usage.without_costs() for usage in usages] == [used(5, more)]
    assert assembler.response(partial=True).usage.without_costs() == used(5, more)


@pytest.mark.parametrize("more", [PLAIN, THINKING], ids=["plain", "thinking"])
async def test_a_stream_that_is_cancelled(
    make: Make, server: LoopbackServer, transport: str, more: dict[str, int]
) -> None:
    """The answer as far as it came holds the usage of the last chunk that was read."""
    server.script("*", Reply.sse(lambda: growing(more), pause=0.01))
    stream, assembler = make(transport=transport).stream("Hi"), Assembler(REQUEST)
    begun = asyncio.Event()

    async def read() -> None:
        said = 0
        async for event in stream:
            assembler.feed(event)
            said += event.type is StreamEventType.TOKEN
            if said == 4:
                begun.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert await server.eventually(lambda: server.disconnects == 1)
    answer = assembler.response(partial=True)
    assert len(answer.content) >= 4
    assert answer.usage.without_costs() == used(len(answer.content), more)


@pytest.mark.parametrize("more", [PLAIN, THINKING], ids=["plain", "thinking"])
async def test_a_stream_that_breaks_off(
    make: Make, server: LoopbackServer, transport: str, more: dict[str, int]
) -> None:
    """bad inputs: the error holds what the backend had said until then, of the text and of the usage."""
    whole = Reply.sse(list(islice(growing(more), 9)), done=None)
    server.script("*", Fault.cut(whole, after_events=6, how="close"), repeat=True)
    provider = make(transport=transport, max_retries=0)
    with pytest.raises(LLMProviderStreamError) as caught:
        async for _ in await provider.execute("Hi", stream_mode="enabled"):
            pass
    answer = caught.value.response
    assert (answer.content, answer.usage.without_costs()) == ("aaaaaa", used(6, more))
    usages = [event.data async for event in provider.stream("Hi") if event.type is StreamEventType.USAGE]
    assert [usage.without_costs() for usage in usages] == [used(6, more)]


async def test_two_events_at_most(make: Make, server: LoopbackServer) -> None:
    """F-073: the first that is told, and where the figures have changed the last, before DONE."""
    for chunks, expected in ((9, 2), (1, 1)):
        pieces = list(islice(growing(PLAIN), chunks))
        pieces[-1]["candidates"][0]["finishReason"] = "STOP"
        server.script("*", Reply.sse(pieces, done=None))
        events = [event async for event in make().stream("Hi")]
        assert [event.type for event in events].count(StreamEventType.USAGE) == expected
        assert events[-1].data.usage.without_costs() == used(chunks, PLAIN)
        assert events[-1].data.content == "a" * chunks


async def test_usage_that_comes_late(make: Make, server: LoopbackServer) -> None:
    """Zeros are unknown, not used; the first figures that mean something are the first that are told."""
    pieces = list(islice(growing(PLAIN), 4))
    pieces[0]["usageMetadata"] = {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}
    del pieces[1]["usageMetadata"]
    pieces[3]["usageMetadata"] = {}
    pieces[3]["candidates"][0]["finishReason"] = "STOP"
    server.script("*", Reply.sse(pieces, done=None))
    events = [event async for event in make().stream("Hi") if event.type is not StreamEventType.META]
    assert [event.type.name for event in events] == ["TOKEN", "TOKEN", "TOKEN", "USAGE", "TOKEN", "DONE"]
    assert events[-1].data.usage.without_costs() == used(3, PLAIN)


figures = st.dictionaries(
    st.sampled_from(
        [
            *("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount"),
            *("toolUsePromptTokenCount", "cachedContentTokenCount", "promptTokensDetails"),
        ]
    ),
    st.one_of(st.integers(-1, 30), st.none(), st.booleans(), st.floats(), st.text(max_size=2)),
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(figures, st.none(), st.lists(st.integers())))
def test_a_usage_is_renewed_as_it_is_read(data: Any) -> None:
    known = Usage(9, 9, 18, 9, None, 9)
    usage = Usage(9, 9, 18, 9, None, 9)
    renew_usage(usage, data)
    assert usage == (usage_of(data) or known)
