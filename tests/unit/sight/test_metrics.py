"""Metrics of calls: OpenTelemetry's, and Prometheus' text read back with its own parser."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from providers import (
    EmbeddingResult,
    LLMProvider,
    LLMProviderConfigurationError,
    LLMProviderRateLimitError,
    LLMProviderServerError,
    StreamEvent,
    Usage,
)
from providers.caches.memory import MemoryCache
from providers.capabilities import Embeddings
from providers.exceptions import MissingDependencyError
from providers.layers import retry
from providers.layers.cache import ResponseCache
from providers.layers.observe import Observe, attempt, observed
from providers.layers.pricing import priced
from providers.sight import Metrics, prometheus_text

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
SHARED = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "scripted",
    "gen_ai.request.model": "acme-1",
}


def answer(*, cost: float | None = None) -> list[StreamEvent]:
    used = Usage(12, 5, input_tokens_cached=4, total_cost=cost)
    return [StreamEvent.token("Paris"), StreamEvent.usage(used), StreamEvent.finish("stop", model="acme-1-2026")]


async def read(provider: Any) -> None:
    async for _ in provider.stream("x"):
        pass


@pytest.mark.asyncio
async def test_the_conventional_metrics(sight: Any) -> None:
    provider = sight.provider(answer(cost=0.25), answer(cost=0.5), layers=sight.layers(content=True))
    await provider.execute("x")
    await read(provider)
    shared = {**SHARED, "gen_ai.response.model": "acme-1-2026"}
    [(attributes, duration)] = sight.points("gen_ai.client.operation.duration")
    assert (attributes, duration.count, duration.explicit_bounds) == (shared, 2, SECONDS)
    tokens = {item["gen_ai.token.type"]: (item, point) for item, point in sight.points("gen_ai.client.token.usage")}
    assert {kind: (point.sum, point.count) for kind, (_, point) in tokens.items()} == {
        "input": (24, 2),
        "output": (10, 2),
    }
    assert tokens["input"][0] == {**shared, "gen_ai.token.type": "input"}
    assert tokens["input"][1].explicit_bounds == tuple(4**power for power in range(14))
    [(attributes, first)] = sight.points("gen_ai.client.operation.time_to_first_chunk")
    assert (attributes, first.count, first.explicit_bounds) == (shared, 1, SECONDS)  # of the stream alone
    [(attributes, cost)] = sight.points("llm_provider.client.cost")
    assert (attributes, cost.value) == (shared, 0.75)


@pytest.mark.asyncio
async def test_unknown_usage_is_not_counted_as_zero(sight: Any) -> None:
    await sight.provider([StreamEvent.token("a"), StreamEvent.finish("stop")]).execute("x")
    await sight.provider([StreamEvent.token("a"), StreamEvent.usage(Usage(3))]).execute("x")
    [(attributes, point)] = sight.points("gen_ai.client.token.usage")
    assert (attributes["gen_ai.token.type"], point.sum) == ("input", 3)
    assert sight.points("llm_provider.client.cost") == []


@pytest.mark.asyncio
async def test_errors_and_what_failed_attempts_used(sight: Any) -> None:
    failure, last = LLMProviderServerError("a", status_code=503), LLMProviderServerError("b", status_code=503)
    failure.usage, last.usage = Usage(7, 1), Usage(2, 0)
    with pytest.raises(LLMProviderServerError):
        await sight.provider(failure, last).execute("x", attempts=2, backoff=0)
    [(attributes, point)] = sight.points("gen_ai.client.operation.duration")
    assert (attributes, point.count) == ({**SHARED, "error.type": "LLMProviderServerError"}, 1)
    sums = {item["gen_ai.token.type"]: point.sum for item, point in sight.points("gen_ai.client.token.usage")}
    assert sums == {"input": 9, "output": 1}
    assert sight.samples("tokens_total", type="input") == 9
    assert sight.samples("failed_attempts_total", error="LLMProviderServerError") == 1
    assert sight.samples("calls_total", outcome="LLMProviderServerError") == 1


@pytest.mark.asyncio
async def test_an_answer_from_a_cache_counts_no_tokens(sight: Any) -> None:
    cache = ResponseCache(MemoryCache(), "scripted")
    failure = LLMProviderServerError("down", status_code=503, retry_after=0.001)
    provider = sight.provider(failure, answer(cost=0.5), layers=(sight.observe(), cache, priced, retry, attempt))
    for _ in range(3):
        await provider.execute("x", cache_response=True)
    points = sight.points("gen_ai.client.token.usage")
    assert [point.count for _, point in points] == [1, 1]
    durations = sight.points("gen_ai.client.operation.duration")
    counts = {item.get("llm_provider.cache.hit", False): point.count for item, point in durations}
    assert counts == {False: 1, True: 2}
    assert (sight.samples("cache_hits_total"), sight.samples("cache_misses_total")) == (2, 1)
    assert sight.samples("failed_attempts_total") == 1  # once, though the stored answer tells of it each time
    assert sight.samples("tokens_total", type="input") == 12
    assert sight.samples("cost_usd_total") == 0.5
    assert [span.attributes.get("llm_provider.attempts") for span in sight.spans()[-3:]] == [2, None, None]


@pytest.mark.asyncio
async def test_tokens_of_a_call_inside_a_call_are_counted_once(sight: Any) -> None:
    """A fallback whose targets observe too: the failed target's tokens, the good one's, and nothing twice."""
    failure = LLMProviderServerError("down", status_code=500)
    failure.usage = Usage(100, 0)
    targets = [sight.provider(failure), sight.provider(answer(cost=0.5))]

    class Fallback(LLMProvider):
        name = "fallback"

        async def generate(self, request: Any) -> Any:
            failed = []
            for target in targets:
                try:
                    reply = await target.execute("x", attempts=1)
                except LLMProviderServerError as error:
                    failed.append({"error": "LLMProviderServerError", "status": 500, "usage": error.usage, "wait": 0})
                    continue
                yield StreamEvent.token(reply.content)
                # A copy, as layers make them, with the same figures.
                yield StreamEvent.usage(Usage.from_dict(reply.usage.to_dict()))
                yield StreamEvent.finish("stop", attempts=failed)

    await Fallback("any", layers=sight.layers()).execute("x")
    assert sight.samples("tokens_total", type="input") == 112
    assert sight.samples("tokens_total", provider="fallback") == 0
    assert sight.samples("cost_usd_total") == 0.5
    assert sum(point.sum for _, point in sight.points("gen_ai.client.token.usage")) == 112 + 5
    assert sight.samples("calls_total", provider="fallback") == 1
    # The span of the outer call says what it used in all.
    outer = sight.spans()[-1]
    assert outer.attributes["gen_ai.provider.name"] == "fallback"
    assert outer.attributes["gen_ai.usage.input_tokens"] == 112


@pytest.mark.asyncio
async def test_tokens_are_counted_once_however_deep(sight: Any) -> None:
    """And figures that happen to be equal are taken out once for each call inside, not all of them."""
    first = sight.provider(answer())

    class Middle(LLMProvider):
        name = "middle"

        async def generate(self, request: Any) -> Any:
            own = {"error": "LLMProviderServerError", "status": 500, "usage": Usage(12, 5), "wait": 0.0}
            for event in (await first.execute("x")) and answer():
                yield event
            yield StreamEvent.meta(attempts=[own])  # an attempt of its own, of which nothing inside has told

    class Passing(LLMProvider):
        name = "passing"

        async def generate(self, request: Any) -> Any:
            reply = await Middle("m", layers=sight.layers()).execute("x")
            yield StreamEvent.usage(reply.usage)
            yield StreamEvent.finish("stop", attempts=reply.metadata["attempts"])

    await Passing("p", layers=sight.layers()).execute("x")
    read = {
        name: sight.samples("tokens_total", type="input", provider=name) for name in ("scripted", "middle", "passing")
    }
    assert read == {"scripted": 12, "middle": 12, "passing": 0}


@pytest.mark.asyncio
async def test_a_call_inside_that_is_another_matter_takes_nothing_away(sight: Any) -> None:
    """A cache that asks for a vector: both calls are paid for."""
    helper = sight.provider([StreamEvent.token("0"), StreamEvent.usage(Usage(2, 1)), StreamEvent.finish("stop")])

    class Asking(LLMProvider):
        name = "asking"

        async def generate(self, request: Any) -> Any:
            await helper.execute("vector?")
            for event in answer():
                yield event

    await Asking("any", layers=sight.layers()).execute("x")
    assert sight.samples("tokens_total", type="input", provider="asking") == 12
    assert sight.samples("tokens_total", type="input", provider="scripted") == 2


@pytest.mark.asyncio
async def test_embeddings_are_seen_too(sight: Any) -> None:
    class Vectors(Embeddings):
        name = "vectors"

        async def create_embeddings(self, request: Any) -> EmbeddingResult:
            return EmbeddingResult([[1.0, 2.0]], Usage(6, 0, total_cost=0.125), "vec-1-2026")

    await Vectors("vec-1", layers=sight.layers()).embed(["a"], dimensions=2)
    span = sight.span()
    assert span.name == "embeddings vec-1"
    assert span.attributes["gen_ai.operation.name"] == "embeddings"
    assert span.attributes["gen_ai.embeddings.dimension.count"] == 2
    assert span.attributes["gen_ai.request.encoding_formats"] == ("float",)
    assert span.attributes["gen_ai.response.model"] == "vec-1-2026"
    assert span.attributes["gen_ai.usage.input_tokens"] == 6
    [(attributes, point)] = sight.points("gen_ai.client.token.usage")
    assert (attributes["gen_ai.token.type"], point.sum) == ("input", 6)
    assert sight.samples("cost_usd_total") == 0.125
    assert sight.samples("call_duration_seconds_count", operation="embeddings") == 1


@pytest.mark.asyncio
async def test_prometheus_text_says_it_all(sight: Any) -> None:
    limited = LLMProviderRateLimitError("slow down", status_code=429, retry_after=0.001)
    provider = sight.provider(limited, answer(cost=0.5), answer())

    class Looking(LLMProvider):
        name = "looking"

        async def generate(self, request: Any) -> Any:
            assert sight.samples("calls_in_flight", provider="looking", model="m") == 1
            yield StreamEvent.finish("stop")

    await provider.execute("x")
    await read(provider)
    await Looking("m", layers=sight.layers()).execute("x")
    labels = {"provider": "scripted", "model": "acme-1"}
    assert sight.samples("calls_total", **labels, operation="chat", outcome="ok") == 2
    assert sight.samples("failed_attempts_total", **labels, error="LLMProviderRateLimitError") == 1
    assert sight.samples("tokens_total", **labels, type="input") == 24
    assert sight.samples("tokens_total", **labels, type="output") == 10
    assert sight.samples("tokens_total", **labels, type="input_cached") == 8
    assert sight.samples("cost_usd_total", **labels) == 0.5
    assert sight.samples("call_duration_seconds_count", **labels, operation="chat") == 2
    assert sight.samples("call_duration_seconds_bucket", **labels, le="+Inf") == 2
    assert sight.samples("first_piece_seconds_count", **labels) == 1
    assert sight.samples("calls_in_flight") == 0
    kinds = {family.name: family.type for family in text_string_to_metric_families(sight.metrics.text())}
    assert kinds["llm_provider_calls"] == "counter"
    assert kinds["llm_provider_call_duration_seconds"] == "histogram"
    assert kinds["llm_provider_calls_in_flight"] == "gauge"


@pytest.mark.asyncio
async def test_model_names_without_end_fill_no_memory(sight: Any) -> None:
    provider = sight.provider(*("a" for _ in range(520)), layers=(sight.observe(otel=False),))
    for number in range(520):
        provider.update_config(model_name=f"m-{number}")
        await provider.execute("x")
    families = text_string_to_metric_families(sight.metrics.text())
    models = {sample.labels["model"] for family in families for sample in family.samples}
    assert len(models) == 501
    assert sight.samples("calls_total", model="other") == 20
    assert sight.samples("calls_in_flight") == 0


def test_a_registry_of_the_users_own() -> None:
    registry = prometheus_client.CollectorRegistry()
    metrics = Metrics(registry)
    assert metrics.registry is registry
    assert b"llm_provider_calls_in_flight" in prometheus_client.generate_latest(registry)
    assert Metrics().registry is not Metrics().registry
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(registry)


def test_what_a_setting_may_say() -> None:
    for nothing in (None, False, "off", "false", "0"):
        assert observed(nothing) is None
    for everything in (True, "true", "1", " otel "):
        found = observed(everything)
        assert found is not None
        assert (found._spans is not None, found._prometheus) == (True, None)
    metrics, layer = Metrics(), Observe(otel=False)
    assert observed(layer) is layer
    counted = observed(metrics)
    assert counted is not None
    assert (counted._spans, counted._prometheus) == (None, metrics)
    both = observed("prometheus, logs")
    assert both is not None
    assert both._spans is None
    assert both._prometheus is not None
    assert prometheus_text() == both._prometheus.text()
    for wrong in ("jaeger", 3, ""):
        with pytest.raises(LLMProviderConfigurationError, match="telemetry must be"):
            observed(wrong)


@pytest.mark.parametrize(
    ("package", "make", "extra"),
    [("opentelemetry", lambda: observed(True), "otel"), ("prometheus_client", Metrics, "prometheus")],
)
def test_a_package_that_is_missing_is_named(
    package: str, make: Any, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {package!r}")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=rf'pip install "llm-provider-system\[{extra}\]"'):
        make()


def test_off_is_not_there_at_all() -> None:
    """A call without telemetry imports neither the layer nor OpenTelemetry nor prometheus_client."""
    code = """
import asyncio, sys
from providers.testing import EchoProvider
asyncio.run(EchoProvider("m").execute("x"))
found = [name for name in sys.modules if name.startswith(("opentelemetry", "prometheus", "providers.sight"))]
assert not found and "providers.layers.observe" not in sys.modules, found
import providers.layers.observe
found = [name for name in sys.modules if name.startswith(("opentelemetry", "prometheus_client"))]
assert not found, found
"""
    source = str(Path(__file__).resolve().parents[3] / "src")
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
