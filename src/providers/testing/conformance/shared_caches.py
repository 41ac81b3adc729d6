"""What a store of a response cache must do that several processes share."""

from __future__ import annotations

import asyncio
import json
import random
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ...caches import CacheStore
from .kit import keep_tests
from .processes import hear, python, started
from .stores import key_at

_WRITER = """
import asyncio, random, sys
from providers.caches import CacheKey
async def work():
    rng = random.Random(int(sys.argv[1]))
    await store.warm()
    print("ready", flush=True)
    while True:
        size = rng.choice((10, 3_000, 60_000, 400_000))
        text = "".join(rng.choices("abcdefgh", k=size // 10)) * 10
        await asyncio.gather(*(
            store.put(CacheKey(f"{rng.randrange(20):064x}"), '["' + text + '",' + str(len(text)) + "]") for _ in "12"
        ))
asyncio.run(work())
"""


class SharedCacheConformance:
    """What a store that several processes share must do; to be subclassed beside `CacheConformance`.

    Subclass it, write `make_store` and `source`. Tests cannot be dropped or changed.

    Attributes:
        writers: how many processes are killed; fewer for a store that takes long to load.
        room: an empty folder for each test.
    """

    writers: ClassVar[int] = 20
    room: Path

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_tests(cls, SharedCacheConformance)

    @abstractmethod
    def make_store(self) -> CacheStore:
        """A store over one and the same place within a test (`self.room` is one), with room for a megabyte."""
        raise NotImplementedError(f"{type(self).__qualname__} needs make_store()")

    @abstractmethod
    def source(self) -> str:
        """Python text, with its imports, that leaves in `store` what `make_store` gives: for other processes."""
        raise NotImplementedError(f"{type(self).__qualname__} needs source()")

    def parts(self) -> Sequence[CacheStore]:
        """New stores, one over each part of the place that can be read alone; by default the store itself."""
        return [self.make_store()]

    @pytest.fixture(autouse=True)
    def _room(self, tmp_path: Path) -> None:
        self.room = tmp_path

    async def _whole(self, store: CacheStore) -> int:
        """How many entries there are, all of them whole; and the store goes on."""
        found = 0
        for number in range(20):
            entry = await store.get(key_at(number))
            if entry is not None:
                text, size = json.loads(entry.text)
                assert len(text) == size
                found += 1
        assert (await store.size()).entries == found
        await store.put(key_at(99), "[]")
        assert await store.delete(key_at(99))
        await store.close()
        return found

    @pytest.mark.slow
    def test_killed_writers_leave_whole_entries(self) -> None:
        """Writers, two at a time, killed at random points; after each pair all entries are whole, in each part."""
        rng, seen = random.Random(7), 0

        async def clear() -> None:
            store = self.make_store()
            await store.clear()
            await store.close()

        asyncio.run(clear())
        command = python("-c", self.source() + _WRITER)
        for pair in range(0, self.writers, 2):
            with started([[*command, str(pair + one)] for one in range(2)]) as writers:
                for writer in writers:
                    hear(writer, "ready")
                for writer in writers:
                    time.sleep(rng.uniform(0.0, 0.1))
                    writer.kill()
            for store in self.parts():
                seen += asyncio.run(self._whole(store))
        assert seen > 20
