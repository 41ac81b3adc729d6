"""The vendor's SDK as oracle: the same call through it and through us is the same body and the same answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

import llm_provider_openai
from llm_provider_openai import OpenAIProvider
from providers.testing.server import LoopbackServer, Reply
from providers.types import LLMResponse, StreamEventType

from . import bodies
from .conftest import Make

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    },
}
FLAT = {"type": "function", **TOOL["function"]}  # type: ignore[dict-item]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello \U0001f600"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Weather?"},
]


class Person(BaseModel):
    name: str
    age: int


async def theirs(server: LoopbackServer, call: Any) -> tuple[dict[str, Any], Any]:
    async with openai.AsyncOpenAI(api_key="sk-1", base_url=f"{server.url}/v1", max_retries=0) as client:
        answer = await call(client)
    return server.requests[-1].json, answer


async def test_chat_bodies_and_answers(make: Make, server: LoopbackServer, transport: str) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}]
    server.script("*", Reply.json(bodies.chat(None, finish="tool_calls", tool_calls=calls)), repeat=True)
    expected, parsed = await theirs(
        server,
        lambda client: client.chat.completions.create(
            model="gpt-4",
            messages=TALK,
            temperature=0.0,
            top_p=0.5,
            max_tokens=9,
            seed=0,
            stop=["x"],
            frequency_penalty=0.1,
            presence_penalty=-0.1,
            tools=[TOOL],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
            parallel_tool_calls=False,
            user="u",
        ),
    )
    provider = make(transport=transport)
    ours = await provider.execute_chat_completion(
        TALK,
        temperature=0.0,
        top_p=0.5,
        max_tokens=9,
        seed=0,
        stop=["x"],
        frequency_penalty=0.1,
        presence_penalty=-0.1,
        tools=[TOOL],
        tool_choice="get_weather",
        extra={"user": "u", "parallel_tool_calls": False},
    )
    assert server.requests[-1].json == expected
    assert isinstance(ours, LLMResponse)
    said = parsed.choices[0].message.tool_calls[0]
    assert [(call.id, call.name, call.arguments) for call in ours.tool_calls or ()] == [
        (said.id, said.function.name, said.function.arguments)
    ]
    # The second turn: our message of the answer, and theirs.
    result = {"role": "tool", "tool_call_id": "c1", "content": "rain"}
    expected, _ = await theirs(
        server,
        lambda client: client.chat.completions.create(
            model="gpt-4",
            temperature=0.7,
            messages=[
                *TALK,
                parsed.choices[0].message.model_dump(exclude_none=True, include={"role", "tool_calls"}),
                result,
            ],
        ),
    )
    await provider.execute_chat_completion([*TALK, ours.to_message(), result])
    sent = server.requests[-1].json
    assert sent["messages"][4].pop("content") is None
    assert sent == expected


async def test_structured_output(make: Make, server: LoopbackServer, transport: str) -> None:
    """F-009"""
    server.script("*", Reply.json(bodies.chat('{"name": "Ann", "age": 4}')), repeat=True)
    expected, parsed = await theirs(
        server,
        lambda client: client.chat.completions.parse(
            model="gpt-4", messages=[{"role": "user", "content": "Who?"}], response_format=Person, temperature=0.7
        ),
    )
    assert expected.pop("stream") is False  # its default, written out
    ours = await make(transport=transport).execute("Who?", schema=Person)
    assert server.requests[-1].json == expected
    assert isinstance(ours, LLMResponse)
    assert ours.parsed == parsed.choices[0].message.parsed == Person(name="Ann", age=4)


async def test_chat_streams(make: Make, server: LoopbackServer, transport: str) -> None:
    chunks = bodies.chat_stream("Hel", "lo ", "\U0001f600")
    server.script("*", Reply.sse(chunks), repeat=True)

    async def read(client: Any) -> Any:
        options: dict[str, Any] = {"stream_options": {"include_usage": True}, "temperature": 0.7}
        async with client.chat.completions.stream(model="gpt-4", messages=TALK[1:2], **options) as stream:
            return await stream.get_final_completion()

    expected, final = await theirs(server, read)
    events = [event async for event in make(transport=transport).stream(TALK[1:2])]
    assert server.requests[-1].json == expected
    assert events[-1].type is StreamEventType.DONE
    assert events[-1].data.content == final.choices[0].message.content
    assert events[-1].data.finish_reason == final.choices[0].finish_reason
    assert events[-1].data.total_tokens == final.usage.total_tokens


async def test_responses_bodies_and_answers(make: Make, server: LoopbackServer, transport: str) -> None:
    """F-132, F-067"""
    items = [bodies.reasoned("Hm."), bodies.said("Let me see. "), bodies.called("get_weather", '{"city": "Oslo"}')]
    server.script("*", Reply.json(bodies.response(*items)), repeat=True)
    expected, parsed = await theirs(
        server,
        lambda client: client.responses.create(
            model="gpt-5",
            input=TALK[1:2],
            instructions="Be brief.",
            previous_response_id="resp_0",
            tools=[FLAT],
            tool_choice="required",
            max_output_tokens=9,
            reasoning={"effort": "low"},
            store=False,
        ),
    )
    ours = await make("gpt-5", transport=transport).execute_responses_api(
        TALK[1:2],
        instructions="Be brief.",
        previous_response_id="resp_0",
        tools=[TOOL],
        tool_choice="required",
        max_tokens=9,
        reasoning_effort="low",
        extra={"store": False},
    )
    assert server.requests[-1].json == expected
    assert isinstance(ours, LLMResponse)
    assert ours.content == parsed.output_text
    assert [call.id for call in ours.tool_calls or ()] == [
        item.call_id for item in parsed.output if item.type == "function_call"
    ]


async def test_responses_streams(make: Make, server: LoopbackServer, transport: str) -> None:
    items = [bodies.said("Let me see. "), bodies.called("get_weather", '{"city": "Oslo"}')]
    server.script("*", Reply.sse(bodies.response_stream(*items), done=None), repeat=True)

    async def read(client: Any) -> Any:
        stream = await client.responses.create(model="gpt-5", input=TALK[1:2], stream=True)
        seen = [event async for event in stream]
        return seen

    expected, seen = await theirs(server, read)
    provider = make("gpt-5", transport=transport, api_type="responses")
    events = [event async for event in provider.stream(TALK[1:2])]
    assert server.requests[-1].json == expected
    texts = [event.delta for event in seen if event.type == "response.output_text.delta"]
    assert [event.data for event in events if event.type is StreamEventType.TOKEN] == texts
    arguments = [event.delta for event in seen if event.type == "response.function_call_arguments.delta"]
    deltas = [event.data.arguments for event in events if event.type is StreamEventType.TOOL_CALL_DELTA]
    assert deltas == arguments
    [final] = [event.response for event in seen if event.type == "response.completed"]
    assert events[-1].data.content == final.output_text
    assert events[-1].data.total_tokens == final.usage.total_tokens


@pytest.mark.parametrize("packed", [False, True])
async def test_embeddings(make: Make, server: LoopbackServer, transport: str, packed: bool) -> None:
    """F-076"""
    import base64
    import struct

    vectors = [[0.5, -0.25, 1.0], [0.0, 2.0, -3.5]]

    def wire(vector: list[float]) -> Any:
        return base64.b64encode(struct.pack("<3f", *vector)).decode() if packed else vector

    data = [{"object": "embedding", "index": at, "embedding": wire(vectors[at])} for at in (1, 0)]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    server.script("*", Reply.json({"object": "list", "data": data, "model": "m", "usage": usage}), repeat=True)
    name: Any = "base64" if packed else "float"
    expected, _ = await theirs(
        server,
        lambda client: client.embeddings.create(model="m", input=["a", "b"], encoding_format=name, dimensions=3),
    )
    provider = make("m", transport=transport)
    ours = await provider.embed(["a", "b"], encoding_format=name, dimensions=3)
    assert server.requests[-1].json == expected
    assert ours.embeddings == vectors
    assert (ours.model, ours.usage.input_tokens, ours.usage.total_tokens) == ("m", 4, 4)
    alone = await provider.embed("a")
    assert not alone.ok
    assert "2 vectors for 1" in str(alone.error)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [{"index": 0}],
        [{"index": 0, "embedding": "!!"}],
        [{"index": 0, "embedding": ["x"]}],
        [{"index": 0, "embedding": [None]}],
        [{"index": 0, "embedding": {}}],
        [3],
    ],
)
async def test_vectors_that_are_none(make: Make, server: LoopbackServer, data: Any) -> None:
    server.script("*", Reply.json({"data": data, "model": "m"}))
    result = await make("m").embed("a")
    assert not result.ok
    assert result.status == 500
    json.dumps(result.error)


def test_the_default_transport_loads_no_sdk() -> None:
    code = (
        "import sys, asyncio\n"
        "from llm_provider_openai import OpenAIProvider\n"
        "heavy = {'openai', 'aiohttp', 'orjson', 'httpx2', 'pydantic'}\n"
        "provider = OpenAIProvider('gpt-4', 'sk-1', 'http://127.0.0.1:9/v1', max_retries=0)\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "asyncio.run(provider.complete('Hi'))\n"
        "assert 'aiohttp' in sys.modules\n"
        "assert not {'openai', 'httpx2', 'pydantic'} & set(sys.modules)\n"
    )
    import providers

    # This process may have its path from pytest alone.
    path = [str(Path(module.__path__[0]).parent) for module in (providers, llm_provider_openai)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert found.returncode == 0, found.stderr
    assert OpenAIProvider.requires == ("aiohttp", "orjson")
