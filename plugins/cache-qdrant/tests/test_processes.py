"""Processes: killed, forked, two at one folder; folders that are damaged or not ours; what an import brings."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llm_provider_cache_qdrant import QdrantCache
from providers.caches import decode, encode
from providers.exceptions import LLMProviderConfigurationError
from providers.testing.conformance.stores import key_at
from providers.types import LLMResponse

from .conftest import Asker, Words, told
from .test_similar import EGG, OTHER_EGG

WRITER = """
import asyncio, sys
from llm_provider_cache_qdrant import QdrantCache
from providers.caches import CacheKey, encode, key_of
from providers.types import LLMResponse, Messages, Request

async def embed(texts):
    return [[1.0, float(len(text)), 2.0] for text in texts]

async def main():
    store = QdrantCache(embed, path=sys.argv[1], embedder_name="e")
    text = encode(LLMResponse("x" * 20000, finish_reason="stop"))
    for number in range(10**9):
        request = Request("m", Messages.of("how do i boil an egg" + " very" * (number % 50)))
        digest_of = lambda request: key_of(request, "acme")
        await store.put(CacheKey(digest_of(request), "default", request, digest_of), text)
        await store.clear("other") if number % 7 == 6 else await store.put(CacheKey("0" * 64, "other"), text)
        print(number, flush=True)

asyncio.run(main())
"""


def make(path: Path, **options: Any) -> QdrantCache:
    return QdrantCache(Words(), path=path, embedder_name="words", embedding_timeout=60, **options)


@pytest.mark.slow
def test_a_killed_writer_leaves_no_unreadable_entry(tmp_path: Path) -> None:
    """Killed at any point, in its first seconds too: what is there is whole, and the folder opens."""
    path = tmp_path / "q"
    most = 0
    for turn in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            for _ in range(turn * 5):
                process.stdout.readline()
            if not turn:
                deadline = time.monotonic() + 60
                while not path.exists() and time.monotonic() < deadline:
                    time.sleep(0.001)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()

        async def look() -> int:
            store = make(path)
            size = await store.size()
            engine = store._open()
            for name in engine.names():
                for id, _ in engine.figures(name):
                    payload = engine.read(name, [id])[id]
                    if "text" in payload:
                        assert decode(payload["text"]).content == "x" * 20000
            engine.release()
            await store.put(key_at(), "[1]")
            assert await store.get(key_at()) is not None
            await store.delete(key_at())
            await store.close()
            return size.entries

        most = max(most, asyncio.run(look()))
    assert most > 10


async def test_a_second_process_is_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Two processes at one folder: the second has no cache and is told why; its answers go on; then it is free."""
    code = f"""
import asyncio
from llm_provider_cache_qdrant import QdrantCache
from providers.caches import CacheKey
async def embed(texts): return []
async def main():
    store = QdrantCache(embed, path={str(tmp_path / "q")!r}, embedder_name="e")
    await store.put(CacheKey("0" * 64), "[7]")
    print("there", flush=True)
    input()
    await store.close()
asyncio.run(main())
"""
    other = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    store = make(tmp_path / "q")
    try:
        assert other.stdout is not None
        assert await asyncio.to_thread(other.stdout.readline) == "there\n"
        with pytest.raises(LLMProviderConfigurationError, match=r"another process has the Qdrant cache in .* open"):
            await store.warm()
        asker = Asker(store)
        for number in range(5):
            assert (await asker(EGG)).content == f"answer {number + 1}"
        assert [str(warning.message).partition("down")[0] for warning in recwarn] == ["the response cache is "]
    finally:
        other.communicate("\n")
    assert not told(await asker(EGG))["hit"]
    assert told(await asker(EGG))["hit"]
    assert (await store.size()).entries == 2
    await store.close()


async def test_stores_of_one_process_share_a_folder(tmp_path: Path) -> None:
    """Two providers, or one after `reload`: one engine, closed with the last of them."""
    one, two = make(tmp_path / "q"), make(tmp_path / "x" / ".." / "q")
    (tmp_path / "x").mkdir()
    await Asker(one)(EGG)
    assert told(await Asker(two)(OTHER_EGG))["similarity"] < 1
    await one.close()
    assert told(await Asker(two)(EGG))["hit"]
    await two.close()
    third = make(tmp_path / "q", prefix="other")
    await third.put(key_at(), "[1]")
    await third.clear()
    assert (await third.size()).entries == 0
    assert (await one.size()).entries == 1
    await one.close()
    del third
    gc.collect()
    await one.warm()  # a store that was dropped has given back its part
    await one.close()


def _child(path: str, answers: Any) -> None:
    async def work() -> None:
        store = _inherited[0]
        try:
            answers.put(await store.get(key_at()))
        except LLMProviderConfigurationError as error:
            answers.put(str(error))
        await store.close()

    asyncio.run(work())
    _inherited.clear()
    gc.collect()


_inherited: list[QdrantCache] = []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_takes_nothing_away(tmp_path: Path) -> None:
    """It has no cache while its parent has the folder, and does not take the parent's lock with it when it ends."""
    context = multiprocessing.get_context("fork")
    path = tmp_path / "q"

    async def main() -> None:
        store = make(path)
        await store.put(key_at(), "[1]")
        _inherited.append(store)
        answers = context.Queue()
        child = context.Process(target=_child, args=(str(path), answers))
        child.start()
        assert "another process" in await asyncio.to_thread(answers.get, True, 60)
        await asyncio.to_thread(child.join, 60)
        assert child.exitcode == 0
        assert await store.get(key_at()) is not None
        code = f"import qdrant_client; qdrant_client.QdrantClient(path={str(path)!r})"
        other = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
        assert "already accessed" in other.stderr
        await store.close()
        _inherited.clear()

    asyncio.run(main())


@pytest.mark.parametrize("damage", ["meta.json", "storage.sqlite", "empty"])
async def test_a_damaged_folder(tmp_path: Path, damage: str) -> None:
    """The cache is down and says which folder it was; answers go on; an empty file, left by a kill, is made anew."""
    path = tmp_path / "q"
    store = make(path)
    await store.put(key_at(), "[1]")
    await store.close()
    if damage == "empty":
        (path / "meta.json").write_bytes(b"")
        assert await store.get(key_at()) is None
        await store.put(key_at(2), "[1]")
        # Its points are found again with their collection.
        assert await store.get(key_at()) is not None
        await store.close()
        return
    for file in path.rglob(damage):
        file.write_bytes(b"garbage" * 1000)
    with pytest.raises(LLMProviderConfigurationError, match=r"q cannot be used \(.*remove it"):
        await store.get(key_at())
    asker = Asker(store)
    with pytest.warns(UserWarning, match="the response cache is down"):
        assert (await asker(EGG)).content == "answer 1"
    await store.close()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs modes")
async def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """The local engine reads pickles: whoever may write them, would have his code run."""
    path = tmp_path / "q"
    path.mkdir()
    path.chmod(0o777)
    store = make(path)
    with pytest.raises(LLMProviderConfigurationError, match="may be written to by others"):
        await store.warm()
    path.chmod(0o700)
    await store.warm()
    await store.close()
    other = make(tmp_path / "new")
    await other.warm()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    await other.close()


async def test_text_of_questions_is_not_kept(tmp_path: Path) -> None:
    """Vectors, digests and answers lie in the folder, no question."""
    store = make(tmp_path / "q")
    await Asker(store)("what about the canary in the coal mine")
    await store.put(key_at(), encode(LLMResponse("x", finish_reason="stop")))
    await store.close()
    for file in (tmp_path / "q").rglob("*"):
        assert b"canary" not in (file.read_bytes() if file.is_file() else b"")


async def test_a_store_without_close_leaves_nothing(tmp_path: Path) -> None:
    """Dropped: its thread ends, and the folder is free for others."""
    store = make(tmp_path / "q")
    await store.put(key_at(), "[1]")
    del store
    gc.collect()
    code = f"import qdrant_client; qdrant_client.QdrantClient(path={str(tmp_path / 'q')!r}).close()"

    async def is_free() -> bool:
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True)
        return done.returncode == 0

    assert await is_free()


def test_the_import_is_light() -> None:
    """Neither qdrant_client nor what it brings is loaded before the first word."""
    code = (
        "import sys, llm_provider_cache_qdrant as m\n"
        "async def embed(texts): return []\n"
        "m.QdrantCache(embed, location=':memory:')\n"
        "print([n for n in ('qdrant_client', 'grpc', 'numpy', 'httpx', 'aiohttp', 'pydantic') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
