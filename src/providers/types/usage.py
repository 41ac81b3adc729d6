"""What a call used: tokens and cost, where `None` is unknown and never zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

_ALIASES: Final[dict[str, str]] = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "cached_input_tokens": "input_tokens_cached",
    "cached_tokens": "input_tokens_cached",
    "cached": "input_tokens_cached",
    "reasoning_tokens": "output_tokens_reasoning",
    "reasoning": "output_tokens_reasoning",
    "cache_write_tokens": "input_tokens_cache_write",
    "cache_write": "input_tokens_cache_write",
}


def token_count(value: Any) -> int | None:
    """A token figure of a reply as an int, or `None` where it is missing, negative or no number.

    Backends have been seen to send floats and strings here; a paid-for answer must not be lost over its bill.
    """
    if type(value) is int:
        return value if value >= 0 else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(float(value))
    except (ValueError, OverflowError):
        return None
    return number if number >= 0 else None


_COSTS: Final = ("input_cost", "output_cost", "total_cost")


class _Priceable:
    """Costs that are worked out when one of them is first looked at: most never are, and each call would pay for it.

    Until then their places are empty, which is when Python asks `__getattr__`.
    """

    __slots__ = ("_pricing",)

    if TYPE_CHECKING:
        _pricing: Callable[[Any], tuple[float | None, float | None, float | None]] | None

    def __getattr__(self, name: str) -> Any:
        if name == "_pricing":
            return None
        pricing = self._pricing
        if name not in _COSTS or pricing is None:
            # Another thread may have put it there in this moment; else the usual error.
            return object.__getattribute__(self, name)
        for known, cost in zip(_COSTS, pricing(self), strict=True):
            try:
                object.__getattribute__(self, known)  # one that somebody has put there meanwhile stays
            except AttributeError:
                setattr(self, known, cost)
        self._pricing = None
        return object.__getattribute__(self, name)


@dataclass(slots=True)
class Usage(_Priceable):
    """Tokens and cost of one answer, or the sum of several.

    Behaves as a mapping too (`usage["input_tokens"]`, `dict(usage)`), and knows the other names in use:
    `prompt_tokens`, `completion_tokens`, `cached_input_tokens`, `reasoning_tokens`.

    Attributes:
        input_tokens: tokens of the prompt, cached ones included.
        output_tokens: tokens of the answer, reasoning included.
        total_tokens: their sum; filled in where both are known.
        input_tokens_cached: how many of the input came from the backend's cache.
        input_tokens_cache_write: how many of the input were written to that cache.
        output_tokens_reasoning: how many of the output were reasoning.
        input_cost: cost of the input in US dollars.
        output_cost: cost of the output in US dollars.
        total_cost: their sum; filled in where both are known.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_cached: int | None = None
    input_tokens_cache_write: int | None = None
    output_tokens_reasoning: int | None = None
    input_cost: float | None = None
    output_cost: float | None = None
    total_cost: float | None = None

    def __post_init__(self) -> None:
        self._pricing = None  # type: ignore[misc]  # a slot of the class below
        if self.total_tokens is None and self.input_tokens is not None and self.output_tokens is not None:
            self.total_tokens = self.input_tokens + self.output_tokens
        if self.total_cost is None and self.input_cost is not None and self.output_cost is not None:
            self.total_cost = self.input_cost + self.output_cost

    def price_with(self, pricing: Callable[[Usage], tuple[float | None, float | None, float | None]]) -> None:
        """Have the costs worked out when one is first looked at. One that has costs, or a pricing, keeps them.

        Args:
            pricing: gives the cost of the input, of the output and of both in US dollars, from the tokens. It must not
                look at the costs, and must not raise.
        """
        if self._pricing is not None:
            return
        if self.input_cost is None and self.output_cost is None and self.total_cost is None:
            self._pricing = pricing  # type: ignore[misc]  # a slot of the class below
            del self.input_cost, self.output_cost, self.total_cost

    @property
    def is_priced(self) -> bool:
        """Whether it has costs, or will have them when one is looked at."""
        if self._pricing is not None:
            return True
        return self.input_cost is not None or self.output_cost is not None or self.total_cost is not None

    def without_costs(self) -> Usage:
        """The tokens alone, for instance to compare them with a backend's own account."""
        return Usage(**{name: getattr(self, name) for name in _NAMES if name not in _COSTS})

    @property
    def prompt_tokens(self) -> int | None:
        """Another name of `input_tokens`."""
        return self.input_tokens

    @property
    def completion_tokens(self) -> int | None:
        """Another name of `output_tokens`."""
        return self.output_tokens

    @property
    def cached_input_tokens(self) -> int | None:
        """Another name of `input_tokens_cached`."""
        return self.input_tokens_cached

    @property
    def reasoning_tokens(self) -> int | None:
        """Another name of `output_tokens_reasoning`."""
        return self.output_tokens_reasoning

    def __repr__(self) -> str:
        # asyncio.run makes a repr of what it gives back: that must not work the costs out.
        shown = [name for name in _NAMES if self._pricing is None or name not in _COSTS]
        return f"Usage({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __add__(self, other: Usage) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        total = {name: _add(getattr(self, name), getattr(other, name)) for name in _NAMES}
        for whole, one, two in (
            ("total_tokens", "input_tokens", "output_tokens"),
            ("total_cost", "input_cost", "output_cost"),
        ):
            # Where one part lacks a figure, the sum of the totals misses what the other figures say.
            if total[one] is not None and total[two] is not None and (total[whole] or 0) < total[one] + total[two]:
                total[whole] = total[one] + total[two]
        return Usage(**total)

    def __getitem__(self, key: str) -> Any:
        name = _ALIASES.get(key, key)
        if name not in _NAMES:
            raise KeyError(key)
        return getattr(self, name)

    def get(self, key: str, default: Any = None) -> Any:
        """The figure of that name; `default` where it is unknown."""
        try:
            value = self[key]
        except KeyError:
            return default
        return default if value is None else value

    def keys(self) -> tuple[str, ...]:
        """The names of the figures."""
        return _NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __contains__(self, key: object) -> bool:
        return key in _NAMES or key in _ALIASES

    def to_dict(self) -> dict[str, Any]:
        """All figures, unknown ones as `None`."""
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | Usage) -> Usage:
        """Read a dict under any of the names in use; names that are not figures are passed over."""
        values: dict[str, Any] = {}
        for key in data:
            value = data[key]
            name = _ALIASES.get(key, key)
            if name in _NAMES and value is not None:
                values[name] = value if name.endswith("_cost") else token_count(value)
        return cls(**values)


_NAMES: Final[tuple[str, ...]] = tuple(item.name for item in fields(Usage))


def _add(one: Any, two: Any) -> Any:
    if one is None:
        return two
    return one if two is None else one + two
