"""What holds for a provider behind a server whose settings change while it is at work."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import pytest

from ...exceptions import LLMProviderConfigurationError, MissingCredentialsError
from ...remote import RemoteProvider
from ...types import LLMResponse, StreamEventType
from ...wire import SdkTransport
from ..server import LoopbackServer, Reply
from .kit import keep_tests

OLD_KEY: Final = "sk-old-key-123"
NEW_KEY: Final = "sk-new-key-456"


def change(provider: RemoteProvider, **options: Any) -> None:
    """Give a provider other settings; it takes them with `detach`, or when it opens."""
    provider.settings = type(provider.settings).resolve(provider.name, options)


_BOTH = pytest.mark.parametrize("transport", ["http", "sdk"])


class LiveSettingsConformance:
    """What holds for a `RemoteProvider` whose settings change; to be subclassed beside `RemoteConformance`.

    Each test has a `LoopbackServer` of its own in `self.server`, which answers `hi`. Tests cannot be dropped or
    changed.

    Attributes:
        transports: what the setting `transport` may be.
        refused: options that make no settings, of which each is tried alone.
    """

    transports: ClassVar[Sequence[str]] = ("http", "sdk")
    refused: ClassVar[Sequence[Mapping[str, Any]]] = ({"base_url": "no address"}, {"transport": "grpc"})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_tests(cls, LiveSettingsConformance)

    @abstractmethod
    def make_provider(self, **options: Any) -> RemoteProvider:
        """A new provider with these settings: `api_key`, `base_url`, `transport`."""
        raise NotImplementedError(f"{type(self).__qualname__} needs make_provider()")

    @abstractmethod
    def hi(self) -> Reply:
        """The backend's whole answer with the text "Hi"."""
        raise NotImplementedError(f"{type(self).__qualname__} needs hi()")

    @abstractmethod
    def hello(self) -> tuple[Sequence[object], int]:
        """The events of a stream with the text "Hello there", and how many of them hold some of it, and not all."""
        raise NotImplementedError(f"{type(self).__qualname__} needs hello()")

    def address(self, server: LoopbackServer) -> str:
        """What `base_url` is for a server."""
        return server.url

    def signature(self, key: str) -> tuple[str, str]:
        """The header by which a key signs in, and what it holds."""
        return "Authorization", f"Bearer {key}"

    # --- tools of the tests

    @pytest.fixture(autouse=True)
    def _transports(self, request: pytest.FixtureRequest) -> None:
        named = request.node.callspec.params.values() if hasattr(request.node, "callspec") else ()
        if {"http", "sdk"}.intersection(named) - set(self.transports):
            pytest.skip(f"the provider has no other transport than {', '.join(self.transports)}")

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with LoopbackServer() as self.server:
            self.server.script("*", self.hi(), repeat=True)
            yield

    def _run(self, work: Callable[[RemoteProvider], Awaitable[None]], transport: str) -> None:
        async def main() -> None:
            async with self.make_provider(**self._settings(OLD_KEY, self.server, transport)) as provider:
                await work(provider)
            assert await self.server.eventually(lambda: self.server.open_connections == 0, within=10)

        asyncio.run(main())

    def _settings(self, key: str, server: LoopbackServer, transport: str) -> dict[str, Any]:
        return {"api_key": key, "base_url": self.address(server), "transport": transport}

    async def _ask(self, provider: RemoteProvider) -> str:
        answer = await provider.execute("Hi")
        assert isinstance(answer, LLMResponse)
        return answer.content

    def _signed(self, server: LoopbackServer) -> list[list[str]]:
        return [request.headers.all(self.signature("")[0]) for request in server.requests]

    # --- the tests

    @_BOTH
    def test_a_stream_goes_on_while_the_next_call_has_the_new_settings(self, transport: str) -> None:
        """Issue 4: a rotated key counts from the next call on, with its address, and drops no stream."""
        goes_on = threading.Event()
        events, before = self.hello()

        async def held() -> Any:
            for number, event in enumerate(events):
                if number == before:
                    await asyncio.to_thread(goes_on.wait, 30)
                yield event

        async def work(provider: RemoteProvider) -> None:
            stream = provider.stream("Hi")
            async for event in stream:
                if event.type is StreamEventType.TOKEN:
                    break
            change(provider, **self._settings(NEW_KEY, other, transport))
            close_old = provider.detach()
            assert [await self._ask(provider) for _ in range(2)] == ["Hi", "Hi"]
            goes_on.set()
            rest = [event async for event in stream]
            assert rest[-1].data.content == "Hello there"
            await close_old()
            await close_old()
            assert await self._ask(provider) == "Hi"

        self.server.clear()
        self.server.script("*", Reply.sse(held, done=None))
        with LoopbackServer() as other, warnings.catch_warnings():
            warnings.simplefilter("error")
            other.script("*", self.hi(), repeat=True)
            self._run(work, transport)
            assert other.wait_until(lambda: other.open_connections == 0, 10)
            gc.collect()
        assert self._signed(self.server) == [[self.signature(OLD_KEY)[1]]]
        assert self._signed(other) == [[self.signature(NEW_KEY)[1]]] * 3

    @_BOTH
    def test_settings_that_are_refused_change_nothing(self, transport: str) -> None:
        """The next call is made with what held before."""

        async def work(provider: RemoteProvider) -> None:
            await self._ask(provider)
            before, settings = dict(vars(provider)), provider.settings
            for options in self.refused:
                change(provider, **options)
                with pytest.raises((LLMProviderConfigurationError, MissingCredentialsError)):
                    provider.detach()
                provider.settings = settings
                assert vars(provider) == before, options
            await self._ask(provider)

        self._run(work, transport)
        assert self._signed(self.server) == [[self.signature(OLD_KEY)[1]]] * 2

    @pytest.mark.parametrize(("first", "then"), [("http", "sdk"), ("sdk", "http")])
    def test_the_transport_can_change(self, first: str, then: str) -> None:
        """From the next call on; it is made once."""

        async def work(provider: RemoteProvider) -> None:
            await self._ask(provider)
            change(provider, **self._settings(OLD_KEY, self.server, then))
            close_old = provider.detach()
            # Also before `open` is called once more: what runs still may try again over it.
            assert isinstance(provider._transport, SdkTransport) == (then == "sdk")
            made = provider._transport
            provider.open()
            assert provider._transport is made
            await self._ask(provider)
            await close_old()

        self._run(work, first)
        agents = [request.headers["User-Agent"] for request in self.server.requests]
        assert ["aiohttp" in agent for agent in agents] == [first == "http", then == "http"]

    @_BOTH
    def test_settings_that_change_at_rest(self, transport: str) -> None:
        """Nobody has to say so: the next opening sees it."""

        async def work(provider: RemoteProvider) -> None:
            for key in (OLD_KEY, NEW_KEY):
                change(provider, **self._settings(key, self.server, transport))
                await self._ask(provider)
                await provider.rest_when_idle()

        self._run(work, transport)
        assert self._signed(self.server) == [[self.signature(key)[1]] for key in (OLD_KEY, NEW_KEY)]
