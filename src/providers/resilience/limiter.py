"""Limits of requests and tokens for a time: from a model's profile, shared by all who use the same key and model."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Protocol

from ..exceptions import (
    LLMProviderConfigurationError,
    LLMProviderOverloadedError,
    LLMProviderQuotaError,
    LLMProviderRateLimitError,
)
from .gate import Gate
from .levels import UNLIMITED, Amounts, Clock, Rate, known_rates

logger = logging.getLogger("providers.limits")

patience: Final[ContextVar[Callable[[], float | None] | None]] = ContextVar("patience", default=None)
"""Asked by a call that has to wait for its turn: how many seconds it may, since somebody else could answer then; `None`
for as long as it takes."""

BURST: Final = 0.04
"""Share of a limit that may come at once."""

_SLACK: Final = 0.97
# Gates that are kept without being in use.
_KEPT: Final = 1024


class LimitStore(Protocol):
    """Where buckets and cooldowns are kept: in this process, in a file, on a server.

    A key's first use names its buckets; a later use with other rates changes them, but for a rate that is `UNLIMITED`:
    who does not know a limit leaves that bucket as it is for those who do. Amounts stand in the order of the rates.
    Nothing here blocks an event loop, and what does not wait may be called from any thread.
    """

    async def acquire(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> int:
        """Wait for the cooldown's end and for all amounts, and take them; gives the cooldown's generation.

        Callers of one process are served first come, first served; one that is cancelled takes nothing.
        """

    def charge(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> None:
        """Take amounts without waiting, into debt; negative ones are given back."""

    def cool(self, key: str, rates: Sequence[Rate], seen: int, retry_after: float | None) -> None:
        """Begin a cooldown, after a call of the generation `seen` was told to wait."""

    def passed(self, key: str, rates: Sequence[Rate], seen: int) -> None:
        """Note that a call of the generation `seen` went well."""


class LocalLimits:
    """Buckets and cooldowns of this process, for all of its event loops and threads.

    Args:
        clock: seconds that never run backwards.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # The garbage collector may end a call while this thread holds it.
        self._gates: dict[tuple[str, int], Gate] = {}

    def gate(self, key: str, rates: Sequence[Rate]) -> Gate:
        """The queue of a key."""
        found = self._gates.get((key, len(rates)))
        if found is None:
            with self._lock:
                if len(self._gates) >= _KEPT:
                    self._gates = {name: gate for name, gate in self._gates.items() if not gate.idle}
                found = self._gates.setdefault((key, len(rates)), Gate(rates, self._clock))
        shapes = found.shapes()
        if shapes != tuple(rates):
            wanted = known_rates(shapes, rates)
            if shapes != wanted:
                found.reshape(wanted)
        return found

    def undisturbed(self, key: str, rates: Sequence[Rate]) -> bool:
        """Whether nobody with this key was ever told to wait, and nobody waits."""
        gate = self._gates.get((key, len(rates)))
        return gate is None or (not gate.cooldown.generation and not gate.waiting)

    async def acquire(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> int:
        """See `LimitStore`."""
        gate = self.gate(key, rates)
        # Who knows no limit does not stand in line behind those who do.
        return await (gate.outlast() if all(rate == UNLIMITED for rate in rates) else gate.acquire(amounts))

    def charge(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> None:
        """See `LimitStore`."""
        self.gate(key, rates).charge(amounts)

    def cool(self, key: str, rates: Sequence[Rate], seen: int, retry_after: float | None) -> None:
        """See `LimitStore`."""
        self.gate(key, rates).cool(seen, retry_after)

    def passed(self, key: str, rates: Sequence[Rate], seen: int) -> None:
        """See `LimitStore`."""
        self.gate(key, rates).passed(seen)


IN_PROCESS: Final = LocalLimits()
"""What all limiters of this process share unless they are given a store of their own."""


def limit_key(provider: str, credential: str | None, model: str) -> str:
    """What callers share limits by. Of the key there is only a fingerprint in it, which does not tell the key.

    Args:
        provider: the provider's name.
        credential: the key, or `None` for a backend without one.
        model: the model's name.
    """
    mark = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).hexdigest()[:16] if credential else "-"
    return f"{provider}/{mark}/{model}"


class Limiter:
    """Keeps calls of one model within its requests and tokens per minute, and within what the backend asks to wait.

    In any minute it lets in at most the limit: `burst` of it at once, the rest spread evenly, three hundredths of that
    kept back for calls that are longer on their way than others. So about 93 % of a large limit can be used. A call of
    more tokens than the burst waits until the bucket is full, then goes at once and leaves a debt; a minute that ends
    with it may hold as many tokens more than the limit as the call exceeds the burst by.

    Args:
        model_profile: what has the model's `model_name`, `requests_per_minute` and `tokens_per_minute`, such as a
            `ModelProfile`; a limit that it does not know is none.
        requests_per_minute: goes before the profile's.
        tokens_per_minute: goes before the profile's; prompt and answer together.
        model: the model's name, where the profile's is not meant.
        provider: the provider's name.
        credential: the key that is used; limiters with the same provider, key and model share one limit.
        store: where the limits are kept; those of this process where left out.
        period: seconds of the window that the limits are meant for.
        burst: share of a limit that may come at once, above 0 and at most 0.5.

    Raises:
        LLMProviderConfigurationError: a figure is out of range.
    """

    def __init__(
        self,
        model_profile: Any = None,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        model: str | None = None,
        provider: str = "",
        credential: str | None = None,
        store: LimitStore | None = None,
        period: float = 60.0,
        burst: float = BURST,
    ) -> None:
        self.model = model or str(getattr(model_profile, "model_name", None) or "")
        self.requests_per_minute = _limit("requests_per_minute", requests_per_minute, model_profile)
        self.tokens_per_minute = _limit("tokens_per_minute", tokens_per_minute, model_profile)
        self.key = limit_key(provider, credential, self.model)
        self.store: LimitStore = IN_PROCESS if store is None else store
        if not 0 < burst <= 0.5 or not 0 < period < float("inf"):
            raise LLMProviderConfigurationError("burst must be above 0 and at most 0.5, and period finite and above 0")
        # Always both, so that all limiters of a key share its cooldown, whichever limits they know.
        rates = [UNLIMITED, UNLIMITED]
        if self.requests_per_minute is not None:
            at_once = max(1, int(self.requests_per_minute * burst))
            # Requests are whole, so n of them at once leave room for one more than the limit less n.
            rates[0] = Rate(at_once, (self.requests_per_minute - at_once + 1) * _SLACK / period)
        if self.tokens_per_minute is not None:
            some = self.tokens_per_minute * burst
            rates[1] = Rate(some, (self.tokens_per_minute - some) * _SLACK / period)
        self.rates = tuple(rates)
        self._free = self.rates == (UNLIMITED, UNLIMITED) and isinstance(self.store, LocalLimits)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to wait for and nothing to keep account of: this limiter has no limits, and nobody
        with this key was ever told to wait. A call may be made without `limit` then, and hands its error to `cool`."""
        return self._free and self.store.undisturbed(self.key, self.rates)  # type: ignore[attr-defined]

    def cool(self, error: BaseException, pause: float | None = None) -> None:
        """Begin a cooldown, where the error of a call that was made while `is_idle` asks to wait; see `LimitedCall`."""
        if asks_to_wait(error) and (wait := _hint(error, pause)) != 0:
            self.wait(0, wait)

    def wait(self, seen: int, seconds: float | None) -> None:
        """Have everybody with this key wait; see `LimitStore.cool`."""
        logger.info("%s: the backend asks to wait, so all calls with this key do (%s s)", self.model, seconds)
        self.store.cool(self.key, self.rates, seen, seconds)

    def limit(self, tokens: float = 0, requests: float = 1, *, output: float = 0) -> LimitedCall:
        """What to make one call in: `async with limiter.limit(tokens=1000, requests=1) as ctx:`.

        Entering waits until the call may be made. Leaving settles the account: `ctx.output_tokens = n` charges what the
        answer took, `ctx.input_tokens = n` corrects `tokens`. A block that ends with the backend's "too many requests"
        begins a cooldown for everybody.

        Args:
            tokens: tokens of the prompt, as far as they are known.
            requests: requests to be made in the block.
            output: tokens that the answer is expected to take; kept free for it, and settled.

        Raises:
            LLMProviderConfigurationError: more than the limit of a whole minute, so it could never go.
        """
        asked: tuple[tuple[str, float, float | None], ...] = (
            ("requests", requests, self.requests_per_minute),
            ("tokens", tokens + output, self.tokens_per_minute),
        )
        for name, amount, most in asked:
            if not 0 <= amount < float("inf"):
                raise LLMProviderConfigurationError(f"{name} of a call must be a finite number, at least 0: {amount!r}")
            if most is not None and amount > most:
                raise LLMProviderConfigurationError(
                    f"{amount:g} {name} in one call are more than the limit of {most:g} a minute", model=self.model
                )
        amounts = [0.0 if most is None else amount for _, amount, most in asked]
        return LimitedCall(self, tuple(amounts), tokens, output)

    def __repr__(self) -> str:
        return f"<Limiter {self.key}: {self.requests_per_minute} requests, {self.tokens_per_minute} tokens a minute>"


class LimitedCall:
    """One call within a limiter; made by `Limiter.limit`, for one use.

    Attributes:
        output_tokens: tokens that the answer took, set by whoever makes the call; `None` leaves what was expected.
        input_tokens: tokens that the prompt took; `None` leaves what was asked for.
        pause: seconds of a cooldown whose length the backend does not name, 0 for none then; `None` for one that
            doubles from 1 s on.
    """

    __slots__ = ("_amounts", "_generation", "_limiter", "_output", "_tokens", "input_tokens", "output_tokens", "pause")

    def __init__(self, limiter: Limiter, amounts: tuple[float, ...], tokens: float, output: float) -> None:
        self._limiter = limiter
        self._amounts = amounts
        self._tokens = tokens
        self._output = output
        self._generation = 0
        self.input_tokens: float | None = None
        self.output_tokens: float | None = None
        self.pause: float | None = None

    async def __aenter__(self) -> LimitedCall:
        limiter = self._limiter
        turn = limiter.store.acquire(limiter.key, limiter.rates, self._amounts)
        asked = patience.get()
        most = asked() if asked is not None else None
        if most is None:
            self._generation = await turn
            return self
        try:
            self._generation = await asyncio.wait_for(turn, most)
        except TimeoutError:
            raise LLMProviderRateLimitError(
                f"no turn within {most:g} s: all calls with this key wait, for its limits or as the backend asked",
                model=limiter.model,
            ) from None
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        limiter = self._limiter
        store, key, rates = limiter.store, limiter.key, limiter.rates
        refused = isinstance(exc, LLMProviderRateLimitError)
        if limiter.tokens_per_minute is not None:
            spent: float = 0.0
            if self.input_tokens is not None or self.output_tokens is not None or not refused:
                spent += self._tokens if self.input_tokens is None else self.input_tokens
                spent += self._output if self.output_tokens is None else self.output_tokens
            more = spent - self._tokens - self._output
            if more:
                store.charge(key, rates, (0, more))
        if exc is None:
            store.passed(key, rates, self._generation)
        elif asks_to_wait(exc) and (wait := _hint(exc, self.pause)) != 0:
            limiter.wait(self._generation, wait)


def asks_to_wait(error: BaseException) -> bool:
    """Whether an error is the backend's wish that everybody with this key waits.

    An empty account is none, since waiting does not help; a backend without capacity is one where it says how long.
    """
    if isinstance(error, LLMProviderRateLimitError):
        return not isinstance(error, LLMProviderQuotaError)
    return isinstance(error, LLMProviderOverloadedError) and error.retry_after is not None


def _hint(error: BaseException, pause: float | None) -> float | None:
    """Seconds to wait: what the backend asks for, above 0, else `pause`."""
    asked = getattr(error, "retry_after", None)
    return asked if asked is not None and asked > 0 else pause


def _limit(name: str, given: float | None, profile: Any) -> float | None:
    value: Any = given
    if value is None:
        value = getattr(profile, name, None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        if given is not None:
            raise LLMProviderConfigurationError(f"{name} must be a number, not {given!r}")
        data = getattr(profile, "data", None)
        value = data.get(name) if isinstance(data, Mapping) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < float("inf"):
        raise LLMProviderConfigurationError(f"{name} must be a finite number of at least 1, not {value!r}")
    return value
