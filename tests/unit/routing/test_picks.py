"""Who answers: outages, throttling, long prompts and missing powers, over real connections, whole and streamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from providers.exceptions import (
    LLMProviderBadRequestError,
    LLMProviderConfigurationError,
    LLMProviderContentFilterError,
    LLMProviderOverloadedError,
    LLMProviderRateLimitError,
    LLMProviderTokenLimitError,
    LLMProviderUnsupportedOperationError,
)
from providers.routing import FallbackProvider
from providers.testing import EchoProvider, Fault, LoopbackServer, ScriptedProvider

from .backend import (
    FILTERED,
    LOST_KEY,
    NO_MODEL,
    OUTAGE,
    PATH,
    QUOTA,
    TOO_LONG,
    WRONG,
    Clock,
    ask,
    either,
    last_event,
    throttled,
)
from .conftest import Make

Pair = Callable[..., FallbackProvider]
STREAMING = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
TOOL = {"name": "t", "description": "d", "parameters": {"type": "object", "properties": {}}}


@STREAMING
@pytest.mark.parametrize(
    ("fault", "error", "status", "warns"),
    [
        (OUTAGE, "LLMProviderOverloadedError", 503, False),
        (Fault.status(500), "LLMProviderServerError", 500, False),
        (Fault.hang_up(), "LLMProviderConnectionError", None, False),
        (Fault.not_json(), "LLMProviderResponseError", 200, False),
        (throttled(), "LLMProviderRateLimitError", 429, False),
        (QUOTA, "LLMProviderQuotaError", 429, True),
        (LOST_KEY, "LLMProviderAuthenticationError", 401, True),
        (NO_MODEL, "LLMProviderNotFoundError", 404, True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_the_second_target_answers_for_the_first_one(
    one: LoopbackServer,
    two: LoopbackServer,
    pair: Pair,
    fault: Any,
    error: str,
    status: int | None,
    warns: bool,
    streaming: bool,
    recwarn: pytest.WarningsRecorder,
) -> None:
    one.script(PATH, fault)
    two.script(PATH, either())
    response = await ask(pair(), streaming=streaming)
    assert response.content.replace(" ", "") == "Hellothere"
    assert (response.provider_type, response.model) == ("openai", "gpt-4")
    assert response.metadata["target"] == "openai/second"
    [attempt] = response.metadata["attempts"]
    assert attempt["error"] in (error, "LLMProviderStreamError")  # what is no stream at all
    assert attempt["status"] in (status, None)
    assert (attempt["provider"], attempt["model"], attempt["target"]) == ("openai", "first", "openai/first")
    assert (one.count(PATH), two.count(PATH)) == (1, 1)
    assert len([item for item in recwarn if "openai/first is passed over" in str(item.message)]) == warns
    assert [request.json["model"] for request in (*one.requests, *two.requests)] == ["first", "second"]


async def test_nobody_listens_and_nobody_answers_in_time(two: LoopbackServer, make: Make, one: LoopbackServer) -> None:
    two.script(PATH, either("late"), repeat=True)
    one.script(PATH, Fault.silence())
    gone = LoopbackServer().start()
    gone.close()
    fallback = FallbackProvider([make(gone, "gone"), make(one, "mute", timeout=0.2), make(two)], max_retries=0)
    response = await ask(fallback)
    assert response.content == "late"
    assert [item["error"] for item in response.metadata["attempts"]] == [
        "LLMProviderConnectionError", "LLMProviderTimeoutError"
    ]  # fmt: skip


@STREAMING
async def test_a_mistake_and_a_refusal_end_the_call(
    one: LoopbackServer, two: LoopbackServer, pair: Pair, streaming: bool
) -> None:
    fallback = pair(max_retries=3)
    for fault, kind in ((WRONG, LLMProviderBadRequestError), (FILTERED, LLMProviderContentFilterError)):
        one.script(PATH, fault)
        with pytest.raises(kind):
            await ask(fallback, streaming=streaming)
    assert (one.count(PATH), two.count(PATH)) == (2, 0)
    two.script(PATH, either("allowed"))
    one.script(PATH, FILTERED)
    assert (await ask(pair(refused=True), streaming=streaming)).content == "allowed"


@STREAMING
async def test_a_prompt_that_is_too_long_goes_to_larger_windows_only(
    one: LoopbackServer, two: LoopbackServer, make: Make, streaming: bool
) -> None:
    """And never again to the same target, also after a wait."""
    small = make(one, "small", token_limit=1000)
    same = make(one, "same", token_limit=1000)
    large = make(two, "large", token_limit=9000)
    one.script(PATH, TOO_LONG, repeat=True)
    two.script(PATH, OUTAGE, either("it fits"))
    fallback = FallbackProvider([small, same, large], max_retries=1, retry_delay=0.001)
    response = await ask(fallback, streaming=streaming)
    assert response.content.replace(" ", "") == "itfits"
    assert [request.json["model"] for request in one.requests] == ["small"]
    assert two.count(PATH) == 2
    told = [(item["target"], item["error"] or item["reason"]) for item in response.metadata["attempts"]]
    no_larger = "its window of 1000 tokens is no larger than one that the prompt did not fit"
    assert told == [
        ("openai/small", "LLMProviderTokenLimitError"),
        ("openai/same", no_larger),
        ("openai/large", "LLMProviderOverloadedError"),
        ("openai/small", "the prompt did not fit its window"),
        ("openai/same", no_larger),
    ]
    one.script(PATH, TOO_LONG)
    two.script(PATH, TOO_LONG)
    with pytest.raises(LLMProviderTokenLimitError) as caught:
        await ask(fallback, streaming=streaming)
    assert caught.value.model == "large"
    assert [item["target"] for item in caught.value.failed_attempts or ()] == ["openai/small", "openai/same"]


async def test_of_two_prompts_at_once_one_does_not_spoil_the_other(
    one: LoopbackServer, two: LoopbackServer, pair: Pair
) -> None:
    one.script(PATH, lambda request: TOO_LONG if "long" in request.text else either("one")(request), repeat=True)
    two.script(PATH, OUTAGE, either("two"), repeat=True)
    fallback = pair(max_retries=2)
    assert (await ask(fallback, "long")).content == "two"
    assert (await ask(fallback, "short")).content == "one"
    assert len(fallback._overflowed) == 0, "a call that has ended is forgotten"


@STREAMING
async def test_a_window_that_is_surely_too_small_is_passed_over_where_another_one_is_left(streaming: bool) -> None:
    small = ScriptedProvider(lambda request: "small", "small", token_limit=1000)
    large = ScriptedProvider(lambda request: "large", "large", token_limit=9000)
    prompt = "word " * 4000
    response = await ask(FallbackProvider([small, large]), prompt, streaming=streaming)
    assert response.content == "large"
    assert response.metadata["attempts"][0]["reason"] == "its window of 1000 tokens is too small for the prompt"
    assert (await ask(FallbackProvider([small, large]), "word " * 900, streaming=streaming)).content == "small"
    assert (await ask(FallbackProvider([small]), prompt, streaming=streaming)).content == "small"
    both = FallbackProvider([small, ScriptedProvider(lambda request: "tiny", "tiny", token_limit=50)])
    assert (await ask(both, prompt, streaming=streaming)).content == "small", "nobody is surely better"
    unknown = FallbackProvider([small, FallbackProvider([ScriptedProvider(["who knows"])])])
    assert (await ask(unknown, prompt, streaming=streaming)).content == "who knows"


@STREAMING
async def test_a_missing_power_is_passed_over_and_costs_no_request(
    two: LoopbackServer, make: Make, streaming: bool
) -> None:
    """Tools, structure, pictures, kept conversations: each by what the target's own request wants."""
    two.script(PATH, either('{"a": 1}'), repeat=True)
    plain = EchoProvider()
    fallback = FallbackProvider([plain, make(two)])
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.invalid/y.png"}}]}]
    for prompt, options, word in (
        ("Hi", {"tools": [TOOL]}, "tools"),
        ("Hi", {"response_format": "json_object"}, "structured_output"),
        (picture, {}, "images"),
    ):
        response = await ask(fallback, prompt, streaming=streaming, **options)
        assert response.provider_type == "openai"
        [attempt] = response.metadata["attempts"]
        assert (attempt["provider"], attempt["reason"], attempt["usage"]) == ("echo", f"it does not do {word}", None)
    assert (await ask(fallback, streaming=streaming)).provider_type == "echo"
    with pytest.raises(LLMProviderUnsupportedOperationError, match="echo/echo: it does not do tools"):
        await ask(FallbackProvider([plain]), tools=[TOOL], streaming=streaming)
    odd = FallbackProvider([EchoProvider(api_type="responses"), plain])
    assert (await ask(odd, streaming=streaming)).metadata["attempts"][0]["reason"] == "it does not do responses"


@STREAMING
async def test_throttling_is_remembered_as_long_as_it_was_said(
    one: LoopbackServer, two: LoopbackServer, pair: Pair, clock: Clock, streaming: bool
) -> None:
    one.script(PATH, throttled("20"), either("one"))
    two.script(PATH, either("two"), repeat=True)
    fallback = pair()
    assert (await ask(fallback, streaming=streaming)).content == "two"
    clock.now += 19
    response = await ask(fallback, streaming=streaming)
    assert response.content == "two"
    assert response.metadata["attempts"][0]["reason"] == "it rests after failures, for another 1.0 s"
    assert one.count(PATH) == 1
    clock.now += 1.01
    assert (await ask(fallback, streaming=streaming)).content == "one"


async def test_throttling_that_names_no_time_lasts_a_second(
    one: LoopbackServer, two: LoopbackServer, pair: Pair, clock: Clock
) -> None:
    one.script(PATH, throttled(), either("one"))
    two.script(PATH, either("two"), repeat=True)
    fallback = pair()
    answers = []
    for seconds in (0, 0.9, 0.2):
        clock.now += seconds
        answers.append((await ask(fallback)).content)
    assert answers == ["two", "two", "one"]


async def test_an_outage_rests_after_the_fifth_in_a_row(
    one: LoopbackServer, two: LoopbackServer, pair: Pair, clock: Clock
) -> None:
    one.script(PATH, *[OUTAGE] * 4, either("back"), *[OUTAGE] * 6, either("again"))
    two.script(PATH, either("two"), repeat=True)
    fallback = pair()
    assert [(await ask(fallback)).content for _ in range(5)] == [*["two"] * 4, "back"]
    for _ in range(8):
        assert (await ask(fallback)).content == "two"
    assert one.count(PATH) == 10
    clock.now += 30
    assert (await ask(fallback)).content == "two"
    assert (await ask(fallback)).content == "two"
    assert one.count(PATH) == 11, "one probe, which failed"
    clock.now += 30
    assert (await ask(fallback)).content == "again"


async def test_where_all_rest_the_one_that_is_due_first_is_asked(
    one: LoopbackServer, two: LoopbackServer, pair: Pair, clock: Clock
) -> None:
    one.script(PATH, throttled("20"), either("one"))
    two.script(PATH, throttled("5"), throttled("30"))
    fallback = pair()
    for expected in ((1, 1), (1, 2)):
        with pytest.raises(LLMProviderRateLimitError):
            await ask(fallback)
        assert (one.count(PATH), two.count(PATH)) == expected
    assert (await ask(fallback)).content == "one"
    assert (one.count(PATH), two.count(PATH)) == (2, 2)
    info = fallback.get_model_info()["targets"]
    assert [target["state"] for target in info] == ["closed", "open"]


async def test_who_rests_is_left_alone_where_another_one_was_asked(
    one: LoopbackServer, two: LoopbackServer, pair: Pair
) -> None:
    one.script(PATH, throttled("20"))
    two.script(PATH, either("two"), OUTAGE)
    fallback = pair()
    await ask(fallback)
    with pytest.raises(LLMProviderOverloadedError) as caught:
        await ask(fallback)
    assert caught.value.failed_attempts[0]["reason"].startswith("it rests")
    assert (one.count(PATH), two.count(PATH)) == (1, 2)


@STREAMING
async def test_no_call_ends_without_a_request_while_somebody_rests(
    one: LoopbackServer, make: Make, clock: Clock, streaming: bool
) -> None:
    """What cannot be opened, or refuses before it sends, is no reason to leave the resting one alone."""

    class Broken(EchoProvider):
        def open(self) -> None:
            raise LLMProviderConfigurationError("no such file")

    class Unable(EchoProvider):
        async def generate(self, request: Any) -> Any:
            raise LLMProviderUnsupportedOperationError("not me")
            yield

    one.script(PATH, throttled("20"), either("rested"))
    fallback = FallbackProvider([make(one), Broken(), Unable()], clock=clock, max_retries=0)
    with pytest.warns(UserWarning, match="no such file"), pytest.raises(LLMProviderRateLimitError):
        await ask(fallback, streaming=streaming)
    clock.now += 1
    response = await ask(fallback, streaming=streaming)
    assert response.content == "rested"
    assert [item["error"] or item["reason"] for item in response.metadata["attempts"]] == [
        "it rests after failures, for another 29.0 s", "LLMProviderUnsupportedOperationError"
    ]  # fmt: skip


async def test_complete_and_stream_report_what_failed(one: LoopbackServer, two: LoopbackServer, pair: Pair) -> None:
    one.script(PATH, OUTAGE, repeat=True)
    two.script(PATH, LOST_KEY, OUTAGE, repeat=True)
    fallback = pair()
    with pytest.warns(UserWarning, match="openai/second is passed over"):
        response = await fallback.complete("Hi")
    assert (response.status, response.ok) == (503, False)
    assert [item["error"] for item in response.metadata["attempts"]] == ["LLMProviderAuthenticationError"]
    assert (await last_event(fallback))["status"] == 503
