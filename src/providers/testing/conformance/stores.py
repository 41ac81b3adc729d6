"""What each store of a response cache must do, alone."""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ...caches import CacheEntry, CacheKey, CacheStore

_TEXT = '{"schema":1}'


def key_at(number: int = 1, collection: str = "default") -> CacheKey:
    """A key of its own for each number."""
    return CacheKey(f"{number:064x}", collection)


class StoreTests:
    """What a store does alone; `CacheConformance` says what its attributes are."""

    bounded: ClassVar[bool] = True
    persistent: ClassVar[bool] = True
    room: Path

    @abstractmethod
    def make_store(self, **options: Any) -> CacheStore:
        """A store over one and the same place within a test (`self.room`, an empty folder, is one). Options that are
        asked for: `ttl` in seconds, `max_bytes`, and `clock`, which gives the Unix time."""
        raise NotImplementedError(f"{type(self).__qualname__} needs make_store()")

    @pytest.fixture(autouse=True)
    def _room(self, tmp_path: Path) -> None:
        self.room = tmp_path

    def _run(self, work: Any, **options: Any) -> Any:
        async def main() -> Any:
            store = self.make_store(**options)
            try:
                await store.clear()
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(main())

    def test_it_is_a_store(self) -> None:
        """The protocol, and `warm` before anything else."""

        async def work(store: CacheStore) -> None:
            assert isinstance(store, CacheStore)
            await store.warm()

        self._run(work)

    def test_what_is_put_is_got(self) -> None:
        """get, put in place of what is there, delete."""

        async def work(store: CacheStore) -> None:
            assert await store.get(key_at()) is None
            await store.put(key_at(), _TEXT)
            entry = await store.get(key_at())
            assert isinstance(entry, CacheEntry)
            assert entry.text == _TEXT
            assert entry.created > 1e9
            await store.put(key_at(), '{"schema":2}')
            assert (entry := await store.get(key_at())) is not None
            assert entry.text == '{"schema":2}'
            assert (await store.size()).entries == 1
            assert await store.get(key_at(2)) is None
            assert await store.delete(key_at())
            assert not await store.delete(key_at())
            assert await store.get(key_at()) is None
            assert (await store.size()).entries == 0

        self._run(work)

    def test_collections_are_apart(self) -> None:
        """F-106, `cache_collection`: names that no folder or table could have, too."""
        names = ["default", "a/b", "..", "A", "a", "Ä b", "x" * 300, "a'; DROP TABLE answers; --", "%", "a_b"]

        async def work(store: CacheStore) -> None:
            for number, name in enumerate(names):
                await store.put(key_at(1, name), f"[{number}]")
            for number, name in enumerate(names):
                assert (entry := await store.get(key_at(1, name))) is not None
                assert entry.text == f"[{number}]"
            await store.clear(names[1])
            left = [name for name in names if await store.get(key_at(1, name)) is not None]
            assert left == [names[0], *names[2:]]
            await store.clear()
            assert (await store.size()).entries == 0

        self._run(work)

    def test_an_entry_grows_old(self) -> None:
        """TTL."""
        now = [1e9]

        async def work(store: CacheStore) -> None:
            await store.put(key_at(), _TEXT)
            now[0] += 9.0
            assert (entry := await store.get(key_at())) is not None
            assert entry.created == pytest.approx(1e9)
            now[0] += 1.5
            assert await store.get(key_at()) is None
            await store.put(key_at(), _TEXT)
            assert await store.get(key_at()) is not None

        self._run(work, ttl=10.0, clock=lambda: now[0])

    def test_what_was_not_used_goes_first(self) -> None:
        """The bound, and the order in which a full store lets go; a store without one keeps everything."""
        now, text = [1e9], f'"{"x" * 1000}"'

        async def keep_all(store: CacheStore) -> None:
            for number in range(40):
                await store.put(key_at(number), text)
            assert (await store.size()).entries == 40
            assert [await store.get(key_at(number)) is not None for number in range(40)] == [True] * 40

        if not self.bounded:
            self._run(keep_all)
            return

        async def work(store: CacheStore) -> None:
            for number in range(40):
                now[0] += 10
                await store.put(key_at(number), text)
                now[0] += 10
                assert await store.get(key_at(0)) is not None, number
            size = await store.size()
            assert size.bytes <= 10_000
            assert 5 <= size.entries < 10
            assert await store.get(key_at(39)) is not None
            assert await store.get(key_at(1)) is None
            await store.put(key_at(99), f'"{"x" * 20_000}"')
            assert await store.get(key_at(99)) is None
            assert await store.get(key_at(39)) is not None

        self._run(work, max_bytes=10_000, clock=lambda: now[0])

    def test_what_is_stored_outlives_the_store(self) -> None:
        """Another store, of another loop, over the same place; and the same one after `close`."""

        async def work(store: CacheStore) -> None:
            await store.put(key_at(), _TEXT)
            await store.close()
            assert (await store.get(key_at()) is not None) is self.persistent
            await store.close()
            await store.close()

        async def again() -> None:
            store = self.make_store()
            assert (await store.get(key_at()) is not None) is self.persistent
            await store.close()

        self._run(work)
        asyncio.run(again())

    def test_many_loops_at_once(self) -> None:
        """One store, four threads with a loop each; all read what all write."""
        failures: list[BaseException] = []

        async def some(store: CacheStore, first: int) -> None:
            for number in range(first, first + 10):
                await store.put(key_at(number), f"[{number}]")
                assert (entry := await store.get(key_at(number))) is not None
                assert entry.text == f"[{number}]"
                await store.put(key_at(1000), f"[{number}]")

        def thread(store: CacheStore, first: int) -> None:
            try:
                asyncio.run(some(store, first))
            except BaseException as error:
                failures.append(error)

        async def work(store: CacheStore) -> None:
            threads = [threading.Thread(target=thread, args=(store, first)) for first in range(0, 400, 100)]
            for one in threads:
                one.start()
            for one in threads:
                await asyncio.to_thread(one.join, 60)
            assert failures == []
            assert (await store.size()).entries == 41

        self._run(work)

    def test_a_cancelled_word_leaves_the_store_whole(self) -> None:
        """Cancelled at any point, a store goes on."""

        async def work(store: CacheStore) -> None:
            for turns in range(6):
                for word in (store.put(key_at(), _TEXT), store.get(key_at()), store.delete(key_at())):
                    task = asyncio.ensure_future(word)
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait({task})
            await store.put(key_at(), _TEXT)
            assert (entry := await store.get(key_at())) is not None
            assert entry.text == _TEXT

        self._run(work)
