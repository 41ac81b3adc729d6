"""Limits in Redis, shared by the processes of all machines that reach it."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from providers import LLMProviderConfigurationError
from providers.notices import warn
from providers.resilience.cooldown import LONGEST
from providers.resilience.levels import Amounts, Rate, known_rates

from .address import Address
from .shared import Ask, Chore, Reply, SharedState, Spare

# Seconds: before the idle thread ends, after which one that waits looks whether others gave something back.
_REST: Final = 2.0
_LOOK: Final = 0.5
# Callers that are let in by one word with Redis.
_MOST: Final = 64


class _Waiter:
    __slots__ = ("amounts", "future", "gone", "granted", "loop")

    def __init__(self, amounts: Amounts) -> None:
        self.amounts = [float(amount) for amount in amounts]
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[int] = self.loop.create_future()
        self.gone = False
        self.granted = False

    def go(self, generation: int) -> None:
        if not self.future.done():
            self.future.set_result(generation)


class _Line:
    """One key's waiters of this process. The first of them may have paid already, and waits for its time.

    So at most one caller of a process holds what it has not used yet: that is what is lost where the process is killed.
    """

    __slots__ = ("at", "chores", "due", "generation", "held", "queue", "rates", "since", "spare", "streak")

    def __init__(self, rates: tuple[Rate, ...]) -> None:
        self.rates = rates
        self.queue: deque[_Waiter] = deque()
        self.chores: list[Chore] = []
        self.held: _Waiter | None = None
        self.due = 0.0  # when the one that has paid may go, by the monotonic clock
        self.at = 0.0  # when to look again at those who wait
        self.since = 0.0  # when the first chore came
        self.spare: Spare | None = None  # for as long as Redis cannot be used
        self.generation = 0  # of the cooldown, when last heard of
        self.streak = 0  # of cooldowns, when last heard of

    @property
    def busy(self) -> bool:
        return self.held is not None or bool(self.queue)


class RedisLimits:
    """A `LimitStore` in Redis: buckets and cooldowns that all processes share that use the same server and prefix.

    Each word is one script that Redis runs as a whole, by its own clock, so machines need not agree on the time. All
    words are said in a thread of its own, which ends when idle, so no event loop is held up. Names of keys hold what
    `limit_key` gives, a fingerprint of the credential; keys expire when they say nothing any more, and a cooldown is a
    time that passes. A process that is killed loses what one waiting caller had paid for each key, no more.

    Where Redis cannot be used there is one warning, and the limits hold for this process alone until it can be: a limit
    store never fails a call. Redis is looked for in the background then, at most every fifteen seconds.

    Args:
        redis_url: address of the server, as `redis://user:password@host:6379/0`. Redis 5 or newer.
        prefix: what all keys begin with.
        timeout: seconds that one word may take.

    Raises:
        LLMProviderConfigurationError: an argument is wrong.
        MissingDependencyError: the package `redis` is not installed.
    """

    def __init__(self, redis_url: Any, *, prefix: str = "llm-limits", timeout: float = 0.5) -> None:
        if not redis_url:
            raise LLMProviderConfigurationError("limits in Redis need an address: give redis_url (REDIS_URL)")
        if not isinstance(prefix, str) or not prefix:
            raise LLMProviderConfigurationError(f"prefix must be a text, not {prefix!r}")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
            raise LLMProviderConfigurationError(f"timeout must be a finite number above 0, not {timeout!r}")
        self._address = Address("redis_url", redis_url, "redis")
        self._prefix = prefix
        self._timeout = float(timeout)
        self._warned = False
        self._begin()
        atexit.register(_close, weakref.ref(self))

    def _begin(self) -> None:
        self._process = os.getpid()
        # Reentrant: a call that the garbage collector ends may come here in the middle.
        self._cond = threading.Condition(threading.RLock())
        self._lines: dict[str, _Line] = {}
        self._thread: threading.Thread | None = None
        self._closing = False
        self._state = SharedState(self._address, self._prefix, self._timeout)

    async def acquire(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> int:
        """See `LimitStore`."""
        waiter = _Waiter(amounts)
        with self._work():
            line = self._line(key, rates)
            if not line.busy:
                line.at = time.monotonic()
            line.queue.append(waiter)
        try:
            generation = await waiter.future
        except BaseException:
            with self._work():
                waiter.gone = True
                if waiter.granted:
                    self._chore(key, rates, _give_back(waiter.amounts))
                elif waiter in line.queue:
                    line.queue.remove(waiter)
                else:
                    line.at = time.monotonic()  # The thread finds that it has gone, and takes the next.
            raise
        if self._state.news and not self._warned:
            self._tell()
        return generation

    def charge(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> None:
        """See `LimitStore`."""
        with self._work():
            self._chore(key, rates, ["t", [float(amount) for amount in amounts]])

    def cool(self, key: str, rates: Sequence[Rate], seen: int, retry_after: float | None) -> None:
        """See `LimitStore`."""
        asked = retry_after if retry_after is not None and retry_after > 0 else 0.0
        with self._work():
            self._chore(key, rates, ["c", seen, min(asked, LONGEST)])

    def passed(self, key: str, rates: Sequence[Rate], seen: int) -> None:
        """See `LimitStore`. Said only where it changes something: most calls have nothing to tell."""
        line = self._lines.get(key)
        if line is not None and line.streak and self._process == os.getpid():
            with self._work():
                self._chore(key, rates, ["p", seen])

    def close(self) -> None:
        """Say what is left to say, end the thread and close the connection; both begin again at the next use. Waiters
        go on waiting.

        Takes as long as that saying takes, usually a millisecond.
        """
        with self._work(start=False):
            thread, self._closing = self._thread, True
        if thread is not None and thread is not threading.current_thread():
            thread.join(10 * self._timeout)
        with self._cond:
            self._closing = False
            if any(line.busy for line in self._lines.values()):
                self._start()
            elif self._thread is None:
                self._state.close()

    @property
    def fingerprint(self) -> str:
        """What two stores over the same server have in common; does not tell the address."""
        return hashlib.sha256(f"{self._prefix}\0{self._address.value}".encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} under {self._prefix!r}>"

    # --- on the callers' side

    def _work(self, *, start: bool = True) -> _Work:
        if self._process != os.getpid():
            # A forked child: the lock may be held by a thread that it has not, and the connection is the parent's.
            _inherited.append(self._state)
            self._begin()
        return _Work(self, start)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="llm-limits-redis", daemon=True)
            self._thread.start()

    def _line(self, key: str, rates: Sequence[Rate]) -> _Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(tuple(rates))
        elif line.rates != rates:
            line.rates = known_rates(line.rates, rates)
        return line

    def _chore(self, key: str, rates: Sequence[Rate], chore: Chore) -> None:
        line = self._line(key, rates)
        if not line.chores:
            line.since = time.monotonic()
        elif chore[0] == line.chores[-1][0] == "t" and len(chore[1]) == len(line.chores[-1][1]):
            # One word for thousands of calls that end at once.
            line.chores[-1] = ["t", [sum(pair) for pair in zip(chore[1], line.chores[-1][1], strict=True)]]
            return
        line.chores.append(chore)

    def _tell(self) -> None:
        self._warned = True
        # Where warnings are errors, one of the limits must still not cost an answer.
        with suppress(Warning):
            warn(f"{self._state.news[0]}; limits hold for this process alone until it is back")

    # --- in the thread

    def _run(self) -> None:
        try:
            while True:
                with self._cond:
                    key = self._next()
                    if key is None:
                        self._thread = None
                        return
                self._serve(key)
        finally:
            with self._cond:
                if self._thread is threading.current_thread():
                    self._thread = None  # It failed; the next use begins another.

    def _next(self) -> str | None:
        """The key to look after now; waits for it, and gives `None` after a rest without any."""
        rested = False
        while True:
            now = time.monotonic()
            # Who is due for longest goes first, so that a key with many calls does not keep the others waiting.
            due = [(line.since, key) for key, line in self._lines.items() if line.chores]
            due += [(line.at, key) for key, line in self._lines.items() if line.busy]
            first, key = min(due, default=(now + _REST, ""))
            if due and first <= now:
                return key
            if self._closing or (not due and rested):
                self._lines = {key: line for key, line in self._lines.items() if line.busy or line.spare}
                return None
            rested = not self._cond.wait(first - now)

    def _serve(self, key: str) -> None:
        """Do for one key what there is to do."""
        mono = time.monotonic()
        with self._cond:
            line = self._lines[key]
            if line.held is not None and (line.held.gone or line.held.loop.is_closed()):
                line.chores.append(_give_back(line.held.amounts))
                line.held = None
            taken = [line.queue.popleft() for _ in range(min(_MOST, len(line.queue)))]
            chores, line.chores = line.chores, []
            held = line.held
            ask = Ask(
                line.rates,
                chores,
                None if held is None else held.amounts,
                mono >= line.due,
                [waiter.amounts for waiter in taken],
            )
            generation, spare = line.generation, line.spare
        reply = self._state.say(key, ask)
        if reply is None:
            spare = spare or Spare(line.rates, generation)
            reply = spare.say(ask)
        else:
            spare = None
        with self._cond:
            line.spare = spare
            line.generation, line.streak = reply.generation, reply.streak
            self._settle(line, held, taken, reply)

    def _settle(self, line: _Line, held: _Waiter | None, taken: list[_Waiter], reply: Reply) -> None:
        mono = time.monotonic()
        granted = taken[: reply.granted]
        if held is not None and reply.freed:
            granted.insert(0, held)
            line.held = None
        rest = taken[reply.granted :]
        if reply.waits:
            if line.held is None:
                line.held, rest, line.due = rest[0], rest[1:], mono + reply.left
            else:
                # What others gave back brings its time forward; what others took behind it does not put it off.
                line.due = min(line.due, mono + reply.left)
            line.at = mono if line.held.gone else min(max(line.due, mono + reply.pause), mono + _LOOK)
        else:
            line.at = mono
        line.queue.extendleft(reversed([waiter for waiter in rest if not waiter.gone]))
        for waiter in granted:
            waiter.granted = True
            if waiter.gone:
                line.chores.append(_give_back(waiter.amounts))
                continue
            try:
                waiter.loop.call_soon_threadsafe(waiter.go, reply.generation)
            except RuntimeError:  # Its loop is closed, so it never goes.
                line.chores.append(_give_back(waiter.amounts))


class _Work:
    """Holds a store's lock, and leaves its thread at work."""

    __slots__ = ("_start", "_store")

    def __init__(self, store: RedisLimits, start: bool) -> None:
        self._store = store
        self._start = start

    def __enter__(self) -> None:
        self._store._cond.acquire()

    def __exit__(self, *_: object) -> None:
        store = self._store
        try:
            if self._start and not store._closing:
                store._start()
            store._cond.notify_all()
        finally:
            store._cond.release()


# What a forked child has of its parent's connections: never closed, since they are not its own.
_inherited: list[SharedState] = []


def _give_back(amounts: Amounts) -> Chore:
    return ["t", [-amount for amount in amounts]]


def _close(store: weakref.ref[RedisLimits]) -> None:
    found = store()
    if found is not None and found._thread is not None and found._process == os.getpid():
        with found._cond:
            for line in found._lines.values():
                line.queue.clear()
                if line.held is not None:
                    line.held.gone, line.at = True, 0.0
        found.close()
