"""What each layer costs by itself: microseconds of CPU a call over the bare backend, in one process, no server."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from providers import (
    Budget,
    FSCache,
    LimitLayer,
    LLMConfig,
    LLMProvider,
    MemoryCache,
    Metrics,
    Observe,
    Request,
    ResponseCache,
    SQLiteCache,
    SQLiteLimits,
    priced,
)
from providers.layers import retry
from providers.types import StreamEvent, Usage

PIECES = 100
"""Tokens of a streamed answer."""

_LAVISH: dict[str, Any] = {"requests_per_minute": 1e9, "tokens_per_minute": 1e12}


class Bare(LLMProvider):
    """A backend that answers at once."""

    name = "bare"

    async def respond(self, request: Request) -> Sequence[StreamEvent]:
        """The whole answer."""
        return [
            StreamEvent.token("The capital of France is Paris."),
            StreamEvent.meta(model=request.model, finish_reason="stop"),
            StreamEvent.usage(Usage(14, 7)),
        ]

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """The same in pieces."""
        for _ in range(PIECES):
            yield StreamEvent.token("Paris ")
        yield StreamEvent.usage(Usage(14, PIECES))
        yield StreamEvent.finish("stop")


def stacks(folder: Path) -> dict[str, tuple[Callable[[], Any], dict[str, Any]]]:
    """Name of a row to what makes its layers (`None`: the default ones), and the options of its calls."""

    def cached(store: Any) -> Callable[[], Any]:
        return lambda: (ResponseCache(store, "bare"),)

    stored: dict[str, Any] = {"cache_response": True}
    return {
        "no layer": (lambda: (), {}),
        "the default stack": (lambda: None, {}),
        "retry": (lambda: (retry,), {}),
        "priced": (lambda: (priced,), {}),
        "limit, none known": (lambda: (LimitLayer(),), {}),
        "limit, requests and tokens": (lambda: (LimitLayer(credential="a", **_LAVISH),), {}),
        "limit, shared by SQLite": (
            lambda: (LimitLayer(credential="b", store=SQLiteLimits(folder / "limits.sqlite"), **_LAVISH),),
            {},
        ),
        "budget, tokens": (lambda: (Budget(max_tokens=10**15),), {}),
        "budget, dollars": (lambda: (Budget(max_cost=1e12, unknown_price="allow"),), {}),
        "telemetry, logs": (lambda: (Observe(otel=False),), {}),
        "telemetry, OpenTelemetry without an SDK": (lambda: (Observe(),), {}),
        "telemetry, Prometheus": (lambda: (Observe(otel=False, prometheus=Metrics()),), {}),
        "cache, not asked for": (cached(MemoryCache()), {}),
        "cache in memory, hit": (cached(MemoryCache()), stored),
        "cache in SQLite, hit": (cached(SQLiteCache(folder / "answers.sqlite")), stored),
        "cache in files, hit": (cached(FSCache(folder / "files")), stored),
    }


class Row:
    """One stack of layers around the bare backend."""

    def __init__(self, layers: Any, options: dict[str, Any]) -> None:
        given = {} if layers is None else {"layers": layers}
        self._provider = Bare(LLMConfig("a-model"), **given)
        self._options = options

    async def whole(self, calls: int) -> float:
        """CPU in microseconds of one whole answer."""
        ask, options = self._provider.execute, self._options
        began = time.process_time()
        for _ in range(calls):
            await ask("What is the capital of France?", **options)
        return (time.process_time() - began) / calls * 1e6

    async def streamed(self, calls: int) -> float:
        """CPU in microseconds of one piece of a streamed answer."""
        began = time.process_time()
        for _ in range(calls):
            async for _event in self._provider.stream("What is the capital of France?", **self._options):
                pass
        return (time.process_time() - began) / calls / PIECES * 1e6

    async def close(self) -> None:
        """Close the provider."""
        await self._provider.close()


async def measure(rounds: int, calls: int) -> dict[str, tuple[list[float], list[float]]]:
    """Microseconds over no layer at all, of each row: whole answers, and pieces of streams; one figure a round."""
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: Row(make(), options) for name, (make, options) in stacks(Path(folder)).items()}
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in rows}
        for row in rows.values():
            await row.whole(10)
            await row.streamed(2)
        for _ in range(rounds):
            wholes = {name: await row.whole(calls) for name, row in rows.items()}
            pieces = {name: await row.streamed(max(2, calls // PIECES)) for name, row in rows.items()}
            for name, (whole, piece) in found.items():
                whole.append(wholes[name] - (0 if name == "no layer" else wholes["no layer"]))
                piece.append(pieces[name] - (0 if name == "no layer" else pieces["no layer"]))
        for row in rows.values():
            await row.close()
    return found


def table(rounds: int = 15, calls: int = 400) -> str:
    """The figures as Markdown."""
    found = asyncio.run(measure(rounds, calls))
    lines = [
        "# What each layer costs",
        "",
        f"Medians (and quartiles) of {rounds} rounds over the bare backend's own figures in the first line.",
        "",
        "| layer | a whole answer, us | a piece of a stream, us |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {_told(whole)} | {_told(piece)} |" for name, (whole, piece) in found.items()),
    ]
    return "\n".join(lines)


def _told(figures: list[float]) -> str:
    if len(figures) < 2:
        return f"{figures[0]:.2f}"
    low, _, high = quantiles(figures, n=4)
    return f"{median(figures):.2f} ({low:.2f} to {high:.2f})"
