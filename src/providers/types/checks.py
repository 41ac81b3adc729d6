"""What a field of the configuration may hold, and one clear sentence where it holds something else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..exceptions import LLMProviderConfigurationError
from ..notices import shown


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number in a range; `None` where `optional`.

    Attributes:
        low: the least value allowed.
        high: the greatest value allowed, or `None`.
        integer: whether it must be whole.
        optional: whether `None` is allowed.
        open_low: whether `low` itself is refused.
    """

    low: float = 0
    high: float | None = None
    integer: bool = False
    optional: bool = True
    open_low: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with the value, or `None`."""
        if value is None:
            return None if self.optional else "must not be None"
        kind = "a whole number" if self.integer else "a number"
        allowed = int if self.integer else int | float
        if isinstance(value, bool) or not isinstance(value, allowed):
            return f"must be {kind}, not {type(value).__name__} {shown(value)}"
        if not self.integer and not _is_finite(value):
            return f"must be finite, not {shown(value)}" if isinstance(value, float) else "must be finite, not so large"
        if value < self.low or (self.open_low and value == self.low) or (self.high is not None and value > self.high):
            above = "above" if self.open_low else "at least"
            top = "" if self.high is None else f" and at most {self.high:g}"
            return f"must be {above} {self.low:g}{top}, not {shown(value)}"
        return None


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is not blank; `None` where `optional`."""

    optional: bool = True

    def problem(self, value: Any) -> str | None:
        """What is wrong with the value, or `None`."""
        if value is None and self.optional:
            return None
        if not isinstance(value, str) or not value.strip():
            return f"must be a text that is not blank, not {shown(value)}"
        return None


@dataclass(frozen=True, slots=True)
class StopSequences:
    """`None`, a text, or a list of texts."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with the value, or `None`."""
        if value is None or isinstance(value, str):
            return None
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return None
        return f"must be a text or a list of texts, not {shown(value)}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def problem(self, value: Any) -> str | None:
        """What is wrong with the value, or `None`."""
        return None if value in self.words else f"must be one of {', '.join(map(repr, self.words))}, not {shown(value)}"


@dataclass(frozen=True, slots=True)
class Dict:
    """A mapping with text keys."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with the value, or `None`."""
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return None
        return f"must be a dict with text keys, not {type(value).__name__}"


Check = Number | Text | StopSequences | OneOf | Dict


def check_fields(values: Mapping[str, Any], checks: Mapping[str, Check], source: str) -> None:
    """Raise for the first value that its check refuses.

    Args:
        values: field name to value.
        checks: field name to check; fields without one are not looked at.
        source: where the values come from, for the message.

    Raises:
        LLMProviderConfigurationError: names the field, its source, the value and what is allowed.
    """
    for name, value in values.items():
        check = checks.get(name)
        problem = check.problem(value) if check is not None else None
        if problem:
            raise LLMProviderConfigurationError(f"{name} ({source}) {problem}")
