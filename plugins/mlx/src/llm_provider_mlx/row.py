"""One answer while it is made: its call, its text so far, and when it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from providers.exceptions import LLMProviderError
from providers.local import AnswerReader, Work
from providers.types import StreamEvent, Usage

from .choice import Guard, Mask

_PACE: Final = 0.005
"""Seconds between two wake-ups of a reader: of a model that is faster, it gets several tokens at a time."""


class Row:
    """One answer.

    A token that ends answers counts as one of the answer, as mlx-lm counts it; so does the token that completes a stop
    string.

    Args:
        work: the call.
        reader: from tokens to events.
        prompt: tokens of the prompt.
        whole: whether the answer is wanted in one piece.
        lazy: whether nothing in its text can end it, so that the text is made only when it is given out.
        guards: the functions that choose its tokens.
        mask: the structure that it has to fit, or `None`.
        meta: what is to be said first.
    """

    __slots__ = (
        *("_count", "_events", "_guards", "_ids", "_lazy", "_mask", "_prompt", "_reader", "_spoken", "_whole"),
        "work",
    )

    def __init__(
        self,
        work: Work,
        reader: AnswerReader,
        prompt: int,
        *,
        whole: bool,
        lazy: bool,
        guards: Sequence[Guard],
        mask: Mask | None,
        meta: dict[str, Any],
    ) -> None:
        self.work = work
        self._reader = reader
        self._prompt = prompt
        self._whole = whole
        self._lazy = lazy
        self._ids: list[int] = []
        self._spoken = 0.0
        self._guards = guards
        self._mask = mask
        self._count = 0
        self._events = [StreamEvent.meta(**meta)]

    def take(self, token: int, reason: str | None) -> bool:
        """Take the next token in; true where the answer is at its end.

        Args:
            token: the token.
            reason: why the row has ended, as in `decoders.Step`.

        Raises:
            LLMProviderError: what a function of this row raised.
        """
        if self._guards and (error := self.error) is not None:
            raise error
        self._count += 1
        if reason != "stop":
            self._ids.append(token)
            if not self._lazy:
                self._read()
                if self._reader.stopped:
                    reason = "stop"
            if self._mask is not None and self._mask.finished:
                reason = "stop"
        if reason is None:
            if not self._whole and (now := time.monotonic()) >= self._spoken + _PACE:
                self._read()
                if self._events:
                    self._spoken = now
                    self._give(self._usage())
            return False
        self._read()
        ending = self._reader.finish(reason)
        self._events += ending[:-1]
        self._give(self._usage(), ending[-1])
        return True

    def _read(self) -> None:
        if self._ids:
            self._events += self._reader.feed(self._ids)
            self._ids.clear()

    @property
    def error(self) -> LLMProviderError | None:
        """What a function of this row raised, or `None`."""
        return next((guard.error for guard in self._guards if guard.error is not None), None)

    def _usage(self) -> StreamEvent:
        return StreamEvent.usage(Usage(self._prompt, self._count, self._prompt + self._count))

    def _give(self, *last: StreamEvent) -> None:
        events, self._events = [*self._events, *last], []
        self.work.push(events)
