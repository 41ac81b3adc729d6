"""Spans after OpenTelemetry's conventions for generative AI: one for a call, and one below it for each attempt where
some failed. Attempts whose times nobody has noted are events of the call's span, at its end.

Names of the conventions as released with semantic conventions 1.41; source: opentelemetry.io/docs/specs/semconv/gen-ai
and the repository open-telemetry/semantic-conventions-genai. Names that begin with `llm_provider.` are ours.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ..exceptions import LLMProviderError, MissingDependencyError
from ..types import Usage
from . import content
from .record import CallRecord, trouble_of
from .secrets import masked

SCOPE: Final = "llm_providers"
"""Name of the instrumentation scope, of spans and of metrics."""

# Our parameters and the backends' own, by the names of the conventions.
_PARAMETERS: Final = (
    ("temperature", "gen_ai.request.temperature"),
    ("top_p", "gen_ai.request.top_p"),
    ("top_k", "gen_ai.request.top_k"),
    ("max_tokens", "gen_ai.request.max_tokens"),
    ("frequency_penalty", "gen_ai.request.frequency_penalty"),
    ("presence_penalty", "gen_ai.request.presence_penalty"),
    ("seed", "gen_ai.request.seed"),
    ("reasoning_effort", "gen_ai.request.reasoning.level"),
)
_USAGE: Final = (
    ("input_tokens", "gen_ai.usage.input_tokens"),
    ("output_tokens", "gen_ai.usage.output_tokens"),
    ("input_tokens_cached", "gen_ai.usage.cache_read.input_tokens"),
    ("input_tokens_cache_write", "gen_ai.usage.cache_creation.input_tokens"),
    ("output_tokens_reasoning", "gen_ai.usage.reasoning.output_tokens"),
    ("total_cost", "llm_provider.usage.cost"),
)


class Api(NamedTuple):
    """The modules of opentelemetry-api that are used."""

    trace: Any
    metrics: Any
    context: Any


def api() -> Api:
    """OpenTelemetry's interface, imported when it is asked for.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        from opentelemetry import context, metrics, trace
    except ImportError as error:
        raise MissingDependencyError(
            'telemetry needs the package opentelemetry-api: pip install "llm-provider-system[otel]"'
        ) from error
    return Api(trace, metrics, context)


def is_deaf(provider: object) -> bool:
    """Whether a provider of tracers or meters is one of opentelemetry-api's own, which do nothing."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


def common(record: CallRecord) -> dict[str, Any]:
    """What spans and metrics of a call have in common."""
    found: dict[str, Any] = {
        "gen_ai.operation.name": record.operation,
        "gen_ai.provider.name": record.provider,
        "gen_ai.request.model": record.model,
    }
    if record.server is not None:
        found["server.address"], found["server.port"] = record.server
    return found


class Spans:
    """Makes the spans of calls.

    Args:
        version: of this package.
        provider: a tracer provider; the process's where left out.

    Raises:
        MissingDependencyError: opentelemetry-api is not installed.
    """

    def __init__(self, version: str, provider: Any = None) -> None:
        found = api()
        self._trace = found.trace
        self._tracer = found.trace.get_tracer(SCOPE, version, provider)
        self._provider = provider
        self._deaf = True
        self.attach, self.detach = found.context.attach, found.context.detach

    @property
    def deaf(self) -> bool:
        """Whether there is no SDK behind the interface, so that nothing that is said reaches anybody."""
        if self._deaf:  # an SDK that is there stays
            self._deaf = is_deaf(self._provider or self._trace.get_tracer_provider())
        return self._deaf

    def begin(self, record: CallRecord) -> None:
        """Start a call's span."""
        trace = self._trace
        span = self._tracer.start_span(
            f"{record.operation} {record.model}",
            kind=trace.SpanKind.CLIENT,
            attributes=common(record),
            start_time=record.began,
        )
        record.span = span
        if span.get_span_context().is_valid:
            record.context = trace.set_span_in_context(span)

    def end(self, record: CallRecord) -> None:
        """End a call's span; what is said of the call is worked out only where somebody records it."""
        span = record.span
        if span is None:
            return
        if span.is_recording():
            if len(record.attempts) > 1:
                self._attempts(record)
            else:
                for item in record.failed:
                    span.add_event("llm_provider.attempt.failed", _of_failed(item))
            span.set_attributes(_attributes(record))
            if record.error is not None:
                span.set_status(self._trace.StatusCode.ERROR, record.trouble)
        # Not now: what sight itself takes is no part of the call.
        span.end(record.began + round(record.seconds * 1e9))

    def _attempts(self, record: CallRecord) -> None:
        waits = [item["wait"] for item in record.failed]
        for number, attempt in enumerate(record.attempts, 1):
            attributes: dict[str, Any] = {"llm_provider.attempt": number}
            error = attempt.error
            if error is not None:
                attributes.update(_of_error(error))
                attributes.update(_of_usage(error.usage))
                if number <= len(waits) and waits[number - 1] is not None:
                    attributes["llm_provider.attempt.wait"] = waits[number - 1]
            span = self._tracer.start_span(
                f"attempt {number}", context=record.context, attributes=attributes, start_time=attempt.began
            )
            if error is not None:
                span.set_status(self._trace.StatusCode.ERROR, trouble_of(error, record.content))
            span.end(attempt.ended)


def _attributes(record: CallRecord) -> dict[str, Any]:
    """What is said of a call that has ended, beside what was said when it began."""
    request = record.request
    found: dict[str, Any] = {}
    params, extras = request.params, request.extras
    for ours, theirs in _PARAMETERS:
        value = params.get(ours, extras.get(ours))
        if isinstance(value, str | int | float):
            found[theirs] = value
    if record.operation == "chat":
        _say_chat(record, found)
    else:
        dimensions = getattr(request, "dimensions", None)
        if isinstance(dimensions, int):
            found["gen_ai.embeddings.dimension.count"] = dimensions
        found["gen_ai.request.encoding_formats"] = (getattr(request, "encoding_format", "float"),)
    if record.response_model is not None:
        found["gen_ai.response.model"] = record.response_model
    if record.response_id is not None:
        found["gen_ai.response.id"] = record.response_id
    if record.finish_reason is not None:
        found["gen_ai.response.finish_reasons"] = (record.finish_reason,)
    found.update(_of_usage(record.usage))
    if record.cache_hit is not None:
        found["llm_provider.cache.hit"] = record.cache_hit
    if record.failed:
        found["llm_provider.attempts"] = record.tries
    if record.error is not None:
        found.update(_of_error(record.error))
    elif record.outcome != "ok":
        found["llm_provider.outcome"] = record.outcome
    if record.target is not None:
        found["llm_provider.target"] = record.target
    if record.request_id is not None:
        found["llm_provider.request.id"] = record.request_id
    return found


def _say_chat(record: CallRecord, found: dict[str, Any]) -> None:
    request = record.request
    stop = request.params.get("stop")
    if stop:
        # Texts of the user's: masked as everything is that somebody may have put a key into.
        found["gen_ai.request.stop_sequences"] = [masked(item) for item in ([stop] if isinstance(stop, str) else stop)]
    if request.stream:
        found["gen_ai.request.stream"] = True
        if record.first is not None:
            found["gen_ai.response.time_to_first_chunk"] = record.first
    if request.output is not None:
        found["gen_ai.output.type"] = "json"
    choices = request.extras.get("n")
    if isinstance(choices, int) and choices != 1:
        found["gen_ai.request.choice.count"] = choices
    if request.previous_response_id is not None:
        found["gen_ai.request.previous_response.id"] = masked(request.previous_response_id)
    if record.content:
        found.update(content.of_request(request))
        if record.response is not None:
            found["gen_ai.output.messages"] = content.of_response(record.response)


def _of_usage(usage: Any) -> dict[str, Any]:
    if not isinstance(usage, Usage):
        return {}
    return {name: value for field, name in _USAGE if (value := getattr(usage, field)) is not None}


def _of_failed(attempt: dict[str, Any]) -> dict[str, Any]:
    """An attempt whose times nobody has noted: a target of a fallback, or one without the layer `attempt`."""
    named = {
        "error.type": attempt.get("error"),
        "http.response.status_code": attempt.get("status"),
        "llm_provider.attempt.wait": attempt.get("wait"),
        "llm_provider.target": attempt.get("target"),
    }
    told = {name: masked(value) if isinstance(value, str) else value for name, value in named.items()}
    return {**{name: value for name, value in told.items() if value is not None}, **_of_usage(attempt.get("usage"))}


def _of_error(error: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = {"error.type": type(error).__name__}
    if isinstance(error, LLMProviderError):
        if error.status_code is not None:
            found["http.response.status_code"] = error.status_code
        if isinstance(error.code, str):
            found["llm_provider.error.code"] = masked(error.code)[:100]
    return found
