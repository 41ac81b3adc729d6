"""Every block of the founding document runs as it is written, from a checkout, against a server on loopback."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from providers.testing import Fault, LoopbackServer

from ..scenarios.vendor import CHAT, RESPONSES
from .conftest import Runner


def test_basic_usage(run: Runner) -> None:
    """F-126, F-128, F-146."""
    done = run("Basic Usage")
    assert done.printed == "You said: What is the capital of France?\n"
    assert done.bodies[0]["model"] == "gpt-4"
    assert done.bodies[0]["messages"] == [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ]


def test_streaming_responses(run: Runner) -> None:
    """F-129."""
    done = run("Streaming Responses")
    assert done.printed == "You said: Write a story about coding"
    assert done.bodies[0]["stream"] is True


def test_using_responses_api(run: Runner) -> None:
    """F-132."""
    done = run("Using Responses API")
    assert done.paths == {RESPONSES}
    assert done.names["response2"].content == "You said: What are decorators?"
    assert done.bodies[0]["instructions"] == done.bodies[1]["instructions"]
    assert done.bodies[1]["previous_response_id"] == done.names["response"].response_id


def test_advanced_configuration(run: Runner) -> None:
    """F-127, F-133."""
    done = run("Advanced Configuration")
    assert done.names["provider"].config == done.names["config"]
    assert done.names["provider"].config.temperature == 0.8
    assert done.server.count() == 0


def test_chat_completion_api(run: Runner) -> None:
    """F-130, F-131."""
    done = run("Chat Completion API")
    assert done.paths == {CHAT}
    assert done.names["response"].content == "You said: Hello!"
    assert done.bodies[0]["messages"] == done.names["messages"]


def test_responses_api(run: Runner) -> None:
    """F-132."""
    done = run("Responses API")
    assert done.paths == {RESPONSES}
    assert done.names["response"].response_id
    assert not done.bodies[0].get("previous_response_id")


def test_streaming_modes(run: Runner) -> None:
    """F-129, F-130; F-126: nothing is named, so the `.env` chooses."""
    done = run("Streaming Modes")
    assert done.printed == "You said: Hello\nYou said: Hello"
    assert [body.get("stream", False) for body in done.bodies] == [False, True]


@pytest.mark.parametrize(
    ("reply", "said", "requests"),
    [
        (None, "", 1),
        (
            Fault.status(400, {"error": {"message": "it is too long", "code": "context_length_exceeded"}}),
            "Token limit exceeded: ",
            1,
        ),
        (Fault.status(429, {"error": {"message": "slow down"}}, {"retry-after-ms": "1"}), "Rate limited: ", 4),
        (Fault.status(401, {"error": {"message": "wrong key", "code": "invalid_api_key"}}), "Provider error: ", 1),
    ],
)
def test_error_handling(run: Runner, vendor: LoopbackServer, reply: Any, said: str, requests: int) -> None:
    """F-135, F-144: the block's three handlers each catch what they are written for, after the default retries."""
    if reply is not None:
        vendor.clear()
        vendor.script(CHAT, reply, repeat=True)
    done = run("Error Handling")
    assert done.printed.startswith(said)
    assert bool(done.printed) is bool(said)
    assert done.server.count() == requests


def test_dynamic_configuration_updates(run: Runner) -> None:
    """F-139."""
    done = run("Dynamic Configuration Updates")
    assert done.bodies[0]["temperature"] == 0.9
    assert {done.bodies[0].get("max_tokens"), done.bodies[0].get("max_completion_tokens")} == {1000, None}


def test_provider_caching(run: Runner) -> None:
    """F-140."""
    first = run("Provider Caching").names["provider"]
    second = run("Provider Caching").names["provider"]
    assert first is not second, "the block clears the cache at its end"
    assert (first.name, first.config.api_type, first.config.stream_mode) == ("openai", "chat_completion", "disabled")


def test_configuration_objects(run: Runner) -> None:
    """F-127: positional name; configuration object and keyword arguments give one and the same."""
    done = run("1. Use Configuration Objects for Complex Settings")
    assert done.names["provider"].config.parameters() == done.names["config"].parameters()
    assert done.names["provider"].config.model_name == "gpt-4"


def test_always_handle_exceptions(
    run: Runner, vendor: LoopbackServer, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """F-135."""
    from src.providers import LLMProviderError

    done = run("2. Always Handle Exceptions", provider=None, logger=logger)
    assert done.prompts == ["Your prompt"] * 2
    vendor.clear()
    vendor.script(CHAT, Fault.status(403, {"error": {"message": "not for you"}}), repeat=True)
    # The second half of the block shows what not to do: there the error comes through.
    with pytest.raises(LLMProviderError, match="not for you"):
        run("2. Always Handle Exceptions", provider=None, logger=logger)
    assert "LLM error: " in caplog.text


def test_validate_token_limits(run: Runner) -> None:
    """F-141."""
    heading = "3. Validate Token Limits Before Expensive Calls"
    assert run(heading, provider=None, prompt="short").prompts == ["short"]
    long = "word " * 10_000
    done = run(heading, provider=None, prompt=long, truncate_prompt=lambda text: text[:9].strip())
    assert done.prompts == ["short", "word word"]


def test_use_streaming(run: Runner) -> None:
    """F-129, F-130."""
    shown: list[str] = []
    run("4. Use Streaming for Long Responses", display_to_user=shown.append)
    whole = "You said: Write a long article"
    assert len(shown) > 2
    assert "".join(shown[:-1]) == whole
    assert shown[-1] == whole


def test_reuse_providers(run: Runner) -> None:
    """F-143."""
    prompts = ["one", "two", "three"]
    assert run("5. Reuse Providers When Possible", prompts=prompts).prompts == prompts * 2


def test_provider_information(run: Runner) -> None:
    """F-141."""
    done = run("Getting Provider Information")
    assert done.printed == "Provider: openai\nModel: gpt-4\nAPI Type: chat_completion\nToken Limit: 8192\n"


def test_token_estimation(run: Runner) -> None:
    """F-141."""
    done = run("Token Estimation", provider=None)
    assert 3 <= done.names["estimated_tokens"] <= 12
    assert done.names["is_valid"] is True


def test_response_analysis(run: Runner, logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """F-134, F-144."""
    done = run("Response Analysis", provider=None, logger=logger)
    assert done.printed == "Prompt tokens: 1\nCompletion tokens: 3\nTotal tokens: 4\nFinish reason: stop\n"
    assert "Response data: {'content': 'You said: Test'" in caplog.text
    assert "your_api_key_here" not in caplog.text


def test_multi_turn_conversations(run: Runner) -> None:
    """F-131."""
    done = run("Multi-turn Conversations")
    assert done.names["response2"].content == "You said: Tell me a joke."
    assert [message["role"] for message in done.bodies[1]["messages"]] == ["system", "user", "assistant", "user"]
    assert done.bodies[1]["messages"][2]["content"] == "You said: Hello!"


def test_using_tools(run: Runner) -> None:
    """F-132: the chat-shaped tool goes out flat; the caller's own list is left as it was."""
    done = run("Using Tools/Function Calling")
    assert done.paths == {RESPONSES}
    [tool] = done.bodies[0]["tools"]
    assert tool["name"] == "get_current_weather"
    assert tool["parameters"]["required"] == ["location"]
    assert set(done.names["tools"][0]) == {"type", "function"}


def test_parallel_requests(run: Runner) -> None:
    """F-143: three at once, each answer with its own caller, in order."""
    done = run("Parallel Requests")
    assert done.printed.splitlines() == [f"You said: {prompt}" for prompt in done.names["prompts"]]
    assert sorted(done.prompts) == sorted(done.names["prompts"])
