"""Vectors of texts, by the real model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import pytest

from llm_provider_llamacpp import LlamaCppProvider
from providers.exceptions import LLMProviderConfigurationError

from .conftest import SHORT

CAT, KITTEN, PHYSICS = (
    "A cat sits on the mat.",
    "A kitten lies on the rug.",
    "Quantum physics describes subatomic particles.",
)


def cosine(one: list[float], two: list[float]) -> float:
    product = sum(left * right for left, right in zip(one, two, strict=True))
    return product / math.sqrt(sum(x * x for x in one) * sum(x * x for x in two))


@pytest.fixture(scope="module")
def embedder() -> Iterator[LlamaCppProvider]:
    """A provider whose second model is loaded once."""
    found = LlamaCppProvider(**SHORT, embedding_ctx=128)
    yield found
    asyncio.run(found.close())


async def test_the_shape_of_vectors(embedder: LlamaCppProvider) -> None:
    """F-076: one for each input, in order, floats in either encoding."""
    one = await embedder.embed(CAT)
    assert one.ok
    assert len(one.embedding) == 576
    assert all(isinstance(number, float) for number in one.embedding)
    assert math.isclose(sum(number * number for number in one.embedding), 1, rel_tol=1e-4)
    assert (one.model, one.usage.input_tokens) == ("smollm2-135m-instruct", one.usage.total_tokens)
    many = await embedder.embed([PHYSICS, CAT, KITTEN], encoding_format="base64")
    assert many.ok
    assert cosine(many.embeddings[1], one.embedding) > 0.999
    assert (many.usage.input_tokens or 0) > (one.usage.input_tokens or 0)


async def test_similar_texts_are_closer(embedder: LlamaCppProvider) -> None:
    """F-076"""
    cat, kitten, physics = (await embedder.embed([CAT, KITTEN, PHYSICS])).embeddings
    assert cosine(cat, kitten) > cosine(cat, physics) + 0.1


async def test_odd_texts(embedder: LlamaCppProvider) -> None:
    """Bad input 24"""
    result = await embedder.embed(["a\x00b", "\u2028", "🙂", "\ud83d half", " "])
    assert result.ok
    assert len(result.embeddings) == 5


async def test_failures_are_values(embedder: LlamaCppProvider) -> None:
    """F-076: `ok`, `status` and `error`; a wrong argument raises."""
    long = await embedder.embed("word " * 200)
    assert (long.ok, long.status) == (False, 400)
    assert "embedding_ctx" in (long.error or "")
    short = await embedder.embed(CAT, dimensions=10)
    assert (short.ok, short.status) == (False, 400)
    assert "576 dimensions" in (short.error or "")
    assert (await embedder.embed(CAT, dimensions=576)).ok
    for wrong in ("", [], [""], None, [1]):
        with pytest.raises(LLMProviderConfigurationError):
            await embedder.embed(wrong)  # type: ignore[arg-type]


async def test_many_at_once(embedder: LlamaCppProvider) -> None:
    """F-143: beside answers of the same provider."""
    answer, *results = await asyncio.gather(
        embedder.execute("Hi", max_tokens=4), *(embedder.embed([f"Text {number}.", CAT]) for number in range(6))
    )
    assert answer.ok
    assert all(result.ok for result in results)
    assert all(cosine(result.embeddings[1], results[0].embeddings[1]) > 0.999 for result in results)


@pytest.mark.parametrize("pooling", ["cls", "last"])
async def test_pooling_can_be_chosen(pooling: str) -> None:
    """F-076"""
    async with LlamaCppProvider(**SHORT, embedding_ctx=64, pooling=pooling) as provider:
        cat, kitten = (await provider.embed([CAT, KITTEN])).embeddings
        mean = 1 - 1e-3
        assert cosine(cat, cat) > mean
        if pooling == "last":
            assert cosine(cat, kitten) < mean
