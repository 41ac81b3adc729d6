"""What limit stores share whose buckets lie elsewhere: a line of callers for each key, and one thread that asks."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final

from .cooldown import LONGEST, Cooldown
from .levels import Amounts, Levels, Rate, known_rates

# Seconds: before the idle thread ends, after which one that waits looks whether others gave something back.
_REST: Final = 2.0
LOOK: Final = 0.5

Chore = list[Any]
"""`["t", amounts]` takes, `["c", seen, seconds or 0]` begins a cooldown, `["p", seen]` notes a call that went well."""


def give_back(amounts: Amounts) -> Chore:
    """What puts amounts back."""
    return ["t", [-amount for amount in amounts]]


def do_chores(chores: Sequence[Chore], levels: Levels, cooldown: Cooldown) -> None:
    """Do chores to a key's state, at the time that its levels were filled to."""
    for word, *values in chores:
        if word == "t":
            levels.take(values[0])
        elif word == "c":
            cooldown.begin(levels.stamp, values[0], values[1] or None)
            levels.drain(cooldown.remaining(levels.stamp))
        else:
            cooldown.passed(values[0])


class Waiter:
    """One caller in a line, on its own event loop."""

    __slots__ = ("amounts", "future", "gone", "granted", "loop")

    def __init__(self, amounts: Amounts) -> None:
        self.amounts = [float(amount) for amount in amounts]
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[int] = self.loop.create_future()
        self.gone = False
        self.granted = False

    @property
    def lost(self) -> bool:
        """Whether nobody waits here any more."""
        return self.gone or self.loop.is_closed()

    def go(self, generation: int) -> None:
        """Let it in; on its loop's thread."""
        if not self.future.done():
            self.future.set_result(generation)


class Line:
    """One key's waiters of this process. The first of them may have paid already, and waits for its time.

    So at most one caller of a process holds what it has not used yet: that is what is lost where the process is killed.
    """

    __slots__ = ("at", "chores", "due", "generation", "held", "queue", "rates", "since", "spare", "streak")

    def __init__(self, rates: Sequence[Rate]) -> None:
        self.rates = tuple(rates)
        self.queue: deque[Waiter] = deque()
        self.chores: list[Chore] = []
        self.held: Waiter | None = None
        self.due = 0.0  # when the one that has paid may go, by the monotonic clock
        self.at = 0.0  # when to look again at those who wait
        self.since = 0.0  # when the first chore came
        self.spare: Any = None  # the state in this process, for as long as the other place cannot be used
        self.generation = 0  # of the cooldown, when last heard of
        self.streak = 0  # of cooldowns, when last heard of

    @property
    def busy(self) -> bool:
        """Whether somebody waits."""
        return self.held is not None or bool(self.queue)


class LinedLimits(ABC):
    """Base of a `LimitStore` whose state lies elsewhere, in a file or on a server.

    All work with that place is done in a thread of its own, which ends when idle, so no event loop is held up. A
    subclass says how one key is served.

    Attributes:
        thread_name: name of that thread.
        patience: seconds that `close` waits for it.
    """

    thread_name: ClassVar[str]
    patience: float

    def __init__(self) -> None:
        self.begin()
        atexit.register(_close, weakref.ref(self))

    def begin(self) -> None:
        """Begin with nobody waiting; again in a forked child, where another thread may have held the lock."""
        self._process = os.getpid()
        # Reentrant: a call that the garbage collector ends may come here in the middle.
        self.lock = threading.Condition(threading.RLock())
        self._lines: dict[str, Line] = {}
        self._thread: threading.Thread | None = None
        self._closing = False

    # --- what a subclass writes

    @abstractmethod
    def serving(self) -> AbstractContextManager[Callable[[str, Line], None]]:
        """What serves one key: does its chores and lets in who may go; entered and left on the thread."""

    def disown(self) -> None:  # noqa: B027 - a file has nothing to let go of
        """In a forked child, before it begins anew: let go of what is the parent's, without closing it."""

    # --- what callers use

    async def acquire(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> int:
        """See `LimitStore`."""
        waiter = Waiter(amounts)
        with self._work():
            line = self._line(key, rates)
            if not line.busy:
                line.at = time.monotonic()
            line.queue.append(waiter)
        try:
            return await waiter.future
        except BaseException:
            with self._work():
                waiter.gone = True
                if waiter.granted:
                    self._chore(key, rates, give_back(waiter.amounts))
                elif waiter in line.queue:
                    line.queue.remove(waiter)
                else:
                    line.at = time.monotonic()  # The thread finds that it has gone, and takes the next.
            raise

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
        """Do what is left to do, usually in a millisecond, and end the thread; it begins again at the next use. Waiters
        go on waiting."""
        with self._work(start=False):
            thread, self._closing = self._thread, True
        if thread is not None and thread is not threading.current_thread():
            thread.join(self.patience)
        with self.lock:
            self._closing = False
            if any(line.busy for line in self._lines.values()):
                self._start()

    @property
    def at_rest(self) -> bool:
        """Whether nothing is to be done and no thread works."""
        return self._thread is None

    # --- for the subclass, on the thread

    def let_in(self, line: Line, waiters: Sequence[Waiter], generation: int) -> None:
        """Let callers in who have paid; what one has paid who is gone by now is given back."""
        for waiter in waiters:
            with self.lock:
                waiter.granted = True
                if waiter.gone:
                    line.chores.append(give_back(waiter.amounts))
                    continue
            try:
                waiter.loop.call_soon_threadsafe(waiter.go, generation)
            except RuntimeError:  # Its loop is closed, so it never goes.
                with self.lock:
                    line.chores.append(give_back(waiter.amounts))

    # --- in here

    def _work(self, *, start: bool = True) -> _Work:
        if self._process != os.getpid():
            self.disown()
            self.begin()
        return _Work(self, start)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self.thread_name, daemon=True)
            self._thread.start()

    def _line(self, key: str, rates: Sequence[Rate]) -> Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(rates)
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

    def _run(self) -> None:
        try:
            with self.serving() as serve:
                while True:
                    with self.lock:
                        key = self._next()
                        if key is None:
                            self._thread = None
                            return
                        line = self._lines[key]
                    serve(key, line)
        finally:
            with self.lock:
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
            rested = not self.lock.wait(first - now)


class _Work:
    """Holds a store's lock, and leaves its thread at work."""

    __slots__ = ("_start", "_store")

    def __init__(self, store: LinedLimits, start: bool) -> None:
        self._store = store
        self._start = start

    def __enter__(self) -> None:
        self._store.lock.acquire()

    def __exit__(self, *_: object) -> None:
        store = self._store
        try:
            if self._start and not store._closing:
                store._start()
            store.lock.notify_all()
        finally:
            store.lock.release()


def _close(store: weakref.ref[LinedLimits]) -> None:
    found = store()
    if found is not None and found._thread is not None and found._process == os.getpid():
        with found.lock:
            for line in found._lines.values():
                line.queue.clear()
                if line.held is not None:
                    line.held.gone, line.at = True, 0.0
        found.close()
