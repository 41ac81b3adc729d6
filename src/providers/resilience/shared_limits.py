"""Limits in a SQLite file, shared by the processes of one machine without any server."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from .cooldown import Cooldown
from .levels import UNLIMITED, Clock, Levels, Rate
from .lines import LOOK, Line, LinedLimits, Waiter, do_chores

T = TypeVar("T")
logger = logging.getLogger("providers.limits")

# Seconds: to make the file, for a transaction, before a new try.
_OPENING: Final = 1.0
_BUSY: Final = 5.0
_AGAIN: Final = 5.0

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS limits (key TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID"
_READ: Final = "SELECT state FROM limits WHERE key = ?"
_WRITE: Final = "INSERT INTO limits VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state"


class SQLiteLimits(LinedLimits):
    """A `LimitStore` in a file: buckets and cooldowns that all processes with the same path share.

    Transactions are short, and a process that is killed at any moment leaves a file that the others go on using (what
    one waiting caller had paid for each key is lost). Where the file cannot be used, a warning is logged and the limits
    hold for this process alone until it can: a limit store never fails a call.

    Time is the wall clock, since it is the same for all. Set back, it costs no more than the time since the last call;
    set forward, it fills the buckets, once.

    Args:
        path: the file; made with its folders where it is missing. Must be on a local disk.
        clock: seconds since any fixed time, the same in all processes.
    """

    thread_name: ClassVar[str] = "llm-limits"
    patience: float = _BUSY

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock = time.time) -> None:
        self.path = Path(path)
        self._clock = clock
        super().__init__()

    def begin(self) -> None:
        """See `LinedLimits`."""
        super().begin()
        self._broken_until = 0.0

    @contextmanager
    def serving(self) -> Iterator[Callable[[str, Line], None]]:
        """See `LinedLimits`. The file is open for as long as the thread works, and after a failure opened again."""
        file: Any = None

        def serve(key: str, line: Line) -> None:
            nonlocal file
            if file is None and time.monotonic() >= self._broken_until:
                file = self._attempt(self._connect)
            if not self._serve(file, key, line) and file is not None:
                self._attempt(file.close)
                file = None

        try:
            yield serve
        finally:
            if file is not None:
                self._attempt(file.close)

    # --- in the thread

    def _serve(self, file: Any, key: str, line: Line) -> bool:
        """Do for one key what there is to do; false where the file could not be used."""
        granted: list[Waiter] = []
        mono = time.monotonic()

        def act(levels: Levels, cooldown: Cooldown) -> int:
            with self.lock:
                # Taken out before it is done: the garbage collector may end a call, and add a chore, meanwhile.
                chores, line.chores = line.chores, []
                do_chores(chores, levels, cooldown)
                self._admit(line, levels, cooldown, granted, mono)
                line.streak = cooldown.streak
            return cooldown.generation

        generation, fine = self._transact(file, key, line, act)
        self.let_in(line, granted, generation)
        return fine

    def _admit(self, line: Line, levels: Levels, cooldown: Cooldown, granted: list[Waiter], mono: float) -> None:
        pause = cooldown.remaining(levels.stamp)
        held = line.held
        if held is not None and held.lost:
            levels.take([-amount for amount in held.amounts])
            line.held = None
        elif held is not None:
            # What others gave back since brings its time forward; what others took behind it does not put it off.
            paid, levels.levels = levels.levels, [a + b for a, b in zip(levels.levels, held.amounts, strict=True)]
            line.due = min(line.due, mono + levels.wait(held.amounts, levels.stamp))
            levels.levels = paid
            if mono < line.due or pause:
                line.at = min(max(line.due, mono + pause), mono + LOOK)
                return
            granted.append(held)
            line.held = None
        while line.queue:
            waiter = line.queue.popleft()
            wait = max(levels.wait(waiter.amounts, levels.stamp), pause)
            levels.take(waiter.amounts)
            if wait:
                # It pays now, so that no other process can take its turn, and goes when its time has come.
                line.held, line.due = waiter, mono + wait
                line.at = min(line.due, mono + LOOK)
                return
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

    def _transact(self, file: Any, key: str, line: Line, act: Callable[[Levels, Cooldown], T]) -> tuple[T, bool]:
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
