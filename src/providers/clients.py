"""The sync face: one function or one small client for programs that are not asynchronous."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar, overload

from .base import LLMProvider
from .bridge import bridge
from .exceptions import (
    BatchFailedError,
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderResponseError,
    StructuredOutputError,
    UnknownOptionError,
)
from .factory import create_llm_provider, get_cached_provider
from .notices import warn
from .types import GenerationConfig, LLMResponse, StreamEvent, StructuredOutput

T = TypeVar("T")


class Client:
    """A provider behind plain functions; usable from any thread, and inside a running event loop too.

    Args:
        provider: the provider's name, or an `LLMProvider`.
        model: the model's name; none beside an `LLMProvider`.
        options: as in `create_llm_provider`; none beside an `LLMProvider`.
    """

    def __init__(self, provider: str | LLMProvider, model: str | None = None, **options: Any) -> None:
        if isinstance(provider, LLMProvider):
            if model is not None or options:
                raise UnknownOptionError("a client of a provider that is made already takes neither model nor options")
            self.provider = provider
        else:
            self.provider = create_llm_provider(provider, model, **_client_options(options))

    @overload
    def get_response(self, input: Any, config: Any = None, schema: None = None, **options: Any) -> str: ...
    @overload
    def get_response(self, input: Any, config: Any = None, *, schema: type[T], **options: Any) -> T: ...
    @overload
    def get_response(self, input: Any, config: Any, schema: Any, **options: Any) -> Any: ...
    @overload
    def get_response(self, input: Any, config: Any = None, *, schema: Any, **options: Any) -> Any: ...
    def get_response(self, input: Any, config: Any = None, schema: Any = None, **options: Any) -> Any:
        """Answer one prompt.

        Args:
            input: a text, or messages.
            config: a `GenerationConfig` or a dict like it.
            schema: a `StructuredOutput`, a pydantic model class or a JSON Schema dict.
            options: of this call, as in `LLMProvider.execute` (`cache_response=True`...).

        Returns:
            The text; with a schema the checked object.

        Raises:
            LLMProviderError: of the class that tells what happened.
        """
        return bridge.run(_respond(self.provider, input, GenerationConfig.coerce(config), schema, options))

    def stream(self, input: Any, config: Any = None, **options: Any) -> Iterator[StreamEvent]:
        """Answer one prompt as events; leaving the loop early ends the call. Options as in `LLMProvider.stream`."""
        return bridge.iterate(self.provider.stream(input, config=GenerationConfig.coerce(config), **options))

    def submit_batch(
        self,
        inputs: Iterable[Any],
        config: Any = None,
        schema: Any = None,
        batch_options: dict[str, Any] | None = None,
    ) -> Batch:
        """Answer many prompts, several at a time, and give a finished batch.

        Args:
            inputs: texts or messages; any iterable.
            config: as in `get_response`; `extra["conversations"]` holds a conversation for each input, in its place.
            schema: as in `get_response`.
            batch_options: `display_name`, `custom_ids` (one for each input, all different), `system` or
                `system_instruction` (the system prompt), `max_workers` (most calls at a time; the
                provider's `batch_workers` where left out).

        Raises:
            LLMProviderConfigurationError: an argument is wrong; nothing was sent.
        """
        if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
            raise LLMProviderConfigurationError(f"inputs must be a list of prompts, not {type(inputs).__name__}")
        prompts, overlay = _with_conversations(list(inputs), GenerationConfig.coerce(config))
        batch = Batch(self.provider.name, prompts, dict(batch_options or {}), self.provider.batch_workers)
        bridge.run(batch.answer(self.provider, overlay, schema))
        _keep(batch)
        return batch

    def get_batch_status(self, batch_id: str) -> dict[str, str]:
        """State of a batch: `state`, `provider`, `raw_state`, `batch_id`."""
        return get_batch_status(batch_id, self.provider.name)

    def fetch_batch_results(self, batch_id: str, schema: Any = None) -> list[Any]:
        """Results of a batch; with a schema, its texts are parsed by it."""
        return fetch_batch_results(batch_id, self.provider.name, schema=schema)

    def reload(self, **changes: Any) -> None:
        """Read the settings anew; see `LLMProvider.reload`."""
        bridge.run(self.provider.reload(**changes))

    def close(self) -> None:
        """Give back connections and models."""
        bridge.run(self.provider.close())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.provider!r}>"


class Batch:
    """Many prompts and their answers, in the order of the prompts.

    Args:
        provider: the provider's name.
        inputs: the prompts.
        options: as in `Client.submit_batch`.
        workers: most calls at a time, where the options do not say.
    """

    def __init__(self, provider: str, inputs: list[Any], options: dict[str, Any], workers: int = 16) -> None:
        self.provider = provider
        self.id = f"local-{os.getpid()}-{next(_numbers)}"
        self.display_name = options.pop("display_name", None)
        system, alias = options.pop("system", None), options.pop("system_instruction", None)
        self._system = system if system is not None else alias
        if self._system is not None and not isinstance(self._system, str):
            raise LLMProviderConfigurationError(f"system must be a text, not {type(self._system).__name__}")
        self._workers = options.pop("max_workers", workers)
        # A vendor's window is a promise about the vendor's own job; this batch is done before it could begin.
        options.pop("completion_window", None)
        self.custom_ids = [str(place) for place in range(len(inputs))]
        ids = options.pop("custom_ids", None)
        if ids is not None:
            if not isinstance(ids, list | tuple) or not all(isinstance(key, str) and key for key in ids):
                raise LLMProviderConfigurationError("custom_ids must be a list of texts, none of them empty")
            self.custom_ids = list(ids)
        if options:
            raise LLMProviderConfigurationError(f"unknown batch options: {', '.join(sorted(options))}")
        if len(self.custom_ids) != len(inputs) or len(set(self.custom_ids)) != len(inputs):
            raise LLMProviderConfigurationError(
                f"custom_ids must be {len(inputs)} different ids, one for each input; got {len(self.custom_ids)} with "
                f"{len(set(self.custom_ids))} different"
            )
        if isinstance(self._workers, bool) or not isinstance(self._workers, int) or self._workers < 1:
            raise LLMProviderConfigurationError(f"max_workers must be a whole number from 1, not {self._workers!r}")
        self._inputs = inputs
        self._answers: list[LLMResponse | LLMProviderError | None] = [None] * len(inputs)
        self._values: list[Any] = [None] * len(inputs)

    async def answer(self, provider: LLMProvider, config: GenerationConfig | None, schema: Any) -> None:
        """Answer all prompts; a prompt that fails keeps its error and does not disturb the others."""
        output = StructuredOutput.coerce(schema)
        places = iter(range(len(self._inputs)))

        async def work() -> None:
            for place in places:
                try:
                    response = await _answer(provider, self._inputs[place], config, output, self._system)
                except LLMProviderError as error:
                    self._answers[place] = error
                except Exception as error:  # a provider's own mistake must not take the other answers away
                    own = LLMProviderError(f"{type(error).__name__}: {error}", provider=self.provider)
                    own.__cause__ = error
                    self._answers[place] = own
                else:
                    self._answers[place] = response
                    self._values[place] = response.content if output is None else response.parsed

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._workers, len(self._inputs))):
                group.create_task(work())

    def status(self) -> str:
        """`"completed"`: it was answered before this object was given out."""
        return "completed"

    def normalized_status(self) -> str:
        """`"completed"`."""
        return "completed"

    def wait(
        self,
        poll_interval: float = 5.0,
        timeout: float | None = None,
        callback: Callable[[str], Any] | None = None,
    ) -> Batch:
        """Return at once; the callback is called once with `"completed"`."""
        if callback is not None:
            callback(self.normalized_status())
        return self

    def results(self) -> list[Any]:
        """The answers in the order of the inputs; `None` and a warning for each input that failed."""
        self._warn(self.errors())
        return list(self._values)

    def parsed_by(self, output: StructuredOutput) -> list[Any]:
        """The texts of the answers, parsed; `None` and a warning for each that failed or does not fit."""
        failed, values = self.errors(), list(self._values)
        for place, answer in enumerate(self._answers):
            if isinstance(answer, LLMResponse):
                try:
                    values[place] = output.parse(answer.content)
                except StructuredOutputError as error:
                    values[place], failed[self.custom_ids[place]] = None, error
        self._warn(failed)
        return values

    def _warn(self, failed: Mapping[str, LLMProviderError]) -> None:
        if failed:
            named = "; ".join(f"{key}: {error}" for key, error in itertools.islice(failed.items(), 3))
            more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
            warn(f"{len(failed)} of {len(self._inputs)} inputs failed: {named}{more}")

    def errors(self) -> dict[str, LLMProviderError]:
        """Custom id to error, for the inputs that failed."""
        pairs = zip(self.custom_ids, self._answers, strict=True)
        return {key: answer for key, answer in pairs if isinstance(answer, LLMProviderError)}

    def responses(self) -> list[LLMResponse | LLMProviderError | None]:
        """The whole answers, or the errors, in the order of the inputs."""
        return list(self._answers)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<Batch {self.id}: {len(self._inputs)} inputs, {self.status()}>"


_numbers = itertools.count(1)
_batches: Final[dict[str, Batch]] = {}
_MOST_BATCHES: Final = 1000
"""So many finished batches can be asked for by id; then the oldest is forgotten."""


def _keep(batch: Batch) -> None:
    _batches[batch.id] = batch
    while len(_batches) > _MOST_BATCHES:
        _batches.pop(next(iter(_batches)), None)


def _with_conversations(
    inputs: list[Any], config: GenerationConfig | None
) -> tuple[list[Any], GenerationConfig | None]:
    """The prompts of a batch and its configuration, `extra["conversations"]` taken out of it and put in their place."""
    talks = config.extra.get("conversations") if config is not None else None
    if config is None or talks is None:
        return inputs, config
    if not isinstance(talks, list | tuple) or len(talks) != len(inputs) or "conversation" in config.extra:
        raise LLMProviderConfigurationError(
            f"extra['conversations'] must be a list of {len(inputs)} conversations, one for each input, without "
            "extra['conversation'] beside it"
        )
    return list(talks), replace(config, extra={k: v for k, v in config.extra.items() if k != "conversations"})


_CACHE_FLAGS: Final = ("cache_response", "rewrite_cache", "regen_cache")


def _client_options(options: dict[str, Any]) -> dict[str, Any]:
    return {"api_type": "auto", **options}


async def _respond(
    provider: LLMProvider, input: Any, config: GenerationConfig | None, schema: Any, options: Mapping[str, Any]
) -> Any:
    output = StructuredOutput.coerce(schema)
    response = await _answer(provider, input, config, output, None, **options)
    return response.content if output is None else response.parsed


async def _answer(
    provider: LLMProvider,
    input: Any,
    config: GenerationConfig | None,
    output: StructuredOutput | None,
    system: str | None,
    **options: Any,
) -> LLMResponse:
    options.update(config=config, schema=output, stream_mode="disabled")
    response = await provider.execute(input, system_prompt=system, **options)
    if not isinstance(response, LLMResponse):
        raise LLMProviderResponseError(
            f"execute() must give an LLMResponse here, not {type(response).__name__}", provider=provider.name
        )
    return response


def client(provider: str, model: str | None = None, **options: Any) -> Client:
    """A `Client`; see there."""
    return Client(provider, model, **options)


@overload
def get_response(
    provider: str, model: str | None, input: Any, config: Any = None, schema: None = None, **options: Any
) -> str: ...
@overload
def get_response(
    provider: str, model: str | None, input: Any, config: Any = None, *, schema: type[T], **options: Any
) -> T: ...
@overload
def get_response(
    provider: str, model: str | None, input: Any, config: Any = None, *, schema: Any, **options: Any
) -> Any: ...
@overload
def get_response(provider: str, model: str | None, input: Any, config: Any, schema: Any, **options: Any) -> Any: ...
def get_response(
    provider: str, model: str | None, input: Any, config: Any = None, schema: Any = None, **options: Any
) -> Any:
    """Answer one prompt without making a client first.

    The provider is kept from call to call with the same options, so that connections are used again.

    Args:
        provider: the provider's name.
        model: the model's name.
        input: a text, or messages.
        config: a `GenerationConfig` or a dict like it.
        schema: a `StructuredOutput`, a pydantic model class or a JSON Schema dict.
        options: as in `create_llm_provider` (`api_key`...), and the call's cache flags (`cache_response=True`...).

    Returns:
        The text; with a schema the checked object.
    """
    flags: dict[str, Any] = {name: options.pop(name) for name in _CACHE_FLAGS if name in options}
    cached = get_cached_provider(provider, model, **_client_options(options))
    return bridge.run(_respond(cached, input, GenerationConfig.coerce(config), schema, flags))


def create_batch(
    inputs: Iterable[Any],
    provider: str,
    model: str | None,
    config: Any = None,
    schema: Any = None,
    batch_options: dict[str, Any] | None = None,
    **options: Any,
) -> Batch:
    """Answer many prompts without making a client first; see `Client.submit_batch`."""
    cached = get_cached_provider(provider, model, **_client_options(options))
    return Client(cached).submit_batch(inputs, config, schema, batch_options)


def get_batch_status(batch_id: str, provider: str, model: str | None = None, **options: Any) -> dict[str, str]:
    """State of a batch of this process: `state`, `provider`, `raw_state`, `batch_id`.

    Raises:
        BatchFailedError: no batch of that id was made in this process.
    """
    batch = _find(batch_id)
    return {
        "state": batch.normalized_status(),
        "provider": batch.provider,
        "raw_state": batch.status(),
        "batch_id": batch.id,
    }


def fetch_batch_results(
    batch_id: str, provider: str, model: str | None = None, schema: Any = None, **options: Any
) -> list[Any]:
    """Results of a batch of this process; with a schema, its texts are parsed by it.

    Raises:
        BatchFailedError: no batch of that id was made in this process.
    """
    batch = _find(batch_id)
    output = StructuredOutput.coerce(schema)
    return batch.results() if output is None else batch.parsed_by(output)


def _find(batch_id: str) -> Batch:
    batch = _batches.get(str(batch_id))
    if batch is None:
        raise BatchFailedError(
            f"no batch {str(batch_id)!r} in this process: batches run in the process that submits them and are not "
            "kept by the backend"
        )
    return batch
