"""Vectors of questions: who makes them, and that each is made once."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from threading import Lock
from typing import Any, Final, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from providers.base import LLMProvider
from providers.capabilities import Embeddings
from providers.exceptions import LLMProviderConfigurationError, LLMProviderError
from providers.notices import warn_only
from providers.registry import provider_class

logger = logging.getLogger(__name__)

EmbedFunction = Callable[[list[str]], Awaitable[Sequence[Sequence[float]]]]
Vector: TypeAlias = "array[float]"

HOW: Final = (
    "the Qdrant cache compares questions by their vectors and needs an embedder: pass embedder=provider, where the "
    "provider makes embeddings, or embedder=function, an async function (list[str]) -> list[list[float]]; from "
    'configuration cache_options={"embedding_provider": "NAME", "embedding_model": "MODEL"}'
)

# Vectors that are kept between a question's `get` and its `put`.
_KEPT: Final = 512
# Seconds after which an embedding that nobody waits for any more is given up.
_LIMIT: Final = 30.0
# Seconds for which an embedder that did not answer in time is left alone.
_REST: Final = 5.0


class Embedder(Protocol):
    """Makes vectors of texts.

    Attributes:
        name: what vectors that may be compared have in common.
    """

    name: str

    async def embed(self, texts: list[str]) -> Sequence[Sequence[float]]:
        """One vector for each text."""

    async def close(self) -> None:
        """Give back what was made for it."""


class FunctionEmbedder:
    """An async function of the caller's."""

    def __init__(self, function: EmbedFunction, name: str | None, lasting: bool) -> None:
        found = name or f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
        if name is None and lasting and (found.endswith(".") or "<" in found):
            raise LLMProviderConfigurationError(
                "pass embedder_name=..., another one for each embedder: a function without a name of its own cannot be "
                "told from another one, whose vectors lie in the same place"
            )
        self.name = found
        self._function = function

    async def embed(self, texts: list[str]) -> Sequence[Sequence[float]]:
        """What the function gives."""
        found = self._function(texts)
        if not isawaitable(found):
            raise LLMProviderConfigurationError("the embedder of the Qdrant cache must be an async function")
        return await found

    async def close(self) -> None:
        """Nothing was made for it."""


class ProviderEmbedder:
    """A provider with the `Embeddings` capability, that is made when it is first needed.

    Args:
        make: gives the provider.
        name: what tells its vectors from others.
        dimensions: length of the vectors, where the model can choose.
        owned: whether the provider is closed with the cache.
    """

    def __init__(self, make: Callable[[], LLMProvider], name: str, dimensions: int | None, owned: bool) -> None:
        self.name = name
        self._make = make
        self._dimensions = dimensions
        self._owned = owned
        self._made: LLMProvider | None = None
        self._lock = Lock()

    async def embed(self, texts: list[str]) -> Sequence[Sequence[float]]:
        """One attempt."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            provider = self._made
        result = await provider.embed(texts, dimensions=self._dimensions, attempts=1, timeout=_LIMIT)
        if not result.ok:
            raise LLMProviderError(result.error or "no vectors came", provider=provider.name)
        return result.embeddings

    async def close(self) -> None:
        """Close a provider that was made here; a later question opens it again."""
        if self._owned and self._made is not None:
            await self._made.close()


def embedder_of(
    embedder: Any,
    provider: str | None,
    model: str | None,
    options: Mapping[str, Any] | None,
    name: str | None,
    dimensions: int | None,
    lasting: bool,
) -> Embedder:
    """Who makes the vectors, from the arguments of `QdrantCache`.

    Raises:
        LLMProviderConfigurationError: nobody is named, somebody twice, or somebody who makes no embeddings.
        UnknownProviderError: no provider has that name.
    """
    if embedder is not None and provider is not None:
        raise LLMProviderConfigurationError("pass embedder or embedding_provider, not both")
    if embedder is None and provider is None:
        raise LLMProviderConfigurationError(HOW)
    more = "" if dimensions is None else f"/{dimensions}"
    if provider is not None:
        cls = provider_class(provider)
        _check(cls, cls.__name__)
        arguments = {**(options or {}), **({} if model is None else {"model": model})}
        return ProviderEmbedder(lambda: cls(**arguments), name or f"{provider}/{model}{more}", dimensions, True)
    if model is not None or options:
        raise LLMProviderConfigurationError(
            "embedding_model and embedding_options are for embedding_provider; an embedder has its own"
        )
    if isinstance(embedder, LLMProvider):
        _check(type(embedder), embedder.name)
        told = name or f"{embedder.name}/{embedder.config.model_name}{more}"
        return ProviderEmbedder(lambda: embedder, told, dimensions, False)
    if not callable(embedder):
        raise LLMProviderConfigurationError(f"embedder is a {type(embedder).__name__}; {HOW}")
    return FunctionEmbedder(embedder, name, lasting)


def _check(cls: type[LLMProvider], name: str) -> None:
    if not issubclass(cls, Embeddings):
        raise LLMProviderConfigurationError(f"the provider {name} makes no embeddings; {HOW}")


class Vectors:
    """Vectors of texts, each made once, and none where that fails.

    Args:
        embedder: who makes them.
        dimensions: the length that they must have, or `None`.
        patience: seconds that a caller waits. The making goes on then, for the caller who comes back.
    """

    def __init__(self, embedder: Embedder, dimensions: int | None, patience: float) -> None:
        self._embedder = embedder
        self._dimensions = dimensions
        self._patience = patience
        self._kept: OrderedDict[str, Vector] = OrderedDict()
        self._tasks: WeakKeyDictionary[Any, dict[str, _Making]] = WeakKeyDictionary()
        self._rests_until = 0.0
        self._warned = False
        self.renew()

    def renew(self) -> None:
        """After a fork another thread may have held the lock."""
        self._lock = Lock()

    async def of(self, text: str) -> Vector | None:
        """The vector of a text; `None` where there is none in time. Never raises but when it is cancelled."""
        with self._lock:
            kept = self._kept.get(text)
            if kept is not None:
                self._kept.move_to_end(text)
                return kept
            makings = self._tasks.setdefault(asyncio.get_running_loop(), {})
        making = makings.get(text)
        if making is None:
            if time.monotonic() < self._rests_until:
                return None
            making = makings[text] = _Making(asyncio.ensure_future(self._make(text)))
            making.task.add_done_callback(lambda task: makings.pop(text, None))
        making.waiting += 1
        try:
            done, _ = await asyncio.wait({making.task}, timeout=self._patience)
        except asyncio.CancelledError:
            if making.waiting == 1:
                making.task.cancel()
            raise
        finally:
            making.waiting -= 1
        if not done:
            self._rests_until = time.monotonic() + _REST
            self._tell(f"does not answer within {self._patience:g} s")
            return None
        return None if making.task.cancelled() else making.task.result()

    async def close(self) -> None:
        """Give up what this event loop is making, and close the embedder."""
        with self._lock:
            makings = self._tasks.pop(asyncio.get_running_loop(), {})
        tasks = {making.task for making in makings.values()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._embedder.close()

    async def _make(self, text: str) -> Vector | None:
        try:
            async with asyncio.timeout(_LIMIT):
                [found] = await self._embedder.embed([text])
            vector = checked(found, self._dimensions)
        except Exception as error:
            # Of other errors the name alone: a text may quote a key.
            said = f": {error.message}" if isinstance(error, LLMProviderError) else ""
            logger.debug("the embedder of the response cache failed (%s%s)", type(error).__name__, said)
            self._tell(f"failed ({type(error).__name__}{said})")
            return None
        with self._lock:
            self._kept[text] = vector
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return vector

    def _tell(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            warn_only(
                f"the embedder of the response cache {what}; answers to similar questions are not found meanwhile"
            )


class _Making:
    """A vector that is being made, and how many wait for it."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Future[Vector | None]) -> None:
        self.task = task
        self.waiting = 0


def checked(numbers: Sequence[float], dimensions: int | None) -> Vector:
    """A vector of finite 32-bit floats that has a direction.

    Raises:
        LLMProviderConfigurationError: it has not, or not the length that was asked for.
    """
    vector = array("f", [float(number) for number in numbers])
    if dimensions is not None and len(vector) != dimensions:
        raise LLMProviderConfigurationError(f"the embedder's vectors have {len(vector)} dimensions, not {dimensions}")
    length = math.fsum(number * number for number in vector)
    if not math.isfinite(length) or length <= 0:
        raise LLMProviderConfigurationError("the embedder gave a vector without a direction")
    return vector
