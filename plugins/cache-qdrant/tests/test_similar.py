"""Answers to similar questions, through the layer, over the local engine in memory."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from llm_provider_cache_qdrant import QdrantCache
from providers.caches import CacheEntry
from providers.types import Message, StreamEvent, StructuredOutput, ToolCall, ToolSpec
from providers.types.content import image_part
from providers.types.policy import CachePolicy

from .conftest import Asker, Words, ask, told, until

EGG = "how do i best boil one very large fresh egg in water at home tonight for all of us"
OTHER_EGG = EGG + " please"  # 0.97 alike: one word in nineteen more
TOAST = "how do i make toast"


async def test_a_similar_question_is_a_hit(store: QdrantCache, words: Words) -> None:
    """F-107: and the metadata say that it was similar, and how much."""
    asker = Asker(store)
    assert (await asker(EGG)).content == "answer 1"
    again = await asker(EGG)
    assert (again.content, "similarity" in told(again)) == ("answer 1", False)
    hit = await asker(OTHER_EGG)
    assert (hit.content, told(hit)["hit"]) == ("answer 1", True)
    assert 0.95 <= told(hit)["similarity"] < 1
    assert set(hit.usage.to_dict().values()) == {0}
    streamed = await asker(OTHER_EGG, stream=True)
    assert told(streamed)["similarity"] == told(hit)["similarity"]
    assert (await asker(TOAST)).content == "answer 2"
    assert asker.backend.calls == 2
    # Once for each text: neither for the storing, nor for a hit by digest, nor for a second look.
    assert words.asked == [EGG, OTHER_EGG, TOAST]


async def test_the_threshold(words: Words) -> None:
    """A careful one by default; any other may be given."""
    for threshold, calls in ((0.99, 2), (0.9, 1)):
        store = QdrantCache(words, location=":memory:", threshold=threshold, embedding_timeout=60)
        asker = Asker(store)
        await asker(EGG)
        await asker(OTHER_EGG)
        assert asker.backend.calls == calls
        await store.close()


async def test_only_where_all_else_is_the_same(store: QdrantCache) -> None:
    """F-107: another model, system prompt, conversation, parameter, structure, provider, collection."""
    asker = Asker(store)
    await asker(EGG)
    for changes in (
        {"model": "other"},
        {"system": "Be brief."},
        {"params": {"temperature": 0.1}},
        {"params": {"seed": 7}},
        {"extras": {"n": 2}},
        {"previous_response_id": "r-1"},
        {"cache": CachePolicy("other")},
    ):
        assert not told(await asker(OTHER_EGG, **changes))["hit"], changes
    assert not told(await asker(ask("Hello", OTHER_EGG)))["hit"]
    assert not told(await Asker(store, provider="other")(OTHER_EGG))["hit"]
    assert not told(await Asker(store, version="2")(OTHER_EGG))["hit"]
    assert not told(await Asker(store, scope={"base_url": "x"})(OTHER_EGG))["hit"]
    structured = Asker(store, StreamEvent.token("{}"))
    assert not told(await structured(OTHER_EGG, output=StructuredOutput()))["hit"]
    assert told(await asker(OTHER_EGG))["similarity"] < 1


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (EGG + " 5", EGG + " 6"),
        (EGG + " Anna", EGG + " Berta"),
        (EGG, EGG + " not"),
        ("flights from paris to rome", "flights from rome to paris"),
    ],
)
async def test_what_decides_must_be_the_same(store: QdrantCache, one: str, two: str) -> None:
    """Digits, names, denials, and the order of the same words, however alike the vectors are."""
    asker = Asker(store)
    await asker(one)
    assert not told(await asker(two))["hit"]
    # Of other wording, but with the same of these.
    assert told(await asker(one[0].upper() + one[1:] + "?"))["similarity"] == pytest.approx(1)


async def test_tools_and_pictures(store: QdrantCache, words: Words) -> None:
    """An answer that may act, or that is about more than a text, is for its own request; no vector is made."""
    asker = Asker(store)
    tool = ToolSpec("f", "", {"type": "object"})
    part = image_part("https://example.org/a.png")
    for make in (
        lambda text: ask(text, tools=(tool,)),
        lambda text: ask(Message.user([part, {"type": "text", "text": text}])),
        lambda text: ask(text, Message.assistant("Well,")),
        lambda text: ask(f"{text} {'word ' * 100}"),
        lambda text: ask(""),
    ):
        await asker(make(EGG))
        assert told(await asker(make(EGG)))["hit"]
    assert words.asked == []
    # Where a backend calls a tool that nobody offered here, such as one of its own.
    caller = Asker(store, StreamEvent.tool_call(ToolCall("1", "search", '{"q": "egg"}')))
    await caller(EGG)
    assert told(await caller(EGG))["hit"]
    assert not told(await asker(OTHER_EGG))["hit"]


async def test_the_flags(store: QdrantCache) -> None:
    """F-108: regen keeps what this very request has, not what a similar one has; rewrite replaces."""
    asker = Asker(store)
    await asker(EGG)
    regen, rewrite = CachePolicy(regen=True), CachePolicy(rewrite=True)
    assert told(await asker(OTHER_EGG, cache=regen))["stored"]
    assert (await asker(OTHER_EGG)).content == "answer 2"
    assert (await asker(EGG)).content == "answer 1"
    assert not told(await asker(EGG, cache=regen))["stored"]
    assert told(await asker(EGG, cache=rewrite))["stored"]
    assert (await asker(EGG)).content == "answer 4"
    assert (await store.size()).entries == 2


async def test_what_is_gone_is_not_found(words: Words) -> None:
    """Deleted, grown old, swept away, cleared: the question that is left behind finds nothing; the next one may."""
    now = [1e9]
    store = QdrantCache(words, location=":memory:", ttl=100, clock=lambda: now[0], embedding_timeout=60)
    asker = Asker(store)
    await asker(EGG)
    key = asker.layer._key(ask(EGG), CachePolicy())
    assert key is not None
    assert await store.delete(key)
    assert not told(await asker(OTHER_EGG))["hit"]
    engine = store._open()
    assert {engine.count(name) for name in engine.names()} == {1}  # the question that was met went too
    engine.release()
    now[0] += 60
    await asker(EGG + " now", cache=CachePolicy(rewrite=True))
    now[0] += 60
    # The nearest has grown old; the next one has not.
    assert (await asker(EGG + " now please")).content == "answer 3"
    await store.clear("default")
    assert not told(await asker(EGG + " now please"))["hit"]
    assert (await store.size()).entries == 1
    await store.close()


async def test_the_best_of_many(store: QdrantCache) -> None:
    """The nearest one, not the first."""
    asker = Asker(store)
    for text in (EGG + " then", EGG):
        await asker(text, cache=CachePolicy(rewrite=True))
    assert (await asker(EGG.capitalize() + "?")).content == "answer 2"


async def test_an_embedder_that_fails_costs_hits(words: Words, recwarn: pytest.WarningsRecorder) -> None:
    """One warning; exact answers are found; no answer is lost, and none is late."""
    store = QdrantCache(words, location=":memory:", embedding_timeout=0.05)
    asker = Asker(store)
    for error in (RuntimeError("canary-secret"), ValueError()):
        words.error = error
        assert (await asker(EGG)).content == "answer 1"
        assert told(await asker(EGG))["hit"]
        assert not told(await asker(OTHER_EGG, cache=CachePolicy(regen=True)))["hit"]
    assert len(recwarn) == 1
    assert "RuntimeError" in str(recwarn[0].message)
    assert "canary" not in str(recwarn[0].message)
    words.error, words.wait = None, 3600
    began = asyncio.get_running_loop().time()
    assert not told(await asker(TOAST))["hit"]
    for number in range(20):  # left alone after the first
        await asker(f"{TOAST} with jam {'again ' * number}")
    assert asyncio.get_running_loop().time() - began < 30
    assert told(await asker(TOAST))["hit"]
    await store.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_slow_vector_serves_the_storing(words: Words) -> None:
    """It is made once: what `get` did not wait for, `put` has."""
    store = QdrantCache(words, location=":memory:", embedding_timeout=0.05)
    words.wait = 0.4
    asker = Asker(store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        key = asker.layer._key(ask(EGG), CachePolicy())
        assert key is not None
        assert await store.get(key) is None
        await asyncio.sleep(0.6)
        words.wait = 0.0
        await asker(EGG)
        assert words.asked == [EGG]
    assert told(await asker(EGG.capitalize()))["hit"] is False  # left alone for a while
    store._vectors._rests_until = 0.0
    assert told(await asker(EGG.upper()))["hit"] is False  # names, for all we know
    assert told(await asker(EGG + "!"))["similarity"] == pytest.approx(1)
    await store.close()


@pytest.mark.parametrize(
    "vectors",
    [[], [[]], [[0.0] * 8], [[float("nan")] * 8], [[float("inf")] * 8], [["x"]], None, [[1.0]] * 2, [1.0], "ab"],
)
async def test_vectors_that_are_none(vectors: Any) -> None:
    """What an embedder gives is looked at before it is used."""

    async def embed(texts: list[str]) -> Any:
        return vectors

    store = QdrantCache(embed, location=":memory:", embedding_timeout=60)
    asker = Asker(store)
    with pytest.warns(UserWarning, match="embedder of the response cache failed"):
        await asker(EGG)
    assert told(await asker(EGG))["hit"]
    await store.close()


async def test_embedders_do_not_mix(tmp_path: Any) -> None:
    """Another name, or another length: another collection; exact answers are shared."""
    for size, name, hit in ((96, "a", False), (96, "a", True), (96, "b", False), (64, "a", False), (64, "a", True)):
        store = QdrantCache(Words(size), path=tmp_path / "q", embedder_name=name, embedding_timeout=60)
        asker = Asker(store)
        assert told(await asker(OTHER_EGG))["hit"] is hit, (size, name)
        await asker(EGG, cache=CachePolicy(rewrite=True))
        key = asker.layer._key(ask(OTHER_EGG), CachePolicy())
        assert key is not None
        await store.delete(key)
        await store.close()


async def test_among_many_places(store: QdrantCache) -> None:
    """The like of a question is found however many others of the same words there are, with other system prompts."""
    asker = Asker(store)
    for number in range(80):
        await asker(EGG, system=f"You are cook {number}.")
    for number in (0, 40, 79):
        hit = await asker(OTHER_EGG, system=f"You are cook {number}.")
        assert (hit.content, told(hit)["similarity"] < 1) == (f"answer {number + 1}", True)
    assert not told(await asker(OTHER_EGG))["hit"]


async def test_many_at_once(store: QdrantCache, words: Words) -> None:
    """One vector for each text, however many ask."""
    words.wait = 0.05
    asker = Asker(store)
    keys = [asker.layer._key(ask(EGG, model=f"m{number}"), CachePolicy()) for number in range(50)]
    entries: list[CacheEntry | None] = await asyncio.gather(*(store.get(key) for key in keys if key is not None))
    assert entries == [None] * 50
    assert words.asked == [EGG]


async def test_the_last_one_who_leaves_ends_the_making(store: QdrantCache, words: Words) -> None:
    words.wait = 3600
    key = Asker(store).layer._key(ask(EGG), CachePolicy())
    assert key is not None
    tasks = [asyncio.ensure_future(store.get(key)) for _ in range(2)]
    makings = store._vectors._tasks
    await until(lambda: [making.waiting for found in makings.values() for making in found.values()] == [2])
    await until(lambda: words.asked)
    tasks[0].cancel()
    await asyncio.wait({tasks[0]})
    assert not tasks[1].done()
    assert len(asyncio.all_tasks()) == 3
    tasks[1].cancel()
    await asyncio.wait({tasks[1]})
    await until(lambda: len(asyncio.all_tasks()) == 1, 20)  # well before it would be given up by itself
    words.wait = 0
    assert await store.get(key) is None
    assert words.asked == [EGG, EGG]


async def test_the_local_engine_is_not_overfilled(
    store: QdrantCache, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with many small answers either; what was not used for the longest time goes, and its question with it."""
    monkeypatch.setattr("llm_provider_cache_qdrant.bound.MOST_HERE", 20)
    now = [1e9]
    monkeypatch.setattr(store, "_clock", lambda: now[0])
    asker = Asker(store)
    for number in range(50):
        now[0] += 10
        await asker(f"{EGG} {number}")
        now[0] += 10
        assert told(await asker(f"{EGG} 0"))["hit"]
        assert (await store.size()).entries <= 20
    engine = store._open()
    assert {engine.count(name) for name in engine.names()} == {(await store.size()).entries}
    engine.release()
    assert told(await asker(f"{EGG} 49"))["hit"]
    assert not told(await asker(f"{EGG} 20"))["hit"]
