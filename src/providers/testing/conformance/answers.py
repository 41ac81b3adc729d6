"""Whole answers: their fields, their usage, and every spelling of a conversation."""

from __future__ import annotations

import json
from typing import Final

import pytest

from ...base import LLMProvider
from ...types import LLMResponse, Message, ToolCall, Usage
from .kit import Kit

_LONG: Final = "Remember that the blue boat lies behind the old bridge and that nobody has painted it since May."


class AnswerTests(Kit):
    """What a whole answer must be."""

    def test_a_prompt_gets_a_whole_answer(self) -> None:
        """F-128, F-134: an LLMResponse with all its fields, JSON-safe."""
        response = self._run(self._answer)
        assert response.ok
        assert isinstance(response.content, str)
        assert response.content
        assert response.provider_type
        assert response.model
        assert response.finish_reason, "generate() must say how the answer ended: StreamEvent.finish(reason)"
        assert json.loads(json.dumps(response.to_dict()))["content"] == response.content

    def test_usage_is_known_or_none(self) -> None:
        """F-068, C-17: figures add up; what is unknown is None and not zero."""
        usage = self._run(self._answer).usage
        if self.reports_usage:
            assert usage.input_tokens
            assert usage.output_tokens
            assert usage.total_tokens == usage.input_tokens + usage.output_tokens
        else:
            assert usage.total_tokens is None

    def test_a_system_prompt_is_taken(self) -> None:
        """F-128: execute(prompt, system_prompt)."""
        work = lambda provider: self._answer(provider, system_prompt="Answer in one word.")  # noqa: E731
        assert self._run(work).ok

    def test_conversations_in_every_spelling(self) -> None:
        """F-131, F-064: dicts, Messages, tool results; the caller's objects stay as they are."""
        talk = [
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": "Hello!"},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": self.prompt},
        ]
        before = json.dumps(talk)
        call = ToolCall("call_1", "get_weather", '{"city": "Paris"}')
        with_tools = [
            Message.user("What is the weather in Paris?"),
            Message.assistant(None, [call]),
            Message.tool_result("call_1", "Sunny, 22 degrees.", "get_weather"),
        ]

        async def work(provider: LLMProvider) -> None:
            for messages in ([Message.from_dict(item) for item in talk], Message.user(self.prompt), with_tools):
                assert (await self._answer(provider, messages)).ok
            response = await provider.execute_chat_completion(talk, **self.options)
            assert isinstance(response, LLMResponse)
            again = [*talk, response.to_message(), Message.user("And now?")]
            assert (await provider.complete(again, **self.options)).ok

        self._run(work)
        assert json.dumps(talk) == before
        assert call.arguments == '{"city": "Paris"}'

    def test_the_whole_conversation_reaches_the_backend(self) -> None:
        """F-131: a talk of three turns is more input than its last message; not only that message is sent."""
        if not self.reports_usage:
            return
        talk = [Message.user(_LONG), Message.assistant("I remember it."), Message.user(self.prompt)]

        async def tokens(provider: LLMProvider, prompt: object) -> int:
            return (await self._answer(provider, prompt)).usage.input_tokens or 0

        async def work(provider: LLMProvider) -> tuple[int, int, int]:
            return await tokens(provider, self.prompt), await tokens(provider, _LONG), await tokens(provider, talk)

        alone, long, whole = self._run(work)
        if alone == long:
            pytest.skip("the figures do not grow with the prompt, so they cannot tell whether history is sent")
        assert whole > max(alone, long), (
            f"{whole} input tokens for three turns, {alone} for the last one alone: generate() must send all of "
            "request.messages"
        )

    def test_an_answer_can_be_cut_short(self) -> None:
        """F-006: max_tokens, and the finish reason that tells of it."""
        if self.honours_max_tokens:
            response = self._run(lambda provider: self._answer(provider, max_tokens=1))
            assert response.finish_reason == "length"

    def test_unknown_usage_is_not_zero(self) -> None:
        """C-17: an empty Usage holds None."""
        assert Usage().to_dict() == dict.fromkeys(Usage().keys())
