"""Embeddings: a request to its body, and a reply to its vectors. No I/O."""

from __future__ import annotations

from typing import Any, Final

from providers.capabilities import EmbeddingRequest, decode_vector
from providers.exceptions import LLMProviderResponseError
from providers.types import EmbeddingResult, Usage

from .common import NAME, refuse_extras, usage_of

PATH: Final = "/embeddings"


def encode(request: EmbeddingRequest) -> dict[str, Any]:
    """The body of a request. The format is always named: left out, some servers choose one of their own.

    Raises:
        LLMProviderConfigurationError: an extra would replace the model or the inputs.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "input": list(request.inputs),
        "encoding_format": request.encoding_format,
    }
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.extras:
        refuse_extras(request.extras, request.model)
        body.update(request.extras)
    return body


def decode(reply: dict[str, Any], request: EmbeddingRequest, request_id: str | None = None) -> EmbeddingResult:
    """The vectors of a reply, in the order of the inputs.

    Raises:
        LLMProviderResponseError: there is not one vector for each input, or one cannot be read.
    """
    data = reply.get("data")
    items = [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    if len(items) != len(request.inputs):
        raise LLMProviderResponseError(
            f"the reply holds {len(items)} vectors for {len(request.inputs)} inputs",
            provider=NAME,
            request_id=request_id,
        )
    places = [item.get("index") for item in items]
    if sorted(place for place in places if type(place) is int) == list(range(len(items))):
        items.sort(key=lambda item: int(item["index"]))
    try:
        vectors = [decode_vector(item.get("embedding")) for item in items]
    except (TypeError, ValueError) as error:
        raise LLMProviderResponseError(
            f"a vector holds something that is no number: {error}", provider=NAME, request_id=request_id
        ) from None
    model = reply.get("model")
    return EmbeddingResult(vectors, usage_of(reply.get("usage")) or Usage(), model if model else request.model)
