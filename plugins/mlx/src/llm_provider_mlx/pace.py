"""How much of the prompts is read at a time: what a CPU needs longer for, others wait for, and who leaves."""

from __future__ import annotations

from typing import Final

_STEP: Final = 2048
"""Tokens of each prompt at a time: mlx-lm's own default (0.32.2)."""

_ALONE: Final = 8
"""The same on a CPU for one prompt alone, whose answer can be repeated bit by bit only if no clock has a say."""

_ENOUGH: Final = 12
"""So many tokens cost a CPU hardly more each than many: fewer, and the weights are fetched too often."""

_SHORT: Final = 0.15
"""Seconds that a step may take, so that answers which are being made go on meanwhile."""

_LONG: Final = 0.5
"""The same for the sake of `_ENOUGH` tokens: a call that is cancelled ends within a second all the same."""


class Pace:
    """The size of a step, by how long the last ones have taken.

    Args:
        fixed: tokens of each prompt in each step, as the caller wants it; `None` leaves it to the machine.
        on_cpu: whether the machine is a CPU. A graphics card reads so fast that mlx-lm's own step will do.

    Attributes:
        alone: tokens in a step of a prompt that is read alone, always the same.
        measures: whether the steps of several prompts are to be measured, and `took` told of them.
    """

    def __init__(self, fixed: int | None, *, on_cpu: bool) -> None:
        self.alone = fixed or (_ALONE if on_cpu else _STEP)
        self.measures = fixed is None and on_cpu
        self._fixed = fixed or _STEP
        self._seconds = 0.0
        self._tokens = _ENOUGH

    def each(self, prompts: int) -> int:
        """Tokens of each prompt in the next step, where so many are read together."""
        return max(1, self._tokens // max(1, prompts)) if self.measures else self._fixed

    def took(self, tokens: int, seconds: float) -> None:
        """Learn from a step.

        Args:
            tokens: of all prompts.
            seconds: how long the step took.
        """
        if 2 * tokens < self._tokens:
            return  # the end of a prompt: mostly what a step costs without any token
        found = seconds / tokens
        # Half of it only: the machine itself may have been elsewhere.
        self._seconds = (self._seconds + found) / 2 if self._seconds else found
        quick, enough = (int(limit / max(self._seconds, 1e-9)) for limit in (_SHORT, _LONG))
        self._tokens = max(1, min(_STEP, max(quick, min(_ENOUGH, enough))))
