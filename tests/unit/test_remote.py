"""What providers share whose backend is a server: settings, transports, sign-in, errors, and settings that change."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from providers import (
    LLMProviderAPIError,
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderResponseError,
    LLMProviderStreamError,
    LLMProviderUnsupportedOperationError,
    LLMResponse,
    MissingCredentialsError,
    MissingDependencyError,
    PluginError,
    Request,
    StreamEvent,
    StreamEventType,
    Usage,
    setting,
)
from providers.plugins import check_provider_class
from providers.profiles import ProfileTable
from providers.remote import RemoteProvider, RemoteSettings
from providers.testing import Fault, LoopbackServer, Reply
from providers.wire import Failed, HttpTransport, SdkTransport

KEY = "sk-of-the-tests-123"


@dataclass(kw_only=True, eq=False)
class AcmeSettings(RemoteSettings):
    """As an author writes them."""

    env_prefix: ClassVar[str] = "ACME_"

    team: str | None = setting()


class Acme(RemoteProvider):
    """As an author writes one, and what a bare word of the answer is."""

    name = "acme"
    Settings = AcmeSettings
    vendor_url = "https://api.acme.example/v1"
    settings: AcmeSettings

    def headers(self) -> dict[str, str]:
        key = self.settings.api_key
        return {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}

    @staticmethod
    def classify(status: int | None, code: str | None, type: str | None, message: str) -> Any:
        return LLMProviderUnsupportedOperationError if code == "never" else None

    def sdk_transport(self) -> SdkTransport:
        from .wire.small_sdk import SmallTransport

        return SmallTransport(self.address(), **self.wiring())

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        reply, request_id = self._transport.read(await self._transport.post("/say", {}, request.timeout))
        if reply.get("error"):
            raise self._refusal(reply, request_id)
        yield StreamEvent.token(reply["word"])

    async def count(self, **options: Any) -> int:
        request = self._request("Hi", None, options, stream=False)
        return await self._ask(
            request,
            lambda transport: transport.request("GET", "/count", None, request.timeout),
            lambda reply, request_id: int(reply["count"]),
        )


class Letters:
    """A decoder: of each event the word, until one says that it is the last."""

    def __init__(self, provider: RemoteProvider) -> None:
        self._provider = provider
        self.done = False

    def begin(self, request_id: str | None) -> None:
        self.request_id = request_id

    def feed(self, name: str | None, data: bytes) -> list[StreamEvent]:
        told = json.loads(data)
        if "error" in told:
            raise self._provider._refusal(told, self.request_id)
        self.done = told.get("last", False)
        return [StreamEvent.token(told["word"])]

    def finish(self) -> list[StreamEvent]:
        if not self.done:
            raise LLMProviderStreamError("no last word", provider="acme", request_id=self.request_id)
        return [StreamEvent.usage(Usage(3, 2)), StreamEvent.finish("stop", response_id=self.request_id)]


class Streaming(Acme):
    """One that says what a whole answer is, and what one in pieces."""

    def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        return self._answer(request, self._begin)

    async def respond(self, request: Request) -> list[StreamEvent]:
        return [event async for event in Acme.generate(self, request)]

    def _begin(self, request: Request, failed: Failed) -> AsyncIterator[StreamEvent]:
        if request.params.get("top_p"):
            raise LLMProviderUnsupportedOperationError("no top_p", provider=self.name)
        return self._transport.stream("/stream", {}, request.timeout, Letters(self), failed=failed)


class OnlyStreaming(RemoteProvider):
    """One that has no other way to a whole answer."""

    name = "acme"

    def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        return self._answer(
            request, lambda put, failed: self._transport.stream("/stream", {}, put.timeout, Letters(self), None, failed)
        )


class NoSdk(RemoteProvider):
    """One whose author has nothing but HTTP, and no key."""

    name = "nosdk"


class Lacking(Acme):
    """One whose SDK is not installed."""

    sdk_package = "acme-sdk: pip install acme-sdk"

    def sdk_transport(self) -> SdkTransport:
        raise ImportError("No module named 'acme_sdk'")


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as started:
        started.script("/say", Reply.json({"word": "Hi"}), repeat=True)
        yield started


@pytest.fixture(params=["http", "sdk"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def change(provider: Acme, **options: Any) -> None:
    provider.settings = AcmeSettings.resolve("acme", options)


async def say(provider: Acme) -> str:
    answer = await provider.execute("Hi")
    assert isinstance(answer, LLMResponse)
    return answer.content


# --- settings, and who may be called without a key


async def test_settings_of_every_remote_provider(
    server: LoopbackServer, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_API_KEY", KEY)
    monkeypatch.setenv("ACME_BASE_URL", server.url)
    monkeypatch.setenv("ACME_TRANSPORT", transport)
    monkeypatch.setenv("ACME_DEFAULT_HEADERS", '{"X-Team": "red"}')
    async with Acme("m", team="a") as provider:
        assert await say(provider) == "Hi"
        assert isinstance(provider._transport, HttpTransport) == (transport == "http")
        assert not provider._vendor
        assert KEY not in f"{provider!r} {provider.settings!r} {provider._secrets!r} {provider._transport!r}"
    assert server.requests[0].headers.all("Authorization") == [f"Bearer {KEY}"]
    assert server.requests[0].headers["X-Team"] == "red"
    assert "X-Team" not in repr(provider.settings)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({}, MissingCredentialsError, "ACME_API_KEY"),
        ({"base_url": "https://eu.api.acme.example"}, MissingCredentialsError, "ACME_API_KEY"),
        (
            {"api_key": KEY, "transport": "grpc"},
            LLMProviderConfigurationError,
            "transport (argument) must be 'http' or",
        ),
        ({"api_key": KEY, "base_url": "acme"}, LLMProviderConfigurationError, "base_url 'acme'"),
        ({"api_key": KEY, "base_url": "http://["}, LLMProviderConfigurationError, "is not an address"),
        ({"api_key": KEY, "default_headers": {"X": "a\nb"}}, LLMProviderConfigurationError, "X"),
    ],
)
def test_what_is_refused_at_once(options: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        Acme("m", **options)
    assert words in str(caught.value)


def test_whose_server_it_is(tmp_path: Path) -> None:
    """The hosts of the data file, or that of the vendor's address."""
    data = tmp_path / "models.json"
    data.write_text(json.dumps({"vendor_hosts": ["acme.example"], "models": {}}), encoding="utf-8")

    class Told(Acme):
        profiles = ProfileTable(data)

    for cls, address, expected in (
        (Acme, None, True),
        (Acme, "https://eu.api.acme.example/v1", True),
        (Acme, "https://acme.example/v1", False),
        (Acme, "https://notapi.acme.example.org/v1", False),
        (Told, "https://acme.example/v1", True),
        (Told, "https://notacme.example/v1", False),
    ):
        assert cls("m", api_key=KEY, base_url=address)._vendor is expected, address
    # A header of the user's own that signs in takes the place of the key.
    assert Acme("m", default_headers={"AUTHORIZATION": "Basic abc-123"})._secrets == ("Basic abc-123", "abc-123")


def test_without_an_address_there_is_nobody_to_call() -> None:
    with pytest.raises(LLMProviderConfigurationError, match="base_url is blank"):
        NoSdk("m")
    assert not NoSdk("m", base_url="http://x")._vendor


async def test_a_transport_that_is_not_there() -> None:
    lacking = Lacking("m", api_key=KEY, transport="sdk")
    for _ in range(2):
        with pytest.raises(MissingDependencyError, match=r"needs the package acme-sdk: pip install acme-sdk \(No mod"):
            await lacking.execute("Hi")
    with pytest.raises(LLMProviderUnsupportedOperationError, match="transport='http' only"):
        await NoSdk("m", base_url="http://x", transport="sdk").execute("Hi")


# --- errors of calls, and of what is asked beside them


async def test_errors_are_placed_and_tried_again(server: LoopbackServer, transport: str) -> None:
    async with Acme("m", api_key=KEY, base_url=server.url, transport=transport, retry_delay=0.01) as provider:
        server.script("/count", Fault.status(503), Reply.json({"count": 3}))
        assert await provider.count() == 3
        assert server.count("/count") == 2
        for reply, kind in (
            (Reply.json({"error": {"message": f"no {KEY}", "code": "never"}}), LLMProviderUnsupportedOperationError),
            (Fault.status(400, {"error": {"message": "no", "code": "never"}}), LLMProviderUnsupportedOperationError),
            (Reply.json({"error": "words"}), LLMProviderAPIError),
            (Reply.json([]), LLMProviderResponseError),
        ):
            server.script("/count", reply)
            with pytest.raises(kind) as caught:
                await provider.count(attempts=1)
            assert caught.value.model == "m"  # type: ignore[attr-defined]
            assert KEY not in str(caught.value)
        assert provider.calls_under_way == 0


WORDS = [{"word": "Hel"}, {"word": "lo", "last": True}]


async def test_an_answer_in_pieces_is_what_the_decoder_makes(server: LoopbackServer, transport: str) -> None:
    """Whole answers come from `respond`, pieces from `streaming`; passing failures before the first are tried again."""
    known = {"x-request-id": "r-1"}
    server.script("/stream", Fault.status(503), Reply.sse([*WORDS, {"word": "unheard"}], headers=known))
    options: dict[str, Any] = {"base_url": server.url, "transport": transport, "retry_delay": 0.01}
    async with Streaming("m", api_key=KEY, **options) as provider:
        assert await say(provider) == "Hi"
        *pieces, done = [event async for event in provider.stream("Hi")]
        assert [event.data for event in pieces if event.type is StreamEventType.TOKEN] == ["Hel", "lo"]
        answer = done.data
        assert (answer.content, answer.finish_reason, answer.response_id) == ("Hello", "stop", "r-1")
        assert [attempt["status"] for attempt in answer.metadata["attempts"]] == [503]
        assert server.count("/stream") == 2
        assert provider.calls_under_way == 0


async def test_a_provider_without_a_way_to_whole_answers_streams_them(server: LoopbackServer) -> None:
    server.script("/stream", Reply.sse(WORDS), repeat=True)
    async with OnlyStreaming("m", base_url=server.url) as provider:
        answer = await provider.execute("Hi")
        assert (answer.content, answer.finish_reason) == ("Hello", "stop")
    assert check_provider_class("acme", OnlyStreaming) is OnlyStreaming


async def test_a_provider_without_any_says_so() -> None:
    with pytest.raises(PluginError, match="has no generate"):
        check_provider_class("nosdk", NoSdk)
    with pytest.raises(LLMProviderUnsupportedOperationError, match="has no generate"):
        await NoSdk("m", base_url="http://127.0.0.1:9").execute("Hi")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Fault.status(400, {"error": {"message": f"no {KEY}", "code": "never"}}), 0),
        (Reply.sse([WORDS[0], {"error": {"message": f"no {KEY}", "code": "never"}}]), 1),
        (Reply.sse([WORDS[0]], done=None), 1),
        (Reply.text("<html>", headers={"Content-Type": "text/html"}), 0),
        (Fault.hang_up(), 0),
    ],
)
async def test_errors_of_pieces_say_which_model_they_are_about(
    server: LoopbackServer, transport: str, reply: Any, said: int
) -> None:
    server.script("/stream", reply)
    async with Streaming("m", api_key=KEY, base_url=server.url, transport=transport) as provider:
        pieces: list[StreamEvent] = []

        async def read() -> None:
            async for event in provider.generate(provider._request("Hi", None, {}, stream=True)):
                pieces.append(event)

        with pytest.raises(LLMProviderError) as caught:
            await read()
        assert caught.value.model == "m"
        assert KEY not in str(caught.value)
        assert len(pieces) == said
        assert await server.eventually(lambda: server.open_connections == 0 or said == 0 or "last" in str(caught.value))


async def test_a_request_that_cannot_be_put_says_so_too(server: LoopbackServer) -> None:
    async with Streaming("m", api_key=KEY, base_url=server.url) as provider:
        with pytest.raises(LLMProviderUnsupportedOperationError) as caught:
            await anext(provider.stream("Hi", top_p=0.3))
        assert caught.value.model == "m"
        with pytest.raises(LLMProviderUnsupportedOperationError) as caught:
            provider.generate(provider._request("Hi", None, {"top_p": 0.3}, stream=True))
        assert caught.value.model == "m"
        assert not server.requests
        assert provider.calls_under_way == 0


# --- settings that change


async def test_the_next_call_has_the_new_settings(server: LoopbackServer, transport: str) -> None:
    provider = Acme("m", api_key=KEY, base_url=server.url, transport=transport)
    provider._plans["m"] = "worked out for the old settings"
    assert await say(provider) == "Hi"
    change(provider, api_key="sk-new-1234567", base_url=server.url, transport=transport)
    old, close_old = provider._transport, provider.detach()
    assert provider._transport is not old
    assert provider._plans == {}
    assert provider._secrets == ("sk-new-1234567",)
    assert await say(provider) == "Hi"
    await close_old()
    assert await say(provider) == "Hi"
    await provider.close()
    keys = [request.headers["Authorization"].partition(" ")[2] for request in server.requests]
    assert keys == [KEY, "sk-new-1234567", "sk-new-1234567"]
    assert await server.eventually(lambda: server.open_connections == 0, within=10)


async def test_one_that_was_never_opened_or_rests(server: LoopbackServer, transport: str) -> None:
    silent = Acme("m", base_url="http://127.0.0.1:9", transport=transport)
    change(silent, api_key="sk-number-0", base_url=server.url, transport=transport)  # and nobody says so
    assert await say(silent) == "Hi"
    await silent.close()
    provider = Acme("m", api_key=KEY, base_url="http://127.0.0.1:9", transport=transport)
    for number in (1, 2):
        change(provider, api_key=f"sk-number-{number}", base_url=server.url, transport=transport)
        await provider.detach()()
        assert await say(provider) == "Hi"
        await provider.rest_when_idle()
    change(provider, base_url=server.url, transport=transport)
    assert await say(provider) == "Hi"
    await provider.close()
    keys = [request.headers.get("Authorization", "") for request in server.requests]
    assert keys == ["Bearer sk-number-0", "Bearer sk-number-1", "Bearer sk-number-2", ""]


async def test_settings_that_are_refused_change_nothing(server: LoopbackServer, transport: str) -> None:
    provider = Lacking("m", api_key=KEY, base_url=server.url)
    assert await say(provider) == "Hi"
    before, settings = dict(vars(provider)), provider.settings
    # The last is told at once, not at the next call: the provider is at work.
    for options in ({}, {"api_key": KEY, "base_url": "no"}, {"base_url": server.url, "transport": "sdk"}):
        change(provider, **options)
        with pytest.raises((LLMProviderConfigurationError, MissingCredentialsError, MissingDependencyError)):
            provider.detach()
        provider.settings = settings
        assert vars(provider) == before
    assert await say(provider) == "Hi"
    await provider.close()


async def test_an_answer_that_is_asked_for_over_the_old_connections(server: LoopbackServer) -> None:
    """One that is tried again while the settings change stays with the transport and the life that it began with."""
    provider = Acme("m", api_key=KEY, base_url=server.url, retry_delay=0.01)

    def refuse(_: Any) -> Reply:
        change(provider, api_key=KEY, base_url="http://127.0.0.1:9", transport="sdk")
        closes.append(provider.detach())
        return Fault.status(503)

    closes: list[Any] = []
    server.script("/count", refuse, Reply.json({"count": 3}))
    life = provider._life
    assert await provider.count() == 3
    assert life.under_way == 0
    assert isinstance(provider._transport, SdkTransport)
    for close in closes:
        await close()
    await provider.close()
