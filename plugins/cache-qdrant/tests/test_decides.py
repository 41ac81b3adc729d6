"""What decides must be the same however alike the vectors are: here all of them are one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llm_provider_cache_qdrant import QdrantCache
from providers.types import Message

from .conftest import Asker, ask, told


async def alike(texts: list[str]) -> list[list[float]]:
    """The same vector for every text."""
    return [[1.0] * 8 for _ in texts]


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    store = QdrantCache(alike, location=":memory:", embedding_timeout=60)
    yield Asker(store)
    await store.close()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("how long do I boil 5 eggs", "how long do I boil 6 eggs"),
        ("is the sea warm in Spain now", "is the sea warm in Norway now"),
        ("why is the sky blue", "why is the sky not blue"),
        ("what is to be done before sleeping", "what is to be done after sleeping"),
        ("what does `len` return here", "what does `max` return here"),
        ("which mushrooms are safe to eat", "which mushrooms are unsafe to eat"),
        ("flights from paris to rome", "flights from rome to paris"),
    ],
)
async def test_another_question_gets_no_answer_of_a_like_one(asker: Asker, one: str, two: str) -> None:
    """F-107: numbers, names, denials, times, code, and the order of the same words; both ways round."""
    await asker(one)
    assert not told(await asker(two))["hit"]
    assert told(await asker(one))["hit"]
    assert asker.backend.calls == 2


async def test_another_wording_gets_it(asker: Asker) -> None:
    """F-107: so that the test above is about what decides, and not about a store that finds nothing."""
    await asker("how long do I boil 5 eggs")
    assert told(await asker("for how many minutes shall 5 eggs boil"))["similarity"] == pytest.approx(1)
    assert asker.backend.calls == 1


async def test_all_but_the_last_text_must_be_the_same(asker: Asker) -> None:
    """F-107: the talk before it, the system prompt, a parameter."""
    first, other = "how long do I boil an egg", "for how many minutes shall an egg boil"
    await asker(first, system="be short")
    assert told(await asker(other, system="be short"))["hit"]
    for changes in ({"system": "be long"}, {}, {"system": "be short", "params": {"temperature": 0.1}}):
        assert not told(await asker(other, **changes))["hit"], changes  # type: ignore[arg-type]
        assert not told(await asker(ask(Message.user("Hello"), Message.assistant("Hi"), other), **changes))["hit"]  # type: ignore[arg-type]
