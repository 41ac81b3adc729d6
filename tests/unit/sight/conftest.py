"""What is read back in the tests of sight: spans, metrics, Prometheus' text, and log records."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from providers.layers import retry
from providers.layers.observe import CONTENT_VARIABLE, Observe, attempt
from providers.layers.pricing import priced
from providers.sight import Metrics
from providers.testing import ScriptedProvider


class Sight:
    """An OpenTelemetry SDK that keeps everything in memory, and a `Metrics`."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.metrics = Metrics()

    def observe(self, **options: Any) -> Observe:
        """A layer that tells all of them."""
        told = {"tracer_provider": self.tracers, "meter_provider": self.meters, "prometheus": self.metrics}
        return Observe(**{**told, **options})

    def layers(self, **options: Any) -> tuple[Any, ...]:
        """The usual layers with sight around them."""
        return (self.observe(**options), priced, retry, attempt)

    def provider(self, *script: Any, **options: Any) -> ScriptedProvider:
        """A provider that answers what a script says, under the eyes of this object."""
        options.setdefault("layers", self.layers())
        return ScriptedProvider(list(script), model_name="acme-1", **options)

    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in that order."""
        return list(self.exporter.get_finished_spans())

    def span(self) -> ReadableSpan:
        """The only one."""
        [found] = self.spans()
        return found

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Attributes and data points of a metric."""
        data = self.reader.get_metrics_data()
        metrics = [
            metric
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [(dict(point.attributes or {}), point) for metric in metrics for point in metric.data.data_points]

    def samples(self, name: str, **labels: str) -> float:
        """The sum of Prometheus' samples of a name with these labels, read back from the text."""
        families = text_string_to_metric_families(self.metrics.text())
        found = [sample for family in families for sample in family.samples if sample.name == f"llm_provider_{name}"]
        return sum(sample.value for sample in found if labels.items() <= sample.labels.items())


class Kept(logging.Handler):
    """Keeps records, and what they look like formatted."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def sight(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sight]:
    """A fresh `Sight`; no variable tells to show texts."""
    monkeypatch.delenv(CONTENT_VARIABLE, raising=False)
    found = Sight()
    yield found
    found.tracers.shutdown()
    found.meters.shutdown()


@pytest.fixture
def calls_log() -> Iterator[Kept]:
    """The records of the log `providers.calls`, which is on."""
    logger = logging.getLogger("providers.calls")
    kept, level = Kept(), logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(level)
