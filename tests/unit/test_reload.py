"""Live settings: what `reload` reads anew counts from the next call on, and calls under way go on as they began."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from providers import (
    BudgetExceededError,
    LLMProvider,
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMResponse,
    MissingCredentialsError,
    ProviderClosedError,
    ProviderSettings,
    Request,
    Secret,
    StreamEvent,
    StreamMode,
    setting,
)
from providers.testing import ScriptedProvider

pytestmark = pytest.mark.usefixtures("house")


@dataclass(kw_only=True, eq=False)
class KeyedSettings(ProviderSettings):
    env_prefix = "ACME_"
    api_key: Secret | None = setting(required=True)
    region: str = setting("here")


class Keyed(LLMProvider):
    """Answers with the key that its connection was made with; what `open` makes is a list, emptied when shut."""

    name = "keyed"
    Settings = KeyedSettings
    settings: KeyedSettings

    def __init__(self, *args: Any, **options: Any) -> None:
        self.made: list[list[str]] = []
        self.gate = asyncio.Event()
        super().__init__(*args, **options)

    def open(self) -> None:
        self.connection = [self.require("api_key")]
        self.made.append(self.connection)

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        connection = self.connection
        yield StreamEvent.token(connection[0])
        if "wait" in request.messages[0].text:
            await self.gate.wait()
        yield StreamEvent.token(f" {connection[0]}")
        yield StreamEvent.finish("stop")

    async def shut(self) -> None:
        self.connection.clear()

    @property
    def open_connections(self) -> list[str]:
        return [connection[0] for connection in self.made if connection]


class Side(Keyed):
    """The same, with old and new side by side."""

    def detach(self) -> Callable[[], Awaitable[None]] | None:
        if self.settings.region == "nowhere":
            raise LLMProviderConfigurationError("region must be somewhere")
        old = getattr(self, "connection", [])

        async def close() -> None:
            old.clear()

        return close


async def text(provider: LLMProvider, prompt: str = "Hi") -> str:
    answer = await provider.execute(prompt)
    assert isinstance(answer, LLMResponse)
    return answer.content


async def test_a_rotated_key_counts_from_the_next_call_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue: live settings. A stream under way keeps its connection, which is closed when it has ended."""
    monkeypatch.setenv("ACME_API_KEY", "old")
    async with Side("m") as provider:
        stream = provider.stream("wait")
        pieces = [(await anext(stream)).data]
        monkeypatch.setenv("ACME_API_KEY", "new")
        assert await text(provider) == "old old"
        await provider.reload()
        assert provider.calls_under_way == 1
        assert await text(provider) == "new new"
        assert provider.open_connections == ["old", "new"]
        provider.gate.set()
        pieces += [event.data async for event in stream]
        assert pieces[:2] == ["old", " old"]
        assert provider.open_connections == ["new"]
        assert provider.calls_under_way == 0
    assert provider.open_connections == []


async def test_again_and_again_while_streams_run() -> None:
    async with Side("m", api_key="key 0") as provider:
        streams = []
        for number in range(5):
            await provider.reload(api_key=f"key {number}")
            streams.append(provider.stream("wait"))
            assert (await anext(streams[-1])).data == f"key {number}"
        assert len(provider.open_connections) == 5
        await streams[3].aclose()
        # An older call may come to use it still: one that is tried again, or begins its stream late.
        assert len(provider.open_connections) == 5
        await streams[0].aclose()
        assert provider.open_connections == ["key 1", "key 2", "key 3", "key 4"]
        provider.gate.set()
        for number in (1, 2, 4):
            rest = [event.data async for event in streams[number]]
            assert rest[0] == f" key {number}"
        assert provider.open_connections == ["key 4"]


async def test_closing_takes_the_old_connections_too() -> None:
    provider = Side("m", api_key="old")
    stream = provider.stream("wait")
    await anext(stream)
    await provider.reload(api_key="new")
    await text(provider)
    await provider.close()
    assert provider.open_connections == []
    await stream.aclose()
    with pytest.raises(ProviderClosedError):
        await provider.reload(api_key="newer")


async def test_without_a_way_to_stand_side_by_side_the_old_is_used_until_it_is_idle() -> None:
    async with Keyed("m", api_key="old") as provider:
        stream = provider.stream("wait")
        await anext(stream)
        await provider.reload(api_key="new")
        assert await text(provider) == "old old"
        provider.gate.set()
        rest = [event.data async for event in stream]
        assert rest[0] == " old"
        assert await text(provider) == "new new"
        assert provider.open_connections == ["new"]


async def test_before_the_first_call_and_without_any_change() -> None:
    async with Side("m", api_key="old") as provider:
        await provider.reload(api_key="new")
        assert await text(provider) == "new new"
        await provider.reload()
        assert await text(provider) == "new new"
        assert provider.open_connections == ["new"]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"region": "nowhere"}, LLMProviderConfigurationError),
        ({"region": 7.5}, LLMProviderConfigurationError),
        ({"temperature": 9}, LLMProviderConfigurationError),
        ({"cache_backend": "flie"}, LLMProviderConfigurationError),
        ({"requests_per_minute": 0}, LLMProviderConfigurationError),
        ({"regoin": "here"}, LLMProviderConfigurationError),
        ({"api_key": " "}, MissingCredentialsError),
    ],
)
async def test_what_is_refused_changes_nothing(changes: dict[str, Any], kind: type[Exception]) -> None:
    async with Side("m", api_key="old", requests_per_minute=6000) as provider:
        await text(provider)
        before = (provider.config, provider.settings, provider.calls_under_way)
        with pytest.raises(kind):
            await provider.reload(**changes, max_tokens=7)
        assert (provider.config, provider.settings, provider.calls_under_way) == before
        assert await text(provider) == "old old"
        assert provider.open_connections == ["old"]
        await provider.reload(api_key="new")
        assert await text(provider) == "new new"


async def test_files_and_limits_are_read_anew(house: Path) -> None:
    """C-15: a changed limit counts from the next call on."""
    (house / ".env").write_text("ACME_API_KEY=one\nLLM_PROVIDERS_REQUESTS_PER_MINUTE=6000\n", encoding="utf-8")
    async with Side("m") as provider:

        def limit() -> Any:
            layer: Any = provider._stack.layers[-1]
            return layer.limiter("m").requests_per_minute

        assert (await text(provider), limit()) == ("one one", 6000)
        (house / ".env").write_text("ACME_API_KEY=two\nLLM_PROVIDERS_REQUESTS_PER_MINUTE=60000\n", encoding="utf-8")
        await provider.reload()
        assert (await text(provider), limit()) == ("two two", 60000)


async def test_configuration_that_was_changed_stays_and_may_be_changed() -> None:
    async with Side("m", api_key="k", temperature=0.1) as provider:
        provider.update_config(temperature=0.2)
        await provider.reload(max_tokens=9)
        assert (provider.config.temperature, provider.config.max_tokens) == (0.2, 9)
        await provider.reload(temperature=0.3)
        assert (provider.config.temperature, provider.config.max_tokens) == (0.3, 9)


async def test_caches_and_budgets_go_on(tmp_path: Path) -> None:
    caps = {"max_requests": 3}
    async with Side("m", api_key="k", cache_backend="memory", budget=caps) as provider:
        assert (await provider.complete("Hi", cache_response=True)).metadata["cache"]["hit"] is False
        await provider.reload(requests_per_minute=6000)
        assert (await provider.complete("Hi", cache_response=True)).metadata["cache"]["hit"] is True
        await provider.execute("more")
        await provider.execute("more")
        with pytest.raises(BudgetExceededError):
            await provider.execute("more")
        await provider.reload(region="there")
        # Another place may answer otherwise: its answers are not those of the first one.
        with pytest.raises(BudgetExceededError):
            await provider.execute("Hi", cache_response=True)
        await provider.reload(budget={"max_requests": 9})
        assert (await provider.complete("Hi", cache_response=True)).metadata["cache"]["hit"] is False
        old: Any = provider._stack.layers[0]
        await provider.reload(cache_backend="sqlite", cache_dir=str(tmp_path))
        await provider.complete("Hi", cache_response=True)
        new: Any = provider._stack.layers[0]
        assert old.store is not new.store
        await provider.reload(cache_backend="memory")
        assert new.store._executor is None


async def test_layers_by_hand_may_be_changed_too() -> None:
    seen: list[str] = []

    async def watch(request: Request, inner: Any) -> AsyncIterator[StreamEvent]:
        seen.append(request.model)
        async for event in inner(request):
            yield event

    async with Side("m", api_key="k", layers=()) as provider:
        await text(provider)
        await provider.reload(layers=(watch,))
        await text(provider)
        await provider.reload(api_key="new")
        assert await text(provider) == "new new"
    assert seen == ["m", "m"]


@pytest.mark.parametrize("kind", [Keyed, Side])
async def test_a_stream_that_was_asked_for_before_and_begins_afterwards(kind: type[Keyed]) -> None:
    """It was asked for, so it is answered: by what is there when it begins."""
    async with kind("m", api_key="old") as provider:
        await text(provider)
        events, pieces = provider.stream("Hi"), await provider.execute("Hi", stream_mode=StreamMode.ENABLED)
        whole = provider.execute("Hi")
        await provider.reload(api_key="new")
        assert [event.data async for event in events][:2] == ["new", " new"]
        assert [piece async for piece in pieces] == ["new", " new"]
        assert (await whole).content == "new new"
        assert provider.calls_under_way == 0


async def test_a_cache_goes_on_where_old_and_new_cannot_stand_side_by_side() -> None:
    async with Keyed("m", api_key="k", cache_backend="memory") as provider:
        assert (await provider.complete("Hi", cache_response=True)).metadata["cache"]["hit"] is False
        for key in ("k", "new"):
            await provider.reload(api_key=key)
            assert (await provider.complete("Hi", cache_response=True)).metadata["cache"]["hit"] is True
        await provider.rest_when_idle()
        assert provider.open_connections == []


@pytest.mark.parametrize("kind", [Keyed, Side])
@pytest.mark.parametrize("end", ["reload", "close", "close_when_idle", "reload and close", "go on, and close"])
async def test_a_store_that_a_stream_still_writes_to_is_closed_after_it(
    kind: type[Keyed], end: str, tmp_path: Path
) -> None:
    class Steady(kind):  # type: ignore[misc, valid-type]
        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            yield StreamEvent.token("a")
            await self.gate.wait()
            yield StreamEvent.finish("stop")

    provider = Steady("m", api_key="k", cache_backend="sqlite", cache_dir=str(tmp_path))
    stream = provider.stream("wait", cache_response=True)
    await anext(stream)
    layer: Any = provider._stack.layers[0]
    if end.startswith("reload"):
        await provider.reload(cache_backend="off")
    elif end.startswith("go on"):
        await provider.reload()
    if end.endswith("close"):
        await provider.close()
    elif end == "close_when_idle":
        await provider.close_when_idle()
    provider.gate.set()
    assert [event async for event in stream][-1].data.metadata["cache"]["stored"] is True
    assert layer.store._executor is None
    await provider.close()


def test_threads_that_reload_at_once_take_turns() -> None:
    """Else both would take the same life and the same connection for the old one, and one of two be forgotten."""
    inside, most = 0, 0

    class Slow(Side):
        def detach(self) -> Callable[[], Awaitable[None]] | None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            time.sleep(0.002)
            inside -= 1
            return super().detach()

    provider = Slow("m", api_key="k", cache_backend="memory")
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(asyncio.run, provider.reload(api_key=f"key {n}")) for n in range(12)]:
            done.result()
    assert most == 1
    assert asyncio.run(text(provider)).startswith("key")
    asyncio.run(provider.close())


async def test_closing_goes_on_where_an_old_connection_cannot_be_closed() -> None:
    provider = Side("m", api_key="old")

    async def fail() -> None:
        raise LLMProviderError("the old one is stuck")

    provider.detach = lambda: fail  # type: ignore[method-assign]
    stream = provider.stream("wait")
    await anext(stream)
    await provider.reload(api_key="new")
    await text(provider)
    with pytest.raises(LLMProviderError, match="stuck"):
        await provider.close()
    assert provider.is_closed
    assert provider.connection == []
    await stream.aclose()


async def test_who_has_neither_key_nor_address_keeps_its_limit() -> None:
    async with ScriptedProvider(["a"], "m") as provider:
        limits: list[Any] = [provider._stack.layers[-1]]
        await provider.reload(requests_per_minute=600)
        limits.append(provider._stack.layers[-1])
        assert limits[0].limiter("m").key == limits[1].limiter("m").key


async def test_a_provider_that_is_to_be_closed_when_idle_still_is() -> None:
    provider = Side("m", api_key="k")
    stream = provider.stream("wait")
    await anext(stream)
    await provider.close_when_idle()
    await provider.reload()
    await stream.aclose()
    assert provider.is_closed
