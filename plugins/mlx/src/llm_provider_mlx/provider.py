"""The provider: an MLX model in this process, asked from any event loop and thread, without key and server."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar, cast

from providers.base import LLMProvider
from providers.capabilities import TokenCounting
from providers.exceptions import LLMProviderConfigurationError, LLMProviderError, ProviderClosedError
from providers.profiles import ProfileTable
from providers.types import LLMConfig, Request, StreamEvent
from providers.types.config import is_default

from .codec import encode
from .engine import Engine
from .settings import NAME, MLXSettings


class MLXProvider(TokenCounting, LLMProvider):
    """MLX in this process, through mlx-lm.

    The model is loaded at the first call and freed by `close`. Calls that come while others run join them: one run
    computes up to `n_parallel` answers together, whichever loop or thread asked; the others wait in the order in which
    they came.

    Args:
        config: an `LLMConfig`, or the model's name: a folder, or the id of a model on the Hugging Face hub.
        options: fields of `LLMConfig` and of `MLXSettings`.

    Raises:
        LLMProviderConfigurationError: a value is refused; the message names the field and its source.
    """

    name = NAME
    Settings = MLXSettings
    profiles = ProfileTable(Path(__file__).with_name("models.json"))
    requires: ClassVar[tuple[str, ...]] = ("mlx.core", "mlx_lm")
    understands: ClassVar[frozenset[str]] = frozenset({"tools", "structured_output"})
    slow_open = True

    settings: MLXSettings

    def __init__(self, config: LLMConfig | str | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        # The model is that of the name at the beginning: update_config changes parameters, not what is loaded.
        self._model_name, self._model_profile = self.config.model_name, self.profile
        self._engine: Engine | None = None
        self._loading = threading.Lock()
        self._pid = os.getpid()
        self._gone = False

    def open(self) -> None:
        """Load the model.

        Raises:
            MissingDependencyError: mlx or mlx-lm is not installed.
            LLMProviderConfigurationError: there is no such model, it is not whole, or it does not fit into memory.
            LLMProviderConnectionError: the model is not on this machine, and the hub cannot be reached.
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
            engine = await self._loaded(request.model)
            job = encode(request, engine.template, self.settings, self._model_profile.refuses)
            work = engine.start(job, quiet=not request.stream, timeout=request.timeout)
            async with aclosing(cast(Any, work.pieces())) as pieces:
                async for events in pieces:
                    for event in events:
                        yield event
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
            LLMProviderError: the messages make no sense to the model's template.
        """
        request = self._request(messages, None, {**options, "on_unsupported": "drop"}, stream=False)
        await self._life.begin()
        try:
            engine = await self._loaded(request.model)
            work = engine.count(encode(request, engine.template, self.settings, {}))
            async with aclosing(cast(Any, work.pieces())) as pieces:
                [found] = [piece async for piece in pieces]
            return int(found)
        except LLMProviderError as error:
            error.model = error.model or request.model
            raise
        finally:
            await self._life.end()

    @property
    def token_limit(self) -> int:
        """The context in tokens: as configured, else as loaded, else what is known of the model, else 8192."""
        if not is_default(self.config.token_limit):
            return self.config.token_limit
        if self._engine is not None:
            return self._engine.context
        return self.settings.context_length or super().token_limit

    # --- the engine

    def _check_name(self, model: str | None) -> None:
        if model != self._model_name:
            raise LLMProviderConfigurationError(
                f"this provider has loaded {self._model_name!r}; create another one for {model!r}", provider=self.name
            )

    async def _loaded(self, model: str) -> Engine:
        self._check_name(model)
        engine = self._engine
        if engine is not None and engine.pid == os.getpid():
            return engine
        return await asyncio.to_thread(self._load)

    def _load(self) -> Engine:
        if self._pid != os.getpid():
            # A forked child: its parent may have held the lock.
            self._pid, self._loading, self._engine = os.getpid(), threading.Lock(), None
        with self._loading:
            if self._gone:
                raise ProviderClosedError("this provider was closed; create a new one", provider=self.name)
            if self._engine is None:
                if self._model_name is None:
                    raise LLMProviderConfigurationError(
                        "no model: give a folder, or the id of a model on the hub", provider=self.name
                    )
                self._engine = Engine(self._model_name, self.settings, self._model_profile)
            return self._engine

    def _unload(self) -> None:
        with self._loading:
            if self._engine is not None:
                self._engine.stop()
                self._engine = None
