"""The layer of sight: spans, metrics and log records of calls; and the one that notes single attempts."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from contextvars import Token
from copy import copy
from time import time_ns
from typing import Any, Final, cast

from ..exceptions import LLMProviderConfigurationError, LLMProviderError
from ..pipeline import ABOUT, Handler, WholeHandler, with_whole
from ..profiles import ProfileTable
from ..sight import logs
from ..sight.meters import Meters
from ..sight.prometheus import Metrics, process_metrics
from ..sight.record import CURRENT, Attempt, CallRecord
from ..sight.secrets import masked, protect, secrets_of
from ..sight.spans import Spans
from ..types import Request, StreamEvent

logger = logging.getLogger("providers.sight")

CONTENT_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable by which OpenTelemetry's instrumentations are told to show texts."""


class _Guard:
    """Keeps the secrets of an `Observe` masked as long as it, or a copy of it, is there."""


_Tokens = tuple[Token[CallRecord | None], Any]


class Observe:
    """A layer that shows each call: a span, metrics, and a record in the log `providers.calls`. The outermost one.

    * The span of a call covers all its attempts and waits. It is current while the call runs, so that the spans of an
      HTTP client are its children, and never while the consumer of a stream runs. Where attempts failed, and the layer
      `attempt` stands innermost, each has a child span. A stream's span ends when the stream ends or is left, with what
      was used until then. Names are those of OpenTelemetry's conventions for generative AI: see `sight.spans`.
    * Usage and cost are those of all attempts together; outside of `priced`, as here, costs are filled in. An answer
      from a cache is marked and counts no tokens. Where a call is made inside another one (the targets of a fallback),
      spans make a tree, and metrics count the tokens of each once, for the one further in.
    * Texts of the conversation are not shown, and so not what a backend says in an error. Everything that is shown is
      freed from secrets: see `sight.secrets`.
    * What goes wrong in here, in an exporter, or in a handler of the log costs a warning in the log `providers.sight`,
      never a call.

    Args:
        otel: whether spans and metrics go to OpenTelemetry.
        prometheus: a `Metrics` to count in, or `None`.
        content: whether texts are shown; where left out, as the variable
            `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says (`"true"`, `"span_only"`, `"span_and_event"`), and
            else not.
        tracer_provider: of OpenTelemetry; the process's where left out.
        meter_provider: of OpenTelemetry; the process's where left out.
        address: the backend's, such as `"https://host/v1"`; its host and port are shown.

    Raises:
        MissingDependencyError: `otel` is true and opentelemetry-api is not installed.
    """

    embeddings: Final = True
    """Tells that it knows requests for embeddings too."""

    def __init__(
        self,
        *,
        otel: bool = True,
        prometheus: Metrics | None = None,
        content: bool | None = None,
        tracer_provider: Any = None,
        meter_provider: Any = None,
        address: str | None = None,
    ) -> None:
        version = _version() if otel else ""
        self._spans = Spans(version, tracer_provider) if otel else None
        self._meters = Meters(version, meter_provider) if otel else None
        self._prometheus = prometheus
        said = os.environ.get(CONTENT_VARIABLE, "").strip().lower()
        self.content = said in ("true", "1", "span_only", "span_and_event") if content is None else content
        self._provider = "unknown"
        self._server = _server(address)
        self._told: list[str] = []
        self._guard = _Guard()

    def bound_to(self, provider: str, profiles: ProfileTable) -> Observe:
        """The same layer for one provider. Where its data name it otherwise for telemetry (`"gen_ai_provider"` beside
        `"models"`), that name is shown."""
        found = copy(self)
        found._provider = profiles.document.get("gen_ai_provider") or provider or found._provider
        return found

    def for_settings(self, settings: object) -> Observe:
        """The same layer for a provider with these settings: their secrets are masked from now on, in whatever is
        shown in this process, and their `base_url` is shown."""
        found = copy(self)
        found._server = _server(getattr(settings, "base_url", None)) or found._server
        protect(self._guard, secrets_of(settings))
        return found

    # --- the layer

    def __call__(self, request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
        """The layer's form for streams."""
        return self._stream(request, inner) if self._awake else inner(request)

    def whole(self, request: Request, inner: WholeHandler) -> Awaitable[Sequence[StreamEvent]]:
        """The form for whole answers."""
        return self._whole(request, inner) if self._awake else inner(request)

    @property
    def _awake(self) -> bool:
        return (
            self._prometheus is not None
            or (self._spans is not None and not self._spans.deaf)
            or (self._meters is not None and not self._meters.deaf)
            or logs.wanted()
        )

    async def _whole(self, request: Request, inner: WholeHandler) -> Sequence[StreamEvent]:
        record, outer = self._begin(request)
        failure: BaseException | None = None
        tokens = self._enter(record)
        try:
            events = await inner(request)
        except BaseException as error:
            failure = error
            raise
        else:
            for event in events:
                if event.type in ABOUT or record.content:
                    self._try(record.see, event)
            return events
        finally:
            self._leave(tokens)
            self._end(record, failure, outer)
            failure = None  # or it and this frame would hold each other

    async def _stream(self, request: Request, inner: Handler) -> AsyncGenerator[StreamEvent, None]:
        record, outer = self._begin(request)
        enter, leave = self._enter, self._leave
        failure: BaseException | None = None
        events: Any = None
        try:
            # Handlers are generators by contract, so that they can be closed; only their type is the wider one.
            tokens = enter(record)
            try:
                events = cast(Any, inner(request))
            finally:
                leave(tokens)
            step = events.__anext__
            curious = True
            while True:
                # Around each step alone: between them the consumer runs.
                tokens = enter(record)
                try:
                    event = await step()
                except StopAsyncIteration:
                    break
                finally:
                    leave(tokens)
                if curious or event.type in ABOUT:
                    self._try(record.see, event)
                    curious = record.curious
                yield event
        except BaseException as error:
            failure = error
            raise
        finally:
            try:
                if events is not None:
                    tokens = enter(record)
                    try:
                        await events.aclose()
                    finally:
                        leave(tokens)
            finally:
                self._end(record, failure, outer)
                failure = None

    # --- around a call

    def _begin(self, request: Request) -> tuple[CallRecord, CallRecord | None]:
        outer = CURRENT.get()
        if outer is not None and outer.ended:
            outer = None  # a task that some call started, and that has outlived it
        record = CallRecord(self._provider, request, self.content, self._server)
        if self._prometheus is not None:
            self._try(self._prometheus.begin, record)
        if self._spans is not None and not self._spans.deaf:
            self._try(self._spans.begin, record)
        return record, outer

    def _end(self, record: CallRecord, failure: BaseException | None, outer: CallRecord | None) -> None:
        tokens = self._enter(record)  # a log's handler looks for the current span
        try:
            self._try(record.end, failure, outer)
            if self._prometheus is not None:
                self._try(self._prometheus.end, record)
            if self._meters is not None and not self._meters.deaf:
                self._try(self._meters.end, record)
            if logs.wanted():
                self._try(logs.write, record)
        finally:
            self._leave(tokens)
            if self._spans is not None:
                self._try(self._spans.end, record)
            record.forget()

    def _enter(self, record: CallRecord) -> _Tokens:
        token = CURRENT.set(record)
        context = record.context
        return token, None if context is None or self._spans is None else self._spans.attach(context)

    def _leave(self, tokens: _Tokens) -> None:
        try:
            CURRENT.reset(tokens[0])
        except ValueError:
            return  # a coroutine that nobody awaits any more is closed in another context, where nothing is to undo
        if tokens[1] is not None and self._spans is not None:
            self._spans.detach(tokens[1])

    def _try(self, step: Callable[..., Any], *args: Any) -> None:
        try:
            step(*args)
        except Exception as error:
            kind = type(error).__name__
            if kind not in self._told:
                self._told.append(kind)
                with suppress(Exception):
                    logger.warning("telemetry of a call failed, here and maybe later: %s: %s", kind, masked(str(error)))


@with_whole(lambda request, inner: _attempt_whole(request, inner) if CURRENT.get() is not None else inner(request))
def attempt(request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
    """The layer that notes when each attempt began and ended, for the spans of `Observe`; to stand innermost."""
    return _attempt(request, inner) if CURRENT.get() is not None else inner(request)


async def _attempt_whole(request: Request, inner: WholeHandler) -> Sequence[StreamEvent]:
    with _noted():
        return await inner(request)


async def _attempt(request: Request, inner: Handler) -> AsyncGenerator[StreamEvent, None]:
    with _noted():
        async with aclosing(cast(Any, inner(request))) as events:
            async for event in events:
                yield event


@contextmanager
def _noted() -> Iterator[None]:
    record, began = CURRENT.get(), time_ns()
    failure = None
    try:
        yield
    except LLMProviderError as error:
        failure = error
        raise
    finally:
        if record is not None:
            record.attempts.append(Attempt(began, time_ns(), failure))
        failure = None  # or it and this frame would hold each other


attempt.embeddings = True  # type: ignore[attr-defined]

_KINDS: Final = frozenset({"otel", "prometheus", "logs"})
_ON: Final = frozenset({"true", "1", "yes", "on"})
_OFF: Final = frozenset({"false", "0", "no", "off"})


def observed(telemetry: Any) -> Observe | None:
    """The layer that a setting asks for.

    Args:
        telemetry: `True` (OpenTelemetry and logs); a text of `"otel"`, `"prometheus"` and `"logs"` with commas between
            them; an `Observe`; a `Metrics` (counted in it, and logs); `None`, `False` or `"off"` for no layer.

    Raises:
        LLMProviderConfigurationError: it is none of these.
        MissingDependencyError: what it asks for needs a package that is not installed.
    """
    if isinstance(telemetry, Observe):
        return telemetry
    if isinstance(telemetry, Metrics):
        return Observe(otel=False, prometheus=telemetry)
    if telemetry is None or isinstance(telemetry, bool):
        return Observe() if telemetry else None
    words = {word.strip().lower() for word in telemetry.split(",")} if isinstance(telemetry, str) else {""}
    if words <= _ON:
        return Observe()
    if words <= _OFF:
        return None
    if not words <= _KINDS:
        raise LLMProviderConfigurationError(
            "telemetry must be true, false, some of otel, prometheus and logs, an Observe or a Metrics, not "
            f"{telemetry!r}"
        )
    return Observe(otel="otel" in words, prometheus=process_metrics() if "prometheus" in words else None)


def _server(address: str | None) -> tuple[str, int] | None:
    from urllib.parse import urlsplit

    if not address:
        return None
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname else None


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llm-provider-system")
    except PackageNotFoundError:
        return ""
