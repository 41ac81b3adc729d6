"""Metrics after OpenTelemetry's conventions for generative AI, and the cost under a name of our own.

Names and boundaries as released with semantic conventions 1.41 to 1.44, which dashboards know. The conventions' own
repository plans others (`gen_ai.client.inference.*`) for a version that is not released as of November 2026.
"""

from __future__ import annotations

from typing import Any, Final

from .record import CallRecord
from .spans import SCOPE, api, common, is_deaf

SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Boundaries of durations, as the conventions want them; source as in `spans`."""
TOKENS: Final = tuple(4**power for power in range(14))
"""The same of tokens."""


class Meters:
    """Records the metrics of calls.

    Args:
        version: of this package.
        provider: a meter provider; the process's where left out.

    Raises:
        MissingDependencyError: opentelemetry-api is not installed.
    """

    def __init__(self, version: str, provider: Any = None) -> None:
        self._metrics = api().metrics
        self._provider = provider
        self._deaf = True
        meter = self._metrics.get_meter(SCOPE, version, provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time to receive the first chunk of a stream.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )
        self._cost = meter.create_counter("llm_provider.client.cost", "{USD}", "What calls cost, in US dollars.")

    @property
    def deaf(self) -> bool:
        """As `Spans.deaf`."""
        if self._deaf:
            self._deaf = is_deaf(self._provider or self._metrics.get_meter_provider())
        return self._deaf

    def end(self, record: CallRecord) -> None:
        """Record what a call that has ended has to say."""
        shared = common(record)
        if record.response_model is not None:
            shared["gen_ai.response.model"] = record.response_model
        usage = record.fresh
        if usage is not None and not record.cache_hit:
            for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                if count is not None and (kind == "input" or record.operation == "chat"):
                    self._tokens.record(count, {**shared, "gen_ai.token.type": kind})
            if usage.total_cost is not None:
                self._cost.add(usage.total_cost, shared)
        if record.stream and record.first is not None:
            self._first.record(record.first, shared)
        if record.error is not None:
            shared["error.type"] = record.outcome
        elif record.outcome != "ok":
            shared["llm_provider.outcome"] = record.outcome
        if record.cache_hit:
            shared["llm_provider.cache.hit"] = True
        self._duration.record(record.seconds, shared)
