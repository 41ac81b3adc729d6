"""The layer that puts costs into the usage of answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Any, Final, cast

from ..costs import attempts_of, cost_of
from ..exceptions import LLMProviderError
from ..pipeline import Handler, WholeHandler
from ..profiles import ProfileTable
from ..types import LLMResponse, Request, StreamEvent, StreamEventType, Usage
from .models import Models

logger = logging.getLogger("providers.costs")

_TOKEN: Final = StreamEventType.TOKEN
_USAGE: Final = StreamEventType.USAGE
_META: Final = StreamEventType.META
_MOST_MODELS: Final = 256


class Priced:
    """A layer that gives `input_cost`, `output_cost` and `total_cost` to the usage, where prices are known.

    The costs of a `Usage`, those of failed attempts among them, are worked out when one is first looked at, at the
    prices of that moment; a call that nobody asks the price of pays next to nothing. Costs that were said stay.

    Args:
        provider: the provider's name; see `providers.costs.cost_of`.
        profiles: what is known of its models; by default that of all installed providers.
    """

    embeddings: Final = True
    """Tells that it knows requests for embeddings too."""

    def __init__(self, provider: str | None = None, profiles: ProfileTable | None = None) -> None:
        self._provider = provider
        self._profiles = profiles
        self._models = Models(profiles)
        self._pricings: dict[str, Pricing] = {}

    def bound_to(self, provider: str, profiles: ProfileTable) -> Priced:
        """The same layer for the models of one provider; what it was made with stays."""
        return Priced(self._provider or provider, self._profiles or profiles)

    async def __call__(self, request: Request, inner: Handler) -> AsyncGenerator[StreamEvent, None]:
        """The layer's form for streams."""
        try:
            async with aclosing(cast(Any, inner(request))) as events:
                async for event in events:
                    if event.type is not _TOKEN:
                        self.see(request, event)
                    yield event
        except LLMProviderError as error:
            self.fail(request, error)
            raise

    async def whole(self, request: Request, inner: WholeHandler) -> Sequence[StreamEvent]:
        """The form for whole answers."""
        try:
            events = await inner(request)
        except LLMProviderError as error:
            self.fail(request, error)
            raise
        for event in events:
            self.see(request, event)
        return events

    def see(self, request: Request, event: StreamEvent) -> None:
        """Price what an event says of the usage."""
        if event.type is _USAGE:
            event.data.price_with(self._of(request.model))
        elif event.type is _META:
            self._price(request, [attempt["usage"] for attempt in attempts_of(event.data)])

    def settle(self, request: Request, response: LLMResponse) -> None:
        """Price the usages of a whole answer."""
        response.usage.price_with(self._of(request.model))
        if "attempts" in response.metadata:
            self._price(request, [attempt["usage"] for attempt in attempts_of(response.metadata)])

    def fail(self, request: Request, error: LLMProviderError) -> None:
        """Price what a call that failed has used."""
        earlier = [attempt["usage"] for attempt in error.failed_attempts or ()]
        self._price(request, [*earlier, error.usage, getattr(error.response, "usage", None)])

    def _of(self, model: str) -> Pricing:
        found = self._pricings.get(model)
        if found is None:
            if len(self._pricings) >= _MOST_MODELS:
                self._pricings.clear()
            found = self._pricings[model] = Pricing(self._models, model, self._provider)
        return found

    def _price(self, request: Request, usages: list[Any]) -> None:
        for usage in usages:
            if isinstance(usage, Usage):
                usage.price_with(self._of(request.model))


class Pricing:
    """What works out the costs of one model's usages."""

    __slots__ = ("_model", "_models", "_provider")

    def __init__(self, models: Models, model: str, provider: str | None) -> None:
        self._models = models
        self._model = model
        self._provider = provider

    def __call__(self, usage: Usage) -> tuple[float | None, float | None, float | None]:
        """Dollars of the input, of the output, of both."""
        try:
            cost = cost_of(usage, self._models.get(self._model), self._provider)
        except LLMProviderError as error:
            # The user's file is wrong; an answer that was paid for must not be lost over its bill.
            logger.warning("costs are not known: %s", error)
            return None, None, None
        return _dollars(cost.input), _dollars(cost.output), _dollars(cost.total)


def _dollars(cost: Decimal | None) -> float | None:
    return None if cost is None else float(cost)


priced: Final = Priced()
