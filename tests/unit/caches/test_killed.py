"""A writer that is killed at any point leaves no entry that cannot be read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from providers.caches import CacheStore, FSCache, SQLiteCache
from providers.testing import SharedCacheConformance


class TestFS(SharedCacheConformance):
    def make_store(self) -> CacheStore:
        return FSCache(self.room / "cache", max_bytes=1_000_000)

    def source(self) -> str:
        place = str(self.room / "cache")
        return f"from providers.caches import FSCache\nstore = FSCache({place!r}, max_bytes=1_000_000)"


class TestSQLite(SharedCacheConformance):
    def make_store(self) -> CacheStore:
        return SQLiteCache(self.room / "cache", max_bytes=1_000_000)

    def source(self) -> str:
        place = str(self.room / "cache")
        return f"from providers.caches import SQLiteCache\nstore = SQLiteCache({place!r}, max_bytes=1_000_000)"


@pytest.mark.parametrize("kind", ["fs", "sqlite"])
def test_processes_that_open_a_new_cache_at_once(tmp_path: Path, kind: str) -> None:
    code = """
import asyncio, sys
from providers.caches import CacheKey, FSCache, SQLiteCache
kind, place, name = sys.argv[1:]
async def work():
    store = {"fs": FSCache, "sqlite": SQLiteCache}[kind](place)
    for number in range(20):
        await store.put(CacheKey(name * 62 + f"{number:02d}"), "[]")
    await store.close()
asyncio.run(work())
"""
    place = tmp_path / "new" / "cache"
    writers = [
        subprocess.Popen([sys.executable, "-c", code, kind, str(place), name], stderr=subprocess.PIPE)
        for name in "abcd"
    ]
    assert [writer.communicate()[1] for writer in writers] == [b""] * 4

    async def count() -> int:
        store = FSCache(place) if kind == "fs" else SQLiteCache(place)
        size = await store.size()
        await store.close()
        return size.entries

    assert asyncio.run(count()) == 80
