"""New settings for a provider at work: the next call has the new key and address, and no stream is dropped."""

from __future__ import annotations

from typing import Any, ClassVar

from llm_provider_openai import OpenAIProvider
from providers.testing import LiveSettingsConformance, LoopbackServer, Reply
from providers.testing.conformance.live import NEW_KEY, change
from providers.types import APIType

from . import bodies
from .conftest import Make


class TestLiveSettings(LiveSettingsConformance):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"base_url": "no address"},
        {"transport": "grpc"},
        {"default_headers": {"X": "a\nb"}},
        {},  # no key
    ]

    def make_provider(self, **options: Any) -> OpenAIProvider:
        return OpenAIProvider("gpt-4", **options)

    def address(self, server: LoopbackServer) -> str:
        return f"{server.url}/v1"

    def hi(self) -> Reply:
        return Reply.json(bodies.chat("Hi"))

    def hello(self) -> tuple[list[Any], int]:
        return bodies.chat_stream("Hello", " there"), 2


async def test_all_that_follows_from_the_settings_changes(make: Make, transport: str) -> None:
    provider = make(transport=transport)
    provider.open()
    old = provider._plan("gpt-4")
    assert not provider._vendor
    change(provider, api_key=NEW_KEY, transport=transport, use_responses_api=True)
    await provider.detach()()
    assert provider._vendor
    assert provider._plan("gpt-4").chat["max_tokens"] != old.chat["max_tokens"]
    assert set(provider._secrets) == {NEW_KEY}
    assert provider.config.api_type is APIType.RESPONSES


async def test_an_interface_that_a_setting_chose_goes_with_the_setting(make: Make) -> None:
    provider = make(use_responses_api=True)
    assert provider.config.api_type is APIType.RESPONSES
    await provider.reload(use_responses_api=False)
    assert provider.config.api_type is APIType.CHAT_COMPLETION
    await provider.reload(use_responses_api=True)
    assert provider.config.api_type is APIType.RESPONSES
    provider.update_config(api_type=APIType.AUTO)
    await provider.reload(use_responses_api=False)
    assert provider.config.api_type is APIType.AUTO, "somebody has named another one since"
    named = make(api_type=APIType.RESPONSES)
    await named.reload(use_responses_api=False)
    assert named.config.api_type is APIType.RESPONSES
