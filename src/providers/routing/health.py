"""Whether a target is asked at all: a circuit breaker that also keeps the pauses that a backend asks for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final
from weakref import WeakSet

_LONGEST: Final = 3600.0


class Health:
    """A circuit breaker. Closed: all calls are let through. Open: none, until it is due. Then half-open: exactly one
    call, the probe, which closes it or opens it again.

    Each call takes a ticket when it begins and says with it how it ended. A ticket from before the breaker opened
    counts no more: fifty calls that fail together open it once, and one that began in better times does not close it.
    A probe whose end nobody tells (its task was destroyed) blocks the next one for one cooldown only. Threads and event
    loops may share it.

    Args:
        failures: outages in a row that open it.
        cooldown: seconds that it stays open, where the backend names no time of its own.
        clock: monotonic time in seconds.
    """

    def __init__(self, failures: int = 5, cooldown: float = 30.0, clock: Callable[[], float] = monotonic) -> None:
        self._most = failures
        self._cooldown = cooldown
        self._clock = clock
        self._failures = 0
        self._turn = 0
        self._due: float | None = None  # None: closed
        self._lease: float | None = None  # until when a probe is waited for
        self._holders = 0  # the probe, and calls that were made beside it since nobody else could answer
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        # Also in a forked child, where another thread may have held it. Reentrant: the garbage collector may end a call
        # while this very thread holds it.
        self._lock = threading.RLock()

    @property
    def state(self) -> str:
        """`"closed"`, `"open"` or `"half-open"`."""
        with self._lock:
            if self._due is None:
                return "closed"
            return "half-open" if self._clock() >= self._due else "open"

    @property
    def wait(self) -> float:
        """Seconds until a probe is let through; 0 where one is now, or where it is closed."""
        with self._lock:
            return 0.0 if self._due is None else max(0.0, max(self._due, self._lease or self._due) - self._clock())

    def forget(self) -> None:
        """Begin anew, closed; calls under way count no more."""
        with self._lock:
            self._turn += 1
            self._failures, self._holders, self._due, self._lease = 0, 0, None, None

    def enter(self) -> int | None:
        """The ticket of a call that begins; `None` where the target shall not be asked now."""
        if self._due is None:
            return self._turn
        with self._lock:
            if self._due is None:
                return self._turn
            now = self._clock()
            if now < self._due or (self._lease is not None and now < self._lease):
                return None
            return self._probe(now)

    def force(self) -> int:
        """The ticket of a call that nobody else can answer, so that it is made in any case."""
        with self._lock:
            if self._due is None:
                return self._turn
            if self._lease is not None:
                self._holders += 1
                return self._turn
            return self._probe(self._clock())

    def _probe(self, now: float) -> int:
        self._turn += 1
        self._holders = 1
        self._lease = now + self._cooldown
        return self._turn

    def up(self, ticket: int) -> None:
        """The backend answered, if only with a refusal: it is there."""
        if self._due is None and not self._failures:
            return
        with self._lock:
            if ticket == self._turn:
                self._failures, self._due, self._lease = 0, None, None

    def begun(self, ticket: int) -> None:
        """The backend has begun to answer. A probe closes the breaker with that, but one more outage opens it again."""
        if self._due is None:
            return
        with self._lock:
            if ticket == self._turn:
                self._failures, self._due, self._lease = self._most - 1, None, None

    def down(self, ticket: int, wait: float | None = None) -> None:
        """The backend was not reached or failed.

        Args:
            ticket: of the call.
            wait: seconds that it asks to be left alone, which go before the cooldown where it opens now.
        """
        with self._lock:
            if ticket == self._turn:
                self._failures += 1
                if self._due is not None or self._failures >= self._most:
                    self._open(wait)

    def rest(self, ticket: int, wait: float | None = None) -> None:
        """Open at once: the backend works, but asking it is of no use for a time.

        Args:
            ticket: of the call.
            wait: seconds; the cooldown where left out.
        """
        with self._lock:
            if ticket == self._turn:
                self._open(wait)

    def left(self, ticket: int) -> None:
        """The call ended without a word about the backend, for instance since it was cancelled."""
        if self._due is None:
            return
        with self._lock:
            if ticket == self._turn:
                self._holders -= 1
                if self._holders <= 0:
                    self._lease = None

    def _open(self, wait: float | None) -> None:
        # "Not above 0" is true of NaN too.
        seconds = wait if wait is not None and wait > 0 else self._cooldown
        self._turn += 1
        self._failures = 0
        self._due = self._clock() + min(seconds, max(_LONGEST, self._cooldown))
        self._lease = None


_all: Final[WeakSet[Health]] = WeakSet()


def _after_fork() -> None:
    for health in tuple(_all):
        health._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
