"""The client of the first version, against a scripted server and a real one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llm_provider_openai import OpenAIClient
from providers import LLMProviderConfigurationError
from providers.testing.server import LoopbackServer, Reply

from . import bodies
from .conftest import LLAMA_KEY

HELLO = [{"role": "user", "content": "Hello"}]


def client(server: LoopbackServer, **options: Any) -> OpenAIClient:
    return OpenAIClient(model="gpt-5", api_key="sk-1234567", base_url=f"{server.url}/v1", retry_delay=0.01, **options)


async def test_the_old_code_still_works(server: LoopbackServer) -> None:
    """F-122, C-03."""
    from providers import OpenAIClient as lent

    assert lent is OpenAIClient
    server.script("/v1/chat/completions", Reply.json(bodies.chat("Hello there")))
    async with client(server) as old:
        result = await old.get_response(messages=HELLO)
    assert isinstance(result, dict)
    assert (result["output"], result["status"], result["error"]) == ("Hello there", 200, "OK")
    assert result["usage"]["input_tokens"] == 14
    assert result["usage"]["output_tokens_reasoning"] == 2
    assert result["usage"]["total_cost"] == pytest.approx(14 * 1.25e-6 + 5 * 10e-6, rel=0.2)
    assert json.loads(json.dumps(result)) == result
    sent = server.requests[0].json
    assert (sent["model"], sent["messages"]) == ("gpt-5", HELLO)


async def test_a_failure_is_a_value(server: LoopbackServer) -> None:
    """F-122."""
    server.script("/v1/chat/completions", Reply.json(bodies.QUOTA, status=429), repeat=True)
    async with client(server) as old:
        result = await old.get_response(HELLO, attempts=1)
    assert (result["output"], result["status"]) == (None, 429)
    assert "quota" in result["error"]
    assert "sk-1234567" not in json.dumps(result)


async def test_tool_calls_and_structured_output(server: LoopbackServer) -> None:
    """F-122: tools are the caller's to run."""
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    server.script(
        "/v1/chat/completions",
        Reply.json(bodies.chat(None, finish="tool_calls", tool_calls=[call])),
        Reply.json(bodies.chat('{"a": 1}')),
    )
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    async with client(server) as old:
        result = await old.get_response(messages=HELLO, tools=[tool])
        parsed = await old.get_response(messages=HELLO, schema=schema)
    assert (result["finish_reason"], result["tool_calls"][0]["id"]) == ("tool_calls", "call_1")
    assert json.loads(json.dumps(result)) == result
    assert parsed["output"] == {"a": 1}


async def test_a_mistake_of_the_caller_is_raised(server: LoopbackServer) -> None:
    async with client(server) as old:
        with pytest.raises(LLMProviderConfigurationError):
            await old.get_response(messages=HELLO, no_such_option=1)
    assert server.requests == []


async def test_many_at_once_as_a_batch_does(server: LoopbackServer) -> None:
    """F-122."""
    server.script("/v1/chat/completions", Reply.json(bodies.chat("Hi")), repeat=True)
    async with client(server) as old:
        results = await asyncio.gather(*(old.get_response(**{"messages": HELLO}) for _ in range(20)))
    assert [result["output"] for result in results] == ["Hi"] * 20


async def test_a_profile_stands_for_the_model(server: LoopbackServer) -> None:
    """F-062, F-122."""
    from providers import GPT5Nano

    old = OpenAIClient(model=GPT5Nano, api_key="sk-1234567", base_url=f"{server.url}/v1")
    assert old.model == "gpt-5-nano"
    assert repr(old) == "<OpenAIClient gpt-5-nano>"
    assert OpenAIClient(api_key="sk-1234567").model == "gpt-5"
    await old.close()


async def test_a_real_server_answers(llama: str) -> None:
    """F-122."""
    async with OpenAIClient("smollm2", api_key=LLAMA_KEY, base_url=llama, temperature=0, max_tokens=8) as old:
        result = await old.get_response(messages=HELLO)
    assert result["error"] == "OK"
    assert result["output"]
    assert result["usage"]["input_tokens"] > 0
