"""New settings for a provider at work: the next call has the new key and address, and no stream is dropped."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_provider_openai import OpenAIProvider
from providers.exceptions import LLMProviderConfigurationError, MissingCredentialsError
from providers.testing import LoopbackServer, Reply
from providers.types import APIType, StreamEventType
from providers.wire import SdkTransport

from . import bodies
from .conftest import Make

OLD_KEY, NEW_KEY = "sk-old-key-123", "sk-new-key-456"


def change(provider: OpenAIProvider, **options: Any) -> None:
    provider.settings = type(provider.settings).resolve(provider.name, options)


async def test_a_stream_goes_on_while_the_next_call_has_the_new_settings(
    make: Make, server: LoopbackServer, transport: str
) -> None:
    """Issue 4: a rotated key counts from the next call on, and drops no stream."""
    goes_on = threading.Event()

    async def held() -> AsyncIterator[object]:
        for number, event in enumerate(bodies.chat_stream("Hello", " there")):
            if number == 2:
                await asyncio.to_thread(goes_on.wait, 30)
            yield event

    with LoopbackServer() as other, warnings.catch_warnings():
        warnings.simplefilter("error")
        server.script("*", Reply.sse(held, done=None))
        other.script("*", Reply.json(bodies.chat("Hi")), repeat=True)
        provider = make(api_key=OLD_KEY, transport=transport)
        stream = provider.stream("Hi")
        async for event in stream:
            if event.type is StreamEventType.TOKEN:
                break
        change(provider, api_key=NEW_KEY, base_url=f"{other.url}/v1", transport=transport)
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
    assert [request.headers.all("Authorization") for request in server.requests] == [["Bearer " + OLD_KEY]]
    assert [request.headers.all("Authorization") for request in other.requests] == [["Bearer " + NEW_KEY]] * 3


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


@pytest.mark.parametrize(
    "options",
    [{"base_url": "no address"}, {"transport": "grpc"}, {"default_headers": {"X": "a\nb"}}, {}],
    ids=["address", "transport", "header", "key"],
)
async def test_settings_that_are_refused_change_nothing(
    make: Make, server: LoopbackServer, transport: str, options: dict[str, Any]
) -> None:
    server.script("*", Reply.json(bodies.chat("Hi")), repeat=True)
    provider = make(transport=transport, api_key=OLD_KEY)
    await provider.execute("Hi")
    before = dict(vars(provider))
    settings = provider.settings
    change(provider, **options)
    with pytest.raises((LLMProviderConfigurationError, MissingCredentialsError)):
        provider.detach()
    provider.settings = settings
    assert vars(provider) == before
    await provider.execute("Hi")
    assert server.requests[-1].headers["Authorization"] == f"Bearer {OLD_KEY}"


@pytest.mark.parametrize(("first", "then"), [("http", "sdk"), ("sdk", "http")])
async def test_the_transport_can_change(make: Make, server: LoopbackServer, first: str, then: str) -> None:
    server.script("*", Reply.json(bodies.chat("Hi")), repeat=True)
    provider = make(transport=first)
    await provider.execute("Hi")
    change(provider, base_url=f"{server.url}/v1", transport=then)
    close_old = provider.detach()
    # Also before `open` is called once more: what runs still may try again over it.
    assert isinstance(provider._transport, SdkTransport) == (then == "sdk")
    made = provider._transport
    provider.open()
    assert provider._transport is made
    await provider.execute("Hi")
    await close_old()
    agents = [request.headers["User-Agent"].partition("/")[0].lower() for request in server.requests]
    assert [("openai" in agent) for agent in agents] == [first == "sdk", then == "sdk"]


async def test_settings_that_change_at_rest(make: Make, server: LoopbackServer, transport: str) -> None:
    """Nobody has to say so: the next opening sees it."""
    server.script("*", Reply.json(bodies.chat("Hi")), repeat=True)
    provider = make(transport=transport, api_key=OLD_KEY)
    for key in (OLD_KEY, NEW_KEY):
        change(provider, api_key=key, base_url=f"{server.url}/v1", transport=transport)
        await provider.execute("Hi")
        await provider.rest_when_idle()
    assert [request.headers["Authorization"] for request in server.requests] == [
        f"Bearer {key}" for key in (OLD_KEY, NEW_KEY)
    ]
    assert await server.eventually(lambda: server.open_connections == 0, within=10)


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
