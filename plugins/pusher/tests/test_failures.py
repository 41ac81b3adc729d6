"""Pusher down, slow, refusing: the answer comes in any case, and what was lost is told."""

from __future__ import annotations

import asyncio
import time
import traceback
import warnings
from collections.abc import AsyncIterator, Callable

import pytest

from llm_provider_pusher import PusherStreamer, PusherWarning
from llm_provider_pusher import queue as room
from providers import (
    LLMProviderAuthenticationError,
    LLMProviderBadRequestError,
    LLMProviderConnectionError,
    LLMProviderError,
    LLMProviderTimeoutError,
    StreamEvent,
    StreamEventType,
)
from providers.resilience import owning_retries
from providers.testing import Fault, LoopbackServer, Reply

from .conftest import KEY, SECRET, Pusher
from .test_streams import done, spoken, tasks_left

Make = Callable[..., PusherStreamer]

ECHO = {"error": f"Invalid signature: auth_key={KEY}, your secret {SECRET}"}
BROKEN = [
    Fault.status(500, ECHO),
    Fault.status(401, ECHO),
    Fault.status(403, f"account of {SECRET} is disabled"),
    Fault.status(400, f"bad {KEY}"),
    Fault.status(413, "too large"),
    Fault.redirect("https://example.org/?auth_key=" + KEY),
    Fault.hang_up(),
    Fault.hang_up("reset"),
    Fault.silence(),
    Reply.raw(b"HTTP/1.1 what is this\r\n\r\n"),
    Reply.raw(b"\x00\x01\x02"),
    Fault.short_body({"a": "b" * 100}),
]


@pytest.mark.parametrize("reply", BROKEN, ids=range(len(BROKEN)))
async def test_an_outage_never_fails_the_answer(make: Make, pusher: Pusher, reply: Reply) -> None:
    """F-105: one warning, without a secret in it."""
    pusher.always = reply
    async with make(timeout=0.1) as streamer:
        with pytest.warns(PusherWarning, match="did not reach the channel private-chat-1") as caught:
            response = await streamer.consume(spoken("a", "b", done("ab")))
        assert response.content == "ab"
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert tasks_left() == []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (await streamer.consume(spoken(done("c")))).content == "c"


async def _gather(events: AsyncIterator[StreamEvent], into: list[StreamEvent]) -> None:
    async for event in events:
        into.append(event)


@pytest.mark.parametrize("reply", BROKEN, ids=range(len(BROKEN)))
async def test_with_raise_the_error_comes_after_the_answer(make: Make, pusher: Pusher, reply: Reply) -> None:
    pusher.always = reply
    seen: list[StreamEvent] = []
    async with make(timeout=0.1, on_failure="raise") as streamer:
        with pytest.raises(LLMProviderError) as caught:
            await streamer.consume(spoken("a", done("a")))
        assert caught.value.response is not None
        assert caught.value.response.content == "a"
        shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
        cause: BaseException | None = caught.value
        while cause is not None:
            shown += f"{cause} {cause!r} {vars(cause)!r}"
            cause = cause.__cause__ or cause.__context__
        assert SECRET not in shown
        assert KEY not in shown
        with pytest.raises(LLMProviderError):
            await _gather(streamer.through(spoken("a", done("a"))), seen)
        assert len(seen) == 2


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Fault.status(401, "no"), LLMProviderAuthenticationError),
        (Fault.status(413, "no"), LLMProviderBadRequestError),
        (Fault.hang_up(), LLMProviderConnectionError),
        (Fault.silence(), LLMProviderTimeoutError),
    ],
)
async def test_the_class_says_what_it_was(
    make: Make, pusher: Pusher, reply: Reply, kind: type[LLMProviderError]
) -> None:
    pusher.always = reply
    streamer = make(timeout=0.1, on_failure="raise")
    await streamer.push(StreamEvent.token("a"))
    with pytest.raises(kind, match="pusher: ") as caught:
        await streamer.flush()
    assert type(caught.value) is kind
    await streamer.flush()  # told once
    await streamer.close()


@pytest.mark.parametrize("on_failure", ["warn", "raise"])
async def test_what_passes_is_tried_again(make: Make, pusher: Pusher, on_failure: str) -> None:
    pusher.failing = [Fault.status(503, "later"), Fault.hang_up()]
    async with make(on_failure=on_failure) as streamer:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await streamer.consume(spoken("a", done("a")))
    assert pusher.data("token") == ["a"]
    assert len(pusher.server.requests) == 3


async def test_retries_are_its_own(make: Make, pusher: Pusher) -> None:
    """An owner of the retries of model calls (a bulk run, a fallback) does not own those of pushing."""
    pusher.failing = [Fault.status(500)]
    async with make(on_failure="raise") as streamer:
        with owning_retries():
            await streamer.consume(spoken("a", done()))
    assert pusher.data("token") == ["a"]


async def test_what_is_wrong_for_good_is_not_tried_again(make: Make, pusher: Pusher) -> None:
    pusher.always = Fault.status(401, "unknown key")
    streamer = make(on_failure="raise")
    await streamer.push(StreamEvent.token("a"))
    with pytest.raises(LLMProviderAuthenticationError):
        await streamer.close()
    assert len(pusher.server.requests) == 1


async def test_an_outage_in_the_middle_loses_nothing(
    make: Make, pusher: Pusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the retries: what failed is kept, texts are joined meanwhile, the order stays."""
    monkeypatch.setattr(room, "_REST", 0.1)
    pusher.failing = [Fault.status(503)] * 4
    words = [f"{number} " for number in range(60)]
    async with make(batch_seconds=0.01, on_failure="raise") as streamer:
        await streamer.consume(spoken(*words, done("x"), pause=0.01))
    assert "".join(pusher.data("token")) == "".join(words)
    assert [one["seq"] for one in pusher.events] == list(range(1, len(pusher.events) + 1))
    assert pusher.events[-1]["type"] == "done"


async def test_a_dead_pusher_is_left_alone(make: Make, pusher: Pusher) -> None:
    """One request, then rests: no request for each piece of a long answer."""
    pusher.always = Fault.status(500)
    async with make(batch_seconds=0.0) as streamer:
        with pytest.warns(PusherWarning):
            await streamer.consume(spoken(*["a"] * 50, done("a"), pause=0.005))
    assert len(pusher.server.requests) == 4  # three tries, and one at the end


async def test_a_silent_pusher_costs_no_more_than_its_time_outs(make: Make, pusher: Pusher) -> None:
    pusher.always = Fault.silence()
    began = time.monotonic()
    async with make(timeout=0.2) as streamer:
        with pytest.warns(PusherWarning):
            await streamer.consume(spoken(*(StreamEvent.meta(number=number) for number in range(500)), done("a")))
    assert time.monotonic() - began < 1.5


async def test_one_refused_event_does_not_take_the_others_along(make: Make, pusher: Pusher) -> None:
    pusher.failing = [Fault.status(413, "too large")]
    async with make() as streamer:
        await streamer.push(StreamEvent.token("a"))
        with pytest.warns(PusherWarning, match="1 events did not reach"):
            await streamer.flush()
        await streamer.push(StreamEvent.token("b"))
        await streamer.flush()
    assert [(one["data"], one["seq"]) for one in pusher.events] == [("b", 2)]  # the gap tells of the loss


async def test_a_value_that_cannot_be_written_is_lost_alone(make: Make, pusher: Pusher) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    async with make() as streamer:
        with pytest.warns(PusherWarning, match="no words"):
            response = await streamer.consume(spoken("a", StreamEvent.meta(odd=Odd()), done("a")))
    assert response.content == "a"
    assert [one["type"] for one in pusher.events] == ["token", "done"]


async def test_an_event_of_an_odd_shape_is_lost_alone(make: Make, pusher: Pusher) -> None:
    delta = StreamEventType.TOOL_CALL_DELTA
    events = [
        StreamEvent(StreamEventType.TOKEN, "a", timestamp=float("nan")),
        StreamEvent.tool_delta(0, "x"),
        StreamEvent(delta, ["x"]),
        StreamEvent(delta, None),
        done("a"),
    ]
    async with make() as streamer:
        with pytest.warns(PusherWarning, match="1 events did not reach"):
            await streamer.consume(spoken(*events))
    assert [one["type"] for one in pusher.events] == ["tool_call_delta"] * 3 + ["done"]
    assert [one["seq"] for one in pusher.events] == [1, 2, 3, 4]


async def test_nobody_listens(server: LoopbackServer, make: Make) -> None:
    server.close()
    async with make() as streamer:
        with pytest.warns(PusherWarning):
            assert (await streamer.consume(spoken(done("a")))).content == "a"


async def test_the_blocks_own_error_goes_first(make: Make, pusher: Pusher, caplog: pytest.LogCaptureFixture) -> None:
    pusher.always = Fault.status(500)

    async def block() -> None:
        async with make(on_failure="raise") as streamer:
            await streamer.push(StreamEvent.token("a"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()
    assert "did not reach the channel" in caplog.text


async def test_a_cancelled_close_ends_all(make: Make, pusher: Pusher, server: LoopbackServer) -> None:
    pusher.always = Fault.silence()
    streamer = make()
    await streamer.push(StreamEvent.token("a"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await streamer.close()
    assert tasks_left() == []
    assert await server.eventually(lambda: server.open_connections == 0)
