"""The provider: a model in this process, asked from any event loop and thread, without key and network."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar, cast

from providers.base import LLMProvider
from providers.capabilities import EmbeddingRequest, Embeddings, TokenCounting, decode_vector
from providers.exceptions import (
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderResponseError,
    ProviderClosedError,
    UnsupportedParameterError,
)
from providers.notices import warn
from providers.parameters import UnsupportedParameterWarning
from providers.profiles import ProfileTable
from providers.types import EmbeddingResult, LLMConfig, Request, StreamEvent, Usage, token_count
from providers.types.config import is_default

from . import codec
from .codec import ChatStream
from .engine import Engine, context_of
from .errors import error_of_reply
from .gbnf import Opening
from .gguf import find_model
from .settings import NAME, LlamaCppSettings

_NO_TOOLS = "the chat template of this model has no place for tools, so the model was not told of them"
_NO_EFFORT = "the chat template of this model has no place for it"


class LlamaCppProvider(Embeddings, TokenCounting, LLMProvider):
    """llama.cpp in this process.

    The model is loaded at the first call, in a worker thread, and freed by `close`. Calls run in worker threads, as
    many at a time as `n_parallel` says; the others wait in the order in which they came. Embeddings load the model a
    second time, when the first text is embedded.

    Args:
        config: an `LLMConfig`, or the model's name; the name may be the path of a GGUF file.
        options: fields of `LLMConfig` and of `LlamaCppSettings`.

    Raises:
        LLMProviderConfigurationError: a value is refused; the message names the field and its source.
    """

    name = NAME
    Settings = LlamaCppSettings
    profiles = ProfileTable(Path(__file__).with_name("models.json"))
    requires: ClassVar[tuple[str, ...]] = ("xllamacpp",)
    understands: ClassVar[frozenset[str]] = frozenset({"tools", "structured_output"})
    slow_open = True

    settings: LlamaCppSettings

    def __init__(self, config: LLMConfig | str | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        if self.config.model_name is None:
            self.update_config(model_name=self.profiles.document["default_model"])
        # The file is that of the name at the beginning: update_config changes parameters, not the loaded model.
        self._model_name, self._model_profile = self.config.model_name, self.profile
        self._engines: dict[bool, Engine] = {}
        self._loading = threading.Lock()
        self._pid = os.getpid()
        self._gone = False

    def open(self) -> None:
        """Load the model.

        Raises:
            MissingDependencyError: xllamacpp, or the package with the default model, is not installed.
            LLMProviderConfigurationError: there is no model file, or it is not whole.
        """
        self._gone = False
        self._load(embeddings=False)

    def detach(self) -> None:
        """Refuse what the next opening would refuse; the model in use is freed once no call is under way.

        A model that was not loaded yet is not looked for either: as when the provider is made, its file may come later.

        Raises:
            LLMProviderConfigurationError: there is no such model file, it is not whole, or the model has another name.
            MissingDependencyError: the package with the model is not installed.
        """
        self._check_name(self.config.model_name)
        if self._life.is_open:
            find_model(self._model_name, self.settings, self._model_profile)
            self.settings.template()

    async def shut(self) -> None:
        """End what runs and free the models."""
        self._gone = True
        await asyncio.to_thread(self._unload)

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer one request."""
        try:
            engine = await self._engine(request.model)
            refused, left_out = await self._refusals(engine, request)
            body, meta = codec.encode(request, refused, await self._opening(engine, request))
            meta["params"]["left_out"].update(left_out)
            schema = request.output.name if request.output is not None else None
            stream = ChatStream(engine.label, meta, schema)
            work = engine.start(body, quiet=not request.stream, timeout=request.timeout, schema=schema)
            async with aclosing(cast(Any, work.pieces())) as pieces:
                async for piece in pieces:
                    for event in stream.feed(piece):
                        yield event
            stream.finish()
        except LLMProviderError as error:
            error.model = error.model or request.model
            raise

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        """Vectors of all inputs, in their order."""
        try:
            engine = await self._engine(request.model, embeddings=True)
            body = {**request.extras, "input": list(request.inputs), "encoding_format": "base64"}
            codec.check_depth(body)
            work = engine.embed(body, request.timeout)
            async with aclosing(cast(Any, work.pieces())) as pieces:
                [reply] = [json.loads(piece) async for piece in pieces]
            return _embeddings(reply, request, engine.label)
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
            engine = await self._engine(request.model)
            body, _ = codec.encode(request, {})
            return await asyncio.to_thread(engine.count, body)
        except LLMProviderError as error:
            error.model = error.model or request.model
            raise
        finally:
            await self._life.end()

    @property
    def token_limit(self) -> int:
        """The context of one call in tokens: as configured, else as loaded, else as it will be loaded."""
        if not is_default(self.config.token_limit):
            return self.config.token_limit
        engine = self._engines.get(False)
        return engine.n_ctx if engine is not None else context_of(self.settings, self._model_profile.context_window)

    # --- the engines

    async def _engine(self, model: str, *, embeddings: bool = False) -> Engine:
        self._check_name(model)
        engine = self._engines.get(embeddings)
        if engine is not None and engine.pid == os.getpid():
            return engine
        return await asyncio.to_thread(self._load, embeddings=embeddings)

    def _check_name(self, model: str | None) -> None:
        if model != self._model_name:
            raise LLMProviderConfigurationError(
                f"this provider has loaded {self._model_name!r}; create another one for {model!r}", provider=self.name
            )

    def _load(self, *, embeddings: bool) -> Engine:
        if self._pid != os.getpid():
            # A forked child: its parent may have held the lock, and the parent's models are not usable here.
            self._pid, self._loading, self._engines = os.getpid(), threading.Lock(), {}
        with self._loading:
            if self._gone:
                raise ProviderClosedError("this provider was closed; create a new one", provider=self.name)
            engine = self._engines.get(embeddings)
            if engine is None:
                file = find_model(self._model_name, self.settings, self._model_profile)
                engine = self._engines[embeddings] = Engine(file, self.settings, embeddings=embeddings)
            return engine

    def _unload(self) -> None:
        with self._loading:
            for engine in self._engines.values():
                engine.stop()
            self._engines.clear()

    async def _opening(self, engine: Engine, request: Request) -> Opening | None:
        if not codec.takes_grammar(request):
            return None
        body = {"messages": codec.encode_messages(request)}
        if "chat_template_kwargs" in request.extras:
            body["chat_template_kwargs"] = request.extras["chat_template_kwargs"]
        return await asyncio.to_thread(engine.opening, body)

    async def _refusals(self, engine: Engine, request: Request) -> tuple[dict[str, str], dict[str, str]]:
        """Parameters that this model does not take, and what else it does not take, each with the reason."""
        asks_effort = "reasoning_effort" in request.params
        if not asks_effort and not request.tools:
            return dict(self._model_profile.refuses), {}
        caps = await asyncio.to_thread(engine.caps)
        refused = dict(self._model_profile.refuses)
        if asks_effort and not caps.get("supports_reasoning_effort"):
            refused.setdefault("reasoning_effort", _NO_EFFORT)
        if not request.tools or caps.get("supports_tools"):
            return refused, {}
        if request.on_unsupported == "error":
            raise UnsupportedParameterError(_NO_TOOLS, provider=self.name, model=request.model)
        if request.on_unsupported == "warn":
            warn(f"{request.model}: {_NO_TOOLS}", UnsupportedParameterWarning)
        return refused, {"tools": _NO_TOOLS}


def _embeddings(reply: dict[str, Any], request: EmbeddingRequest, label: str) -> EmbeddingResult:
    if "error" in reply:
        raise error_of_reply(reply["error"])
    data = sorted(reply.get("data") or (), key=lambda item: int(item["index"]))
    vectors = [decode_vector(item["embedding"]) for item in data]
    if len(vectors) != len(request.inputs):
        raise LLMProviderResponseError(
            f"llama.cpp gave {len(vectors)} vectors for {len(request.inputs)} inputs", provider=NAME
        )
    if request.dimensions is not None and request.dimensions != len(vectors[0]):
        raise UnsupportedParameterError(
            f"this model's vectors have {len(vectors[0])} dimensions, not {request.dimensions}; leave dimensions out",
            provider=NAME,
            status_code=400,
        )
    usage = reply.get("usage") or {}
    return EmbeddingResult(
        vectors,
        Usage(token_count(usage.get("prompt_tokens")), total_tokens=token_count(usage.get("total_tokens"))),
        label,
    )
