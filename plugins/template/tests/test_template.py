"""The template's own tests: the conformance kit, and what is special about it."""

from __future__ import annotations

from typing import Any

import pytest

from llm_provider_template import TemplateProvider
from providers import (
    LLMProvider,
    LLMProviderConfigurationError,
    LLMResponse,
    MissingCredentialsError,
    create_llm_provider,
)
from providers.testing import ProviderConformance


class TestConformance(ProviderConformance):
    secret = "canary-template-key"

    def make_provider(self, **options: Any) -> LLMProvider:
        return TemplateProvider("template-1", api_key=self.secret, **options)


async def test_it_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-171, F-173: installing the distribution is all that it takes; settings come from the environment."""
    monkeypatch.setenv("TEMPLATE_API_KEY", "from-the-environment")
    monkeypatch.setenv("TEMPLATE_VOICE", "loud")
    async with create_llm_provider("template", "template-1") as provider:
        response = await provider.execute("hello there")
        assert isinstance(response, LLMResponse)
        assert response.content == "HELLO THERE"
        assert provider.settings.sources["voice"] == "environment variable TEMPLATE_VOICE"


def test_without_a_key_it_names_the_variable(clean_provider_settings: object) -> None:
    """A missing key names the variable to set."""
    with pytest.raises(MissingCredentialsError, match="TEMPLATE_API_KEY"):
        TemplateProvider("template-1")


async def test_the_whole_conversation_is_sent() -> None:
    """A model has no memory: what is not sent was never said."""
    heard: list[Any] = []

    class Listening(TemplateProvider):
        def open(self) -> None:
            super().open()
            answer = self.service.stream

            def stream(body: dict[str, Any]) -> Any:
                heard.append(body)
                return answer(body)

            self.service.stream = stream  # type: ignore[method-assign]

    talk = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "I am Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "Who am I?"},
    ]
    async with Listening("template-1", api_key="k") as provider:
        response = await provider.complete(talk)
        alone = await provider.complete("Who am I?")
    assert heard[0]["system"] == "Be kind."
    assert heard[0]["turns"] == [{"who": said["role"], "text": said["content"]} for said in talk[1:]]
    assert response.content == alone.content == "Who am I?"
    assert (response.prompt_tokens, alone.prompt_tokens) == (10, 3)


async def test_no_pieces_are_an_empty_answer() -> None:
    """A service may say nothing; that is an answer, and no UnboundLocalError."""
    async with TemplateProvider("template-1", api_key="k") as provider:
        response = await provider.complete(" ")
        assert (response.ok, response.content, response.finish_reason) == (True, "", "stop")
        assert response.usage.total_tokens is None
        assert [event.type.value for event in [event async for event in provider.stream(" ")]][-1] == "done"


async def test_a_setting_that_the_service_refuses() -> None:
    """The SDK's own error becomes ours, and names what is wrong."""
    async with TemplateProvider("template-1", api_key="k", voice="shrill") as provider:
        with pytest.raises(
            LLMProviderConfigurationError, match="voice must be 'plain' or 'loud', not 'shrill'"
        ) as caught:
            await provider.execute("hi")
    assert caught.value.provider == "template"
