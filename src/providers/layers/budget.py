"""Budgets: hard caps on what calls may use, reserved before a call and settled after it."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from time import monotonic
from typing import Any, Final, Literal
from weakref import WeakSet

from ..costs import MATH
from ..exceptions import BudgetExceededError, LLMProviderConfigurationError
from ..pipeline import Handler, WholeHandler
from ..profiles import ProfileTable
from ..types import Request, StreamEvent
from ..types.checks import Check, Number, OneOf, check_fields
from .spending import BudgetedCalls

_CHECKS: Final[dict[str, Check]] = {
    "max_tokens": Number(0, integer=True),
    "max_requests": Number(0, integer=True),
    "max_seconds": Number(0),
    "output_tokens": Number(1, integer=True),
    "unknown_price": OneOf(("refuse", "allow")),
}


@dataclass(frozen=True, slots=True)
class BudgetAmounts:
    """What was used, is reserved or is left.

    Attributes:
        cost: US dollars; `None` where the budget does not cap them, and so does not count them.
        tokens: of prompts and answers; of what is left, `None` where there is no cap.
        requests: sent to backends; of what is left, `None` where there is no cap.
        seconds: since the first call; of what is left, `None` where there is no cap.
    """

    cost: float | None = None
    tokens: int | None = None
    requests: int | None = None
    seconds: float | None = None


class Budget:
    """Hard caps for all calls that share this object: a layer, to be put among a provider's layers.

    Before a call, the most that it is expected to use is reserved: its prompt's estimate (`layers.estimate`) and
    `max_tokens` of answer, at the model's price. A call that does not fit into what is left, reservations of others
    counted, is refused. Afterwards the reservation gives way to what was really used. So the caps hold, also for many
    calls at once, up to the error of the reservations: a prompt of more tokens than estimated; an answer longer than
    `output_tokens`, where the call names no `max_tokens`; and what a backend bills beyond tokens, or otherwise than at
    its standard tier.

    What is booked:

    - An answer's own usage. Figures that the backend does not tell are estimated from the texts.
    - A stream that is left or breaks: what its last usage said and an estimate of the text that came after that.
    - A failed attempt: what its error's usage says; else nothing where the backend refused or was not reached, and the
      whole reservation where it fell silent, answered nonsense or the call was cancelled, since it may bill the call.

    Its place is inside `retry` and a limit: then each attempt is reserved and booked by itself, and only when it is
    sent. Outside of `retry` a call counts as one until it has ended, and its failed attempts are booked after it, so
    that those of calls under way may exceed the caps. Threads and event loops may share it, processes may not. A call
    that passes it twice is booked twice.

    Args:
        max_cost: US dollars, or `None` for no cap. A `str` or `Decimal` is taken as written; infinity counts only.
        max_tokens: tokens of prompts and answers together.
        max_requests: requests to backends.
        max_seconds: seconds from the first call on. A call that is under way then is ended.
        output_tokens: tokens to reserve for the answer of a call that names no `max_tokens`; `None` for the most that
            its model can give.
        unknown_price: what becomes of a call under `max_cost` whose model has no known price: `"refuse"` raises
            `LLMProviderConfigurationError`; `"allow"` makes it and counts it in `unpriced`.

    Raises:
        LLMProviderConfigurationError: a cap is no number or negative.
    """

    embeddings: Final = True
    """Tells that it knows requests for embeddings too."""

    def __init__(
        self,
        *,
        max_cost: float | str | Decimal | None = None,
        max_tokens: int | None = None,
        max_requests: int | None = None,
        max_seconds: float | None = None,
        output_tokens: int | None = 4096,
        unknown_price: Literal["refuse", "allow"] = "refuse",
    ) -> None:
        given = {
            "max_tokens": max_tokens,
            "max_requests": max_requests,
            "max_seconds": max_seconds,
            "output_tokens": output_tokens,
            "unknown_price": unknown_price,
        }
        check_fields(given, _CHECKS, "Budget")
        self.max_cost = _money(max_cost)
        self.max_tokens = max_tokens
        self.max_requests = max_requests
        self.max_seconds = max_seconds
        self.output_tokens = output_tokens
        self.unknown_price = unknown_price
        self._renew()
        self.reset()
        self._calls = BudgetedCalls(self)
        _all.add(self)

    def _renew(self) -> None:
        # Also in a forked child, where another thread may have held the lock, and the calls are the parent's.
        # Reentrant: the garbage collector may end a call, which is settled then, while this very thread holds it.
        self._lock = threading.RLock()
        self._reserved_cost, self._reserved_tokens, self._reserved_requests = Decimal(0), 0, 0

    def reset(self) -> None:
        """Begin anew, the time included. Calls under way keep what they reserved and are booked when they end."""
        with self._lock:
            self._cost, self._tokens, self._requests = Decimal(0), 0, 0
            self._estimated = self._unpriced = 0
            self._since: float | None = None

    # --- what a provider calls

    def __call__(self, request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
        """The layer's form for streams."""
        return self._calls(request, inner)

    def whole(self, request: Request, inner: WholeHandler) -> Awaitable[Sequence[StreamEvent]]:
        """The layer's form for whole answers."""
        return self._calls.whole(request, inner)

    def bound_to(self, provider: str, profiles: ProfileTable) -> BudgetedCalls:
        """A layer that spends this budget on one provider's calls, at the prices of its models.

        Args:
            provider: the provider's name; see `providers.costs.cost_of`.
            profiles: what is known of its models. Without this, all installed providers' tables are looked through.
        """
        return BudgetedCalls(self, provider, profiles)

    # --- how it stands

    @property
    def used(self) -> BudgetAmounts:
        """What was booked, and the seconds since the first call."""
        with self._lock:
            return self._used()

    @property
    def reserved(self) -> BudgetAmounts:
        """What calls under way have reserved."""
        with self._lock:
            cost = None if self.max_cost is None else float(self._reserved_cost)
            return BudgetAmounts(cost, self._reserved_tokens, self._reserved_requests)

    @property
    def left(self) -> BudgetAmounts:
        """What is left for new calls, reservations taken off; never below zero."""
        with self._lock:
            return self._left()

    @property
    def estimated(self) -> int:
        """How many bookings rest on an estimate, at least in part, since nobody told the usage."""
        return self._estimated

    @property
    def unpriced(self) -> int:
        """How many bookings lack their cost, since no price is known."""
        return self._unpriced

    def __repr__(self) -> str:
        caps = ("max_cost", "max_tokens", "max_requests", "max_seconds")
        told = [f"{name}={value}" for name in caps if (value := getattr(self, name)) is not None]
        return f"Budget({', '.join(told)}; used={self.used})"

    def _used(self) -> BudgetAmounts:
        seconds = 0.0 if self._since is None else monotonic() - self._since
        return BudgetAmounts(
            None if self.max_cost is None else float(self._cost), self._tokens, self._requests, seconds
        )

    def _left(self) -> BudgetAmounts:
        cost = tokens = requests = seconds = None
        if self.max_cost is not None:
            cost = max(0.0, float(MATH.subtract(self.max_cost, MATH.add(self._cost, self._reserved_cost))))
        if self.max_tokens is not None:
            tokens = max(0, self.max_tokens - self._tokens - self._reserved_tokens)
        if self.max_requests is not None:
            requests = max(0, self.max_requests - self._requests - self._reserved_requests)
        if self.max_seconds is not None:
            gone = 0.0 if self._since is None else monotonic() - self._since
            seconds = max(0.0, self.max_seconds - gone)
        return BudgetAmounts(cost, tokens, requests, seconds)

    # --- the account

    def reserve(self, cost: Decimal, tokens: int, requests: int = 1) -> None:
        """Set something aside for a call; each reservation must be settled once, with `settle`.

        Layers do this by themselves; it is here for what makes calls in other ways.

        Raises:
            BudgetExceededError: it does not fit into what is left; nothing is reserved then.
        """
        with self._lock:
            cap = self._cap(cost, tokens, requests)
            if cap:
                raise self._exceeded(cap, BudgetAmounts(float(cost), tokens, requests))
            if self._since is None:
                self._since = monotonic()
            self._reserved_cost = MATH.add(self._reserved_cost, cost)
            self._reserved_tokens += tokens
            self._reserved_requests += requests

    def _cap(self, cost: Decimal, tokens: int, requests: int) -> str | None:
        """The first cap that a reservation would break."""
        if self.max_seconds is not None:
            gone = 0.0 if self._since is None else monotonic() - self._since
            if gone >= self.max_seconds:
                return "max_seconds"
        if self.max_requests is not None and self._requests + self._reserved_requests + requests > self.max_requests:
            return "max_requests"
        if self.max_tokens is not None and self._tokens + self._reserved_tokens + tokens > self.max_tokens:
            return "max_tokens"
        if self.max_cost is not None:
            taken = MATH.add(self._cost, self._reserved_cost)
            # What is used up is used up, also for a call that costs nothing by our figures.
            if MATH.add(taken, cost) > self.max_cost or (taken >= self.max_cost and self.max_cost > 0):
                return "max_cost"
        return None

    def settle(
        self,
        reserved: tuple[Decimal, int, int],
        used: tuple[Decimal, int, int],
        *,
        estimated: int = 0,
        unpriced: int = 0,
    ) -> None:
        """Put what was really used in the place of a reservation; both are cost, tokens and requests."""
        with self._lock:
            self._reserved_cost = MATH.subtract(self._reserved_cost, reserved[0])
            self._reserved_tokens -= reserved[1]
            self._reserved_requests -= reserved[2]
            self._cost = MATH.add(self._cost, used[0])
            self._tokens += used[1]
            self._requests += used[2]
            self._estimated += estimated
            self._unpriced += unpriced

    def out_of_time(self) -> BudgetExceededError:
        """The error of a call that `max_seconds` has ended."""
        with self._lock:
            return self._exceeded("max_seconds", None)

    def _exceeded(self, cap: str, needed: BudgetAmounts | None) -> BudgetExceededError:
        used, left = self._used(), self._left()
        unit: Callable[[Any], str] = _UNITS[cap]
        name = cap.removeprefix("max_")
        most, spent, rest = unit(getattr(self, cap)), unit(getattr(used, name)), unit(getattr(left, name))
        hint = ""
        if cap == "max_seconds":
            text = f"the budget's time is over: {spent} of {most} have passed"
        else:
            need = unit(getattr(needed, name))
            held = unit(
                {"cost": self._reserved_cost, "tokens": self._reserved_tokens}.get(name, self._reserved_requests)
            )
            text = f"the budget has {rest} left of {most} ({spent} used, {held} reserved by calls under way); "
            text += f"this call may need {need}"
            if cap in ("max_tokens", "max_cost"):
                hint = "Give the call a smaller max_tokens, or the budget a smaller output_tokens. "
                text += f", with an answer as long as its own max_tokens allows (without one {self.output_tokens})"
        error = BudgetExceededError(f"{text}. {hint}Raise {cap} in a new Budget, or reset() this one", code=cap)
        error.cap, error.used, error.left, error.needed = cap, used, left, needed
        return error


_UNITS: Final[dict[str, Callable[[Any], str]]] = {
    "max_cost": lambda value: f"${float(value):.6g}",
    "max_tokens": lambda value: f"{value} tokens",
    "max_requests": lambda value: f"{value} requests",
    "max_seconds": lambda value: f"{value:.3g} s",
}


def _money(value: Any) -> Decimal | None:
    if value is None:
        return None
    try:
        found = None if isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        found = None
    if found is None or found.is_nan() or found < 0:
        raise LLMProviderConfigurationError(f"max_cost (Budget) must be US dollars, at least 0, not {value!r}")
    return found


_all: Final[WeakSet[Budget]] = WeakSet()


def _after_fork() -> None:
    for budget in tuple(_all):
        budget._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
