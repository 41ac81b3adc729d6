"""The retry layer: one owner, counted attempts, nothing repeated."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from providers import (
    LLMProvider,
    LLMProviderAuthenticationError,
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderOverloadedError,
    LLMProviderQuotaError,
    LLMProviderRateLimitError,
    LLMProviderServerError,
    LLMProviderTimeoutError,
    PluginError,
    Request,
    RetryPolicy,
    StreamEvent,
    StreamEventType,
    Usage,
)
from providers.resilience import owning_retries, retries_owned, retrying
from providers.testing import ScriptedProvider

FAST = {"retry_delay": 0.001}


def flaky(failures: int, error: type[LLMProviderError] = LLMProviderServerError, **facts: Any) -> ScriptedProvider:
    return ScriptedProvider([*(error("no", **facts) for _ in range(failures)), "fine"], **FAST)


# --- how often


@pytest.mark.parametrize("failures", [0, 1, 3])
async def test_a_passing_failure_is_tried_again_and_each_attempt_is_one_request(failures: int) -> None:
    """F-144: failures + 1 requests."""
    provider = flaky(failures)
    response = await provider.execute("hi")
    assert response.content == "fine"
    assert len(provider.requests) == failures + 1


@pytest.mark.parametrize("max_retries", [0, 1, 2])
async def test_max_retries_n_means_n_plus_one_attempts(max_retries: int) -> None:
    """F-144, C-14."""
    provider = ScriptedProvider(lambda _: LLMProviderOverloadedError("busy"), max_retries=max_retries, **FAST)
    with pytest.raises(LLMProviderOverloadedError) as caught:
        await provider.execute("hi")
    assert len(provider.requests) == max_retries + 1
    assert caught.value.attempts == max_retries + 1


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_attempts_n_means_n(attempts: int) -> None:
    """F-064, F-070: `attempts` and `backoff` of one call go before the configuration."""
    provider = ScriptedProvider(lambda _: LLMProviderServerError("no"), max_retries=3)
    result = await provider.complete("hi", attempts=attempts, backoff=0.0)
    assert not result.ok
    assert len(provider.requests) == attempts


@pytest.mark.parametrize("attempts", [0, -1, True, 1.5, "3", math.inf])
async def test_attempts_are_checked(attempts: Any) -> None:
    provider = ScriptedProvider(["x"])
    with pytest.raises(LLMProviderConfigurationError, match="max_attempts"):
        await provider.execute("hi", attempts=attempts)
    assert provider.requests == []


async def test_final_errors_are_not_tried_again() -> None:
    """Bad input 37, 38: a refused key and an empty account are told at once."""
    for error in (LLMProviderAuthenticationError, LLMProviderQuotaError):
        provider = flaky(1, error)
        with pytest.raises(error):
            await provider.execute("hi")
        assert len(provider.requests) == 1


async def test_an_error_may_say_of_itself_that_it_is_final() -> None:
    provider = flaky(1, LLMProviderServerError, retryable=False)
    with pytest.raises(LLMProviderServerError):
        await provider.execute("hi")
    assert len(provider.requests) == 1


async def test_foreign_exceptions_end_the_call_at_once() -> None:
    provider = ScriptedProvider([KeyError("bug"), "never"])
    with pytest.raises(PluginError, match="bug") as caught:
        await provider.execute("hi")
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(provider.requests) == 1


async def test_the_message_tells_the_attempts() -> None:
    provider = ScriptedProvider(lambda _: LLMProviderServerError("no"), max_retries=1, **FAST)
    with pytest.raises(LLMProviderServerError, match="after 2 attempts"):
        await provider.execute("hi")


async def test_a_provider_made_by_hand_retries_too() -> None:
    class Plain(LLMProvider):
        name = "plain"
        count = 0

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            Plain.count += 1
            if Plain.count == 1:
                raise LLMProviderServerError("no")
            yield StreamEvent.token("fine")

    response = await Plain("m", **FAST).execute("hi")
    assert (response.content, Plain.count) == ("fine", 2)


async def test_a_storm_ends_each_call_after_its_own_attempts() -> None:
    """Bad input 34: 50 calls, 429 for ever."""
    provider = ScriptedProvider(lambda _: LLMProviderRateLimitError("slow down"), max_retries=2, **FAST)
    results = await asyncio.gather(*(provider.execute("hi") for _ in range(50)), return_exceptions=True)
    assert {type(result) for result in results} == {LLMProviderRateLimitError}
    assert len(provider.requests) == 150


# --- streams


async def test_nothing_is_tried_again_after_the_first_piece() -> None:
    """Bad input 52: a second attempt would repeat what the consumer has."""
    provider = ScriptedProvider([[StreamEvent.token("a"), LLMProviderServerError("cut")], "again"], **FAST)
    events = [event async for event in provider.stream("hi")]
    assert [event.type for event in events] == [StreamEventType.TOKEN, StreamEventType.ERROR]
    assert events[-1].data["content"] == "a"
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    "first",
    [
        StreamEvent.reasoning("hm"),
        StreamEvent.tool_start(0, "f", "id"),
        StreamEvent.token("a"),
    ],
    ids=lambda event: event.type.value,
)
async def test_reasoning_and_tool_calls_are_pieces_too(first: StreamEvent) -> None:
    provider = ScriptedProvider([[first, LLMProviderServerError("cut")], "again"], **FAST)
    events = [event async for event in provider.stream("hi")]
    assert events[-1].type is StreamEventType.ERROR
    assert len(provider.requests) == 1


async def test_a_whole_answer_is_tried_again_until_all_of_it_is_there() -> None:
    """Nobody reads along, so nothing can be repeated; and nothing of the failed attempt is in the answer."""
    half = [StreamEvent.token("half "), StreamEvent.tool_start(0, "f", "1"), StreamEvent.meta(model="wrong")]
    provider = ScriptedProvider([[*half, LLMProviderServerError("cut")], "whole"], **FAST)
    response = await provider.execute("hi")
    assert (response.content, response.tool_calls, response.model) == ("whole", None, "scripted")
    assert len(provider.requests) == 2


async def test_facts_alone_do_not_stop_a_retry_and_are_not_shown_twice() -> None:
    """A failure inside a stream that has just begun is tried again; the failed attempt's facts are dropped."""
    provider = ScriptedProvider(
        [
            [StreamEvent.meta(model="wrong"), StreamEvent.meta(response_id="1"), LLMProviderServerError("cut")],
            [StreamEvent.meta(model="right"), StreamEvent.token("x"), StreamEvent.finish("stop")],
        ],
        **FAST,
    )
    events = [event async for event in provider.stream("hi")]
    assert [event.type.value for event in events] == ["meta", "meta", "token", "meta", "done"]
    assert [attempt["error"] for attempt in events[0].data["attempts"]] == ["LLMProviderServerError"]
    done = events[-1].data
    assert (done.model, done.response_id, len(provider.requests)) == ("right", None, 2)


async def test_counts_alone_do_not_stop_a_retry_and_are_not_added_up() -> None:
    """Backends that count the prompt first and are overloaded then: the failed attempt's tokens are not shown."""
    provider = ScriptedProvider(
        [
            [StreamEvent.usage(Usage(10, 0)), LLMProviderOverloadedError("busy")],
            [StreamEvent.usage(Usage(11, 0)), StreamEvent.token("x"), StreamEvent.usage(Usage(11, 1))],
        ],
        **FAST,
    )
    events = [event async for event in provider.stream("hi")]
    assert [event.type.value for event in events] == ["meta", "usage", "token", "usage", "done"]
    assert [attempt["usage"] for attempt in events[0].data["attempts"]] == [Usage(10, 0)]
    assert (events[1].data.input_tokens, events[-1].data.usage.total_tokens) == (11, 12)


@pytest.mark.parametrize("last", ["no more attempts", "final at once"])
async def test_what_is_known_of_a_last_attempt_is_not_lost_with_it(last: str) -> None:
    """What the failed answer cost is on its error, although not a piece of it came."""
    error = LLMProviderOverloadedError if last == "no more attempts" else LLMProviderAuthenticationError
    about = [StreamEvent.meta(response_id="r1"), StreamEvent.usage(Usage(10, 0))]
    provider = ScriptedProvider(lambda _: [*about, error("no")], max_retries=1, **FAST)
    events = [event async for event in provider.stream("hi")]
    assert [event.type.value for event in events] == ["meta", "usage", "error"]
    with pytest.raises(error) as caught:
        await anext(await provider.execute("hi", stream_mode="enabled"))
    assert caught.value.response is not None
    assert (caught.value.response.usage.input_tokens, caught.value.response.response_id) == (10, "r1")
    assert len(provider.requests) == (4 if last == "no more attempts" else 2)


async def test_an_answer_of_facts_alone_arrives() -> None:
    provider = ScriptedProvider([[StreamEvent.meta(model="m1"), StreamEvent.finish("stop")]])
    response = await provider.execute("hi")
    assert (response.content, response.model, response.finish_reason) == ("", "m1", "stop")


async def test_an_answer_of_no_events_is_empty_and_not_tried_again() -> None:
    provider = ScriptedProvider([[], "never"])
    assert (await provider.execute("hi")).content == ""
    assert len(provider.requests) == 1


async def test_each_failed_attempt_is_closed_before_the_wait() -> None:
    closed: list[float] = []

    class Held(LLMProvider):
        name = "held"

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            try:
                yield StreamEvent.meta(model="m")
                raise LLMProviderServerError("no", retry_after=0.15)
            finally:
                closed.append(time.monotonic())

    provider = Held("m", max_retries=1)
    with pytest.raises(LLMProviderServerError):
        await provider.execute("hi")
    assert len(closed) == 2
    assert closed[1] - closed[0] >= 0.14


async def test_an_abandoned_stream_closes_the_call_underneath() -> None:
    """Bad input 50."""
    closed = asyncio.Event()

    class Endless(LLMProvider):
        name = "endless"

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            try:
                while True:
                    yield StreamEvent.token("x")
            finally:
                closed.set()

    async with aclosing(Endless("m").stream("hi")) as events:
        async for _ in events:
            break
    assert closed.is_set()


# --- one owner


async def test_each_failed_attempt_is_told_to_who_listens(caplog: pytest.LogCaptureFixture) -> None:
    """F-144: DEBUG says which attempt failed with what, and when the next one comes."""
    caplog.set_level(logging.DEBUG, logger="providers.retry")
    await flaky(2).execute("hi", attempts=3)
    told = [record.getMessage() for record in caplog.records if record.name == "providers.retry"]
    assert [text.partition(", next in")[0] for text in told] == [
        f"attempt {number} of 3 failed (LLMProviderServerError)" for number in (1, 2)
    ]


async def test_inside_another_owner_the_layer_stands_down() -> None:
    """C-14: attempts do not multiply."""
    provider = ScriptedProvider(lambda _: LLMProviderServerError("no"), max_retries=5, **FAST)
    with owning_retries(), pytest.raises(LLMProviderServerError):
        await provider.execute("hi")
    assert len(provider.requests) == 1


async def test_inside_another_owner_a_stream_makes_one_request_too() -> None:
    provider = ScriptedProvider(lambda _: LLMProviderServerError("no"), max_retries=5, **FAST)
    with owning_retries():
        events = [event async for event in provider.stream("hi")]
    assert [event.type for event in events] == [StreamEventType.ERROR]
    assert len(provider.requests) == 1


async def test_a_provider_inside_a_provider_does_not_multiply_attempts() -> None:
    inner = ScriptedProvider(lambda _: LLMProviderServerError("no"), max_retries=3, **FAST)

    class Outer(LLMProvider):
        name = "outer"
        calls = 0

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            Outer.calls += 1
            yield StreamEvent.token((await inner.execute("hi")).content)

    with pytest.raises(LLMProviderServerError):
        await Outer("m", max_retries=2, **FAST).execute("hi")
    assert (Outer.calls, len(inner.requests)) == (3, 3)


async def test_a_stream_inside_a_stream_does_not_multiply_attempts() -> None:
    """C-14: nor where a provider makes its stream of another one's, which fails before its first piece."""
    inner = ScriptedProvider(lambda _: LLMProviderServerError("no"), max_retries=3, **FAST)

    class Outer(LLMProvider):
        name = "outer"
        calls = 0

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            Outer.calls += 1
            async for piece in await inner.execute("hi", stream_mode="enabled"):
                yield StreamEvent.token(piece)

    events = [event async for event in Outer("m", max_retries=2, **FAST).stream("hi")]
    assert [event.type for event in events] == [StreamEventType.ERROR]
    assert (Outer.calls, len(inner.requests)) == (3, 3)


async def test_retrying_owns_what_it_calls() -> None:
    provider = ScriptedProvider(lambda _: LLMProviderServerError("no"), max_retries=5, **FAST)
    with pytest.raises(LLMProviderServerError) as caught:
        await retrying(RetryPolicy(2, 0.0), lambda: provider.execute("hi"))
    assert (len(provider.requests), caught.value.attempts) == (2, 2)


async def test_retrying_inside_an_owner_calls_once() -> None:
    calls = []

    async def fail() -> None:
        calls.append(1)
        raise LLMProviderTimeoutError("late")

    with owning_retries(), pytest.raises(LLMProviderTimeoutError):
        await retrying(RetryPolicy(4, 0.0), fail)
    assert len(calls) == 1


async def test_ownership_does_not_leak_into_the_consumer() -> None:
    """A consumer of one stream that makes another call owns nothing."""
    provider = ScriptedProvider([[StreamEvent.meta(a=1), StreamEvent.token("a"), StreamEvent.token("b")]] * 3)
    async for _ in provider.stream("hi"):
        assert not retries_owned()
    assert not retries_owned()
    stream = provider.stream("hi")
    await anext(stream)
    assert not retries_owned()
    await stream.aclose()
    assert not retries_owned()
    await provider.execute("hi")
    assert not retries_owned()


async def test_ownership_is_given_back_after_a_failure_and_a_cancellation() -> None:
    provider = ScriptedProvider([LLMProviderAuthenticationError("no")])
    with pytest.raises(LLMProviderAuthenticationError):
        await provider.execute("hi")
    assert not retries_owned()
    with pytest.raises(KeyError), owning_retries():
        raise KeyError
    assert not retries_owned()


async def test_steps_of_a_stream_may_run_in_different_contexts() -> None:
    """The sync face makes each step in a task, and so in a context, of its own."""
    provider = ScriptedProvider([LLMProviderServerError("no"), [StreamEvent.meta(a=1), StreamEvent.token("a")]], **FAST)
    stream = provider.stream("hi")
    seen = []
    while True:
        event = await asyncio.create_task(anext(stream, None))
        if event is None:
            break
        seen.append(event.type.value)
    assert seen == ["meta", "meta", "token", "done"]
