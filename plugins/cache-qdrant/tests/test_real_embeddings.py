"""Vectors of a real model on this machine: what they can tell apart, and what they cannot."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llm_provider_cache_qdrant import QdrantCache, literals_of
from providers.exceptions import LLMProviderError
from providers.registry import provider_class

from .conftest import Asker, ask, told

OPTIONS: dict[str, Any] = {"n_threads": 1, "embedding_ctx": 128}

SAME = (
    ("What is the capital of France?", "Which city is the capital of France?"),
    ("How do I boil an egg?", "How can I boil an egg?"),
    ("Why is the sky blue?", "Why does the sky look blue?"),
    ("How many people live in Berlin?", "What is the population of Berlin?"),
    ("How do I reset my password?", "I forgot my password, how can I reset it?"),
    ("Who wrote Hamlet?", "Who is the author of Hamlet?"),
)
# Told apart by what must be the same in them.
GUARDED = (
    ("What is the capital of France?", "What is the capital of Germany?"),
    ("Who won in 2018?", "Who won in 2022?"),
    ("What is 5 + 3?", "What is 5 - 3?"),
    ("Why is the sky blue?", "Why is the sky not blue?"),
    ("Is it safe to drink coffee before sleeping?", "Is it safe to drink coffee after sleeping?"),
    ('Translate "dog" to French please.', 'Translate "cat" to French please.'),
    ("Flights from Paris to Rome", "Flights from Rome to Paris"),
)
# Only a model can tell these apart.
UNGUARDED = (
    ("How do I boil an egg?", "How do I fry an egg?"),
    ("How do I increase the volume?", "How do I decrease the volume?"),
    ("How do I open an account?", "How do I close an account?"),
    ("What is the lightest metal?", "What is the heaviest metal?"),
    ("Can dogs eat grapes safely?", "Can cats eat grapes safely?"),
)


@pytest.fixture
async def embedder() -> AsyncIterator[Any]:
    try:
        provider: Any = provider_class("llamacpp")(**OPTIONS)
        await provider.embed("Are you there?")
    except LLMProviderError as error:
        if os.environ.get("LLM_PROVIDER_REQUIRE_ENGINES") == "1":
            raise
        pytest.skip(f"needs llm-provider-llamacpp with its model: {error.message}")
    yield provider
    await provider.close()


def cosine(one: list[float], two: list[float]) -> float:
    product = sum(left * right for left, right in zip(one, two, strict=True))
    return product / math.sqrt(sum(x * x for x in one) * sum(x * x for x in two))


async def test_figures(embedder: Any) -> None:
    """A small chat model is no embedder: it finds different questions more alike than the same in other words. What
    must be the same in both tells apart what it does not."""
    scores: dict[str, list[float]] = {}
    for name, pairs in (("same", SAME), ("guarded", GUARDED), ("unguarded", UNGUARDED)):
        for pair in pairs:
            result = await embedder.embed(list(pair))
            scores.setdefault(name, []).append(cosine(*result.embeddings))
            print(f"{name:10} {scores[name][-1]:.3f} {pair[0]} | {pair[1]}")
            assert (literals_of(pair[0]) != literals_of(pair[1])) == (name == "guarded"), pair
    assert min(scores["same"]) > 0.8
    assert min(scores["guarded"]) > max(0.95, sum(scores["same"]) / len(SAME))
    assert max(scores["unguarded"]) > 0.95  # so the README tells to take a model that is made for it


async def test_hits(embedder: Any, tmp_path: Path) -> None:
    """F-107, through a folder: other wordings hit; what is guarded never does, however alike its vectors are."""
    store = QdrantCache(embedder, path=tmp_path / "q", threshold=0.93, embedding_timeout=60)
    asker = Asker(store)
    await store.warm()
    for one, two in SAME[:3]:
        await asker(one)
        assert told(await asker(two))["similarity"] > 0.93
    for one, two in GUARDED:
        await asker(ask(one, system="Be brief."))
        assert not told(await asker(ask(two, system="Be brief.")))["hit"]
    await store.close()


async def test_long_texts_are_never_embedded(embedder: Any) -> None:
    """Beyond the bound nothing is asked; where somebody sets it beyond the model's, the failure costs hits only."""
    store = QdrantCache(embedder, location=":memory:", longest_question=10**6, embedding_timeout=60)
    asker = Asker(store)
    with pytest.warns(UserWarning, match="embedder of the response cache failed"):
        assert (await asker("word and word " * 500)).content == "answer 1"
    assert told(await asker("word and word " * 500))["hit"]
    await store.close()
