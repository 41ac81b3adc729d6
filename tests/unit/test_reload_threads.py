"""New settings and openings in other threads and loops: each connection is used by those that know it, and closed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from providers import (
    LLMProvider,
    LLMProviderConfigurationError,
    LLMResponse,
    ProviderClosedError,
    Request,
    StreamEvent,
)

from .acme import AcmeSettings

pytestmark = pytest.mark.usefixtures("house")


class Connected(LLMProvider):
    """Answers with the key of its connection; a connection that is closed answers no more."""

    name = "connected"
    Settings = AcmeSettings
    aside = True

    def __init__(self, *args: Any, **options: Any) -> None:
        self.made: list[list[str]] = []
        self.connection: list[str] = []
        self.opens: Callable[[], None] = lambda: None
        self.detaches: Callable[[], None] = lambda: None
        super().__init__(*args, **options)

    def open(self) -> None:
        connection = [self.require("api_key")]
        self.opens()
        self.made.append(connection)
        self.connection = connection

    def detach(self) -> Callable[[], Awaitable[None]] | None:
        if not self.aside:
            self.detaches()
            return None
        old = self.connection
        self.detaches()

        async def close() -> None:
            old.clear()

        return close

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        connection = self.connection
        yield StreamEvent.token(connection[0])
        await asyncio.sleep(0)
        yield StreamEvent.token(f" {connection[0]}")
        yield StreamEvent.finish("stop")

    async def shut(self) -> None:
        self.connection.clear()

    @property
    def open_connections(self) -> list[str]:
        return [connection[0] for connection in self.made if connection]


class Slowly(Connected):
    slow_open = True


class Alone(Connected):
    """Old and new cannot stand side by side."""

    aside = False


class SlowlyAlone(Slowly, Alone):
    pass


async def text(provider: LLMProvider) -> str:
    answer = await provider.execute("Hi")
    assert isinstance(answer, LLMResponse)
    return answer.content


async def inside(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 20)


@pytest.mark.parametrize("kind", [Slowly, SlowlyAlone])
async def test_new_settings_during_a_slow_first_opening(kind: type[Connected]) -> None:
    """What it opens from the old settings is not known to the provider yet; both sides would forget it."""
    begun, goes_on = threading.Event(), threading.Event()
    provider = kind("m", api_key="old")

    def opens() -> None:
        begun.set()
        assert goes_on.wait(20)

    provider.opens = opens
    first = asyncio.create_task(text(provider))
    await inside(begun)
    reloading = asyncio.create_task(provider.reload(api_key="new"))
    await asyncio.sleep(0.02)
    goes_on.set()
    await reloading
    assert await first in ("old old", "new new")
    assert await text(provider) == "new new"
    assert provider.open_connections == ["new"]
    await provider.close()
    assert provider.open_connections == []


@pytest.mark.parametrize("kind", [Connected, Slowly, Alone, SlowlyAlone])
def test_a_first_call_while_the_settings_change(kind: type[Connected]) -> None:
    """It waits, is opened with what is there afterwards, and not opened once more."""
    begun, goes_on = threading.Event(), threading.Event()
    provider = kind("m", api_key="old")

    def detaches() -> None:
        begun.set()
        assert goes_on.wait(20)

    provider.detaches = detaches
    with ThreadPoolExecutor(2) as pool:
        reloading = pool.submit(asyncio.run, provider.reload(api_key="new"))
        assert begun.wait(20)
        first = pool.submit(asyncio.run, text(provider))
        time.sleep(0.05)
        assert (provider.made, provider.calls_under_way) == ([], 1)
        goes_on.set()
        assert (first.result(20), reloading.result(20)) == ("new new", None)
    assert [*map(len, provider.made)] == [1]
    assert asyncio.run(text(provider)) == "new new"
    assert provider.open_connections == ["new"]
    asyncio.run(provider.close())
    assert provider.open_connections == []


@pytest.mark.parametrize("end", ["close", "close_when_idle", "rest_when_idle"])
def test_an_end_while_the_settings_change(end: str) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    provider = Connected("m", api_key="old")
    assert asyncio.run(text(provider)) == "old old"

    def detaches() -> None:
        begun.set()
        assert goes_on.wait(20)

    provider.detaches = detaches
    with ThreadPoolExecutor(2) as pool:
        reloading = pool.submit(asyncio.run, provider.reload(api_key="new"))
        assert begun.wait(20)
        ending = pool.submit(asyncio.run, getattr(provider, end)())
        time.sleep(0.05)
        assert provider.open_connections == ["old"]
        goes_on.set()
        assert (reloading.result(20), ending.result(20)) == (None, None)
    assert provider.open_connections == []
    assert provider.is_closed is (end != "rest_when_idle")


async def test_new_settings_that_are_refused_let_a_waiting_end_happen() -> None:
    provider = Connected("m", api_key="old")
    await text(provider)

    def refuses() -> None:
        provider._life._rest_when_idle = True  # as another thread asks for it in this moment
        raise ValueError("no")

    provider.detaches = refuses
    with pytest.raises(ValueError, match="no"):
        await provider.reload(api_key="new")
    assert provider.open_connections == []
    assert await text(provider) == "old old"
    await provider.close()


async def test_waiting_for_an_opening_may_be_given_up() -> None:
    begun, goes_on = threading.Event(), threading.Event()
    provider = Slowly("m", api_key="old")

    def opens() -> None:
        begun.set()
        assert goes_on.wait(20)

    provider.opens = opens
    first = asyncio.create_task(text(provider))
    await inside(begun)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(provider.reload(api_key="new"), 0.02)
    goes_on.set()
    assert await first == "old old"
    await provider.reload(api_key="newer")
    assert await text(provider) == "newer newer"
    await provider.close()
    with pytest.raises(ProviderClosedError):
        await provider.reload()
    assert provider.open_connections == []


@pytest.mark.parametrize("kind", [Connected, Slowly, Alone])
def test_many_calls_and_many_changes(kind: type[Connected]) -> None:
    provider = kind("m", api_key="key-0")
    provider.opens = lambda: time.sleep(0.0005)
    ended = threading.Event()
    answers: list[str] = []

    async def calls() -> None:
        while not ended.is_set():
            answers.append(await text(provider))

    async def changes(turn: int) -> None:
        for number in range(40):
            await provider.reload(api_key=f"key{turn}-{number}")
            if number % 8 == 0:
                await provider.rest_when_idle()

    with ThreadPoolExecutor(6) as pool:
        calling = [pool.submit(asyncio.run, calls()) for _ in range(3)]
        for changing in [pool.submit(asyncio.run, changes(turn)) for turn in range(2)]:
            changing.result(60)
        ended.set()
        for one in calling:
            one.result(20)
    assert answers
    assert all(one == two and one.startswith("key") for one, two in (answer.split(" ") for answer in answers))
    last = asyncio.run(text(provider))
    assert last.startswith("key")
    assert len(provider.open_connections) == 1
    asyncio.run(provider.close())
    assert provider.open_connections == []
    assert provider.calls_under_way == 0


async def test_a_call_that_waits_takes_what_is_there_then_and_may_use_it_to_its_end() -> None:
    """Between its beginning and its first step lie the layers: it may wait there while the settings change."""
    gates = [asyncio.Event(), asyncio.Event()]

    async def waiting(request: Request, inner: Any) -> AsyncIterator[StreamEvent]:
        if request.messages[0].text == "wait":
            await gates[0].wait()
        async for event in inner(request):
            yield event
            if request.messages[0].text == "wait":
                await gates[1].wait()

    provider = Connected("m", api_key="old", layers=[waiting])
    late = asyncio.create_task(provider.execute("wait"))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    assert provider.open_connections == ["old"]
    await provider.reload(api_key="new")
    assert await text(provider) == "new new"
    await provider.rest_when_idle()
    assert (provider.open_connections, provider.calls_under_way) == (["old", "new"], 1)
    gates[0].set()
    await asyncio.sleep(0.01)
    gates[1].set()
    answer: Any = await late
    assert answer.content == "new new"
    assert (provider.open_connections, provider.calls_under_way) == ([], 0)
    assert await text(provider) == "new new"
    await provider.close()
    assert provider.open_connections == []


async def test_a_call_that_comes_to_a_life_that_has_ended_meanwhile() -> None:
    """In another thread it may have been on its way there when the settings changed."""
    provider = Connected("m", api_key="old")
    await text(provider)
    former = provider._life
    for key in ("new", "newer"):
        await provider.reload(api_key=key)
    assert provider.open_connections == []
    await former.begin()
    assert provider.open_connections == ["newer"]
    await provider.rest_when_idle()
    assert provider.open_connections == ["newer"]
    await former.end()
    assert provider.open_connections == []
    await former.begin()
    await provider.close()
    await former.end()
    assert provider.open_connections == []
    with pytest.raises(ProviderClosedError):
        await former.begin()
    assert provider.calls_under_way == 0


async def test_settings_of_a_class_of_ones_own_are_checked_by_both() -> None:
    """A rule of the settings class holds when the provider is made and when it is reloaded."""

    @dataclass(kw_only=True, eq=False)
    class Strict(AcmeSettings):
        def check(self) -> None:
            if self.url == "nowhere":
                raise LLMProviderConfigurationError(f"url ({self.sources['url']}) must be somewhere")

    class Checked(Connected):
        Settings = Strict

    with pytest.raises(LLMProviderConfigurationError, match=r"url \(argument\)"):
        Checked("m", url="nowhere", api_key="k")
    provider = Checked("m", url="here", api_key="k")
    with pytest.raises(LLMProviderConfigurationError, match=r"url \(argument\)"):
        await provider.reload(url="nowhere")
    assert provider.require("url") == "here"
