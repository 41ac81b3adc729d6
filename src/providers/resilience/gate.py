"""A fair queue before buckets and a cooldown, for many event loops and threads at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..exceptions import LLMProviderConfigurationError
from .cooldown import Cooldown
from .levels import Amounts, Clock, Levels, Rate


class _Waiter:
    """One caller in the queue, with a timer on its own event loop."""

    __slots__ = ("amounts", "future", "generation", "granted", "loop", "mark", "thread", "timer")

    def __init__(self, amounts: Amounts, mark: list[float]) -> None:
        self.amounts = amounts
        self.mark = mark
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.thread = threading.get_ident()
        self.timer: asyncio.TimerHandle | None = None
        self.granted = False
        self.generation = 0

    def call(self, function: Callable[..., Any], *args: Any) -> bool:
        """Have its loop's thread call something; false where that loop is closed."""
        if self.loop.is_closed():
            return False
        if self.thread == threading.get_ident():
            function(*args)
            return True
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # Closed in between.
            return False
        return True

    def go(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Gate:
    """A queue, first come first served, before some buckets and a cooldown; for all loops and threads of a process.

    Each waiter has a timer of its own, and whichever fires lets in whoever is first. So nobody depends on another
    event loop being alive: one that stopped with waiters in the queue costs what those asked for, once.

    Args:
        rates: the buckets; none where only the cooldown counts.
        clock: seconds that never run backwards.
    """

    __slots__ = ("_clock", "_enqueued", "_levels", "_lock", "_queue", "_served", "cooldown")

    def __init__(self, rates: Sequence[Rate] = (), clock: Clock = time.monotonic) -> None:
        self._clock = clock
        # Reentrant: a call that is thrown away unfinished gives its place back from the garbage collector, which may
        # run while this very thread holds the lock.
        self._lock = threading.RLock()
        self._levels = Levels(rates, clock())
        self._queue: deque[_Waiter] = deque()
        # All that ever queued and all that ever left: their difference is what stands before a waiter.
        self._enqueued = [0.0] * len(rates)
        self._served = [0.0] * len(rates)
        self.cooldown = Cooldown()

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Whether forgetting it would change nothing: nobody waits, no cooldown runs, all buckets are full."""
        with self._lock:
            now = self._clock()
            full = [rate.capacity for rate in self._levels.rates]
            return not self._queue and not self.cooldown.remaining(now) and not self._levels.wait(full, now)

    def levels(self) -> list[float]:
        """Units in each bucket now."""
        with self._lock:
            self._levels.refill(self._clock())
            return list(self._levels.levels)

    def reshape(self, rates: Sequence[Rate]) -> None:
        """Take other limits, for those that wait too. The number of buckets stays.

        Raises:
            LLMProviderConfigurationError: the number of buckets differs.
        """
        with self._lock:
            if len(rates) != len(self._levels.rates):
                raise LLMProviderConfigurationError("the number of buckets of a gate cannot change")
            self._levels.refill(self._clock())
            self._levels.reshape(rates)
        self._pump()

    def shapes(self) -> tuple[Rate, ...]:
        """The buckets' shapes."""
        return self._levels.rates

    def try_take(self, amounts: Amounts) -> bool:
        """Take amounts if they are there and nobody waits for them."""
        with self._lock:
            if self._queue or self._wait(amounts, self._clock()):
                return False
            self._levels.take(amounts)
            return True

    async def acquire(self, amounts: Amounts) -> int:
        """Wait until it is this caller's turn, and take the amounts.

        A caller that is cancelled gives its place back, and what it was given too.

        Returns:
            The cooldown's generation, to be handed to `cool` or `passed` with what became of the call.
        """
        if self.try_take(amounts):
            return self.cooldown.generation
        with self._lock:
            self._enqueued = [sum(pair) for pair in zip(self._enqueued, amounts, strict=True)]
            waiter = _Waiter(amounts, self._enqueued)
            self._queue.append(waiter)
        try:
            self._arm(waiter)
            self._pump()
            await waiter.future
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            waiter.disarm()
        return waiter.generation

    async def outlast(self) -> int:
        """Wait for the cooldown's end alone, without standing in line; gives its generation."""
        while True:
            with self._lock:
                rest = self.cooldown.remaining(self._clock())
                if not rest:
                    return self.cooldown.generation
            await asyncio.sleep(max(rest, 0.0005))

    def charge(self, amounts: Amounts) -> None:
        """Take amounts at once, into debt where they are not there; negative ones are given back."""
        with self._lock:
            self._levels.refill(self._clock())
            self._levels.take(amounts)
        if self._queue and min(amounts, default=0) < 0:
            self._pump()

    def cool(self, seen: int, retry_after: float | None = None) -> None:
        """Let nobody in for a while; see `Cooldown.begin`."""
        with self._lock:
            now = self._clock()
            self.cooldown.begin(now, seen, retry_after)
            self._levels.refill(now)
            self._levels.drain(self.cooldown.remaining(now))

    def passed(self, seen: int) -> None:
        """Note a call that went well; see `Cooldown.passed`."""
        if self.cooldown.streak:
            with self._lock:
                self.cooldown.passed(seen)

    def _wait(self, amounts: Amounts, now: float) -> float:
        return max(self._levels.wait(amounts, now), self.cooldown.remaining(now))

    def _arm(self, waiter: _Waiter) -> None:
        """Set a waiter's timer to the time at which it should be its turn; in the waiter's own thread."""
        waiter.disarm()
        if waiter.future.done():
            return
        with self._lock:
            if waiter.granted:
                return
            now = self._clock()
            delay = self._wait(waiter.amounts, now)
            figures = zip(
                self._levels.rates, self._levels.levels, waiter.mark, self._served, waiter.amounts, strict=True
            )
            for rate, level, mark, served, amount in figures:
                before = mark - served - amount
                delay = max(delay, (before + min(amount, rate.capacity) - level) / rate.per_second)
        # Never in the same turn of the loop, or rounding could make it spin.
        waiter.timer = waiter.loop.call_later(max(delay, 0.0005), self._ring, waiter)

    def _ring(self, waiter: _Waiter) -> None:
        waiter.timer = None
        self._pump()
        self._arm(waiter)

    def _pump(self) -> None:
        """Let in whoever is first, as many as may go, and have the next one look at its timer."""
        head: _Waiter | None = None
        lost = True
        while lost:
            granted: list[_Waiter] = []
            with self._lock:
                now = self._clock()
                while self._queue:
                    waiter = self._queue[0]
                    gone = waiter.loop.is_closed()
                    if not gone and self._wait(waiter.amounts, now):
                        break
                    if not self._queue or self._queue[0] is not waiter:
                        continue
                    self._queue.popleft()
                    if gone:
                        self._serve(waiter)
                        continue
                    self._levels.take(waiter.amounts)
                    self._serve(waiter)
                    waiter.granted, waiter.generation = True, self.cooldown.generation
                    granted.append(waiter)
                head = self._queue[0] if self._queue else None
            lost = False
            for waiter in granted:
                if not waiter.call(waiter.go):
                    # Its loop is closed, so it never goes; the place is for the next.
                    self._take_back(waiter)
                    lost = True
        if head is not None:
            head.call(self._arm, head)

    def _serve(self, waiter: _Waiter) -> None:
        self._served = [sum(pair) for pair in zip(self._served, waiter.amounts, strict=True)]

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._queue:
                self._queue.remove(waiter)
                self._serve(waiter)
            elif not self._take_back(waiter):
                return
        self._pump()

    def _take_back(self, waiter: _Waiter) -> bool:
        # Once: a waiter of a closed loop is thrown away later, and then gives up what it has.
        with self._lock:
            granted, waiter.granted = waiter.granted, False
            if granted:
                self._levels.take([-amount for amount in waiter.amounts])
            return granted
