"""What a channel gets of a stream, and that the stream does not notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest

from llm_provider_pusher import PusherStreamer
from providers import (
    LLMProviderError,
    LLMProviderRateLimitError,
    LLMProviderStreamError,
    LLMResponse,
    ProviderClosedError,
    StreamEvent,
    StreamEventType,
    ToolCall,
    Usage,
)
from providers.testing import EchoProvider, Fault, LoopbackServer, Reply, ScriptedProvider

from .conftest import Pusher

Make = Callable[..., PusherStreamer]


async def spoken(*events: Any, pause: float = 0.0) -> AsyncIterator[StreamEvent]:
    for event in events:
        if isinstance(event, BaseException):
            raise event
        yield StreamEvent.token(event) if isinstance(event, str) else event
        if pause:
            await asyncio.sleep(pause)


def done(text: str = "", **words: Any) -> StreamEvent:
    return StreamEvent(StreamEventType.DONE, LLMResponse(text, **words))


def tasks_left() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_an_answer_is_pushed_and_given(make: Make, pusher: Pusher) -> None:
    """F-105: in order, signed (the server checks), and few requests."""
    words = " ".join(f"word{number}" for number in range(500))
    async with EchoProvider() as provider, make() as streamer:
        response = await streamer.consume(provider.stream(words))
        assert tasks_left() == []
    assert response.content == words
    assert "".join(pusher.data("token")) == words
    [whole] = pusher.data("done")
    assert (whole["content"], whole["finish_reason"]) == (words, "stop")
    assert [one["seq"] for one in pusher.events] == list(range(1, len(pusher.events) + 1))
    assert all(abs(one["timestamp"] - time.time()) < 60 for one in pusher.events)
    assert len(pusher.batches) <= 5
    assert pusher.events[-1]["type"] == "done"


async def test_each_kind_of_event(make: Make, pusher: Pusher) -> None:
    events = [
        StreamEvent.reasoning("hm"),
        StreamEvent.reasoning("m"),
        StreamEvent.token("a"),
        StreamEvent.tool_start(0, "look", "c1"),
        StreamEvent.tool_delta(0, '{"x"'),
        StreamEvent.tool_delta(0, ":1}"),
        StreamEvent.tool_delta(1, "{}"),
        StreamEvent.tool_call(ToolCall("look", {"x": 1}, "c1")),
        StreamEvent.usage(Usage(1, 2)),
        StreamEvent.meta(model="m", odd=float("nan")),
        StreamEvent(StreamEventType.ERROR, {"status": 500, "error": "no"}),
        done("a"),
    ]
    seen = []
    async with make() as streamer:
        async for event in streamer.through(spoken(*events)):
            seen.append(event)
    assert all(one is other for one, other in zip(seen, events, strict=True))
    found = [(one["type"], one["data"]) for one in pusher.events]
    assert found[:6] == [
        ("reasoning", "hmm"),
        ("token", "a"),
        ("tool_call_start", {"index": 0, "id": "c1", "name": "look", "arguments": ""}),
        ("tool_call_delta", {"index": 0, "id": None, "name": None, "arguments": '{"x":1}'}),
        ("tool_call_delta", {"index": 1, "id": None, "name": None, "arguments": "{}"}),
        ("tool_call_end", json.loads(json.dumps(events[7].data.to_dict()))),
    ]
    assert found[6][1]["output_tokens"] == 2
    assert found[7] == ("meta", {"model": "m", "odd": None})
    assert [kind for kind, _ in found[8:]] == ["error", "done"]
    assert len(pusher.batches) == 1


async def test_texts_are_joined_within_the_time(make: Make, pusher: Pusher) -> None:
    async with make(batch_seconds=0.2) as streamer:
        for text in "abc":
            await streamer.push(StreamEvent.token(text))
        await asyncio.sleep(0.4)
        assert pusher.data("token") == ["abc"]
        assert tasks_left() == []
        await streamer.push(StreamEvent.token("d"))
        await streamer.flush()
        assert pusher.data("token") == ["abc", "d"]
    assert [request.path for request in pusher.server.requests] == ["/apps/1234/events"] * 2


async def test_one_request_at_a_time(make: Make, pusher: Pusher) -> None:
    pusher.failing = []
    pusher.server.script("*", *[_late(pusher) for _ in range(3)], Reply.json({}), repeat=True)
    async with make(batch_seconds=0.0) as streamer:
        async for _ in streamer.through(spoken(*"abcdefghij", pause=0.02)):
            pass
    requests = pusher.server.requests
    assert len(requests) >= 3
    for one, other in pairwise(requests):
        assert one.answered_at is not None
        assert one.answered_at <= other.received_at
    assert "".join(_texts(request.json) for request in requests) == "abcdefghij"


def _late(pusher: Pusher) -> Reply:
    return Fault.delay(0.05, Reply.json({}))


def _texts(body: dict[str, Any]) -> str:
    return "".join(json.loads(one["data"])["data"] for one in body.get("batch", [body]))


async def test_what_is_too_large_is_cut(make: Make, pusher: Pusher) -> None:
    """F-105: no event above 10 kB (the server checks), and the parts are the whole."""
    text = 'Grüße "and" \\ more\n\x01 \U0001f600' * 4000
    call = ToolCall("look", {"x": "y" * 30_000}, "c1")
    async with make() as streamer:
        response = await streamer.consume(
            spoken(text, StreamEvent.tool_delta(0, "z" * 30_000), StreamEvent.tool_call(call), done(text))
        )
    assert response.content == text
    assert "".join(pusher.data("token")) == text
    assert "".join(one["arguments"] for one in pusher.data("tool_call_delta")) == "z" * 30_000
    for kind, whole in (("tool_call_end", call.to_dict()), ("done", response.to_dict())):
        parts = [one for one in pusher.events if one["type"] == kind]
        assert [one["part"] for one in parts] == list(range(1, parts[0]["parts"] + 1))
        assert json.loads("".join(one["data"] for one in parts)) == whole


async def test_half_a_character_and_nothing_at_all(make: Make, pusher: Pusher) -> None:
    async with make() as streamer:
        for text in ("\ud83d", ""):
            await streamer.push(StreamEvent.token(text))
            await streamer.flush()
    assert pusher.data("token") == ["\ufffd", ""]


async def test_a_slow_pusher_does_not_slow_the_stream(make: Make, pusher: Pusher) -> None:
    """Texts are joined while a request is under way, also where the usage comes with each of them; nothing is lost."""
    pusher.failing = [Fault.delay(0.5, Reply.json({}))]  # a 200 of which the server keeps no record
    tokens = [f"{number} " for number in range(3000)]
    events = [event for token in tokens for event in (token, StreamEvent.usage(Usage(1, 1)))]
    began = time.monotonic()
    async with make(batch_seconds=0.0) as streamer:
        await streamer.push(StreamEvent.meta(first=True))
        await asyncio.sleep(0.1)
        async for event in streamer.through(spoken(*events, done())):
            if event.type is StreamEventType.DONE:
                assert time.monotonic() - began < 0.45
    assert "".join(pusher.data("token")) == "".join(tokens)
    assert len(pusher.batches) == 1
    assert len(pusher.data("usage")) == 1


async def test_more_than_the_queue_takes_waits_and_is_not_lost(make: Make, pusher: Pusher) -> None:
    async with make() as streamer:
        async for _ in streamer.through(spoken(*(StreamEvent.meta(number=number) for number in range(2500)))):
            assert len(streamer._queue._waiting) <= 1000
    assert [one["number"] for one in pusher.data("meta")] == list(range(2500))


async def test_what_the_consumer_changes_is_not_pushed(make: Make, pusher: Pusher) -> None:
    async with make() as streamer:
        async for event in streamer.through(spoken(StreamEvent.meta(a=1))):
            event.data.clear()
    assert pusher.data("meta") == [{"a": 1}]


async def test_an_early_leave_closes_the_stream_and_pushes_what_came(make: Make, pusher: Pusher) -> None:
    closed = []

    async def endless() -> AsyncIterator[StreamEvent]:
        try:
            while True:
                yield StreamEvent.token("a")
        finally:
            closed.append(True)

    async with make(batch_seconds=10.0) as streamer:
        events = streamer.through(endless())
        async for _ in events:
            break
        await events.aclose()
        assert closed == [True]
        assert await pusher.server.eventually(lambda: pusher.data("token"))
        await streamer.flush()
        assert pusher.data("token") == ["a"]
        assert tasks_left() == []


@pytest.mark.parametrize("held", [True, False])
def test_a_stream_that_is_dropped_at_the_end_of_its_loop(
    make: Make, pusher: Pusher, held: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Without `aclosing` or `async with`: the loop's end closes the stream, and nothing complains."""
    keep = []

    async def main() -> None:
        events = make(batch_seconds=10.0).through(spoken(*"abc"))
        if held:
            keep.append(events)
        async for _ in events:
            break

    asyncio.run(main())
    assert "an error occurred" not in caplog.text
    assert "Task was destroyed" not in caplog.text
    assert pusher.server.wait_until(lambda: pusher.server.open_connections == 0)


async def test_cancelling_is_quick_and_leaves_no_task(make: Make, pusher: Pusher, server: LoopbackServer) -> None:
    pusher.always = Fault.silence()
    closed = asyncio.Event()

    async def stalled() -> AsyncIterator[StreamEvent]:
        try:
            yield StreamEvent.token("a")
            await asyncio.sleep(60)
        finally:
            closed.set()

    async def work() -> None:
        async with make(batch_seconds=0.0) as streamer:
            await streamer.consume(stalled())

    task = asyncio.create_task(work())
    assert await server.eventually(lambda: server.requests)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
    assert time.monotonic() - began < 2.0
    assert tasks_left() == []
    assert await server.eventually(lambda: server.open_connections == 0)


async def test_what_came_before_a_cancel_is_pushed(make: Make, pusher: Pusher) -> None:
    async def stalled() -> AsyncIterator[StreamEvent]:
        yield StreamEvent.token("a")
        await asyncio.sleep(60)

    async with make(batch_seconds=5.0) as streamer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await streamer.consume(stalled())
    assert pusher.data("token") == ["a"]


async def test_a_cancelled_flush_does_not_stop_the_pushing(make: Make, pusher: Pusher) -> None:
    pusher.server.clear()
    pusher.server.script("*", Fault.delay(0.2, Reply.json({})), repeat=True)
    async with make() as streamer:
        await streamer.push(StreamEvent.token("a"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await streamer.flush()
        await streamer.flush()
    assert len(pusher.server.requests) == 1
    assert pusher.server.disconnects == 0


def test_several_loops_one_after_another(make: Make, pusher: Pusher) -> None:
    """What a loop's end cut off is pushed by the next one."""
    streamer = make(batch_seconds=5.0)

    async def push(text: str, last: bool = False) -> None:
        await streamer.push(StreamEvent.token(text))
        await asyncio.sleep(0.01)
        if last:
            await streamer.close()

    for text in "abc":
        asyncio.run(push(text))
    loop = asyncio.new_event_loop()  # one that is dropped with the task in it
    loop.run_until_complete(push("d"))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    asyncio.run(push("e", last=True))
    assert pusher.data("token") == ["abcde"]
    assert pusher.server.wait_until(lambda: pusher.server.open_connections == 0)


async def test_two_streams_at_the_same_time(make: Make, pusher: Pusher) -> None:
    async with make() as streamer:
        one, two = await asyncio.gather(
            streamer.consume(spoken(*"abc", done("abc"), pause=0.01)), streamer.consume(spoken(*"xyz", done("xyz")))
        )
    assert (one.content, two.content) == ("abc", "xyz")
    assert sorted("".join(pusher.data("token"))) == sorted("abcxyz")
    assert [one["seq"] for one in pusher.events] == list(range(1, len(pusher.events) + 1))


async def test_a_failure_of_the_backend_is_pushed_and_raised(make: Make, pusher: Pusher) -> None:
    error = LLMProviderRateLimitError("slow down", status_code=429)
    provider = ScriptedProvider([[StreamEvent.token("a"), error]], max_retries=0)
    async with make() as streamer:
        with pytest.raises(LLMProviderError, match="slow down") as caught:
            await streamer.consume(provider.stream("Hi"))
        assert caught.value.status_code == 429
    assert pusher.data("token") == ["a"]
    [told] = pusher.data("error")
    assert told["status"] == 429


async def test_what_a_stream_raises_is_told_by_name_only(make: Make, pusher: Pusher) -> None:
    async with make() as streamer:
        with pytest.raises(ValueError, match="private words"):
            await streamer.consume(spoken("a", ValueError("private words")))
        with pytest.raises(LLMProviderStreamError, match="without its last event"):
            await streamer.consume(spoken("b"))
    assert pusher.data("error") == [{"status": None, "error": "ValueError"}]
    assert pusher.data("token") == ["a", "b"]


async def test_a_closed_streamer_says_so(make: Make) -> None:
    streamer = make()
    await streamer.close()
    await streamer.close()
    for call in (streamer.push(StreamEvent.token("a")), streamer.consume(spoken("a")), streamer.__aenter__()):
        with pytest.raises(ProviderClosedError):
            await call
