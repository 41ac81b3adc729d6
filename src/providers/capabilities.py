"""Rarer powers of providers, as mixins: asked for by `isinstance`, listed by `provider.capabilities`, never flags.

class AcmeProvider(Embeddings, LLMProvider):        # the mixin goes first: it brings the verb
    async def create_embeddings(self, request): ...

Embeddings        embed()          texts to vectors
TokenCounting     count_tokens()   an exact count, by the backend or a local tokenizer
"""

from __future__ import annotations

import base64
import binascii
import struct
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final, cast

from .base import LLMProvider
from .exceptions import (
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderResponseError,
    UnknownOptionError,
)
from .failures import error_status
from .pipeline import compose_whole
from .types import EmbeddingResult, Request, RetryPolicy, StreamEvent, StreamEventType
from .types.checks import Check, Number, check_fields
from .types.config import CHECKS, unknown_option

_CHECKS: Final[dict[str, Check]] = {
    "dimensions": Number(1, integer=True),
    "timeout": CHECKS["timeout"],
    "extra": CHECKS["extra"],
}
_ARGUMENTS: Final = frozenset({"inputs", "encoding_format", "dimensions"})
_OPTIONS: Final = frozenset({"timeout", "attempts", "backoff", "extra"})


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to be turned into vectors.

    Attributes:
        model: the model's name.
        inputs: the texts, at least one.
        encoding_format: how vectors travel on the wire, `"float"` or `"base64"`; the result holds floats either way.
        dimensions: length of the vectors, where the model can choose; `None` leaves it to the model.
        extras: parameters of the backend's own, to be sent as they are.
        timeout: seconds for one attempt.
        retry: how often, and after which waits, the call is tried again.
    """

    # What layers look for in any request.
    stream: ClassVar[bool] = False
    params: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    cache: ClassVar[None] = None
    output: ClassVar[None] = None

    model: str
    inputs: tuple[str, ...]
    encoding_format: str = "float"
    dimensions: int | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = 60
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class Embeddings(LLMProvider):
    """The power to turn texts into vectors."""

    capability: ClassVar[str] = "embeddings"

    @abstractmethod
    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        """Vectors for all inputs, in their order. What an author writes."""

    async def embed(
        self, inputs: str | list[str], encoding_format: str = "float", dimensions: int | None = None, **options: Any
    ) -> EmbeddingResult:
        """Vectors of texts, through those of the provider's layers that know an `EmbeddingRequest` (they have
        `embeddings = True`): prices, retries, limits and budgets.

        Args:
            inputs: a text, or a list of texts.
            encoding_format: `"float"` or `"base64"`, how vectors travel on the wire; the result holds floats.
            dimensions: length of the vectors, for models that can choose.
            options: `timeout`, `attempts`, `backoff`, and `extra` for the backend's own parameters.

        Returns:
            An `EmbeddingResult`; where the call failed, `ok` is false and `status` and `error` say why.

        Raises:
            LLMProviderConfigurationError: an argument is wrong.
        """
        request = self._embedding_request(inputs, encoding_format, dimensions, options)
        layers = [layer for layer in self._stack.layers if getattr(layer, "embeddings", False)]
        whole = compose_whole(layers, self._embed_in_pieces, self._embed)
        life = self._life  # `reload` may begin another one meanwhile
        await life.begin()
        try:
            for event in await whole(cast(Request, request)):
                if event.type is StreamEventType.META and "embeddings" in event.data:
                    result: EmbeddingResult = event.data["embeddings"]
                    return result
        except LLMProviderConfigurationError:
            raise
        except LLMProviderError as error:
            return EmbeddingResult([], model=request.model, status=error_status(error), error=str(error))
        finally:
            await life.end()
        raise LLMProviderResponseError("a layer kept the vectors to itself", provider=self.name)

    async def _embed(self, request: Any) -> list[StreamEvent]:
        result = await self.create_embeddings(request)
        return [StreamEvent.meta(embeddings=result), StreamEvent.usage(result.usage)]

    async def _embed_in_pieces(self, request: Any) -> AsyncIterator[StreamEvent]:
        for event in await self._embed(request):
            yield event

    def _embedding_request(
        self, inputs: Any, encoding_format: str, dimensions: int | None, options: dict[str, Any]
    ) -> EmbeddingRequest:
        texts = (inputs,) if isinstance(inputs, str) else tuple(inputs) if isinstance(inputs, Iterable) else ()
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise LLMProviderConfigurationError("inputs must be a text or a list of texts, none of them empty")
        if encoding_format not in ("float", "base64"):
            raise LLMProviderConfigurationError(f"encoding_format must be 'float' or 'base64', not {encoding_format!r}")
        for name in options:
            if name not in _OPTIONS:
                raise UnknownOptionError(unknown_option(name, _OPTIONS | _ARGUMENTS, "embed"), provider=self.name)
        options = {name: value for name, value in options.items() if value is not None}
        check_fields({"dimensions": dimensions, **options}, _CHECKS, "argument")
        if self.config.model_name is None:
            raise LLMProviderConfigurationError("no model: pass model_name=...", provider=self.name)
        return EmbeddingRequest(
            self.config.model_name,
            texts,
            encoding_format,
            dimensions,
            {**self.config.extra_params, **options.get("extra", {})},
            options.get("timeout", self.config.timeout),
            self._builder.retry_of(options),
        )


def decode_vector(value: Any) -> list[float]:
    """A vector as floats, from a list of numbers or from base64 of little-endian 32-bit floats.

    Raises:
        LLMProviderResponseError: it is neither.
    """
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
            return list(struct.unpack(f"<{len(raw) // 4}f", raw))
        except (binascii.Error, struct.error) as error:
            raise LLMProviderResponseError(f"a vector is not base64 of 32-bit floats: {error}") from None
    if not isinstance(value, list):
        raise LLMProviderResponseError(f"a vector must be a list of numbers or base64, not {type(value).__name__}")
    try:
        return [float(number) for number in value]
    except (TypeError, ValueError) as error:
        raise LLMProviderResponseError(f"a vector holds something that is no number: {error}") from None


class TokenCounting(LLMProvider):
    """The power to count tokens exactly, by a local tokenizer or a call to the backend."""

    capability: ClassVar[str] = "token_counting"

    @abstractmethod
    async def count_tokens(self, messages: Any, **options: Any) -> int:
        """How many tokens the messages are as a prompt, with everything that the model's template adds.

        Args:
            messages: a text, or messages in any spelling.
            options: as in `execute`, where they change the prompt (`tools`, `system`).
        """
