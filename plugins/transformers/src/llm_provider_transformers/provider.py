"""The provider: a model of transformers in this process, asked from any event loop and thread."""

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
    ProviderClosedError,
    UnsupportedParameterError,
)
from providers.local import chat_tools, split_extras
from providers.profiles import ProfileTable
from providers.types import EmbeddingResult, LLMConfig, Request, StreamEvent, Usage
from providers.types.config import is_default

from .engine import Engine, after_fork
from .loading import find_source
from .settings import NAME, TransformersSettings


class TransformersProvider(Embeddings, TokenCounting, LLMProvider):
    """Hugging Face transformers in this process.

    The model is loaded at the first call, in a worker thread, and freed by `close`. Calls run in one worker thread, in
    the order in which they came; those that wait together are answered together, in one padded run.

    Args:
        config: an `LLMConfig`, or the model: a folder, a GGUF file, or an id of the Hugging Face hub.
        options: fields of `LLMConfig` and of `TransformersSettings`.

    Raises:
        LLMProviderConfigurationError: a value is refused; the message names the field and its source.
    """

    name = NAME
    Settings = TransformersSettings
    profiles = ProfileTable(Path(__file__).with_name("models.json"))
    requires: ClassVar[tuple[str, ...]] = ("transformers", "torch")
    understands: ClassVar[frozenset[str]] = frozenset({"tools", "structured_output"})
    slow_open = True

    settings: TransformersSettings

    def __init__(self, config: LLMConfig | str | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        if self.config.model_name is None and self.settings.model_path is not None:
            # Of an address, which will be refused, no name: its end may be a token.
            path = "model" if "://" in self.settings.model_path else self.settings.model_path
            self.update_config(model_name=Path(path).name or path)
        # The model is that of the name at the beginning: update_config changes parameters, not what is loaded.
        self._model_name, self._model_profile = self.config.model_name, self.profile
        self._engine: Engine | None = None
        self._loading = threading.Lock()
        self._pid = os.getpid()
        self._gone = False

    def open(self) -> None:
        """Load the model.

        Raises:
            MissingDependencyError: transformers, torch, or a package that the model needs is not installed.
            LLMProviderConfigurationError: there is no such model, it is not whole, or it does not fit.
        """
        self._gone = False
        self._load()

    def detach(self) -> None:
        """Refuse what the next opening would refuse; the model in use is freed once no call is under way.

        A model that was not loaded yet is not looked for either, as when the provider is made.

        Raises:
            LLMProviderConfigurationError: there is no such model, or it has another name.
        """
        self._check_name(self.config.model_name)
        if self._engine is not None:
            find_source(self._model_name, self.settings, self._model_profile)

    async def shut(self) -> None:
        """End what runs and free the model."""
        self._gone = True
        await asyncio.to_thread(self._unload)

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer one request."""
        try:
            engine = await self._ready(request.model)
            work = engine.start(request)
            async with aclosing(cast(Any, work.pieces())) as pieces:
                async for piece in pieces:
                    for event in piece:
                        yield event
        except LLMProviderError as error:
            error.model = error.model or request.model
            raise

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        """Vectors of all inputs, in their order."""
        try:
            engine = await self._ready(request.model)
            work = engine.embed(request.inputs, request.extras, request.timeout)
            async with aclosing(cast(Any, work.pieces())) as pieces:
                [found] = [piece async for piece in pieces]
        except LLMProviderError as error:
            error.model = error.model or request.model
            raise
        width = len(found.vectors[0])
        if request.dimensions is not None and request.dimensions != width:
            raise UnsupportedParameterError(
                f"this model's vectors have {width} dimensions, not {request.dimensions}; leave dimensions out",
                provider=NAME,
                model=request.model,
                status_code=400,
            )
        return EmbeddingResult(found.vectors, Usage(found.tokens, total_tokens=found.tokens), engine.label)

    async def count_tokens(self, messages: Any, **options: Any) -> int:
        """How many tokens the messages are as a prompt, by the model's own vocabulary and template: what
        `usage.input_tokens` of the answer says.

        Args:
            messages: a text, or messages in any spelling.
            options: as in `execute`, where they change the prompt (`tools`, `system_prompt`).

        Raises:
            LLMProviderError: the messages make no sense to the model's template.
        """
        request = self._request(messages, None, {**options, "on_unsupported": "drop"}, stream=False)
        await self._life.begin()
        try:
            engine = await self._ready(request.model)
            tools = chat_tools(request, NAME) if engine.prompts.knows_tools else None
            template, _ = split_extras(request.extras)
            return await asyncio.to_thread(engine.prompts.count, request, template, tools)
        except LLMProviderError as error:
            error.model = error.model or request.model
            raise
        finally:
            await self._life.end()

    @property
    def token_limit(self) -> int:
        """Tokens of prompt and answer together: as configured, else as the loaded model says, else 8192."""
        engine = self._engine
        if is_default(self.config.token_limit) and engine is not None and engine.context is not None:
            return engine.context
        return super().token_limit

    # --- the engine

    def _check_name(self, model: str | None) -> None:
        if model != self._model_name:
            raise LLMProviderConfigurationError(
                f"this provider has loaded {self._model_name!r}; create another one for {model!r}", provider=self.name
            )

    async def _ready(self, model: str) -> Engine:
        self._check_name(model)
        engine = self._engine
        if engine is not None and engine.pid == os.getpid():
            return engine
        return await asyncio.to_thread(self._load)

    def _load(self) -> Engine:
        if self._pid != os.getpid():
            # A forked child: its parent may have held the lock, and the parent's threads are not here.
            self._pid, self._loading, self._engine = os.getpid(), threading.Lock(), None
            after_fork()
        with self._loading:
            if self._gone:
                raise ProviderClosedError("this provider was closed; create a new one", provider=self.name)
            if self._engine is None:
                source = find_source(self._model_name, self.settings, self._model_profile)
                limit = self.config.token_limit
                self._engine = Engine(source, self.settings, None if is_default(limit) else limit)
            return self._engine

    def _unload(self) -> None:
        with self._loading:
            engine, self._engine = self._engine, None
            if engine is not None:
                engine.stop()
