"""New settings for a provider at work: the next call has the new key and address, and no stream is dropped."""

from __future__ import annotations

from typing import Any, ClassVar

from llm_provider_gemini import GeminiProvider
from providers.testing import LiveSettingsConformance, LoopbackServer, Reply
from providers.testing.conformance.live import OLD_KEY, change

from . import bodies
from .conftest import Make


class TestLiveSettings(LiveSettingsConformance):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"api_version": "a/b"},
        {"base_url": "http://127.0.0.1:9/v1", "api_version": "v1beta"},
    ]

    def make_provider(self, **options: Any) -> GeminiProvider:
        return GeminiProvider("gemini-3.8-flash", **options)

    def signature(self, key: str) -> tuple[str, str]:
        return "x-goog-api-key", key

    def hi(self) -> Reply:
        return Reply.json(bodies.reply(bodies.text("Hi")))

    def hello(self) -> tuple[list[Any], int]:
        return bodies.stream([bodies.text("Hello")], [bodies.text(" there")]), 1


async def test_all_that_follows_from_the_settings_changes(make: Make, server: LoopbackServer, transport: str) -> None:
    server.script("*", Reply.json(bodies.reply(bodies.text("Hi"))), repeat=True)
    provider = make(transport=transport, api_key=OLD_KEY)
    await provider.execute("Hi")
    change(
        provider, base_url=server.url, transport=transport, api_version="v1beta", default_headers={"X-Auth": "s3cr3t-x"}
    )
    close_old = provider.detach()
    await provider.execute("Hi")
    await close_old()
    assert [request.path.split("/")[1] for request in server.requests] == ["v1", "v1beta"]
    assert "x-goog-api-key" not in server.requests[-1].headers
    assert set(provider._secrets) == {"s3cr3t-x"}
