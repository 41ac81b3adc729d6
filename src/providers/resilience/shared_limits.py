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

from .asked import Ask, Reply, answer
from .cooldown import Cooldown
from .levels import Clock, Levels
from .lines import LinedLimits

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
    def asking(self) -> Iterator[Callable[[str, Ask], Reply | None]]:
        """See `LinedLimits`. The file is open for as long as the thread works, and after a failure opened again."""
        file: Any = None

        def say(key: str, ask: Ask) -> Reply | None:
            nonlocal file
            if file is None and time.monotonic() >= self._broken_until:
                file = self._attempt(self._connect)
            if file is None:
                return None
            reply = self._attempt(lambda: self._say(file, key, ask))
            if reply is None:
                self._attempt(file.close)
                file = None
            return reply

        try:
            yield say
        finally:
            if file is not None:
                self._attempt(file.close)

    # --- in the thread

    def _say(self, file: Any, key: str, ask: Ask) -> Reply:
        file.execute("BEGIN IMMEDIATE")
        rows = file.execute(_READ, (key,)).fetchall()
        # Only now, when nobody else can write: so time runs forwards from one transaction to the next.
        now = self._clock()
        levels, cooldown = _load(rows[0][0] if rows else None) or (Levels((), now), Cooldown())
        reply = answer(ask, levels, cooldown, now)
        file.execute(_WRITE, (key, _dump(levels, cooldown)))
        file.execute("COMMIT")
        return reply

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
    return json.dumps([levels.stamp, levels.figures(), pause])


def _load(state: str | None) -> tuple[Levels, Cooldown] | None:
    """A key's state as it stands in the file; `None` where it does not, or nobody can read it."""
    if state is None:
        return None
    cooldown = Cooldown()
    try:
        stamp, figures, (until, since, generation, streak) = json.loads(state)
        levels = Levels.of([(float(level), float(at)) for level, at in figures], float(stamp))
        cooldown.until, cooldown.since = float(until), float(since)
        cooldown.generation, cooldown.streak = int(generation), int(streak)
    except (ValueError, TypeError, OverflowError):
        return None
    return levels, cooldown
