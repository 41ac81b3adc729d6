"""Streams over a wire that cuts, stalls and breaks, and consumers that leave; over both transports."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from providers.exceptions import LLMProviderError
from providers.testing.server import Fault, LoopbackServer, Reply
from providers.types import LLMResponse, StreamEventType

from . import bodies
from .conftest import Make

PATHS = {"chat_completion": "/v1/chat/completions", "responses": "/v1/responses"}
TEXTS = ("Grüß", " dich, ", "\U0001f600\U0001f1eb\U0001f1f7", "\n", "e\u0301 \u2028 \u200f", "end")
TEXT = "".join(TEXTS)
CALLS = [bodies.called("get_weather", '{"city": "Málaga"}'), bodies.called("now", "{}", call_id="call_2", id="fc_2")]


def events(api_type: str) -> list[Any]:
    if api_type == "chat_completion":
        calls = [
            bodies.delta(tool_calls=[bodies.piece(at, call["call_id"], call["name"], "")])
            for at, call in enumerate(CALLS)
        ]
        calls += [
            bodies.delta(tool_calls=[bodies.piece(at, None, None, call["arguments"])]) for at, call in enumerate(CALLS)
        ]
        whole = bodies.chat_stream(*TEXTS, finish="tool_calls")
        return [*whole[:-2], *calls, *whole[-2:]]
    return bodies.response_stream(bodies.said(TEXT), *CALLS)


async def collect(provider: Any, **options: Any) -> LLMResponse:
    found = [event async for event in provider.stream("Hi", **options)]
    assert found[-1].type is StreamEventType.DONE, found[-1]
    tokens = [event.data for event in found if event.type is StreamEventType.TOKEN]
    answer: LLMResponse = found[-1].data
    assert "".join(tokens) == answer.content
    return answer


@pytest.mark.parametrize("api_type", PATHS)
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({}, id="plain"),
        pytest.param({"chunk_size": 1}, id="byte by byte"),
        pytest.param({"chunk_size": 7}, id="seven bytes"),
        pytest.param({"newline": "\r\n"}, id="CRLF"),
        pytest.param({"newline": "\r\n", "chunk_size": 1}, id="CRLF, byte by byte"),
        pytest.param({"newline": "\r"}, id="CR"),
        pytest.param({"done": None}, id="no DONE"),
    ],
)
async def test_however_the_bytes_are_cut(
    make: Make, server: LoopbackServer, transport: str, api_type: str, shape: dict[str, Any]
) -> None:
    """bad inputs 46, 47, 53"""
    done = {"done": None} if api_type == "responses" else {}
    server.script(PATHS[api_type], Reply.sse(events(api_type), **{**done, **shape}))
    answer = await collect(make(transport=transport), api_type=api_type)
    assert answer.content == TEXT
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls or ()] == [
        (call["call_id"], call["name"], call["arguments"]) for call in CALLS
    ]
    assert (answer.finish_reason, answer.total_tokens) == ("tool_calls", 19)


async def test_comments_odd_spaces_and_a_missing_last_line_end(
    make: Make, server: LoopbackServer, transport: str
) -> None:
    """bad inputs 47"""
    import json

    chunks = bodies.chat_stream("Hel", "lo")
    odd = [
        b": ping\n\n",
        *(b"data:" + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks),
        b"id: 7\ndata: [DONE]",
    ]
    server.script(PATHS["chat_completion"], Reply.sse(odd, done=None))
    assert (await collect(make(transport=transport))).content == "Hello"


@pytest.mark.parametrize("api_type", PATHS)
async def test_a_stream_and_the_whole_answer_are_one(
    make: Make, server: LoopbackServer, transport: str, api_type: str
) -> None:
    """F-068, F-072, F-073, F-134"""
    if api_type == "responses":
        whole = bodies.response(bodies.reasoned("Hm."), bodies.said(TEXT), *CALLS)
        pieces: list[Any] = bodies.response_stream(bodies.reasoned("Hm."), bodies.said(TEXT), *CALLS)
    else:
        calls = [
            {
                "id": call["call_id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in CALLS
        ]
        whole = bodies.chat(TEXT, finish="tool_calls", tool_calls=calls, reasoning_content="Hm.")
        pieces = events(api_type)
        pieces.insert(1, bodies.delta(reasoning_content="H"))
        pieces.insert(2, bodies.delta(reasoning_content="m."))
    headers = {"x-request-id": "req_1"}
    server.script(PATHS[api_type], Reply.json(whole, headers=headers), Reply.sse(pieces, headers=headers))
    provider = make(transport=transport, api_type=api_type)
    one = await provider.execute("Hi")
    two = await collect(provider)
    assert isinstance(one, LLMResponse)
    left, right = one.to_dict(), two.to_dict()
    # The stream asks for its usage; nothing else may differ.
    right["metadata"]["params"]["sent"].pop("stream_options", None)
    assert left == right


async def test_both_transports_give_equal_answers(make: Make, server: LoopbackServer) -> None:
    """The case of the issue: equal `LLMResponse`s, metadata included."""
    for api_type, whole in (("chat_completion", bodies.chat("Hi")), ("responses", bodies.response(bodies.said("Hi")))):
        headers = {"x-request-id": "req_1"}
        answers, sent = [], []
        for transport in ("http", "sdk"):
            server.clear()
            server.script(
                PATHS[api_type], Reply.json(whole, headers=headers), Reply.sse(events(api_type), headers=headers)
            )
            provider = make(transport=transport, api_type=api_type)
            answers.append((await provider.execute("Hi", "Be kind."), await collect(provider)))
            sent.append([request.json for request in server.requests])
        assert answers[0] == answers[1]
        assert sent[0] == sent[1]


@pytest.mark.parametrize("api_type", PATHS)
@pytest.mark.parametrize("how", ["end", "close", "reset"])
async def test_a_stream_that_breaks_off(
    make: Make, server: LoopbackServer, transport: str, api_type: str, how: Any
) -> None:
    """bad inputs 48, 52"""
    begun = Reply.sse(
        bodies.chat_stream(*TEXTS) if api_type == "chat_completion" else bodies.response_stream(bodies.said(TEXT))
    )
    server.script(PATHS[api_type], Fault.cut(begun, after_events=5, how=how), repeat=True)
    provider = make(transport=transport, api_type=api_type)
    found = [event async for event in provider.stream("Hi")]
    assert found[-1].type is StreamEventType.ERROR
    assert found[-1].data["type"] == "LLMProviderStreamError"
    got = "".join(event.data for event in found if event.type is StreamEventType.TOKEN)
    assert got
    assert found[-1].data["content"] == got
    assert TEXT.startswith(got)
    assert server.count() == 1
    with pytest.raises(LLMProviderError):
        async for _ in await provider.execute("Hi", stream_mode="enabled"):  # type: ignore[union-attr]
            pass


async def test_a_stream_that_breaks_off_inside_a_character(make: Make, server: LoopbackServer, transport: str) -> None:
    """bad inputs 46, 48"""
    whole = Reply.sse(bodies.chat_stream("a", "\U0001f600"))
    import json

    prefix = sum(
        len(json.dumps(c, ensure_ascii=False, separators=(",", ":")).encode()) + 8 for c in bodies.chat_stream("a")[:2]
    )
    first = json.dumps(bodies.delta(content="\U0001f600"), ensure_ascii=False, separators=(",", ":")).encode()
    inside = prefix + 6 + first.index("\U0001f600".encode()) + 2
    server.script(PATHS["chat_completion"], Fault.cut(whole, after_bytes=inside))
    found = [event async for event in make(transport=transport).stream("Hi")]
    assert found[-1].type is StreamEventType.ERROR
    assert found[-1].data["content"] == "a"


@pytest.mark.parametrize("api_type", PATHS)
async def test_a_stall_ends_with_the_timeout(make: Make, server: LoopbackServer, transport: str, api_type: str) -> None:
    """F-144; bad inputs 49"""
    begun = Reply.sse(events(api_type))
    server.script(PATHS[api_type], Fault.stall(begun, after_events=5))
    provider = make(transport=transport, api_type=api_type, timeout=0.3)
    found = [event async for event in provider.stream("Hi")]
    assert found[-1].data["type"] == "LLMProviderTimeoutError"
    assert found[-1].data["content"]
    assert await server.eventually(lambda: server.disconnects == 1)


async def test_an_answer_that_is_whole_does_not_wait_for_its_connection(
    make: Make, server: LoopbackServer, transport: str
) -> None:
    whole = bodies.chat_stream("Hel", "lo")
    server.script(PATHS["chat_completion"], Fault.stall(Reply.sse(whole), after_events=len(whole) + 1))
    server.script(PATHS["chat_completion"], Fault.stall(Reply.sse(whole), after_events=len(whole) + 1))
    provider = make(transport=transport, timeout=60)
    assert (await collect(provider)).content == "Hello"
    began = time.monotonic()
    assert (await collect(provider)).content == "Hello"
    assert time.monotonic() - began < 0.2, "the server is known by now"


@pytest.mark.parametrize("api_type", PATHS)
@pytest.mark.parametrize("leave", ["break", "cancel", "aclose", "forget"])
async def test_whoever_leaves_a_stream_closes_its_connection(
    make: Make, server: LoopbackServer, transport: str, api_type: str, leave: str
) -> None:
    """F-129; bad inputs 50, 54"""
    begun = Reply.sse(events(api_type))
    server.script(PATHS[api_type], Fault.stall(begun, after_events=5), begun)
    provider = make(transport=transport, api_type=api_type)
    seen = asyncio.Event()

    async def read() -> None:
        stream = await provider.execute("Hi", stream_mode="enabled")
        assert not isinstance(stream, LLMResponse)
        async with stream:
            async for _ in stream:
                seen.set()
                if leave == "break":
                    break

    if leave == "cancel":
        task = asyncio.create_task(read())
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif leave == "break":
        await read()
    else:
        stream = provider.stream("Hi")
        async for event in stream:
            if event.type is StreamEventType.TOKEN:
                break
        if leave == "aclose":
            await stream.aclose()
        del stream, event
    assert await server.eventually(lambda: server.disconnects == 1)
    assert (await collect(provider)).content == TEXT


async def test_a_cancelled_call_closes_its_connection(make: Make, server: LoopbackServer, transport: str) -> None:
    """bad inputs 54"""
    server.script(PATHS["chat_completion"], Fault.silence(), Reply.json(bodies.chat("Hi")))
    provider = make(transport=transport)
    task = asyncio.create_task(provider.execute("Hi"))
    assert await server.eventually(lambda: server.count() == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.eventually(lambda: server.disconnects == 1)
    answer = await provider.execute("Hi")
    assert isinstance(answer, LLMResponse)
    assert server.count() == 2


async def test_a_slow_consumer_loses_nothing(make: Make, server: LoopbackServer, transport: str) -> None:
    """bad inputs 51"""
    texts = [f"{n} " for n in range(60)]
    server.script(PATHS["chat_completion"], Reply.sse(bodies.chat_stream(*texts)), repeat=True)
    provider = make(transport=transport, timeout=0.5)
    got = []
    async for event in provider.stream("Hi"):
        if event.type is StreamEventType.TOKEN:
            got.append(event.data)
            if len(got) == 3:
                await asyncio.sleep(0.7)
    assert got == texts
    other = await asyncio.gather(*(collect(provider) for _ in range(8)))
    assert {answer.content for answer in other} == {"".join(texts)}


async def test_connections_are_used_again(make: Make, server: LoopbackServer, transport: str) -> None:
    """F-143"""
    server.script(PATHS["chat_completion"], *[Reply.sse(bodies.chat_stream("a")), Reply.json(bodies.chat("b"))] * 4)
    provider = make(transport=transport)
    for _ in range(4):
        assert (await collect(provider)).content == "a"
        answer = await provider.execute("Hi")
        assert isinstance(answer, LLMResponse)
        assert answer.content == "b"
    assert server.connections == 1
