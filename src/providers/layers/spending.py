"""Calls on a budget: what each may use, reserved before it, and what it has used, booked after it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, cast

from ..costs import attempts_of, ceiling, cost_of
from ..exceptions import (
    BudgetExceededError,
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderResponseError,
    LLMProviderTimeoutError,
    LLMProviderUnsupportedOperationError,
    ProviderClosedError,
)
from ..pipeline import Handler, WholeHandler
from ..profiles import ModelProfile, ProfileTable, estimate_tokens
from ..types import Request, StreamEvent, StreamEventType, Usage, token_count, usage_of_error
from .estimate import answer_tokens, embedded_texts, prompt_tokens
from .models import Models

if TYPE_CHECKING:
    from .budget import Budget

logger = logging.getLogger("providers.costs")

_USAGE: Final = StreamEventType.USAGE
_META: Final = StreamEventType.META
_TEXTS: Final = (StreamEventType.TOKEN, StreamEventType.REASONING)
_CALL_PIECE: Final = StreamEventType.TOOL_CALL_DELTA
_CALL_END: Final = StreamEventType.TOOL_CALL_END

# Raised before anything is sent.
_NOT_SENT: Final = (
    BudgetExceededError,
    LLMProviderConfigurationError,
    LLMProviderUnsupportedOperationError,
    ProviderClosedError,
)
# After these the backend may have worked, and may bill it.
_UNSURE: Final = (LLMProviderTimeoutError, LLMProviderResponseError)
_UNSURE_NAMES: Final = frozenset({"LLMProviderTimeoutError", "LLMProviderResponseError", "LLMProviderStreamError"})


class BudgetedCalls:
    """The layer that spends a budget, bound to a provider or to none; `Budget.bound_to` makes it."""

    embeddings: Final = True
    """Tells that it knows requests for embeddings too."""

    def __init__(self, budget: Budget, provider: str | None = None, profiles: ProfileTable | None = None) -> None:
        self.budget = budget
        self._provider = provider
        self._models = Models(profiles)

    async def __call__(self, request: Request, inner: Handler) -> AsyncGenerator[StreamEvent, None]:
        """The layer's form for streams."""
        booking = _Booking(self, request)
        see = booking.see
        try:
            # Handlers are generators by contract, so that they can be closed; only their type is the wider one.
            async with aclosing(cast(Any, inner(request))) as events:
                if self.budget.max_seconds is None:
                    async for event in events:
                        see(event)
                        yield event
                else:
                    while True:
                        # Around each step alone: between them the consumer runs.
                        event = await self._in_time(anext(events, None))
                        if event is None:
                            break
                        see(event)
                        yield event
        except BaseException as error:
            booking.fail(error)
            raise
        booking.done()

    async def whole(self, request: Request, inner: WholeHandler) -> Sequence[StreamEvent]:
        """The form for whole answers."""
        booking = _Booking(self, request)
        try:
            if self.budget.max_seconds is None:
                events = await inner(request)
            else:
                events = await self._in_time(inner(request))
        except BaseException as error:
            booking.fail(error)
            raise
        for event in events:
            booking.see(event)
        booking.done()
        return events

    async def _in_time(self, step: Any) -> Any:
        limit = asyncio.timeout(self.budget.left.seconds)
        try:
            async with limit:
                return await step
        except TimeoutError as error:
            if limit.expired() and not isinstance(error, LLMProviderError):
                raise self.budget.out_of_time() from None
            raise

    def profile(self, request: Request) -> ModelProfile:
        """What is known of a request's model."""
        return self._models.get(request.model)

    def ceiling(self, request: Request, profile: ModelProfile, tokens: tuple[int, int]) -> Decimal | None:
        """The most that a call may cost, or `None` where no price is known and that is allowed.

        Raises:
            LLMProviderConfigurationError: no price is known.
        """
        cost = ceiling(*tokens, profile, self._provider)
        if cost is None and self.budget.unknown_price == "refuse":
            raise LLMProviderConfigurationError(
                "no price of this model is known, so a budget with max_cost cannot cover the call: set input_price and "
                "output_price of the model in config/models.toml (0 where it costs nothing), install genai-prices, or "
                "create Budget(unknown_price='allow')",
                provider=self._provider,
                model=request.model,
                code="unknown_price",
            )
        return cost

    def cost(self, usage: Usage, profile: ModelProfile) -> Decimal | None:
        """What a usage costs; the figure that it carries goes first."""
        told = usage.total_cost
        if isinstance(told, int | float) and isfinite(told) and told >= 0:
            return Decimal(str(told))
        try:
            return cost_of(usage, profile, self._provider).total
        except LLMProviderError as error:
            # The user's file has become wrong; an answer that was paid for must not be lost over its bill.
            logger.warning("costs are not known: %s", error)
            return None


class _Booking:
    """One call's reservation, what was seen of its answer, and its settlement, which happens once."""

    __slots__ = (
        "_calls",
        "_cost",
        "_embedded",
        "_failed",
        "_open",
        "_profile",
        "_prompt",
        "_since",
        "_tokens",
        "_unpriced",
        "_usage",
    )

    def __init__(self, calls: BudgetedCalls, request: Request) -> None:
        budget = calls.budget
        self._calls = calls
        self._usage: Usage | None = None
        self._since: list[str] = []  # the texts after the last usage
        self._failed: Sequence[dict[str, Any]] = ()
        self._profile: ModelProfile | None = None
        self._prompt = answer = 0
        self._embedded = embedded_texts(request) is not None
        cost: Decimal | None = Decimal(0)
        if budget.max_cost is not None or budget.max_tokens is not None:
            profile = self._profile = calls.profile(request)
            self._prompt = prompt_tokens(request)
            answer = answer_tokens(request, profile, budget.output_tokens)
            if budget.max_cost is not None:
                cost = calls.ceiling(request, profile, (self._prompt, answer))
        self._unpriced = cost is None
        self._cost, self._tokens = cost or Decimal(0), self._prompt + answer
        budget.reserve(self._cost, self._tokens)
        self._open = True

    def see(self, event: StreamEvent) -> None:
        """Note what an event says of the usage."""
        kind = event.type
        if kind in _TEXTS:
            self._since.append(event.data)
        elif kind is _USAGE:
            self._usage = event.data
            self._since = []
        elif kind is _META:
            self._failed = attempts_of(event.data) or self._failed
        elif kind is _CALL_PIECE or kind is _CALL_END:  # both, where a call comes in pieces: rather too much
            self._since.append(event.data.arguments or "")

    def done(self) -> None:
        """The answer is whole: its last usage stands."""
        usage = self._usage
        if usage is not None and usage.output_tokens is None and self._embedded:
            usage = replace(usage, output_tokens=0)
        if usage is not None and usage.input_tokens is not None and usage.output_tokens is not None:
            self._settle([usage])
        else:
            if usage is not None and usage.output_tokens is not None:
                self._since = []
            self._settle([self._completed(usage or Usage())], estimated=1)

    def fail(self, error: BaseException) -> None:
        """The call was ended, by itself or by its consumer."""
        if not self._failed and isinstance(error, LLMProviderError) and error.failed_attempts:
            self._failed = error.failed_attempts
        told = usage_of_error(error) if isinstance(error, LLMProviderError) else None
        if self._usage is not None and not self._since:
            # Where it says nothing of the output, nothing was given out either.
            self._settle([self._usage])
        elif self._usage is not None or self._since:
            self._settle([self._completed(self._usage or Usage())], estimated=1)
        elif told is not None:
            self._settle([told])
        elif isinstance(error, _NOT_SENT):
            self._settle((), requests=0)
        elif isinstance(error, LLMProviderError) and not isinstance(error, _UNSURE):
            self._settle(())
        else:
            self._settle((), whole=1, estimated=1)

    def _completed(self, usage: Usage) -> Usage:
        """A usage, what it lacks estimated."""
        read = self._prompt if usage.input_tokens is None else usage.input_tokens
        written = (usage.output_tokens or 0) + estimate_tokens("".join(self._since))
        return replace(usage, input_tokens=read, output_tokens=written, total_tokens=None, total_cost=None)

    def _settle(self, usages: Iterable[Usage], requests: int = 1, whole: int = 0, estimated: int = 0) -> None:
        if not self._open:
            return
        self._open = False
        found = list(usages)
        for attempt in self._failed:
            requests += 1
            if attempt["usage"] is not None:
                found.append(attempt["usage"])
            elif attempt["error"] in _UNSURE_NAMES:
                whole, estimated = whole + 1, estimated + 1
        cost, tokens, unpriced = self._cost * whole, self._tokens * whole, self._unpriced * whole
        for usage in map(_without_gaps, found):
            tokens += usage.total_tokens or 0
            if self._calls.budget.max_cost is None:
                continue
            assert self._profile is not None
            price = self._calls.cost(usage, self._profile)
            if price is None and not self._unpriced:
                # There is a price, but the figures contradict each other, or lack one that it needs.
                price, estimated = self._partly(usage), estimated + 1
            if price is None:
                unpriced += 1
            else:
                cost += price
        reserved = (self._cost, self._tokens, 1)
        self._calls.budget.settle(reserved, (cost, tokens, requests), estimated=estimated, unpriced=unpriced)

    def _partly(self, usage: Usage) -> Decimal | None:
        """What a usage costs whose figures do not make a price: all of them at the dearest."""
        assert self._profile is not None
        tokens = (usage.input_tokens or 0, usage.output_tokens or 0)
        try:
            return ceiling(*tokens, self._profile, self._calls._provider)
        except LLMProviderError:
            return self._cost


def _without_gaps(usage: Usage) -> Usage:
    """What an attempt that failed does not say was not used; and figures that a plugin has wrong must not stick."""
    read, written = token_count(usage.input_tokens) or 0, token_count(usage.output_tokens) or 0
    total = max(token_count(usage.total_tokens) or 0, read + written)
    if (read, written, total) == (usage.input_tokens, usage.output_tokens, usage.total_tokens):
        return usage
    return replace(usage, input_tokens=read, output_tokens=written, total_tokens=total)
