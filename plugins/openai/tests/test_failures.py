"""Refusals, broken replies and retries, over both transports: one clear error each, and the right count of requests."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest

from llm_provider_openai import OpenAIProvider
from providers.exceptions import (
    LLMProviderAPIError,
    LLMProviderAuthenticationError,
    LLMProviderBadRequestError,
    LLMProviderConnectionError,
    LLMProviderContentFilterError,
    LLMProviderError,
    LLMProviderNotFoundError,
    LLMProviderOverloadedError,
    LLMProviderPermissionError,
    LLMProviderQuotaError,
    LLMProviderRateLimitError,
    LLMProviderResponseError,
    LLMProviderServerError,
    LLMProviderStreamError,
    LLMProviderTimeoutError,
    LLMProviderTokenLimitError,
)
from providers.testing.server import Fault, LoopbackServer, Reply
from providers.types import LLMResponse

from . import bodies
from .conftest import Make

CHAT = "/v1/chat/completions"
GOOD = Reply.json(bodies.chat("Hello"))


def refusal(message: str, code: Any = None, type: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, refusal("bad"), LLMProviderBadRequestError),
        (401, refusal("no", "invalid_api_key"), LLMProviderAuthenticationError),
        (403, refusal("no"), LLMProviderPermissionError),
        (404, refusal("none", "model_not_found"), LLMProviderNotFoundError),
        (404, b"", LLMProviderNotFoundError),
        (413, "too large", LLMProviderTokenLimitError),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "too small"}]}, LLMProviderBadRequestError),
        (400, refusal("too long", "context_length_exceeded"), LLMProviderTokenLimitError),
        (
            400,
            refusal("This model's maximum context length is 4096 tokens", 400, "BadRequestError"),
            LLMProviderTokenLimitError,
        ),
        (400, refusal("request exceeds", 400, "exceed_context_size_error"), LLMProviderTokenLimitError),
        (400, refusal("no", "content_policy_violation"), LLMProviderContentFilterError),
        (400, refusal("no", "content_filter"), LLMProviderContentFilterError),
        (429, bodies.QUOTA, LLMProviderQuotaError),
        (200, refusal("no", "context_length_exceeded"), LLMProviderTokenLimitError),
        (200, {"error": "plain words"}, LLMProviderAPIError),
    ],
)
async def test_refusals_end_the_call_at_once(
    make: Make, server: LoopbackServer, transport: str, status: int, body: Any, kind: type[LLMProviderError]
) -> None:
    """F-070, F-135; bad inputs 37, 38, 39"""
    server.script(CHAT, Fault.status(status, body, {"x-request-id": "req_9"}), repeat=True)
    with pytest.raises(LLMProviderError) as caught:
        await make(transport=transport).execute("Hi")
    error = caught.value
    assert type(error) is kind
    assert (error.provider, error.model, error.request_id) == ("openai", "gpt-4", "req_9")
    assert error.status_code == (status if status >= 400 else None)
    assert not error.retryable
    assert server.count(CHAT) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
@pytest.mark.parametrize("streaming", [False, True])
async def test_passing_failures_are_tried_again(
    make: Make, server: LoopbackServer, transport: str, status: int, streaming: bool
) -> None:
    """F-070, F-144; bad inputs 33"""
    good = Reply.sse(bodies.chat_stream("Hel", "lo")) if streaming else GOOD
    server.script(CHAT, Fault.status(status, refusal("later")), Fault.status(status, b""), good)
    provider = make(transport=transport, max_retries=2)
    if streaming:
        answer = [event async for event in provider.stream("Hi")][-1].data
    else:
        answer = await provider.execute("Hi")
    assert answer.content == "Hello"
    assert server.count(CHAT) == 3


@pytest.mark.parametrize(
    ("options", "requests"),
    [({"max_retries": 0}, 1), ({"max_retries": 3}, 4), ({}, 4)],
)
async def test_the_count_of_requests_is_the_policys(
    make: Make, server: LoopbackServer, transport: str, options: dict[str, Any], requests: int
) -> None:
    """F-070, F-144; bad inputs 34"""
    server.script(CHAT, Fault.status(429, refusal("no")), repeat=True)
    provider = make(transport=transport, **options)
    with pytest.raises(LLMProviderRateLimitError) as caught:
        await provider.execute("Hi")
    assert server.count(CHAT) == caught.value.attempts == requests
    server.clear()
    server.script(CHAT, Fault.status(503), repeat=True)
    result = await provider.complete("Hi", attempts=2, backoff=0.0)
    assert (result.status, server.count(CHAT)) == (503, 2)


def shapes() -> list[Any]:
    soon = formatdate(time.time() + 1, usegmt=True)
    return [
        pytest.param({"Retry-After": "0"}, 0.0, 0.5, id="0"),
        pytest.param({"Retry-After": "1"}, 0.95, 1.8, id="seconds"),
        pytest.param({"retry-after-ms": "300"}, 0.28, 0.9, id="milliseconds"),
        pytest.param({"Retry-After": formatdate(time.time() - 60, usegmt=True)}, 0.0, 0.5, id="a date that is past"),
        pytest.param({"Retry-After": soon, "Date": formatdate(time.time(), usegmt=True)}, 0.0, 2.5, id="date"),
        pytest.param({"Retry-After": "soon"}, 0.0, 0.5, id="nonsense"),
        pytest.param({"Retry-After": "-5"}, 0.0, 0.5, id="negative"),
    ]


@pytest.mark.parametrize(("headers", "least", "most"), shapes())
@pytest.mark.parametrize("status", [429, 503])
async def test_the_servers_hint_is_waited_for(
    make: Make, server: LoopbackServer, headers: dict[str, str], least: float, most: float, status: int
) -> None:
    """bad inputs 35"""
    server.script(CHAT, Fault.status(status, refusal("later"), headers), GOOD)
    began = time.monotonic()
    await make().execute("Hi")
    assert least <= time.monotonic() - began <= most
    assert server.count(CHAT) == 2


async def test_resets_of_a_spent_limit_are_waited_for(make: Make, server: LoopbackServer) -> None:
    """bad inputs 35"""
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "400ms"}
    left = {"x-ratelimit-remaining-tokens": "99999", "x-ratelimit-reset-tokens": "0s"}
    for status, headers, least, most in (
        (429, {**left, **spent}, 0.38, 1.0),
        (503, spent, 0.0, 0.3),
        (429, left, 0, 0.3),
    ):
        server.script(CHAT, Fault.status(status, refusal("later"), headers), GOOD)
        began = time.monotonic()
        await make().execute("Hi")
        assert least <= time.monotonic() - began <= most


async def test_an_absurd_hint_ends_the_call(make: Make, server: LoopbackServer, transport: str) -> None:
    """bad inputs 35"""
    server.script(CHAT, Fault.status(429, refusal("later"), {"Retry-After": "86400"}), repeat=True)
    with pytest.raises(LLMProviderRateLimitError) as caught:
        await make(transport=transport).execute("Hi")
    assert caught.value.retry_after == 86400
    assert server.count(CHAT) == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        pytest.param(Fault.not_json(), LLMProviderResponseError, id="HTML"),
        pytest.param(Fault.empty(), LLMProviderResponseError, id="empty"),
        pytest.param(Reply.json(None), LLMProviderResponseError, id="null"),
        pytest.param(Reply.json([]), LLMProviderResponseError, id="list"),
        pytest.param(Reply.json("text"), LLMProviderResponseError, id="text"),
        pytest.param(Reply.json({"hello": 1}), LLMProviderResponseError, id="another object"),
        pytest.param(Fault.truncated_json(bodies.chat()), LLMProviderResponseError, id="cut JSON"),
        pytest.param(Fault.short_body(bodies.chat()), LLMProviderStreamError, id="short body"),
        pytest.param(Fault.hang_up(), LLMProviderConnectionError, id="closed"),
        pytest.param(Fault.hang_up("reset"), LLMProviderConnectionError, id="reset"),
    ],
)
async def test_replies_that_are_none(
    make: Make, server: LoopbackServer, transport: str, reply: Reply, kind: type[LLMProviderError]
) -> None:
    """bad inputs 32, 45"""
    server.script(CHAT, reply, GOOD)
    provider = make(transport=transport, max_retries=0)
    with pytest.raises(kind) as caught:
        await provider.execute("Hi")
    assert type(caught.value) is kind
    assert caught.value.provider == "openai"
    assert caught.value.model == "gpt-4"
    answer = await provider.execute("Hi")
    assert isinstance(answer, LLMResponse)
    assert answer.content == "Hello"


async def test_a_gzip_body_that_is_cut(make: Make, server: LoopbackServer, transport: str) -> None:
    """bad inputs 45. The SDK's HTTP library does not notice the cut itself; the JSON inside it is cut, too."""
    page = Reply.text("<html>oops", headers={"Content-Type": "text/html"}).gzipped()
    server.script(CHAT, Fault.cut_gzip(bodies.chat("Hello" * 100)), page, Reply.json(bodies.chat("Hi")).gzipped())
    provider = make(transport=transport, max_retries=0)
    for kind in (LLMProviderStreamError, LLMProviderResponseError):
        with pytest.raises(LLMProviderResponseError) as caught:
            await provider.execute("Hi")
        assert type(caught.value) is kind
    answer = await provider.execute("Hi")
    assert isinstance(answer, LLMResponse)
    assert answer.content == "Hi"


async def test_an_address_where_nobody_listens(make: Make, transport: str) -> None:
    with LoopbackServer() as gone:
        address = f"{gone.url}/v1"
    with pytest.raises(LLMProviderConnectionError) as caught:
        await make(base_url=address, transport=transport, max_retries=1).execute("Hi")
    assert caught.value.attempts == 2
    assert address in str(caught.value)
    assert caught.value.__cause__ is not None


async def test_a_server_that_never_answers(make: Make, server: LoopbackServer, transport: str) -> None:
    """F-144; bad inputs 49"""
    server.script(CHAT, Fault.silence(), repeat=True)
    provider = make(transport=transport, timeout=0.2, max_retries=1)
    began = time.monotonic()
    with pytest.raises(LLMProviderTimeoutError, match=r"within 0\.2 s"):
        await provider.execute("Hi")
    assert 0.4 <= time.monotonic() - began < 1.5
    assert server.count(CHAT) == 2


async def read(provider: OpenAIProvider, streaming: bool) -> None:
    found = await provider.execute("Hi", stream_mode="enabled" if streaming else "disabled")
    if not isinstance(found, LLMResponse):
        async for _ in found:
            pass


@pytest.mark.parametrize("status", [302, 307])
async def test_a_redirect_is_not_followed(make: Make, server: LoopbackServer, transport: str, status: int) -> None:
    """bad inputs 41"""
    with LoopbackServer() as other:
        other.script("*", GOOD, repeat=True)
        for streaming in (False, True):
            server.script(CHAT, Fault.redirect(f"{other.url}/v1/chat/completions?sig=s3cr3t", status))
            provider = make(transport=transport)
            with pytest.raises(LLMProviderAPIError, match="redirects") as caught:
                await read(provider, streaming)
            assert "s3cr3t" not in str(caught.value)
        assert other.count() == 0
    assert server.count() == 2


async def test_the_errors_of_embeddings(make: Make, server: LoopbackServer, transport: str) -> None:
    """F-069, F-076"""
    server.script("/v1/embeddings", Fault.status(401, refusal("no", "invalid_api_key")), repeat=True)
    result = await make("text-embedding-3-small", transport=transport).embed("a")
    assert (result.ok, result.status, result.embeddings) == (False, 401, [])
    assert server.count() == 1


@pytest.mark.parametrize("path", ["chat_completion", "responses"])
async def test_an_error_of_the_server_is_retried_on_either_interface(
    make: Make, server: LoopbackServer, transport: str, path: str
) -> None:
    server.script("*", Fault.status(500, refusal("oops", None, "server_error")), repeat=True)
    with pytest.raises(LLMProviderServerError) as caught:
        await make(transport=transport, api_type=path, max_retries=1).execute("Hi")
    assert type(caught.value) is LLMProviderServerError
    assert server.count() == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, LLMProviderNotFoundError), (405, LLMProviderBadRequestError), (501, LLMProviderServerError)],
)
async def test_a_server_without_responses(
    make: Make, server: LoopbackServer, transport: str, status: int, kind: type[LLMProviderError]
) -> None:
    """F-016, F-138"""
    server.script("/v1/responses", Fault.status(status, refusal("Not Found")), repeat=True)
    with pytest.raises(kind, match='api_type="chat_completion"'):
        await make(transport=transport, max_retries=0).execute_responses_api("Hi")
    server.clear()
    server.script("/v1/responses", Fault.status(404, refusal("no such model", "model_not_found")))
    with pytest.raises(LLMProviderNotFoundError) as caught:
        await make(transport=transport).execute_responses_api("Hi")
    assert "api_type" not in str(caught.value)


async def test_overload_inside_a_stream_that_has_just_begun_is_tried_again(
    make: Make, server: LoopbackServer, transport: str
) -> None:
    """bad inputs 40, 52"""
    busy = refusal("busy", "server_error")
    begun = bodies.delta(role="assistant", content="")
    good = Reply.sse(bodies.chat_stream("Hel", "lo"))
    server.script(CHAT, Reply.sse([begun, busy], done=None), good)
    events = [event async for event in make(transport=transport).stream("Hi")]
    assert events[-1].data.content == "Hello"
    assert server.count(CHAT) == 2
    server.script(
        CHAT, Reply.sse([begun, bodies.delta(content="Hel"), refusal("busy", None, "overloaded_error")], done=None)
    )
    events = [event async for event in make(transport=transport).stream("Hi")]
    assert events[-1].type.value == "error"
    assert events[-1].data["type"] == LLMProviderOverloadedError.__name__
    assert events[-1].data["content"] == "Hel"
    assert server.count(CHAT) == 3
