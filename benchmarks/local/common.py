"""What the measurements of local engines share: turns in alternating order, ratios inside a round, one small table."""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Final

Turn = Callable[[], int | Awaitable[int]]
"""Answers all prompts of one slice once and returns how many tokens it has generated; sync, or a coroutine function."""

PROMISE: Final = 0.9
"""Tokens per second through the provider over those of the bare engine: the least that is promised."""


@dataclass(frozen=True)
class Slice:
    """One thing to measure: the same prompts with the same parameters, both ways.

    Attributes:
        name: what it is: `"one stream"`, `"2 at a time"`.
        bare: the engine alone.
        ours: through the provider's public verbs.
    """

    name: str
    bare: Turn
    ours: Turn


@dataclass(frozen=True)
class Outcome:
    """Tokens per second of one slice, round by round.

    Attributes:
        name: as in `Slice`.
        bare: of the engine alone, one value for each round.
        ours: through the provider; the value at the same place is from the same round.
        cpu_ratios: CPU time of this process bare over ours, round by round: hardly moved by what else the machine does,
            but blind to a machine that is idle because we make it wait.
    """

    name: str
    bare: tuple[float, ...]
    ours: tuple[float, ...]
    cpu_ratios: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Ours over bare, inside each round."""
        return [ours / bare for ours, bare in zip(self.ours, self.bare, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)

    @property
    def kept(self) -> bool:
        """Whether the promise is."""
        return self.ratio >= PROMISE


def arguments(engine: str) -> argparse.ArgumentParser:
    """The arguments that all measurements have: `--rounds`, `--tokens`, `--check`; add your own."""
    parser = argparse.ArgumentParser(description=f"Tokens per second through the {engine} provider and without it.")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default 7)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer (default %(default)s)")
    parser.add_argument("--check", action="store_true", help=f"exit status 1 where a ratio is below {PROMISE}")
    return parser


def measure(slices: Sequence[Slice], rounds: int, runner: asyncio.Runner) -> list[Outcome]:
    """Run each slice both ways in each round. Who is first changes from round to round; the first round only warms up.

    Args:
        slices: what to measure.
        rounds: how many rounds count, at least 1.
        runner: whose loop runs all coroutines; make and close the provider in it too.

    Raises:
        ValueError: the two ways did not generate equally many tokens, so their rates cannot be compared.
    """
    found: list[list[tuple[_Taken, _Taken]]] = [[] for _ in slices]
    for number in range(rounds + 1):
        for each, pairs in zip(slices, found, strict=True):
            order = (each.bare, each.ours) if number % 2 else (each.ours, each.bare)
            taken = {turn: _take(turn, runner) for turn in order}
            bare, ours = taken[each.bare], taken[each.ours]
            if bare.tokens != ours.tokens:
                raise ValueError(f"{each.name}: {bare.tokens} tokens bare, {ours.tokens} through us")
            if number:
                pairs.append((bare, ours))
    return [
        Outcome(
            each.name,
            tuple(bare.rate for bare, _ in pairs),
            tuple(ours.rate for _, ours in pairs),
            tuple(bare.cpu / ours.cpu for bare, ours in pairs),
        )
        for each, pairs in zip(slices, found, strict=True)
    ]


@dataclass(frozen=True)
class _Taken:
    tokens: int
    rate: float
    cpu: float


def _take(turn: Turn, runner: asyncio.Runner) -> _Taken:
    gc.collect()

    async def timed() -> _Taken:
        cpu, start = time.process_time(), time.perf_counter()
        result = turn()
        tokens = await result if inspect.isawaitable(result) else result
        return _Taken(tokens, tokens / (time.perf_counter() - start), time.process_time() - cpu)

    return runner.run(timed())


def table(engine: str, outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a Markdown table."""
    lines = [
        f"| {engine} | bare, tokens/s | ours, tokens/s | ours / bare | quartiles | CPU bare / ours | rounds "
        f"| kept (>= {PROMISE}) |",
        "| --- | --: | --: | --: | --- | --: | --: | --- |",
    ]
    for each in outcomes:
        ratios = each.ratios
        low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        lines.append(
            f"| {each.name} | {median(each.bare):.1f} | {median(each.ours):.1f} | {each.ratio:.3f} "
            f"| {low:.3f} to {high:.3f} | {median(each.cpu_ratios):.3f} | {len(ratios)} "
            f"| {'yes' if each.kept else 'NO'} |"
        )
    return "\n".join(lines)


def report(engine: str, outcomes: Sequence[Outcome], options: argparse.Namespace) -> int:
    """Print the table; the exit status that `--check` asks for."""
    print(table(engine, outcomes))
    return 1 if options.check and not all(each.kept for each in outcomes) else 0
