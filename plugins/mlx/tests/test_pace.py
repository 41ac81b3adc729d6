"""How much of the prompts is read at a time: much where that is quick, little where somebody would wait for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_provider_mlx.decoders import Batch
from llm_provider_mlx.pace import Pace

from .conftest import COLORS, Make, answer


def reads(pace: Pace, prompts: int, fixed: float, token: float, steps: int = 20) -> int:
    """Tokens of each prompt in a step, once a machine is known that needs so many seconds for a step and a token."""
    for _ in range(steps):
        tokens = pace.each(prompts) * prompts
        pace.took(tokens, fixed + tokens * token)
    return pace.each(prompts)


def test_a_fast_model_reads_whole_prompts_at_once() -> None:
    """As `mlx_lm.batch_generate` does: 0.1 ms for a token of the model with random weights."""
    assert 1000 < reads(Pace(None, on_cpu=True), 1, 0.001, 0.0001) <= 2048
    assert 120 < reads(Pace(None, on_cpu=True), 8, 0.001, 0.0001) <= 256
    assert reads(Pace(None, on_cpu=True), 1, 0.0, 1e-9) == 2048


def test_a_slow_model_reads_what_a_cancelled_call_may_wait_for() -> None:
    """F-143: SmolLM2 on one core, 65 ms for a step and 34 ms for a token, takes 12 tokens in less than half a second;
    a model ten times slower takes one."""
    assert reads(Pace(None, on_cpu=True), 1, 0.065, 0.034) == 12
    assert reads(Pace(None, on_cpu=True), 4, 0.065, 0.034) == 3
    assert reads(Pace(None, on_cpu=True), 1, 0.65, 0.34) == 1


def test_a_moment_without_the_machine_and_the_end_of_a_prompt_are_not_the_pace() -> None:
    pace = Pace(None, on_cpu=True)
    usual = reads(pace, 1, 0.001, 0.0001)
    pace.took(3, 0.0013)
    assert pace.each(1) == usual
    pace.took(usual, 5.0)
    assert pace.each(1) < usual
    assert reads(pace, 1, 0.001, 0.0001) == pytest.approx(usual, rel=0.05)


def test_what_the_caller_wants_and_what_a_clock_has_no_say_in() -> None:
    """F-068: alone, the same steps each time; with `prefill_step`, just so many."""
    slow, card, own = Pace(None, on_cpu=True), Pace(None, on_cpu=False), Pace(3, on_cpu=True)
    reads(slow, 1, 1.0, 1.0)
    assert (slow.alone, slow.measures) == (8, True)
    assert (card.alone, card.each(4), card.measures) == (2048, 2048, False)
    assert (own.alone, own.each(4), own.measures) == (3, 3, False)


async def test_the_engine_reads_as_fast_as_it_has_learned(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long prompts of several calls in a few steps once the model is known, and the same answers as alone."""
    provider = make(n_parallel=4)
    prompts = [f"{'word ' * 150}{number} {COLORS}" for number in range(4)]
    wanted = [(await answer(provider, prompt)).content for prompt in prompts]
    sizes: list[int] = []
    real = Batch._read

    def read(self: Batch) -> object:
        found = real(self)
        sizes.append(self._generator.prefill_step_size)
        return found

    monkeypatch.setattr(Batch, "_read", read)
    responses = await asyncio.gather(*(answer(provider, prompt) for prompt in prompts))
    assert [response.content for response in responses] == wanted
    assert sum(response.prompt_tokens or 0 for response in responses) > 600
    # With 12 tokens at a time it would be 200 steps; a machine with much else to do takes some more than it has to.
    assert len(sizes) < 100, sizes
    assert max(sizes) > 12


async def test_cancelled_while_it_reads_at_its_own_pace(make: Make) -> None:
    """F-143: within a second."""
    provider = make(n_parallel=2)
    await answer(provider, COLORS)
    task = asyncio.create_task(answer(provider, "word " * 400))
    await asyncio.sleep(0.02)
    task.cancel()
    start = time.perf_counter()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.gather(*(answer(provider, "Hi", max_tokens=1) for _ in range(2)))
    assert time.perf_counter() - start < 1
