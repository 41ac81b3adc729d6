"""New settings for a provider at work: the next call has the new key and address, and no stream is dropped."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_provider_gemini import GeminiProvider
from providers.exceptions import LLMProviderConfigurationError
from providers.testing import LoopbackServer, Reply
from providers.types import StreamEventType

from . import bodies
from .conftest import Make

OLD_KEY, NEW_KEY = "AIza-old-key-123", "AIza-new-key-456"


def change(provider: GeminiProvider, **options: Any) -> None:
    provider.settings = type(provider.settings).resolve(provider.name, options)


async def test_a_stream_goes_on_while_the_next_call_has_the_new_settings(
    make: Make, server: LoopbackServer, transport: str
) -> None:
    """Issue 4: a rotated key counts from the next call on, and drops no stream."""
    goes_on = threading.Event()

    async def held() -> AsyncIterator[object]:
        for number, event in enumerate(bodies.stream([bodies.text("Hello")], [bodies.text(" there")])):
            if number == 1:
                await asyncio.to_thread(goes_on.wait, 30)
            yield event

    with LoopbackServer() as other, warnings.catch_warnings():
        warnings.simplefilter("error")
        server.script("*", Reply.sse(held, done=None))
        other.script("*", Reply.json(bodies.reply(bodies.text("Hi"))), repeat=True)
        provider = make(api_key=OLD_KEY, transport=transport)
        stream = provider.stream("Hi")
        async for event in stream:
            if event.type is StreamEventType.TOKEN:
                break
        change(provider, api_key=NEW_KEY, base_url=other.url, transport=transport)
        close_old = provider.detach()
        assert [(await provider.execute("Hi")).content for _ in range(2)] == ["Hi", "Hi"]  # type: ignore[union-attr]
        goes_on.set()
        rest = [event async for event in stream]
        assert rest[-1].data.content == "Hello there"
        await close_old()
        await close_old()
        assert (await provider.execute("Hi")).content == "Hi"  # type: ignore[union-attr]
        await provider.close()
        assert await server.eventually(lambda: server.open_connections == 0, within=10)
        assert await other.eventually(lambda: other.open_connections == 0, within=10)
        gc.collect()
    assert [request.headers.all("x-goog-api-key") for request in server.requests] == [["" + OLD_KEY]]
    assert [request.headers.all("x-goog-api-key") for request in other.requests] == [["" + NEW_KEY]] * 3


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


async def test_settings_that_are_refused_change_nothing(make: Make, server: LoopbackServer, transport: str) -> None:
    server.script("*", Reply.json(bodies.reply(bodies.text("Hi"))), repeat=True)
    provider = make(transport=transport, api_key=OLD_KEY)
    await provider.execute("Hi")
    before = dict(vars(provider))
    settings = provider.settings
    for options in ({"api_version": "a/b"}, {"base_url": f"{server.url}/v1", "api_version": "v1beta"}):
        change(provider, **options)
        with pytest.raises(LLMProviderConfigurationError):
            provider.detach()
        provider.settings = settings
        assert vars(provider) == before
    await provider.execute("Hi")
    assert server.requests[-1].headers["x-goog-api-key"] == OLD_KEY
