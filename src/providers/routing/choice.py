"""In which order targets are asked: as they stand, by weight, or the cheapest first."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Any, Final, Literal, TypeAlias

from ..layers.estimate import prompt_tokens
from ..profiles import estimate_tokens
from ..types import Request
from .targets import Target

Choice: TypeAlias = Literal["ordered", "weighted", "cheapest"]
CHOICES: Final[tuple[Choice, ...]] = ("ordered", "weighted", "cheapest")

ANSWER: Final = 1000
"""Tokens of an answer, for the comparison of prices, where a call names no `max_tokens`."""

# Characters of a prompt that is not weighed: no window is that small, and looking costs each call a microsecond.
_SHORT: Final = 1000
# What the estimate of a text is divided by, so that the prompt is surely not smaller; texts come out at 0.85 to 1.25.
_SURELY: Final = 1.6


def by_weight(targets: Sequence[Target], rng: Random) -> list[Target]:
    """One drawn by the weights, then the others, the heaviest first."""
    first = rng.choices(targets, [target.weight for target in targets])[0]
    return [first, *sorted((other for other in targets if other is not first), key=lambda other: -other.weight)]


def by_cost(targets: Sequence[Target], input_tokens: int, output_tokens: int) -> list[Target]:
    """The cheapest first; those of the same price as they stand; those of unknown price last."""
    costs = [target.cost(input_tokens, output_tokens) for target in targets]
    places = sorted(range(len(targets)), key=lambda place: _rank(costs[place]))
    return [targets[place] for place in places]


def _rank(cost: Decimal | None) -> tuple[bool, Decimal]:
    return (cost is None, cost or Decimal(0))


def expected(request: Request) -> tuple[int, int]:
    """Tokens of the prompt, estimated, and of the answer, taken to be as many as the call allows."""
    said: Any = request.params.get("max_tokens")
    return prompt_tokens(request), said if isinstance(said, int) else ANSWER


def surely(request: Request) -> int:
    """Tokens that the prompt's text is at least; 0 for a short one, which is not weighed."""
    plain = request.messages.plain
    texts = [item["content"] for item in plain] if plain is not None else [message.text for message in request.messages]
    if sum(map(len, texts)) <= _SHORT:
        return 0
    return int(sum(map(estimate_tokens, texts)) / _SURELY)
