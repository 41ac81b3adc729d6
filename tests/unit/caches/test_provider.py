"""Response caches around a provider: who uses one, where it is kept, what a hit tells, who may read its files."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from providers import LLMProviderTimeoutError, ProviderSettings, Secret, setting
from providers.caches import CacheEntry, CacheKey, CacheStore, FSCache, MemoryCache, SQLiteCache, decode, encode
from providers.testing import ScriptedProvider
from providers.types import LLMResponse

from ..conftest import ROOT, Install, Run

pytestmark = pytest.mark.usefixtures("house")


def numbered(**options: Any) -> ScriptedProvider:
    """Answers with the number of its call."""
    return ScriptedProvider((f"answer {number}" for number in range(1, 100)), **options)


async def streamed(provider: ScriptedProvider, **options: Any) -> LLMResponse:
    events = [event async for event in provider.stream("Hi", **options)]
    answer: LLMResponse = events[-1].data
    return answer


async def test_a_call_without_the_flag_neither_reads_nor_writes() -> None:
    """F-106: used only when `cache_response=True`, by streams and by texts too."""
    store = MemoryCache()
    async with numbered(cache_backend=store) as provider:
        assert [(await streamed(provider)).content for _ in range(2)] == ["answer 1", "answer 2"]
        pieces = await provider.execute("Hi", stream_mode="enabled")
        assert "".join([piece async for piece in pieces]) == "answer 3"
        assert (await streamed(provider, cache_response=False)).content == "answer 4"
        assert (await store.size()).entries == 0
        kept = await streamed(provider, cache_response=True)
        assert (await store.size()).entries == 1
        again = await streamed(provider)
        assert (kept.content, again.content, "cache" in again.metadata) == ("answer 5", "answer 6", False)


async def test_the_collection_of_the_settings_and_that_of_a_call(tmp_path: Path) -> None:
    """F-061, F-064, F-106: `cache_collection` names the folder, a call's own goes before it."""
    options = {"cache_backend": "fs", "cache_dir": str(tmp_path / "answers"), "cache_collection": "mine"}
    async with numbered(**options) as provider:
        await provider.complete("Hi", cache_response=True)
        await provider.complete("Hi", cache_response=True, cache_collection="yours")
    assert sorted(path.name for path in (tmp_path / "answers").iterdir()) == ["mine", "yours"]
    for name, content in (("mine", "answer 1"), ("yours", "answer 2")):
        (file,) = (tmp_path / "answers" / name).glob("*.json")
        assert json.loads(file.read_text(encoding="utf-8"))["value"]["content"] == content


@dataclass(kw_only=True, eq=False)
class PlacedSettings(ProviderSettings):
    api_key: Secret | None = setting()
    base_url: str | None = setting()
    organization: str | None = setting()


class Placed(ScriptedProvider):
    Settings = PlacedSettings


async def test_providers_of_one_name_share_answers_where_their_backend_is_one() -> None:
    """C-21: the address and the organization are in the key of an answer, the credential is not."""
    store, calls = MemoryCache(), iter(range(1, 100))

    async def ask(**settings: Any) -> str:
        async with Placed(lambda _: f"answer {next(calls)}", cache_backend=store, **settings) as provider:
            return (await provider.execute("Hi", cache_response=True)).content

    here = {"base_url": "https://here.example/v1", "api_key": "first-key"}
    assert await ask(**here) == "answer 1"
    assert await ask(**here) == "answer 1"
    assert await ask(**{**here, "api_key": "second-key"}) == "answer 1"
    assert await ask(**{**here, "base_url": "https://there.example/v1"}) == "answer 2"
    assert await ask(**here, organization="org-1") == "answer 3"
    assert await ask(**here, organization="org-2") == "answer 4"
    assert await ask(**here) == "answer 1"
    assert (await store.size()).entries == 4


async def test_regen_leaves_and_rewrite_replaces_what_is_stored() -> None:
    """F-108: through a provider, streamed: regen leaves what is stored, rewrite replaces it."""
    async with numbered(cache_backend="memory") as provider:
        flags: list[dict[str, Any]] = [{}, {"regen_cache": True}, {}, {"rewrite_cache": True}, {}]
        got = [(await streamed(provider, cache_response=True, **more)).content for more in flags]
        assert got == ["answer 1", "answer 2", "answer 1", "answer 3", "answer 3"]


async def test_a_hit_tells_its_age() -> None:
    """C-21: seconds since the answer was stored, by the clock of the store."""
    async with numbered(cache_backend=MemoryCache(clock=lambda: time.time() - 500)) as provider:
        await provider.complete("Hi", cache_response=True)
        told = (await provider.complete("Hi", cache_response=True)).metadata["cache"]
    assert told["hit"]
    assert 500 <= told["age"] < 560


async def test_an_answer_of_another_schema_is_asked_for_anew() -> None:
    """The key's version counts for stored texts too: what an older release wrote in another form is a miss."""
    text = encode(LLMResponse("old", "m", finish_reason="stop"))
    data = json.loads(text)
    with pytest.raises(ValueError, match="schema 0"):
        decode(json.dumps({**data, "schema": 0}))
    store = MemoryCache()
    async with numbered(cache_backend=store) as provider:
        first = await provider.complete("Hi", cache_response=True)
        key = CacheKey(first.metadata["cache"]["key"])
        entry = await store.get(key)
        assert entry is not None
        await store.put(key, entry.text.replace('"schema":1', '"schema":0'))
        assert (await provider.complete("Hi", cache_response=True)).content == "answer 2"


def test_another_version_of_the_plugin_knows_no_answer_of_the_one_before(
    tmp_path: Path, python: Run, install: Install, site: Path
) -> None:
    """The key has provider, plugin version and schema version: what one release stored is a miss for the next."""
    install(
        "llm-provider-acme",
        {"llm_providers": {"acme": "llm_provider_acme:Acme"}},
        {
            "llm_provider_acme": """
            from providers.testing import EchoProvider

            class Acme(EchoProvider):
                name = "acme"
            """
        },
    )
    metadata = site / "llm_provider_acme-1.2.dist-info" / "METADATA"
    code = f"""
    import asyncio
    from providers import create_llm_provider

    async def main():
        async with create_llm_provider("acme", cache_backend="sqlite", cache_dir={str(tmp_path / "answers")!r}) as acme:
            print((await acme.execute("Hi", cache_response=True)).metadata["cache"]["hit"])

    asyncio.run(main())
    """

    def hit() -> str:
        return str(python(code, path=[ROOT / "src", site]).stdout).strip()

    assert [hit(), hit()] == ["False", "True"]
    metadata.write_text(metadata.read_text(encoding="utf-8").replace("1.2", "1.3"), encoding="utf-8")
    assert [hit(), hit()] == ["False", "True"]


class Opened(ScriptedProvider):
    opened = 0

    def open(self) -> None:
        type(self).opened += 1


async def test_warm_cache_makes_store_and_provider_ready(tmp_path: Path) -> None:
    """F-064, F-077: nothing is left for the first call to open."""
    Opened.opened = 0
    options = {"cache_backend": "sqlite", "cache_dir": str(tmp_path / "warm")}
    async with Opened(["a"], **options) as provider:
        assert (Opened.opened, (tmp_path / "warm").exists()) == (0, False)
        await provider.warm_cache()
        assert (Opened.opened, (tmp_path / "warm" / "answers.sqlite").exists()) == (1, True)
        await provider.complete("Hi", cache_response=True)
        assert Opened.opened == 1


class Loading(MemoryCache):
    """Loads a package at its first word, as clients of databases do."""

    waits = 2.2  # seconds; more than any later word may take

    async def get(self, key: CacheKey) -> CacheEntry | None:
        waits, self.waits = self.waits, 0.0
        await asyncio.sleep(waits)
        return await super().get(key)


async def test_a_store_may_take_its_time_at_its_first_word(recwarn: pytest.WarningsRecorder) -> None:
    """F-064: the first call of a process is kept too, without a warning that the cache is down."""
    async with numbered(cache_backend=Loading()) as provider:
        first = await provider.complete("Hi", cache_response=True)
        assert first.metadata["cache"]["stored"]
        assert (await provider.complete("Hi", cache_response=True)).content == first.content
    assert [str(one.message) for one in recwarn.list] == []


@pytest.mark.skipif(os.name == "nt", reason="modes are a matter of POSIX")
@pytest.mark.parametrize("kind", ["fs", "sqlite"])
def test_files_and_folders_are_for_their_owner_alone(kind: str, tmp_path: Path) -> None:
    """F-106: answers are the user's; whatever a store makes, nobody else can read."""
    place = tmp_path / "own" / "answers"

    async def work() -> list[int]:
        store: CacheStore = FSCache(place) if kind == "fs" else SQLiteCache(place / "answers.db")
        await store.put(CacheKey("ab" * 32), "[]")
        await store.put(CacheKey("ab" * 32, "second"), "[]")
        # While it is open: SQLite's log is beside the file then.
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (place, *place.rglob("*"))]
        await store.close()
        return modes

    mask = os.umask(0o022)
    try:
        modes = asyncio.run(work())
    finally:
        os.umask(mask)
    assert len(modes) >= 2
    assert not any(mode & 0o077 for mode in modes)


async def test_failed_calls_are_not_stored_however_they_end() -> None:
    """F-106: neither an error nor a call that was cancelled leaves an answer behind."""
    store = MemoryCache()
    late = LLMProviderTimeoutError("late", retryable=False)
    async with ScriptedProvider([late, "fine"], cache_backend=store) as provider:
        with pytest.raises(LLMProviderTimeoutError):
            await provider.execute("Hi", cache_response=True)
        assert (await store.size()).entries == 0
        assert (await provider.execute("Hi", cache_response=True)).content == "fine"
        assert (await store.size()).entries == 1
