"""One walk along the targets of a fallback: who is asked next, what is kept of those that failed, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ..exceptions import LLMProviderError, LLMProviderTokenLimitError, LLMProviderUnsupportedOperationError
from ..request_builder import wants
from ..resilience.cooldown import FIRST
from ..resilience.limiter import patience
from ..types import Request, usage_of_error
from .choice import surely
from .rules import OPENING, Rule, rule_of
from .targets import Target

logger = logging.getLogger("providers.routing")

MovesOn = Callable[[LLMProviderError], bool | None]

PATIENCE: Final = 1.0
"""Seconds that a call stands in line before a target's limits where another target could be asked at once."""


class Try:
    """A target that is asked.

    Attributes:
        target: who.
        request: with what.
        opening: whether it has yet to be opened.
    """

    __slots__ = ("_ticket", "opening", "request", "target")

    def __init__(self, target: Target, request: Any, ticket: int) -> None:
        self.target = target
        self.request = request
        self.opening = True
        self._ticket: int | None = ticket

    def up(self) -> None:
        """The target has answered."""
        if self._ticket is not None:
            self.target.health.up(self._ticket)

    def begun(self) -> None:
        """The target has begun to answer."""
        if self._ticket is not None:
            self.target.health.begun(self._ticket)

    def fails(self, rule: Rule, error: LLMProviderError) -> None:
        """Tell the target's health what its error says of it."""
        ticket, self._ticket = self._ticket, None
        health = self.target.health
        if ticket is None:
            return
        if rule.sign == "answers":
            health.up(ticket)
        elif rule.sign == "outage":
            health.down(ticket, error.retry_after)
        elif rule.sign == "broken":
            health.rest(ticket, error.retry_after)
        elif rule.sign == "pause":
            # Where no time is named, as long as the limit layer waits: a call must not stand there in vain.
            health.rest(ticket, error.retry_after if (error.retry_after or 0) > 0 else FIRST)
        else:
            health.left(ticket)

    def ours(self, error: Exception) -> LLMProviderError:
        """What the target raised as one of our errors; a mistake in its own code too."""
        if isinstance(error, LLMProviderError):
            return error
        bug = self.target.provider._calls.bug(error)
        bug.__cause__ = error
        return bug

    def end(self) -> None:
        """It is over; a probe of which nothing is known makes way for the next one."""
        if self._ticket is not None:
            self.target.health.left(self._ticket)


class Walk:
    """Picks the targets of one attempt, one after the other, and keeps account of them.

    Args:
        provider: the fallback's name.
        order: the targets in the order of choice.
        request: what the call says.
        ask: gives the request for a target; raises what the target has against it.
        decides: asked first whether an error moves on; `None` leaves it to the table.
        past: labels of targets whose windows an earlier attempt of this call has found too small.

    Attributes:
        attempts: what became of each target that was asked or passed over; those that follow the retry layer's shape.
        overflowed: labels of targets whose windows were too small.
    """

    def __init__(
        self,
        provider: str,
        order: Sequence[Target],
        request: Any,
        decides: MovesOn | None = None,
        past: frozenset[str] = frozenset(),
    ) -> None:
        self.attempts: list[dict[str, Any]] = []
        self.overflowed = past
        self._provider = provider
        self._order = order
        self._request = request
        self._decides = decides
        self._at = 0
        self._asked = 0
        # Of the largest that was too small.
        self._window = max((target.window or 0 for target in order if target.label in past), default=0) if past else 0
        self._resting: list[tuple[Target, Any, dict[str, Any]]] = []
        self._errors: list[tuple[LLMProviderError, dict[str, Any]]] = []
        self._small: set[str] | None = None
        self._broken: tuple[LLMProviderError, dict[str, Any]] | None = None

    # --- who is next

    def next(self) -> Try | None:
        """The next target to be asked; `None` where there is no other one.

        A target that rests is asked only where this walk would end without any request: then the one that is due first.
        """
        while self._at < len(self._order):
            target = self._order[self._at]
            self._at += 1
            try:
                request = self._made(target)
            except LLMProviderError as error:
                error.provider = error.provider or target.provider.name
                self._note(target, error, OPENING)
                continue
            reason = self._unfit(target, request)
            if reason is not None:
                self.attempts.append(passed_over(target, reason))
                continue
            ticket = target.health.enter()
            if ticket is not None:
                self._asked += 1
                return Try(target, request, ticket)
            note = passed_over(target, f"it rests after failures, for another {target.health.wait:.1f} s")
            self._resting.append((target, request, note))
            self.attempts.append(note)
        if self._resting and not self._asked:
            self._asked += 1
            target, request, note = first = min(self._resting, key=lambda item: item[0].health.wait)
            self._resting.remove(first)
            self.attempts[:] = [item for item in self.attempts if item is not note]
            return Try(target, request, target.health.force())
        return None

    @contextmanager
    def patient(self) -> Iterator[None]:
        """While a target is asked: how long it may let the call stand in line. Around the asking alone, for between two
        pieces of a stream the consumer's code runs."""
        outer = patience.get()

        def most() -> float | None:
            if any(self._could_be_next(target) for target in self._order[self._at :]):
                return PATIENCE
            return outer() if outer is not None else None

        token = patience.set(most)
        try:
            yield
        finally:
            patience.reset(token)

    def _could_be_next(self, target: Target) -> bool:
        try:
            return not target.health.wait and self._unfit(target, self._made(target)) is None
        except LLMProviderError:
            return False

    def _made(self, target: Target) -> Any:
        return target.request(self._request)

    def _unfit(self, target: Target, request: Request) -> str | None:
        """Why a target cannot be asked at all, or `None`."""
        wanted = wants(request)
        if wanted and not wanted <= target.powers:
            return f"it does not do {', '.join(sorted(wanted - target.powers))}"
        if target.label in self.overflowed:
            return "the prompt did not fit its window"
        if self._window:
            window = target.window
            if window is not None and window <= self._window:
                return f"its window of {window} tokens is no larger than one that the prompt did not fit"
        if len(self._order) > 1 and target.label in self._too_small():
            return f"its window of {target.window} tokens is too small for the prompt"
        return None

    def _too_small(self) -> set[str]:
        """Targets whose windows the prompt surely does not fit; none of them where it fits no other one either."""
        if self._small is None:
            least = surely(self._request)
            small = {target.label for target in self._order if least and (target.window or least) < least}
            self._small = small if len(small) < len(self._order) else set()
        return self._small

    # --- what became of it

    def fail(self, tried: Try, error: LLMProviderError, shown: bool = False, *, replay: bool = True) -> bool:
        """Keep account of a target that failed.

        Args:
            tried: the target that was asked.
            error: what it raised.
            shown: whether the consumer has a piece of its answer.
            replay: whether another one may answer then.

        Returns:
            Whether the next target is asked; else the error is to be raised.
        """
        target = tried.target
        error.provider, error.model = error.provider or target.provider.name, error.model or target.model
        rule = rule_of(error)
        if tried.opening and not rule.moves_on:
            rule = OPENING
        tried.fails(rule, error)
        if tried.opening or rule.kind == "unsupported":
            self._asked -= 1  # no request was made
        moves = rule.moves_on
        if self._decides is not None and (said := self._decides(error)) is not None:
            moves = said
        if not moves or (shown and not replay):
            inner = error.failed_attempts or () if target.mixed else ()
            error.failed_attempts = [*self.attempts, *inner] or None
            error.target = _name(target, error)
            return False
        if isinstance(error, LLMProviderTokenLimitError):
            self.overflowed = self.overflowed | {target.label}
            self._window = max(self._window, target.window or 0)
        self._note(target, error, rule)
        if shown:
            self._broken = self._errors[-1]
        return True

    def _note(self, target: Target, error: LLMProviderError, rule: Rule) -> None:
        if target.mixed:  # what the fallback in there has tried is part of the account
            self.attempts += error.failed_attempts or ()
        note = {
            "error": type(error).__name__,
            "status": error.status_code,
            "usage": usage_of_error(error),
            "wait": None,
            "provider": error.provider if target.mixed else target.provider.name,
            "model": error.model if target.mixed else target.model,
            "target": _name(target, error),
        }
        self.attempts.append(note)
        self._errors.append((error, note))
        logger.debug("target %s failed (%s), the next one is asked", target.label, note["error"])
        if rule.sign == "broken":
            target.warn(rule.kind, f"{self._provider}: {target.label} is passed over, {rule.why}: {error}")

    def end(self) -> LLMProviderError:
        """The error of a walk that found no answer.

        That of the target whose broken answer the consumer has; else that which another walk may mend soonest; else the
        last one.
        """
        if not self._errors:
            reasons = "; ".join(f"{item['target']}: {item['reason']}" for item in self.attempts)
            found = LLMProviderUnsupportedOperationError(
                f"no target can answer this: {reasons}", provider=self._provider
            )
            found.failed_attempts = self.attempts or None
            return found
        passing = [item for item in self._errors if item[0].retryable]
        # Of several that are as soon, the last.
        soonest = min(reversed(passing), key=lambda item: item[0].retry_after or 0) if passing else self._errors[-1]
        error, note = self._broken or soonest
        error.failed_attempts = [item for item in self.attempts if item is not note] or None
        error.target = note["target"]
        told = [f"{other.provider or ''}: {other.message}" for other, _ in self._errors if other is not error]
        if told:
            error.add_note(f"the other targets of this {self._provider}: {'; '.join(told)}")
        return error

    def forget(self) -> None:
        """Let go of the errors, whose frames hold this walk."""
        self._errors.clear()
        self._broken = None


def _name(target: Target, error: LLMProviderError) -> str:
    """The name of the target that failed; of a fallback among the targets, its own target's."""
    return error.target if target.mixed and error.target is not None else target.label


def passed_over(target: Target, reason: str) -> dict[str, Any]:
    """The account of a target that was not asked."""
    return {
        "error": None,
        "status": None,
        "usage": None,
        "wait": None,
        "provider": target.provider.name,
        "model": target.model,
        "target": target.label,
        "reason": reason,
    }
