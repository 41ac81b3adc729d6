"""Walks of embeddings: their targets must give vectors that compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..capabilities import EmbeddingRequest
from ..exceptions import LLMProviderError, LLMProviderResponseError
from ..pipeline import compose_whole
from ..types import EmbeddingResult, StreamEventType
from ..wire.errors import error_from_reply
from .targets import OWN_TIMEOUT, Target
from .walk import MovesOn, Try, Walk


class EmbeddingWalk(Walk):
    """Picks targets for an `EmbeddingRequest`.

    Args:
        provider: the fallback's name.
        order: the targets in the order of choice.
        all_targets: the targets as they stand; the first of them that makes embeddings says whose vectors are wanted.
        request: the texts.
        decides: as in `Walk`.
        any_vectors: whether another model's vectors will do.
    """

    def __init__(
        self,
        provider: str,
        order: Sequence[Target],
        all_targets: Sequence[Target],
        request: EmbeddingRequest,
        decides: MovesOn | None,
        *,
        any_vectors: bool,
    ) -> None:
        super().__init__(provider, order, request, decides)
        self._wanted = None if any_vectors else next((_name(one) for one in all_targets if embeds(one)), None)

    def _made(self, target: Target) -> EmbeddingRequest:
        request: EmbeddingRequest = self._request
        return request

    def _unfit(self, target: Target, request: object) -> str | None:
        if not embeds(target):
            return "it makes no embeddings"
        if self._wanted is not None and _name(target) != self._wanted:
            return f"its vectors do not compare with those of {self._wanted}; any_vectors=True allows them"
        return None


def embeds(target: Target) -> bool:
    """Whether a target makes embeddings."""
    return "embeddings" in target.provider.capabilities


def _name(target: Target) -> str:
    """The model's name, without the parts that gateways put before it."""
    if target.mixed:
        inner: Sequence[Target] = target.provider._targets  # type: ignore[attr-defined]
        return next((_name(one) for one in inner if embeds(one)), "")
    return (target.model or "").rpartition("/")[2]


async def embed_with(tried: Try, request: EmbeddingRequest) -> EmbeddingResult:
    """The vectors of one target, with its layers at work.

    Not through its verb, which reports failures as values: their class and what they ask for decide who is next.

    Raises:
        LLMProviderError: it failed.
    """
    provider: Any = tried.target.provider
    options = {"timeout": None if request.timeout is OWN_TIMEOUT else request.timeout, "extra": dict(request.extras)}
    own = provider._embedding_request(request.inputs, request.encoding_format, request.dimensions, options)
    layers = [layer for layer in provider._stack.layers if getattr(layer, "embeddings", False)]
    whole = compose_whole(layers, provider._embed_in_pieces, provider._embed)
    life = provider._life
    await life.begin()
    tried.opening = False
    try:
        for event in await whole(own):
            if event.type is StreamEventType.META and "embeddings" in event.data:
                found: EmbeddingResult = event.data["embeddings"]
                if not found.ok:
                    raise _error_of(found, tried.target)
                return found
    finally:
        await life.end()
    raise LLMProviderResponseError("a layer kept the vectors to itself", provider=provider.name)


def _error_of(result: EmbeddingResult, target: Target) -> LLMProviderError:
    text = (result.error or "").encode()
    error = error_from_reply(result.status, {}, text, provider=target.provider.name, model=result.model or target.model)
    error.usage = result.usage
    return error
