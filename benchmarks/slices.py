"""The timed pieces of work that a worker does, one function for each kind of slice; each gives its figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks import answers
from benchmarks.measures import Slice

Figures = dict[str, float]
_WARM_CALLS = 5
_MOST_CREATED = 200


async def sequence(row: Any, what: Slice, base_url: str, seconds: float) -> Figures:
    """One call after another on one provider."""
    async with _opened(row, base_url) as door:
        return await _repeat(getattr(door, what.verb), _expected(what), seconds, 1)


async def stream(row: Any, what: Slice, base_url: str, seconds: float) -> Figures:
    """Streamed answers, one after another or some at a time; figures for each chunk."""
    async with _opened(row, base_url, text_stream=what.verb == "text") as door:
        verb, expected = getattr(door, what.verb), _expected(what)

        async def together() -> str:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(verb()) for _ in range(what.in_flight)]
            for task in tasks:
                _check(task.result(), expected)
            return expected

        alone = what.in_flight == 1
        return await _repeat(verb if alone else together, expected, seconds, what.chunks * what.in_flight)


async def _repeat(verb: Callable[[], Awaitable[str]], expected: str, seconds: float, parts: int) -> Figures:
    # A streamed answer is long: one is enough to warm up.
    for _ in range(_WARM_CALLS if parts == 1 else 1):
        _check(await verb(), expected)
    done = 0
    cpu, began = time.process_time(), time.perf_counter()
    deadline = began + seconds
    while time.perf_counter() < deadline:
        _check(await verb(), expected)
        done += 1
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    return {"cpu_us": cpu / done / parts * 1e6, "wall_us": wall / done / parts * 1e6, "count": done}


async def flight(row: Any, what: Slice, base_url: str, seconds: float) -> Figures:
    """Many calls at a time, each followed by the next at once.

    The clock starts when as many answers have come as there are calls in flight, so all connections stand, and stops
    after a whole number of such turns, so that waves of answers are not cut; meanwhile all calls stay in flight.
    """
    expected, turn = _expected(what), what.in_flight
    done, began, ended, cpu = 0, 0.0, 0.0, 0.0
    waits: list[float] = []

    async def keep_calling(call: Callable[[], Awaitable[str]]) -> None:
        nonlocal done, began, ended, cpu
        while not ended:
            sent = time.perf_counter()
            _check(await call(), expected)
            now = time.perf_counter()
            done += 1
            if done == turn:
                began, cpu = now, time.process_time()
            elif done > turn and not ended:
                waits.append(now - sent)
                if done % turn == 0 and now - began >= seconds:
                    ended, cpu = now, time.process_time() - cpu

    async with _opened(row, base_url) as door, asyncio.TaskGroup() as group:
        for _ in range(turn):
            group.create_task(keep_calling(getattr(door, what.verb)))
    waits.sort()
    return {
        "rate": len(waits) / (ended - began),
        "cpu_us": cpu / len(waits) * 1e6,
        "p50_ms": waits[len(waits) // 2] * 1e3,
        "p99_ms": waits[len(waits) * 99 // 100] * 1e3,
        "count": len(waits),
    }


async def create(row: Any, what: Slice, base_url: str, seconds: float) -> Figures:
    """Clients without a call; the first one of the process does not count, closing them neither."""
    doors = [row.Door(base_url)]
    cpu, began = time.process_time(), time.perf_counter()
    deadline = began + seconds
    while len(doors) <= _MOST_CREATED and time.perf_counter() < deadline:
        doors.append(row.Door(base_url))
    cpu, wall, done = time.process_time() - cpu, time.perf_counter() - began, len(doors) - 1
    for door in doors:
        await door.close()
    return {"cpu_ms": cpu / done * 1e3, "wall_ms": wall / done * 1e3, "count": done}


async def create_call(row: Any, what: Slice, base_url: str, seconds: float) -> Figures:
    """A client for each call: what creation leaves for later shows here."""

    async def one() -> None:
        async with _opened(row, base_url) as door:
            _check(await getattr(door, what.verb)(), answers.ANSWER)

    await one()
    done = 0
    cpu, began = time.process_time(), time.perf_counter()
    deadline = began + seconds
    while time.perf_counter() < deadline:
        await one()
        done += 1
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    return {"cpu_ms": cpu / done * 1e3, "wall_ms": wall / done * 1e3, "count": done}


async def look_up(row: Any, what: Slice, base_url: str, seconds: float) -> Figures:
    """The cache of providers, asked for what it has."""
    look, done = row.look_up, 0
    first = found = look(base_url)
    cpu, began = time.process_time(), time.perf_counter()
    deadline = began + seconds
    while time.perf_counter() < deadline:
        for _ in range(100):
            found = look(base_url)
        done += 100
        if found is not first:
            raise RuntimeError("the cache gave another provider")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    return {"cpu_us": cpu / done * 1e6, "wall_us": wall / done * 1e6, "count": done}


@asynccontextmanager
async def _opened(row: Any, base_url: str, *, text_stream: bool = False) -> AsyncIterator[Any]:
    door = row.Door(base_url, text_stream=text_stream)
    try:
        yield door
    finally:
        await door.close()


def _expected(what: Slice) -> str:
    if what.chunks:
        return "".join(answers.tokens(what.chunks))
    return str(answers.CAPITAL["city"]) if what.verb == "typed" else answers.ANSWER


def _check(text: str, expected: str) -> None:
    if text != expected:
        raise RuntimeError(f"a wrong answer: {text[:80]!r} instead of {expected[:80]!r}")


KINDS = {
    "sequence": sequence,
    "stream": stream,
    "flight": flight,
    "create": create,
    "create_call": create_call,
    "look_up": look_up,
}
"""Slice kind to function."""
