"""Rows of tokens that grow: several together through mlx-lm's continuous batch, or one alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from .choice import Guard
from .library import Library
from .load import Loaded
from .pace import Pace

_PROMPTS: Final = 8
"""Prompts that are read together: mlx-lm's own default (0.32.2)."""

Step = tuple[int, int, str | None]
"""Row, its next token, and why it has ended (`"stop"`: the token is one that ends answers; `"length"`), or `None`."""


class Decoder(Protocol):
    """What makes tokens. One that has raised is not to be used again."""

    limit: int

    def insert(self, ids: list[int], most: int, sampler: Guard | None, processors: Sequence[Guard]) -> int:
        """Begin a row; at most `limit` at a time."""

    def remove(self, row: int) -> None:
        """End a row; harmless where it has ended."""

    def next(self) -> list[Step]:
        """One step: a token of each row that is done with its prompt."""

    def close(self) -> None:
        """Give back what the process lent."""


def decoder(lib: Library, loaded: Loaded, parallel: int, pace: Pace) -> Decoder:
    """What makes the tokens of a model.

    Args:
        lib: mlx and mlx-lm.
        loaded: the model.
        parallel: most rows at a time.
        pace: how much of the prompts is read at a time; it may outlive what is made here.
    """
    if parallel == 1 or not loaded.batches:
        return Single(lib, loaded, pace.alone)
    return Batch(lib, loaded, parallel, pace)


class Batch:
    """Rows that are computed together; they come and go at any step. It is mlx-lm's `BatchGenerator` (0.32.2).

    Args:
        lib: mlx and mlx-lm.
        loaded: the model.
        limit: most rows at a time.
        pace: how much of the prompts is read at a time.
    """

    def __init__(self, lib: Library, loaded: Loaded, limit: int, pace: Pace) -> None:
        self.limit = limit
        self._pace = pace
        self._rows: set[int] = set()
        self._reading: set[int] = set()
        self._generator = lib.generate.BatchGenerator(
            loaded.model,
            stop_tokens=[[token] for token in sorted(loaded.eos)],
            completion_batch_size=limit,
            prefill_batch_size=min(limit, _PROMPTS),
        )

    def insert(self, ids: list[int], most: int, sampler: Guard | None, processors: Sequence[Guard]) -> int:
        """Begin a row; at most `limit` at a time."""
        [row] = self._generator.insert([ids], [most], samplers=[sampler], logits_processors=[list(processors)])
        self._rows.add(row)
        self._reading.add(row)
        return int(row)

    def remove(self, row: int) -> None:
        """End a row; harmless where it has ended."""
        if row in self._rows:
            self._rows.discard(row)
            self._reading.discard(row)
            self._generator.remove([row])

    def next(self) -> list[Step]:
        """One step: a token of each row that is done with its prompt."""
        responses = self._read() if self._reading else self._generator.next()[1]
        self._rows.difference_update(each.uid for each in responses if each.finish_reason is not None)
        return [(each.uid, each.token, each.finish_reason) for each in responses]

    def _read(self) -> list[Any]:
        # It looks at this attribute in each step, and reads up to 2048 tokens of a prompt in one go.
        self._generator.prefill_step_size = self._pace.each(min(len(self._reading), _PROMPTS))
        with self._generator.stats() as stats:
            _, responses = self._generator.next()
        if self._pace.measures and stats.prompt_tokens:
            self._pace.took(stats.prompt_tokens, stats.prompt_time)
        self._reading.difference_update(each.uid for each in responses)
        return list(responses)

    def close(self) -> None:
        """Give back what the process lent."""
        self._generator.close()


class Single:
    """One row at a time, for models whose memory of a prompt cannot be put together with another's, and for answers
    that can be repeated bit by bit.

    Args:
        lib: mlx and mlx-lm.
        loaded: the model.
        step: tokens of a prompt that are worked on at a time.
    """

    limit = 1

    def __init__(self, lib: Library, loaded: Loaded, step: int) -> None:
        self._lib, self._mx, self._loaded, self._step = lib, lib.mx, loaded, step
        self._row = -1
        self._cache: Any = None
        self._prompt: list[int] = []
        self._tokens: Any = None
        self._ahead: Any = None
        self._sampler: Guard | None = None
        self._processors: Sequence[Guard] = ()
        self._count = self._most = 0
        # A limit only where Metal is; what it was before, or None.
        self._wired = lib.generate.maybe_set_recommended_wired_limit()

    def insert(self, ids: list[int], most: int, sampler: Guard | None, processors: Sequence[Guard]) -> int:
        """Begin a row; at most `limit` at a time."""
        self._row += 1
        self._cache = self._lib.cache.make_prompt_cache(self._loaded.model)
        self._prompt, self._count, self._most = ids, 0, most
        self._sampler, self._processors = sampler, processors
        self._tokens = self._mx.array(ids[:-1], self._mx.uint32) if processors else None
        self._ahead = None
        return self._row

    def remove(self, row: int) -> None:
        """End a row; harmless where it has ended."""
        if row == self._row:
            self._cache = self._tokens = self._ahead = None

    def next(self) -> list[Step]:
        """One step: a token of each row that is done with its prompt."""
        mx, row = self._mx, self._row
        if self._cache is None:
            return []
        if len(self._prompt) > 1:
            part = self._prompt[: min(self._step, len(self._prompt) - 1)]
            self._loaded.model(mx.array([part]), cache=self._cache)
            mx.eval([cache.state for cache in self._cache])
            mx.clear_cache()
            self._prompt = self._prompt[len(part) :]
            return []
        token = self._ahead if self._ahead is not None else self._begin(mx.array(self._prompt, mx.uint32))
        self._count += 1
        # The next one is begun before this one is looked at, so that the machine is never idle.
        if self._count < self._most:
            self._ahead = self._begin(token)
        mx.eval(token)
        found = int(token.item())
        reason = "stop" if found in self._loaded.eos else "length" if self._count >= self._most else None
        if reason is not None:
            self.remove(row)
        return [(row, found, reason)]

    def _begin(self, last: Any) -> Any:
        """Have the token behind `last` computed."""
        mx = self._mx
        logits = self._loaded.model(last[None], cache=self._cache)[:, -1, :]
        if self._processors:
            self._tokens = mx.concatenate([self._tokens, last.astype(mx.uint32)])
            for processor in self._processors:
                logits = processor(self._tokens, logits)
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        token = mx.argmax(logprobs, axis=-1) if self._sampler is None else self._sampler(logprobs)
        mx.async_eval(token)
        return token

    def close(self) -> None:
        """Give back what the process lent."""
        self.remove(self._row)
        if self._wired is not None:
            self._mx.synchronize()
            self._mx.set_wired_limit(self._wired)
            self._wired = None
