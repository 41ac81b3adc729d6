"""Powers beyond text: structure, tools, vectors, kept conversations. Each works, or is refused clearly."""

from __future__ import annotations

import pytest

from ...base import LLMProvider
from ...capabilities import Embeddings
from ...exceptions import LLMProviderUnsupportedOperationError
from ...types import LLMResponse, StreamEvent, StreamEventType, ToolCall, ToolCallDelta
from .kit import Kit

_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class PowerTests(Kit):
    """What a provider can do beyond text."""

    def test_structured_output_or_a_clear_refusal(self) -> None:
        """F-009, F-066: a pydantic instance from a model class; never plain text in its place."""
        from pydantic import BaseModel

        class Answer(BaseModel):
            answer: str

        async def work(provider: LLMProvider) -> None:
            options = {"schema": Answer, "max_tokens": 64}
            if not self.supports_structured_output:
                with pytest.raises((LLMProviderUnsupportedOperationError, ValueError)):
                    await self._answer(provider, self.structured_prompt, **options)
                return
            assert isinstance((await self._answer(provider, self.structured_prompt, **options)).parsed, Answer)
            done = (await self._events(provider, self.structured_prompt, **options))[-1].data
            assert isinstance(done.parsed, Answer)

        self._run(work)

    def test_tool_calls_arrive_whole(self) -> None:
        """F-072, F-073, F-120: START, DELTAs, END for each call; an id, a name, arguments that parse."""

        async def work(provider: LLMProvider) -> None:
            if not self.supports_tool_calls:
                return
            options = {"tools": [_TOOL], "tool_choice": "required", "max_tokens": 256}
            response = await self._answer(provider, self.tool_prompt, **options)
            assert response.has_tool_calls
            call = (response.tool_calls or [])[0]
            assert call.id
            assert call.name == "get_weather"
            assert isinstance(call.parse_arguments(), dict)
            self._check_call_events(await self._events(provider, self.tool_prompt, **options))

        self._run(work)

    def _check_call_events(self, events: list[StreamEvent]) -> None:
        spelled: dict[str, str] = {}
        ended: list[ToolCall] = []
        for event in events:
            delta = event.data
            if event.type is StreamEventType.TOOL_CALL_START:
                assert isinstance(delta, ToolCallDelta)
                assert delta.id
                assert delta.id not in spelled
                spelled[delta.id] = ""
            elif event.type is StreamEventType.TOOL_CALL_DELTA:
                spelled[delta.id] += delta.arguments
            elif event.type is StreamEventType.TOOL_CALL_END:
                ended.append(delta)
        assert ended
        assert {call.id: call.arguments for call in ended} == {id: text or "{}" for id, text in spelled.items()}
        assert events[-1].data.tool_calls == ended

    def test_embeddings_or_a_clear_refusal(self) -> None:
        """F-076: one vector for each text, floats either way; else a NotImplementedError."""

        async def work(provider: LLMProvider) -> None:
            if not isinstance(provider, Embeddings):
                with pytest.raises(NotImplementedError):
                    await provider.embed("text")
                return
            many = await provider.embed(["one text", "another text"])
            assert many.ok, many.error
            assert len(many.embeddings) == 2
            assert all(isinstance(number, float) for number in many.embedding)
            assert (await provider.embed("one text", encoding_format="base64")).embedding == pytest.approx(
                many.embedding, abs=1e-4
            )

        self._run(work)

    def test_responses_api_or_a_clear_refusal(self) -> None:
        """F-132, F-138: a response id, or LLMProviderUnsupportedOperationError."""

        async def work(provider: LLMProvider) -> None:
            if not self.supports_responses_api:
                with pytest.raises(LLMProviderUnsupportedOperationError):
                    await provider.execute_responses_api(self.prompt)
                return
            response = await provider.execute_responses_api(self.prompt, "Be brief.", **self.options)
            assert isinstance(response, LLMResponse)
            assert response.response_id
            assert response.content

        self._run(work)
