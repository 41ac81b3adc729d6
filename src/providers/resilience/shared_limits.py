"""Limits in a SQLite file, shared by the processes of one machine without any server."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from .cooldown import Cooldown
from .levels import UNLIMITED, Amounts, Clock, Levels, Rate, known_rates

T = TypeVar("T")
logger = logging.getLogger("providers.limits")

# Seconds: to make the file, for a transaction, of the idle thread, before a new try, until who waits looks again.
_OPENING: Final = 1.0
_BUSY: Final = 5.0
_REST: Final = 2.0
_AGAIN: Final = 5.0
_LOOK: Final = 0.5

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS limits (key TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID"
_READ: Final = "SELECT state FROM limits WHERE key = ?"
_WRITE: Final = "INSERT INTO limits VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state"


class _Waiter:
    __slots__ = ("amounts", "future", "gone", "granted", "loop")

    def __init__(self, amounts: Amounts) -> None:
        self.amounts = amounts
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

    __slots__ = ("at", "due", "held", "queue", "rates", "spare", "streak")

    def __init__(self, rates: tuple[Rate, ...]) -> None:
        self.rates = rates
        self.queue: deque[_Waiter] = deque()
        self.held: _Waiter | None = None
        self.due = 0.0  # when the one that has paid may go, by the monotonic clock
        self.at = 0.0  # when to look again
        self.spare: tuple[Levels, Cooldown] | None = None  # for as long as the file cannot be used
        self.streak = 0  # of cooldowns, when last read

    @property
    def busy(self) -> bool:
        return self.held is not None or bool(self.queue)


class SQLiteLimits:
    """A `LimitStore` in a file: buckets and cooldowns that all processes with the same path share.

    All work with the file is done in a thread of its own, which ends when idle, so no event loop is held up.
    Transactions are short, and a process that is killed at any moment leaves a file that the others go on using (what
    one waiting caller had paid for each key is lost). Where the file cannot be used, a warning is logged and the limits
    hold for this process alone until it can: a limit store never fails a call.

    Time is the wall clock, since it is the same for all. Set back, it costs no more than the time since the last call;
    set forward, it fills the buckets, once.

    Args:
        path: the file; made with its folders where it is missing. Must be on a local disk.
        clock: seconds since any fixed time, the same in all processes.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock = time.time) -> None:
        self.path = Path(path)
        self._clock = clock
        self._begin()
        atexit.register(_close, weakref.ref(self))

    def _begin(self) -> None:
        self._process = os.getpid()
        self._cond = threading.Condition()
        self._lines: dict[str, _Line] = {}
        self._chores: deque[tuple[str, Callable[[Levels, Cooldown], object]]] = deque()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._broken_until = 0.0

    async def acquire(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> int:
        """See `LimitStore`."""
        waiter = _Waiter(amounts)
        with self._work():
            line = self._line(key, rates)
            if not line.busy:
                line.at = 0.0
            line.queue.append(waiter)
        try:
            return await waiter.future
        except BaseException:
            with self._work():
                waiter.gone = True
                if waiter.granted:
                    self._chore(key, rates, _give_back(waiter.amounts))
                elif waiter in line.queue:
                    line.queue.remove(waiter)
                else:
                    line.at = 0.0  # The thread finds that it has gone, and takes the next.
            raise

    def charge(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> None:
        """See `LimitStore`."""
        with self._work():
            self._chore(key, rates, lambda levels, _: levels.take(amounts))

    def cool(self, key: str, rates: Sequence[Rate], seen: int, retry_after: float | None) -> None:
        """See `LimitStore`."""

        def begin(levels: Levels, cooldown: Cooldown) -> None:
            cooldown.begin(levels.stamp, seen, retry_after)
            levels.drain(cooldown.remaining(levels.stamp))

        with self._work():
            self._chore(key, rates, begin)

    def passed(self, key: str, rates: Sequence[Rate], seen: int) -> None:
        """See `LimitStore`. Written only where it changes something: most calls have nothing to tell."""
        line = self._lines.get(key)
        if line is not None and line.streak:
            with self._work():
                self._chore(key, rates, lambda _, cooldown: cooldown.passed(seen))

    def close(self) -> None:
        """Write what is left to write, usually in a millisecond, and end the thread; it begins again at the next use.
        Waiters go on waiting."""
        with self._work(start=False):
            thread, self._closing = self._thread, True
        if thread is not None and thread is not threading.current_thread():
            thread.join(_BUSY)
        with self._cond:
            self._closing = False
            if any(line.busy for line in self._lines.values()):
                self._start()

    # --- on the callers' side

    def _work(self, *, start: bool = True) -> _Work:
        if self._process != os.getpid():
            # A forked child: the lock may be held by a thread that it has not, and the connection is the parent's.
            self._begin()
        return _Work(self, start)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="llm-limits", daemon=True)
            self._thread.start()

    def _line(self, key: str, rates: Sequence[Rate]) -> _Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(tuple(rates))
        elif line.rates != rates:
            line.rates = known_rates(line.rates, rates)
        return line

    def _chore(self, key: str, rates: Sequence[Rate], change: Callable[[Levels, Cooldown], object]) -> None:
        self._line(key, rates)
        self._chores.append((key, change))

    # --- in the thread

    def _run(self) -> None:
        file: Any = None
        try:
            while True:
                with self._cond:
                    key = self._next()
                    if key is None:
                        self._thread = None
                        return
                if file is None and time.monotonic() >= self._broken_until:
                    file = self._attempt(self._connect)
                if not self._serve(file, key) and file is not None:
                    self._attempt(file.close)
                    file = None
        finally:
            with self._cond:
                if self._thread is threading.current_thread():
                    self._thread = None  # It failed; the next use begins another.
            if file is not None:
                self._attempt(file.close)

    def _next(self) -> str | None:
        """The key to look after now; waits for it, and gives `None` after a rest without any."""
        rested = False
        while True:
            if self._chores:
                return self._chores[0][0]
            now = time.monotonic()
            due = [(line.at, key) for key, line in self._lines.items() if line.busy]
            first, key = min(due, default=(now + _REST, ""))
            if due and first <= now:
                return key
            if self._closing or (not due and rested):
                self._lines = {key: line for key, line in self._lines.items() if line.busy or line.spare}
                return None
            rested = not self._cond.wait(first - now)

    def _serve(self, file: Any, key: str) -> bool:
        """Do for one key what there is to do; false where the file could not be used."""
        line = self._lines[key]
        granted: list[_Waiter] = []
        mono = time.monotonic()

        def act(levels: Levels, cooldown: Cooldown) -> int:
            with self._cond:
                # Taken out before it is read: the garbage collector may end a call, and add a chore, meanwhile.
                chores, self._chores = self._chores, deque()
                for name, change in chores:
                    if name == key:
                        change(levels, cooldown)
                self._chores.extendleft(item for item in reversed(chores) if item[0] != key)
                self._admit(line, levels, cooldown, granted, mono)
            line.streak = cooldown.streak
            return cooldown.generation

        generation, fine = self._transact(file, key, line, act)
        for waiter in granted:
            try:
                waiter.loop.call_soon_threadsafe(waiter.go, generation)
            except RuntimeError:  # Its loop is closed, so it never goes.
                with self._cond:
                    self._chores.append((key, _give_back(waiter.amounts)))
        return fine

    def _admit(self, line: _Line, levels: Levels, cooldown: Cooldown, granted: list[_Waiter], mono: float) -> None:
        pause = cooldown.remaining(levels.stamp)
        held = line.held
        if held is not None and (held.gone or held.loop.is_closed()):
            levels.take([-amount for amount in held.amounts])
            line.held = None
        elif held is not None:
            # What others gave back since brings its time forward; what others took behind it does not put it off.
            paid, levels.levels = levels.levels, [a + b for a, b in zip(levels.levels, held.amounts, strict=True)]
            line.due = min(line.due, mono + levels.wait(held.amounts, levels.stamp))
            levels.levels = paid
            if mono < line.due or pause:
                line.at = min(max(line.due, mono + pause), mono + _LOOK)
                return
            held.granted = True
            granted.append(held)
            line.held = None
        while line.queue:
            waiter = line.queue.popleft()
            wait = max(levels.wait(waiter.amounts, levels.stamp), pause)
            levels.take(waiter.amounts)
            if wait:
                # It pays now, so that no other process can take its turn, and goes when its time has come.
                line.held, line.due = waiter, mono + wait
                line.at = min(line.due, mono + _LOOK)
                return
            waiter.granted = True
            granted.append(waiter)

    def _connect(self) -> Any:
        import sqlite3

        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None)
        try:
            _write_ahead(file)
            # After a power cut some of the last second may be missing; the file stays whole.
            file.execute("PRAGMA synchronous = NORMAL")
            file.execute(_SCHEMA)
        except BaseException:
            file.close()
            raise
        return file

    def _transact(self, file: Any, key: str, line: _Line, act: Callable[[Levels, Cooldown], T]) -> tuple[T, bool]:
        """Do something with a key's state, once, in the file or, where that cannot be used, in memory."""
        row: Any = None
        fine = file is not None and self._attempt(lambda: file.execute("BEGIN IMMEDIATE")) is not None
        if fine:
            row = self._attempt(lambda: file.execute(_READ, (key,)).fetchall())
            fine = row is not None
        # Only now, when nobody else can write: so time runs forwards from one transaction to the next.
        now = self._clock()
        if fine:
            levels, cooldown = _load(row[0][0] if row else None, line.rates, now)
            line.spare = None
        else:
            levels, cooldown = line.spare = line.spare or (Levels(line.rates, now), Cooldown())
            levels.reshape(line.rates)
        kept = levels.stamp, levels.levels
        levels.refill(now)
        result = act(levels, cooldown)
        if fine:
            if set(line.rates) == {UNLIMITED}:  # Who knows no limit leaves the buckets of those who do as they are.
                levels.stamp, levels.levels = kept
            state = _dump(levels, cooldown)
            fine = self._attempt(lambda: file.execute(_WRITE, (key, state)) and file.execute("COMMIT")) is not None
        return result, fine

    def _attempt(self, action: Callable[[], T]) -> T | None:
        """Do something with the file; `None`, and a line in the log, where that fails."""
        import sqlite3

        try:
            return action()
        except (sqlite3.Error, OSError) as error:
            self._broken_until = time.monotonic() + _AGAIN
            logger.warning("limits of this process alone for now: %s: %s (%s)", type(error).__name__, error, self.path)
            return None


def _write_ahead(file: Any) -> None:
    """Have SQLite write a log ahead of the file. Where two open a new file at once, it does not wait for the other."""
    import sqlite3

    deadline = time.monotonic() + _OPENING
    while True:
        try:
            file.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


class _Work:
    """Holds a store's lock, and leaves its thread at work."""

    __slots__ = ("_start", "_store")

    def __init__(self, store: SQLiteLimits, start: bool) -> None:
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


def _give_back(amounts: Amounts) -> Callable[[Levels, Cooldown], object]:
    return lambda levels, _: levels.take([-amount for amount in amounts])


def _close(store: weakref.ref[SQLiteLimits]) -> None:
    found = store()
    if found is not None and found._thread is not None and found._process == os.getpid():
        with found._cond:
            for line in found._lines.values():
                line.queue.clear()
                if line.held is not None:
                    line.held.gone, line.at = True, 0.0
        found.close()


def _dump(levels: Levels, cooldown: Cooldown) -> str:
    pause = (cooldown.until, cooldown.since, cooldown.generation, cooldown.streak)
    return json.dumps([levels.stamp, levels.levels, pause])


def _load(state: str | None, rates: tuple[Rate, ...], now: float) -> tuple[Levels, Cooldown]:
    """A key's state as it stands in the file; as if unused where nobody can read it."""
    levels, cooldown = Levels((), now), Cooldown()
    if state is not None:
        try:
            stamp, figures, (until, since, generation, streak) = json.loads(state)
            levels.stamp, levels.levels = float(stamp), [float(figure) for figure in figures]
            cooldown.until, cooldown.since = float(until), float(since)
            cooldown.generation, cooldown.streak = int(generation), int(streak)
        except (ValueError, TypeError):
            levels, cooldown = Levels((), now), Cooldown()
    levels.reshape(rates)
    return levels, cooldown
