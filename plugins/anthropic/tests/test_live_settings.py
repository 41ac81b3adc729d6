"""New settings for a provider at work: the next call has the new key and address, and no stream is dropped."""

from __future__ import annotations

from typing import Any, ClassVar

from llm_provider_anthropic import AnthropicProvider
from providers.testing import LiveSettingsConformance, LoopbackServer, Reply
from providers.testing.conformance.live import NEW_KEY, OLD_KEY, change

from . import bodies
from .conftest import OLD, Make


class TestLiveSettings(LiveSettingsConformance):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"auth_header": "cookie"},
        {"api_key": "a", "auth_token": "b"},
        # Comes to light after the token and the betas were worked out.
        {"betas": ["b"], "base_url": "no"},
    ]

    def make_provider(self, **options: Any) -> AnthropicProvider:
        return AnthropicProvider(OLD, **options)

    def signature(self, key: str) -> tuple[str, str]:
        return "X-Api-Key", key

    def hi(self) -> Reply:
        return Reply.json(bodies.said("Hi"))

    def hello(self) -> tuple[list[Any], int]:
        return bodies.stream(bodies.text("Hello there")), 4


async def test_all_that_follows_from_the_settings_changes(make: Make, server: LoopbackServer, transport: str) -> None:
    server.script("*", Reply.json(bodies.said("Hi")), repeat=True)
    provider = make(OLD, transport=transport, api_key=OLD_KEY, betas=["a-1"])
    await provider.execute("Hi")
    change(
        provider, auth_token=NEW_KEY, base_url=server.url, transport=transport, api_version="2023-01-01", betas=["b-2"]
    )
    close_old = provider.detach()
    await provider.execute("Hi", extra={"betas": ["c-3"]})
    await close_old()
    head = server.requests[-1].headers
    assert head.all("Authorization") == [f"Bearer {NEW_KEY}"]
    assert "x-api-key" not in head
    assert head.all("anthropic-version") == ["2023-01-01"]
    assert head.all("anthropic-beta") == ["b-2,c-3"]
    assert set(provider._secrets) == {NEW_KEY}
