"""What limit stores share whose buckets lie elsewhere: a line of callers for each key, and one thread that asks."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import ClassVar, Final
from weakref import WeakSet

from ..exceptions import LLMProviderConfigurationError
from .asked import Ask, Chore, Reply, Spare, give_back
from .cooldown import LONGEST
from .levels import Amounts, Rate, known_rates

# Seconds: before the idle thread ends, after which one that waits looks whether others gave something back.
_REST: Final = 2.0
_LOOK: Final = 0.5
# Callers that are let in by one word with the other place.
_MOST: Final = 64
# Keys that are remembered for the sake of their cooldowns alone.
_KEPT: Final = 1024


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

    def fail(self, error: BaseException) -> None:
        """Tell it that nobody can let it in; from any thread."""
        with suppress(RuntimeError):  # Its loop is closed.
            self.loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)

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
        self.spare: Spare | None = None  # the state in this process, for as long as the other place cannot be used
        self.generation = 0  # of the cooldown, when last heard of
        self.streak = 0  # of cooldowns, when last heard of

    @property
    def busy(self) -> bool:
        """Whether somebody waits."""
        return self.held is not None or bool(self.queue)


class LinedLimits(ABC):
    """Base of a `LimitStore` whose state lies elsewhere, in a file or on a server.

    All work with that place is done in a thread of its own, which ends when idle, so no event loop is held up. A
    subclass says how one key's state is asked.

    Attributes:
        thread_name: name of that thread.
        patience: seconds that `close` waits for it.
    """

    thread_name: ClassVar[str]
    patience: float

    def __init__(self) -> None:
        self.begin()
        _all.add(self)

    def begin(self) -> None:
        """Begin with nobody waiting; again in a forked child, where another thread may have held the lock."""
        # Reentrant: a call that the garbage collector ends may come here in the middle.
        self.lock = threading.Condition(threading.RLock())
        self._lines: dict[str, Line] = {}
        self._thread: threading.Thread | None = None
        self._closing = False

    # --- what a subclass writes

    @abstractmethod
    def asking(self) -> AbstractContextManager[Callable[[str, Ask], Reply | None]]:
        """What asks the state of one key, and gives `None` where its place cannot be used; entered and left on the
        thread."""

    def disown(self) -> None:  # noqa: B027 - a file has nothing to let go of
        """In a forked child, before it begins anew: let go of what is the parent's, without closing it."""

    # --- what callers use

    async def acquire(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> int:
        """See `LimitStore`."""
        _check(rates, amounts)
        waiter = Waiter(amounts)
        try:
            with self._work():
                line = self._line(key, rates)
                if not line.busy:
                    line.at = time.monotonic()
                line.queue.append(waiter)
            return await waiter.future
        except BaseException:
            with self._work():
                waiter.gone = True
                at = self._lines.get(key)
                if waiter.granted:
                    self._take_back(key, rates, waiter)
                elif at is not None and waiter in at.queue:
                    at.queue.remove(waiter)
                elif at is not None:
                    at.at = time.monotonic()  # The thread finds that it has gone, and takes the next.
            raise

    def charge(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> None:
        """See `LimitStore`."""
        _check(rates, amounts)
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
        if line is not None and line.streak:
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
            if any(line.busy or line.chores for line in self._lines.values()):
                self._start()

    @property
    def at_rest(self) -> bool:
        """Whether nothing is to be done and no thread works."""
        return self._thread is None

    # --- in here

    def _work(self, *, start: bool = True) -> _Work:
        return _Work(self, start)

    def _start(self) -> None:
        if self._thread is None:
            # Noted first: the garbage collector may end a call meanwhile, which must not start a second one.
            self._thread = threading.Thread(target=self._run, name=self.thread_name, daemon=True)
            try:
                self._thread.start()
            except BaseException:
                self._thread = None
                raise

    def _line(self, key: str, rates: Sequence[Rate]) -> Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(rates)
        elif line.rates != rates:
            line.rates = known_rates(line.rates, rates)
        return line

    def _chore(self, key: str, rates: Sequence[Rate], chore: Chore) -> None:
        line = self._line(key, rates)
        # Taken out before it is changed: the garbage collector may end a call, and add a chore, meanwhile.
        last = line.chores.pop() if line.chores else None
        if last is None:
            line.since = time.monotonic()
        elif chore[0] == last[0] == "t" and len(chore[1]) == len(last[1]):
            # One word for thousands of calls that end at once.
            chore = ["t", [sum(pair) for pair in zip(chore[1], last[1], strict=True)]]
        else:
            line.chores.append(last)
        line.chores.append(chore)

    def _run(self) -> None:
        try:
            with self.asking() as say:
                while True:
                    with self.lock:
                        key = self._next()
                        if key is None:
                            self._thread = None
                            return
                        line = self._lines[key]
                    self._serve(key, line, say)
        finally:
            with self.lock:
                if self._thread is threading.current_thread():
                    self._thread = None  # It failed; the next use begins another.

    def _next(self) -> str | None:
        """The key to look after now; waits for it, and gives `None` after a rest without any."""
        rested = False
        while True:
            now, lines = time.monotonic(), self._lines.copy()  # to which the garbage collector adds none
            # Who is due for longest goes first, so that a key with many calls does not keep the others waiting.
            due = [(line.since, key) for key, line in lines.items() if line.chores]
            due += [(line.at, key) for key, line in lines.items() if line.busy]
            first, key = min(due, default=(now + _REST, ""))
            if due and first <= now:
                return key
            if self._closing or (not due and rested):
                for key, line in lines.items():
                    # One with a streak waits for the word that a call went well, which may take minutes.
                    if not (line.busy or line.chores or line.spare or (line.streak and len(self._lines) <= _KEPT)):
                        del self._lines[key]
                return None
            rested = not self.lock.wait(first - now)

    def _serve(self, key: str, line: Line, say: Callable[[str, Ask], Reply | None]) -> None:
        """Do for one key what there is to do: its chores, and let in who may go."""
        taken: list[Waiter] = []
        with self.lock:
            if line.held is not None and line.held.lost:
                line.chores.append(give_back(line.held.amounts))
                line.held = None
            while line.queue and len(taken) < _MOST:
                taken.append(line.queue.popleft())
            chores, line.chores = line.chores, []
            held, spare = line.held, line.spare
            ripe = time.monotonic() >= line.due
            paid = None if held is None else held.amounts
            ask = Ask(line.rates, chores, paid, ripe, [waiter.amounts for waiter in taken])
        try:
            reply = say(key, ask)
            if reply is None:
                spare = spare or Spare(ask.rates, line.generation)
                reply = spare.say(ask)
            else:
                spare = None
        except BaseException as error:
            for waiter in taken:
                waiter.fail(error)
            raise
        with self.lock:
            line.spare, line.generation, line.streak = spare, reply.generation, reply.streak
            granted = self._settle(line, taken, reply)
        self._let_in(key, line, granted)

    def _settle(self, line: Line, taken: list[Waiter], reply: Reply) -> list[Waiter]:
        """Put those back into the line who have to wait; gives those who may go."""
        mono = time.monotonic()
        granted, rest = taken[: reply.granted], taken[reply.granted :]
        if line.held is not None and reply.freed:
            granted.insert(0, line.held)
            line.held = None
        line.at = mono
        if reply.waits:
            if line.held is None:
                line.held, rest, line.due = rest[0], rest[1:], mono + reply.left
            else:
                # What others gave back brings its time forward; what others took behind it does not put it off.
                line.due = min(line.due, mono + reply.left)
            if not line.held.gone:
                line.at = min(max(line.due, mono + reply.pause), mono + _LOOK)
        line.queue.extendleft(reversed([waiter for waiter in rest if not waiter.gone]))
        return granted

    def _let_in(self, key: str, line: Line, waiters: list[Waiter]) -> None:
        """Let callers in who have paid; what one has paid who is gone by now is given back."""
        for waiter in waiters:
            with self.lock:
                waiter.granted = True
                if waiter.gone:
                    self._take_back(key, line.rates, waiter)
                    continue
            try:
                waiter.loop.call_soon_threadsafe(waiter.go, line.generation)
            except RuntimeError:  # Its loop is closed, so it never goes.
                with self.lock:
                    self._take_back(key, line.rates, waiter)

    def _take_back(self, key: str, rates: Sequence[Rate], waiter: Waiter) -> None:
        # Once: a waiter of a closed loop is thrown away later, and then gives up what it has.
        granted, waiter.granted = waiter.granted, False
        if granted:
            self._chore(key, rates, give_back(waiter.amounts))


def _check(rates: Sequence[Rate], amounts: Amounts) -> None:
    # Here, where only who made the mistake is told, and not on the thread.
    if len(rates) != len(amounts):
        raise LLMProviderConfigurationError(f"there are {len(rates)} limits, but {len(amounts)} amounts")


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


_all: Final[WeakSet[LinedLimits]] = WeakSet()


def _at_exit() -> None:
    """Do what is left to do; nobody waits any more."""
    for store in tuple(_all):
        if store.at_rest:
            continue
        with store.lock:
            for line in store._lines.values():
                line.queue.clear()
                if line.held is not None:
                    line.held.gone, line.at = True, 0.0
        store.close()


def _after_fork() -> None:
    for store in tuple(_all):
        store.disown()
        store.begin()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
