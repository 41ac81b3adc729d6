"""Live settings: what `reload` reads anew counts from the next call on, and calls under way go on as they began."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from providers import (
    BudgetExceededError,
    LLMProvider,
    LLMProviderConfigurationError,
    LLMResponse,
    MissingCredentialsError,
    ProviderClosedError,
    ProviderSettings,
    Request,
    Secret,
    StreamEvent,
    setting,
)

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
        assert provider.open_connections == ["key 0", "key 1", "key 2", "key 4"]
        provider.gate.set()
        for number in (0, 1, 2, 4):
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
