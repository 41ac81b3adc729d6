"""What tokens cost: by the prices of the model's data, else by the package genai-prices; unknown is never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from functools import cache
from importlib import import_module
from time import monotonic
from typing import Any, Final, Protocol

from .exceptions import LLMProviderConfigurationError, LLMProviderError
from .types import LLMResponse, Usage, token_count, usage_of_error

# Of our own: an application may have set the thread's context to four digits.
MATH: Final = Context(prec=50)
"""The arithmetic of money."""

_PRICES: Final = ("input_price", "cached_input_price", "cache_write_price", "output_price", "reasoning_price")
_NOTHING: Final = Decimal(0)
_MOST_KNOWN: Final = 1000
_HOUR: Final = 3600.0


class Profile(Protocol):
    """What is read of a `providers.ModelProfile`."""

    @property
    def model_name(self) -> str:
        """The model's name."""

    @property
    def category(self) -> str:
        """`"completions"` or `"embeddings"`."""

    @property
    def data(self) -> Mapping[str, Any]:
        """Where prices stand: US dollars for a million tokens."""


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars; `None` is unknown.

    Attributes:
        input: of the prompt.
        output: of the answer.
        total: of both; of an embedding, which has no output, that of the prompt.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    total: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for one token; `None` where no price is known.

    Attributes:
        input: of the prompt's tokens that neither came from the backend's cache nor were written to it.
        cached_input: of those that came from the cache.
        cache_write: of those that were written to it.
        output: of the answer's tokens.
        reasoning: of those that were reasoning; as `output` where left out.
    """

    input: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    output: Decimal | None = None
    reasoning: Decimal | None = None

    def of_input(self, usage: Usage) -> Decimal | None:
        """Dollars of the prompt. `Usage.input_tokens` holds the cached and the written tokens: each is paid once."""
        whole = token_count(usage.input_tokens)
        cached = token_count(usage.input_tokens_cached) or 0
        written = token_count(usage.input_tokens_cache_write) or 0
        if whole is None or cached + written > whole:
            return None
        parts = ((whole - cached - written, self.input), (cached, self.cached_input), (written, self.cache_write))
        return _sum(parts)

    def of_output(self, usage: Usage) -> Decimal | None:
        """Dollars of the answer. `Usage.output_tokens` holds the reasoning: each token is paid once."""
        whole = token_count(usage.output_tokens)
        thought = token_count(usage.output_tokens_reasoning) or 0
        if whole is None or thought > whole:
            return None
        return _sum(
            ((whole - thought, self.output), (thought, self.output if self.reasoning is None else self.reasoning))
        )

    def most(self, input_tokens: int, output_tokens: int, *, embedded: bool) -> Decimal | None:
        """The most that so many tokens can cost; of an embedding, which has no output, those of the prompt."""
        if self.input is None or (self.output is None and not embedded):
            return None
        read = MATH.multiply(max(self.input, self.cache_write or _NOTHING), input_tokens)
        if embedded or self.output is None:
            return read
        return MATH.add(read, MATH.multiply(max(self.output, self.reasoning or _NOTHING), output_tokens))


def _sum(parts: tuple[tuple[int, Decimal | None], ...]) -> Decimal | None:
    total: Decimal | None = None
    for tokens, price in parts:
        if price is None:
            if tokens:
                return None
        elif not tokens:
            total = total or _NOTHING
        else:
            part = MATH.multiply(price, tokens)
            total = MATH.add(total, part) if total else part
    return total


def cost_of(usage: Usage, profile: Profile, provider: str | None = None) -> Cost:
    """What a usage costs at the standard tier.

    Args:
        usage: the tokens. Cached, written and reasoning tokens that nobody told are taken for ordinary ones.
        profile: what is known of the model. Where its data name a price, all prices are taken from there:
            `input_price`, `cached_input_price`, `cache_write_price`, `output_price` and, where reasoning costs
            something else than the rest of the answer, `reasoning_price`, in US dollars for a million tokens. A price
            that is needed and missing makes the cost unknown.
        provider: the provider's name, for the package genai-prices (0.2), which is asked where the data name no price
            and it is installed. Its import costs 0.1 s, once. Without the name it is not asked: a model of that name
            may cost something else, or nothing, elsewhere.

    Raises:
        LLMProviderConfigurationError: a price of the data is no number of dollars.
    """
    prices = prices_of(profile)
    if prices is not None:
        read, written = prices.of_input(usage), prices.of_output(usage)
    elif provider:
        read, written = _looked_up(usage, profile.model_name, provider)
    else:
        return Cost()
    if profile.category == "embeddings":
        return Cost(read, None, read)
    return Cost(read, written, None if read is None or written is None else MATH.add(read, written))


def ceiling(input_tokens: int, output_tokens: int, profile: Profile, provider: str | None = None) -> Decimal | None:
    """The most that so many tokens can cost, all of the prompt written to the backend's cache and all of the answer
    reasoning where that is dearer; `None` where no price is known.

    Raises:
        LLMProviderConfigurationError: as in `cost_of`.
    """
    prices = prices_of(profile)
    if prices is None and provider and (package := price_package()) is not None:
        prices = _flat_prices(package, profile.model_name, provider)
    if prices is not None:
        return prices.most(input_tokens, output_tokens, embedded=profile.category == "embeddings")
    plain = cost_of(Usage(input_tokens, output_tokens), profile, provider).total
    dear = Usage(input_tokens, output_tokens, None, None, input_tokens, output_tokens)
    most = cost_of(dear, profile, provider).total
    return plain if most is None or (plain is not None and plain > most) else most


def fill_costs(usage: Usage, profile: Profile, provider: str | None = None) -> Usage:
    """Put the costs into a usage, as floats; one that has any already, or whose price is unknown, is left as it is.

    Returns:
        The usage itself.

    Raises:
        LLMProviderConfigurationError: as in `cost_of`.
    """
    if usage.input_cost is None and usage.output_cost is None and usage.total_cost is None:
        cost = cost_of(usage, profile, provider)
        usage.input_cost = None if cost.input is None else float(cost.input)
        usage.output_cost = None if cost.output is None else float(cost.output)
        usage.total_cost = None if cost.total is None else float(cost.total)
    return usage


def total_usage(outcome: LLMResponse | LLMProviderError) -> Usage:
    """What a call used in all: what its failed attempts are known to have used, and its last one.

    Args:
        outcome: the answer, or the error that ended the call.

    Returns:
        A new `Usage`. Attempts of which nothing is known add nothing.
    """
    if isinstance(outcome, LLMResponse):
        failed, last = attempts_of(outcome.metadata), outcome.usage
    else:
        failed, last = outcome.failed_attempts or [], usage_of_error(outcome) or Usage()
        if not failed and isinstance(outcome.response, LLMResponse):
            failed = attempts_of(outcome.response.metadata)
    total = replace(last)
    for attempt in failed:
        if attempt["usage"] is not None:
            total = total + attempt["usage"]
    return total


def attempts_of(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The failed attempts that the layer `retry` has noted in an answer's metadata, or in the data of a META event."""
    if "attempts" not in facts:
        return []
    # A backend may have a fact of that name.
    found = facts["attempts"]
    return [item for item in found if isinstance(item, dict) and "usage" in item] if isinstance(found, list) else []


# --- where prices come from

_known: Final[dict[int, tuple[Profile, Prices | None]]] = {}


def prices_of(profile: Profile) -> Prices | None:
    """The prices that a model's data name, or `None` where they name none.

    Raises:
        LLMProviderConfigurationError: one is no number of dollars.
    """
    found = _known.get(id(profile))
    # The profile is kept too, so that its id is not given to another one.
    if found is None or found[0] is not profile:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        found = _known[id(profile)] = (profile, _read(profile))
    return found[1]


def _read(profile: Profile) -> Prices | None:
    prices = [_price(profile, name) for name in _PRICES]
    return None if prices == [None] * len(prices) else Prices(*prices)


def _price(profile: Profile, name: str) -> Decimal | None:
    value = profile.data.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise LLMProviderConfigurationError(
            f"{name} of the model {profile.model_name!r} must be US dollars for a million tokens, not {value!r}"
        )
    return MATH.scaleb(Decimal(str(value)), -6)


def _looked_up(usage: Usage, model: str, provider: str) -> tuple[Decimal | None, Decimal | None]:
    package = price_package()
    if package is None:
        return None, None
    prices = _flat_prices(package, model, provider)
    if prices is not None:
        return prices.of_input(usage), prices.of_output(usage)
    told = {
        "input_tokens": token_count(usage.input_tokens),
        "output_tokens": token_count(usage.output_tokens),
        "cache_read_tokens": token_count(usage.input_tokens_cached),
        "cache_write_tokens": token_count(usage.input_tokens_cache_write),
    }
    if told["input_tokens"] is None:  # parts of a whole that is not known
        told["cache_read_tokens"] = told["cache_write_tokens"] = None
    try:
        found = package.calc_price(package.Usage(**told), model_ref=model, provider_id=provider)
    except (LookupError, ValueError):  # figures that contradict each other
        return None, None
    read = found.input_price if told["input_tokens"] is not None else None
    return read, found.output_price if told["output_tokens"] is not None else None


_flat: Final[dict[tuple[str, str], tuple[float, Prices | None]]] = {}


def _flat_prices(package: Any, model: str, provider: str) -> Prices | None:
    """The package's prices of a model whose tokens all cost the same, or `None` where more of them are dearer.

    The package takes 0.1 ms for each sum. They are asked for again every hour, since prices may have a date.
    """
    known = _flat.get((provider, model))
    if known is not None and known[0] > monotonic():
        return known[1]
    prices: Prices | None
    try:
        found = package.calc_price(package.Usage(input_tokens=1), model_ref=model, provider_id=provider).model_price
    except (LookupError, ValueError):  # an unknown model or provider
        prices = Prices()
    else:
        told = [getattr(found, f"{name}_mtok", None) for name in ("input", "cache_read", "cache_write", "output")]
        prices = _prices_per_million(*told) if all(price is None or type(price) is Decimal for price in told) else None
    if len(_flat) >= _MOST_KNOWN:
        _flat.clear()
    _flat[provider, model] = (monotonic() + _HOUR, prices)
    return prices


def _prices_per_million(
    plain: Decimal | None, cached: Decimal | None, written: Decimal | None, output: Decimal | None
) -> Prices:
    # As the package does: what has no price of its own costs what the rest of the prompt costs.
    cached, written = plain if cached is None else cached, plain if written is None else written
    return Prices(*(None if price is None else MATH.scaleb(price, -6) for price in (plain, cached, written, output)))


@cache
def price_package() -> Any:
    """The package genai-prices, or `None` where it is not installed. It reads no network of itself."""
    try:
        return import_module("genai_prices")
    except ImportError:
        return None
