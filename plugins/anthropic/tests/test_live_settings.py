"""New settings for a provider at work: the next call has the new key and address, and no stream is dropped."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_provider_anthropic import AnthropicProvider
from providers.exceptions import LLMProviderConfigurationError
from providers.testing import LoopbackServer, Reply
from providers.types import StreamEventType

from . import bodies
from .conftest import OLD, Make

OLD_KEY, NEW_KEY = "sk-old-key-123", "sk-new-key-456"


def change(provider: AnthropicProvider, **options: Any) -> None:
    provider.settings = type(provider.settings).resolve(provider.name, options)


async def test_a_stream_goes_on_while_the_next_call_has_the_new_settings(
    make: Make, server: LoopbackServer, transport: str
) -> None:
    """Issue 4: a rotated key counts from the next call on, and drops no stream."""
    goes_on = threading.Event()

    async def held() -> AsyncIterator[object]:
        for number, event in enumerate(bodies.stream(bodies.text("Hello there"))):
            if number == 4:
                await asyncio.to_thread(goes_on.wait, 30)
            yield event

    with LoopbackServer() as other, warnings.catch_warnings():
        warnings.simplefilter("error")
        server.script("*", Reply.sse(held, done=None))
        other.script("*", Reply.json(bodies.said("Hi")), repeat=True)
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
    assert [request.headers.all("X-Api-Key") for request in server.requests] == [["" + OLD_KEY]]
    assert [request.headers.all("X-Api-Key") for request in other.requests] == [["" + NEW_KEY]] * 3


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


async def test_settings_that_are_refused_change_nothing(make: Make, server: LoopbackServer, transport: str) -> None:
    server.script("*", Reply.json(bodies.said("Hi")), repeat=True)
    provider = make(OLD, transport=transport, api_key=OLD_KEY)
    await provider.execute("Hi")
    before = dict(vars(provider))
    settings = provider.settings
    # The last comes to light after the token and the betas were worked out.
    for options in ({"auth_header": "cookie"}, {"api_key": "a", "auth_token": "b"}, {"betas": ["b"], "base_url": "no"}):
        change(provider, **options)
        with pytest.raises(LLMProviderConfigurationError):
            provider.detach()
        provider.settings = settings
        assert vars(provider) == before
    await provider.execute("Hi")
    assert server.requests[-1].headers["X-Api-Key"] == OLD_KEY
