"""Embeddings: one text, several, more than fit one request, and replies that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from providers.exceptions import UnknownOptionError
from providers.testing.server import LoopbackServer, RecordedRequest, Reply
from providers.types import Usage

from . import bodies
from .conftest import Make

MODEL = "gemini-embedding-001"


async def test_one_text(make: Make, server: LoopbackServer, transport: str) -> None:
    """F-076: floats whatever the encoding on the wire."""
    found = {"embedding": {"values": [1, 0.5]}, "usageMetadata": {"promptTokenCount": 3}}
    server.script(f"/v1/models/{MODEL}:embedContent", Reply.json(found), repeat=True)
    provider = make(MODEL, transport=transport)
    result = await provider.embed("a", dimensions=2, extra={"title": "T", "taskType": "RETRIEVAL_DOCUMENT"})
    assert result.ok, result.error
    assert server.requests[-1].json == {
        "model": f"models/{MODEL}",
        "content": {"parts": [{"text": "a"}]},
        "outputDimensionality": 2,
        "title": "T",
        "taskType": "RETRIEVAL_DOCUMENT",
    }
    assert (result.embedding, result.usage.without_costs(), result.model) == ([1.0, 0.5], Usage(3, None, 3), MODEL)
    assert (await provider.embed("a", encoding_format="base64")).embedding == [1.0, 0.5]


async def test_more_than_fit(make: Make, server: LoopbackServer, transport: str) -> None:
    """The vendor takes a hundred at once; they come back in their order."""

    def answer(request: RecordedRequest) -> Reply:
        texts = [item["content"]["parts"][0]["text"] for item in request.json["requests"]]
        assert len(texts) <= 100
        return Reply.json({"embeddings": [{"values": [float(text)]} for text in texts]})

    server.script(f"/v1/models/{MODEL}:batchEmbedContents", answer, repeat=True)
    result = await make(MODEL, transport=transport).embed([str(number) for number in range(250)])
    assert result.embeddings == [[float(number)] for number in range(250)]
    assert server.count() == 3
    assert result.usage == Usage()  # unknown is None


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"embedding": None},
        {"embedding": {"values": []}},
        {"embedding": {"values": ["x"]}},
        {"embeddings": [{"values": [1.0]}, {"values": [2.0]}]},
        {"embeddings": 3},
    ],
)
async def test_vectors_that_are_none(make: Make, server: LoopbackServer, reply: Any) -> None:
    server.script("*", Reply.json(reply))
    result = await make(MODEL).embed("a")
    assert (result.ok, result.status) == (False, 500)
    assert result.error


async def test_failures_are_tried_again_and_told(make: Make, server: LoopbackServer, transport: str) -> None:
    server.script("*", Reply.json(bodies.UNAVAILABLE, 503), Reply.json({"embedding": {"values": [1.0]}}))
    assert (await make(MODEL, transport=transport).embed("a")).ok
    server.script("*", Reply.json(bodies.KEY_INVALID, 400))
    result = await make(MODEL, transport=transport).embed("a")
    assert (result.ok, result.status) == (False, 400)


async def test_extras_that_embeddings_do_not_know(make: Make) -> None:
    with pytest.raises(UnknownOptionError, match="task_type"):
        await make(MODEL).embed("a", extra={"top_k": 1})
