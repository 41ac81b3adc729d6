"""The provider: vLLM's engine in this process, asked from any event loop and thread, all calls computed together."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar, cast

from providers.base import LLMProvider
from providers.capabilities import EmbeddingRequest, Embeddings, TokenCounting
from providers.exceptions import (
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderResponseError,
    ProviderClosedError,
    UnsupportedParameterError,
)
from providers.profiles import ProfileTable
from providers.types import EmbeddingResult, LLMConfig, Request, StreamEvent, Usage
from providers.types.config import is_default

from .answers import AnswerEvents
from .codec import encode
from .engine import Engine
from .jobs import AnswerJob, CountJob, Vector, VectorJob
from .loading import check_model, context_of
from .lora import make_adapter, take_adapter
from .settings import NAME, VLLMSettings

_ADAPTER = ("lora_path", "lora_name", "lora_rank")


class VLLMProvider(Embeddings, TokenCounting, LLMProvider):
    """vLLM in this process.

    The model is loaded at the first call, in a thread of its own, and freed by `close`. That thread drives the engine
    step by step for all calls together, so that a call that comes later does not wait for those before it.

    Args:
        config: an `LLMConfig`, or the model's name: a folder, or a model of the Hugging Face hub.
        options: fields of `LLMConfig` and of `VLLMSettings`.

    Raises:
        LLMProviderConfigurationError: a value is refused; the message names the field and its source.
    """

    name = NAME
    Settings = VLLMSettings
    profiles = ProfileTable(Path(__file__).with_name("models.json"))
    requires: ClassVar[tuple[str, ...]] = ("vllm",)
    understands: ClassVar[frozenset[str]] = frozenset({"tools", "structured_output"})
    slow_open = True
    batch_workers = 256  # what vLLM computes together on a card

    settings: VLLMSettings

    def __init__(self, config: LLMConfig | str | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        # The model is that of the name at the beginning: update_config changes parameters, not the loaded model.
        self._model_name = self.config.model_name
        self._found_engine: Engine | None = None
        self._loading = threading.Lock()
        self._pid = os.getpid()
        self._gone = False

    def open(self) -> None:
        """Load the model.

        Raises:
            MissingDependencyError: vLLM is not installed.
            LLMProviderConfigurationError: there is no such model, or vLLM cannot load it; says what to do.
        """
        self._gone = False
        self._load()

    def detach(self) -> None:
        """Refuse another model; the one in use is freed once no call is under way, and loaded as the settings say then.

        Raises:
            LLMProviderConfigurationError: the model has another name.
        """
        self._check_name(self.config.model_name)

    async def shut(self) -> None:
        """End what runs and free the model."""
        self._gone = True
        await asyncio.to_thread(self._unload)

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer one request."""
        try:
            engine = await self._engine(request.model)
            asked, meta = encode(request, engine.facts, self.settings, self.profile.refuses)
            events = AnswerEvents(self._label(), meta, asked)
            job = AnswerJob(asked, stream=request.stream)
            work = engine.start(job, quiet=not request.stream, timeout=request.timeout)
            async with aclosing(cast(Any, work.pieces())) as pieces:
                async for piece in pieces:
                    for event in events.feed(piece):
                        yield event
            events.finish()
        except LLMProviderError as error:
            error.model = error.model or request.model
            raise

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        """Vectors of all inputs, in their order; for models that embed, or were loaded with `runner="pooling"`."""
        try:
            engine = await self._engine(request.model)
            extras = dict(request.extras)
            adapter = take_adapter(extras, self.settings)
            if request.dimensions is not None:
                extras["dimensions"] = request.dimensions
            work = engine.start(VectorJob(request.inputs, extras, adapter), quiet=True, timeout=request.timeout)
            async with aclosing(cast(Any, work.pieces())) as pieces:
                vectors = [piece async for piece in pieces]
            return self._embeddings(vectors, request)
        except LLMProviderError as error:
            error.model = error.model or request.model
            raise

    async def count_tokens(self, messages: Any, **options: Any) -> int:
        """How many tokens the messages are as a prompt, by the model's own vocabulary and template: what
        `usage.input_tokens` of the answer says.

        Args:
            messages: a text, or messages in any spelling.
            options: as in `execute`, where they change the prompt (`tools`, `system_prompt`).

        Raises:
            LLMProviderTokenLimitError: they are more than the context holds; vLLM counts no further.
            LLMProviderError: the messages make no sense to the model's template.
        """
        request = self._request(messages, None, {**options, "on_unsupported": "drop"}, stream=False)
        await self._life.begin()
        try:
            engine = await self._engine(request.model)
            asked, _ = encode(request, engine.facts, self.settings, {})
            work = engine.start(CountJob(asked), quiet=True, timeout=request.timeout)
            async with aclosing(cast(Any, work.pieces())) as pieces:
                [count] = [piece async for piece in pieces]
            return cast(int, count)
        except LLMProviderError as error:
            error.model = error.model or request.model
            raise
        finally:
            await self._life.end()

    @property
    def token_limit(self) -> int:
        """The context of one call in tokens: as configured, else as loaded, else what the model's folder says."""
        if not is_default(self.config.token_limit):
            return self.config.token_limit
        if self._found_engine is not None:
            return self._found_engine.facts.context
        return context_of(self._model_name or "", self.settings) or super().token_limit

    # --- the engine

    def _check_name(self, model: str | None) -> None:
        if model != self._model_name:
            raise LLMProviderConfigurationError(
                f"this provider has loaded {self._model_name!r}; create another one for {model!r}", provider=self.name
            )

    async def _engine(self, model: str) -> Engine:
        self._check_name(model)
        engine = self._found_engine
        if engine is not None and not engine.broken:
            return engine
        return await asyncio.to_thread(self._load)

    def _load(self) -> Engine:
        if self._pid != os.getpid():
            # A forked child: its parent may have held the lock, and the parent's engine is not usable here.
            self._pid, self._loading = os.getpid(), threading.Lock()
        with self._loading:
            if self._gone:
                raise ProviderClosedError("this provider was closed; create a new one", provider=self.name)
            engine = self._found_engine
            if engine is not None and engine.broken:
                engine.stop()
                engine = self._found_engine = None
            if engine is None:
                engine = self._found_engine = self._make_engine()
            return engine

    def _make_engine(self) -> Engine:
        model = self._model_name
        if model is None:
            raise LLMProviderConfigurationError(
                "no model: give a folder, or the name of a model of the Hugging Face hub", provider=self.name
            )
        check_model(model)
        # An adapter may stand in the configuration's own extras too.
        extras = {name: self.config.extra_params[name] for name in _ADAPTER if name in self.config.extra_params}
        adapter = take_adapter(extras, self.settings)
        if adapter is None and self.settings.lora_path is not None:
            adapter = make_adapter(self.settings.lora_path, self.settings.lora_name, self.settings.lora_rank)
        return Engine(model, self.settings, adapter.rank if adapter is not None else 0)

    def _unload(self) -> None:
        with self._loading:
            engine, self._found_engine = self._found_engine, None
            if engine is not None:
                engine.stop()

    def _label(self) -> str:
        """The name that answers bear: a folder's own name, or the model's as it was given."""
        name = self._model_name or ""
        return os.path.basename(name.rstrip("/\\")) if os.path.isdir(os.path.expanduser(name)) else name

    def _embeddings(self, vectors: list[Vector], request: EmbeddingRequest) -> EmbeddingResult:
        if len(vectors) != len(request.inputs):
            raise LLMProviderResponseError(
                f"vLLM gave {len(vectors)} vectors for {len(request.inputs)} inputs", provider=NAME
            )
        vectors = sorted(vectors, key=lambda vector: vector.place)
        size = len(vectors[0].values)
        if request.dimensions is not None and request.dimensions != size:
            raise UnsupportedParameterError(
                f"this model's vectors have {size} dimensions, not {request.dimensions}; leave dimensions out",
                provider=NAME,
                status_code=400,
            )
        tokens = sum(vector.tokens for vector in vectors)
        return EmbeddingResult([vector.values for vector in vectors], Usage(tokens, total_tokens=tokens), self._label())
