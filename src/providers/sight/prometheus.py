"""Figures of calls as text for Prometheus, through the library prometheus_client."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from ..exceptions import MissingDependencyError
from .meters import SECONDS
from .record import CallRecord

_MOST_MODELS: Final = 500
_CALL: Final = ("provider", "model", "operation")


class Metrics:
    """Counts calls for Prometheus; one object may serve any number of providers, threads and event loops.

    All names begin with `llm_provider_`, and all have the labels `provider` and `model`. Counters:
    `calls_total` (with `operation` and `outcome`: `"ok"`, `"left"`, `"cancelled"` or the error's class),
    `failed_attempts_total` (`error`: its class), `tokens_total` (`type`: `"input"`, `"output"`, `"input_cached"`),
    `cost_usd_total`, `cache_hits_total`, `cache_misses_total`. Histograms: `call_duration_seconds` (`operation`),
    `first_piece_seconds` (streams). Gauge: `calls_in_flight`. A label shows no secret; beyond 500 models the label is
    `"other"`.

    Args:
        registry: a `prometheus_client.CollectorRegistry` to register in; one of its own where left out, which
            `registry` shows, for instance to an HTTP handler of prometheus_client.

    Raises:
        MissingDependencyError: prometheus_client is not installed.
        ValueError: the registry has metrics of these names already.
    """

    def __init__(self, registry: Any = None) -> None:
        try:
            import prometheus_client as library
        except ImportError as error:
            raise MissingDependencyError(
                'Metrics needs the package prometheus-client: pip install "llm-provider-system[prometheus]"'
            ) from error
        self.registry: Any = registry if registry is not None else library.CollectorRegistry()
        self._text: Callable[[Any], bytes] = library.generate_latest
        self._models: set[tuple[str, str]] = set()
        self._lock = threading.RLock()  # The garbage collector may end a call while this thread holds it.

        def counter(name: str, text: str, *labels: str) -> Any:
            return library.Counter(f"llm_provider_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, *labels: str) -> Any:
            return library.Histogram(f"llm_provider_{name}", text, labels, registry=self.registry, buckets=SECONDS)

        two = _CALL[:2]
        self._calls = counter("calls", "Calls that have ended.", *_CALL, "outcome")
        self._failed = counter("failed_attempts", "Attempts that failed before the last one.", *two, "error")
        self._tokens = counter("tokens", "Tokens that were used.", *two, "type")
        self._cost = counter("cost_usd", "What calls cost, in US dollars.", *two)
        self._hits = counter("cache_hits", "Answers from a response cache.", *two)
        self._misses = counter("cache_misses", "Calls that a response cache did not answer.", *two)
        self._duration = histogram("call_duration_seconds", "Duration of calls.", *_CALL)
        self._first = histogram("first_piece_seconds", "Time to the first piece of a stream.", *two)
        self._flight = library.Gauge(
            "llm_provider_calls_in_flight", "Calls that are under way.", two, registry=self.registry
        )

    def text(self) -> str:
        """All figures in Prometheus' text format 0.0.4, to be served as `text/plain; version=0.0.4`."""
        return self._text(self.registry).decode("utf-8")

    def begin(self, record: CallRecord) -> None:
        """A call begins."""
        self._flight.labels(*self._labels(record)).inc()

    def end(self, record: CallRecord) -> None:
        """A call has ended."""
        labels = self._labels(record)
        self._flight.labels(*labels).dec()
        self._calls.labels(*labels, record.operation, record.outcome).inc()
        self._duration.labels(*labels, record.operation).observe(record.seconds)
        if record.stream and record.first is not None:
            self._first.labels(*labels).observe(record.first)
        for attempt in record.failed:
            self._failed.labels(*labels, attempt["error"]).inc()
        if record.cache_hit is not None:
            (self._hits if record.cache_hit else self._misses).labels(*labels).inc()
        usage = record.fresh
        if usage is None:
            return
        for kind, count in (
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("input_cached", usage.input_tokens_cached),
        ):
            if count:
                self._tokens.labels(*labels, kind).inc(count)
        if usage.total_cost:
            self._cost.labels(*labels).inc(usage.total_cost)

    def _labels(self, record: CallRecord) -> tuple[str, str]:
        labels = (record.provider, record.model)
        if labels not in self._models:
            with self._lock:
                # Not where another thread has added it meanwhile: a call ends under the label that it began with.
                if labels not in self._models and len(self._models) >= _MOST_MODELS:
                    return record.provider, "other"
                self._models.add(labels)
        return labels


def process_metrics() -> Metrics:
    """The `Metrics` of this process, which `telemetry="prometheus"` counts in; made at first use.

    Raises:
        MissingDependencyError: prometheus_client is not installed.
    """
    global _shared
    with _making:
        if _shared is None:
            _shared = Metrics()
        return _shared


def prometheus_text() -> str:
    """What `telemetry="prometheus"` has counted in this process, in Prometheus' text format.

    Raises:
        MissingDependencyError: prometheus_client is not installed.
    """
    return process_metrics().text()


_shared: Metrics | None = None
_making: Final = threading.Lock()
