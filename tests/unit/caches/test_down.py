"""A store that is down, or hangs, costs hits and never an answer."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from providers.caches import CacheEntry, CacheKey, MemoryCache
from providers.layers.cache import ResponseCache
from providers.types.policy import CachePolicy

from .callers import Backend, Caller, ask


class Broken:
    """A store that is down, or hangs."""

    def __init__(self, wait: float = 0.0, word: str = "all") -> None:
        self.wait, self.word, self.asked = wait, word, 0

    async def _fail(self, word: str) -> Any:
        self.asked += 1
        await asyncio.sleep(self.wait)
        if self.word in ("all", word):
            raise OSError("connection refused: secret-dsn")

    async def warm(self) -> None:
        await self._fail("warm")

    async def get(self, key: CacheKey) -> CacheEntry | None:
        await self._fail("get")
        return None

    async def put(self, key: CacheKey, text: str) -> None:
        await self._fail("put")

    async def close(self) -> None:
        await self._fail("close")

    delete = clear = size = get


@pytest.mark.parametrize("policy", [CachePolicy(), CachePolicy(rewrite=True), CachePolicy(regen=True)])
@pytest.mark.parametrize("word", ["all", "get", "put"])
async def test_a_store_that_is_down_costs_hits_not_answers(word: str, policy: CachePolicy) -> None:
    store = Broken(word=word)
    caller = Caller(Backend(wait=0), ResponseCache(store, "acme"))  # type: ignore[arg-type]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for number in range(1, 4):
            answer = await caller(ask(bool(number % 2)).replace(cache=policy))
            assert answer.content == f"one two {number}"
        await caller.layer.warm()
        await caller.layer.close()
    assert len(seen) == (0 if (word, policy.rewrite) == ("get", True) else 1)
    assert "secret" not in "".join(str(item.message) for item in seen)
    assert store.asked >= 3


async def test_regen_replaces_nothing_where_it_cannot_look() -> None:
    class Blind(MemoryCache):
        async def get(self, key: CacheKey) -> CacheEntry | None:
            raise OSError("down")

    store = Blind()
    caller = Caller(Backend(wait=0), ResponseCache(store, "acme"))
    with pytest.warns(UserWarning, match="down"):
        await caller(ask().replace(cache=CachePolicy(regen=True)))
    assert (await store.size()).entries == 0


async def test_a_store_that_hangs_is_given_up_and_left_alone() -> None:
    store = Broken(wait=60)
    caller = Caller(Backend(wait=0), ResponseCache(store, "acme", patience=0.05))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        with pytest.warns(UserWarning, match=r"within 0\.05 s"):
            assert (await caller(ask())).content == "one two 1"
        await caller(ask())
        assert store.asked == 1
        await asyncio.sleep(0.06)
        await caller(ask())
    assert store.asked == 2


async def test_a_warning_that_is_an_error_costs_no_answer() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        caller = Caller(Backend(wait=0), ResponseCache(Broken(), "acme"))  # type: ignore[arg-type]
        assert (await caller(ask())).content == "one two 1"


async def test_a_store_that_is_left_alone_for_a_while_is_closed_all_the_same() -> None:
    store = Broken(wait=0.05, word="none")
    layer = ResponseCache(store, "acme", patience=0.01)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="does not answer"):
        await Caller(Backend(wait=0), layer)(ask())
    asked, store.wait = store.asked, 0.0
    await layer.close()
    assert store.asked == asked + 1
