"""PostgreSQL: what keeps the answers, in one table that makes itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, Final

from providers import MissingDependencyError

from .address import Address
from .codec import safe
from .part import Part, PartError, Stale

# The lock keeps two that make the table from meeting: "if not exists" alone does not.
_TABLE: Final = """
SELECT pg_advisory_xact_lock(7235914021);
CREATE TABLE IF NOT EXISTS {table} (
    collection text NOT NULL, digest text NOT NULL, created double precision NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (collection, digest)
);
CREATE INDEX IF NOT EXISTS {index} ON {table} (created)
"""
_CHECK: Final = "SELECT collection, digest, created, body FROM {table} LIMIT 0"
_FIND: Final = "SELECT body FROM {table} WHERE collection = %s AND digest = %s"
_PUT: Final = """
INSERT INTO {table} (collection, digest, created, body) VALUES (%s, %s, %s, %s)
ON CONFLICT (collection, digest) DO UPDATE SET created = excluded.created, body = excluded.body
"""
_REMOVE: Final = "DELETE FROM {table} WHERE collection = %s AND digest = %s"
_EXPIRE: Final = "DELETE FROM {table} WHERE collection = %s AND digest = %s AND created <= %s"
_FORGET: Final = (
    "DELETE FROM {table} WHERE (collection, digest) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"  # pairs
)
_CLEAR: Final = "DELETE FROM {table} WHERE collection = %s"
_EMPTY: Final = "DELETE FROM {table}"
_SWEEP: Final = """
DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE created <= %s ORDER BY created LIMIT 500))
"""
_SIZE: Final = "SELECT count(*), coalesce(sum(octet_length(body)), 0)::bigint FROM {table}"

# Seconds that a sum or a removal of many rows may take.
_LONG: Final = 60.0
# The least that libpq knows; nobody waits for it longer than for a word.
_CONNECT: Final = 2


class Postgres(Part):
    """Answers in a table.

    Connections are made when they are needed and kept, at most one for each thread that asks. A word that does not end
    in time costs its connection, since nobody knows what state that is in.

    Args:
        address: where it is.
        table: the table's name, checked by the caller; its schema may stand before it.
        timeout: seconds for one word, connecting included.
    """

    def __init__(self, address: Address, table: str, timeout: float) -> None:
        super().__init__("PostgreSQL", address)
        self._table = table
        self._index = f"{table.rpartition('.')[2]}_created"
        self._timeout = timeout
        # What came after an answer that is out of date here: the time and the bytes.
        self.newest: Callable[[str, str], tuple[float, bytes] | None] | None = None
        self._free: list[Any] = []
        self._back = threading.Condition(self._lock)
        self._made = 0
        self._closed = False

    # --- words

    def check(self) -> None:
        """See that the table is there, or make it."""
        self._say(_CHECK)

    def get(self, collection: str, digest: str) -> bytes | None:
        """What is stored."""
        rows, _ = self._say(_FIND, (safe(collection), safe(digest)))
        return bytes(rows[0][0]) if rows else None

    def put(self, collection: str, digest: str, created: float, blob: bytes) -> None:
        """Store bytes, in place of what is there."""
        self._say(_PUT, (safe(collection), safe(digest), created, blob))

    def delete(self, collection: str, digest: str) -> bool:
        """Remove one entry; whether there was one."""
        return self._say(_REMOVE, (safe(collection), safe(digest)))[1] > 0

    def expire(self, collection: str, digest: str, created: float) -> None:
        """Remove an entry that was not replaced since."""
        self._say(_EXPIRE, (safe(collection), safe(digest), created))

    def clear(self, collection: str | None) -> None:
        """Remove all entries of a collection, or all."""
        if collection is None:
            self._say(_EMPTY, timeout=_LONG)
        else:
            self._say(_CLEAR, (safe(collection),), timeout=_LONG)

    def sweep(self, before: float) -> None:
        """Remove some entries that are older than that."""
        self._say(_SWEEP, (before,))

    def size(self) -> tuple[int, int]:
        """How many entries there are, and the bytes of their bodies."""
        rows, _ = self._say(_SIZE, timeout=_LONG)
        return int(rows[0][0]), int(rows[0][1])

    # --- what a part does

    def probe(self) -> None:
        """See `Part`."""
        self.check()

    def remove(self, stale: list[Stale]) -> None:
        """See `Part`; what `newest` has is put in its place."""
        pairs: list[tuple[str, str]] = []
        for collection, digest in stale:
            if self._ended:
                return
            if collection is None or digest is None:
                self.clear(collection)
            elif (found := self.newest(collection, digest) if self.newest else None) is not None:
                self.put(collection, digest, *found)
            else:
                pairs.append((safe(collection), safe(digest)))
        if pairs:
            self._say(_FORGET, tuple(map(list, zip(*pairs, strict=True))), timeout=_LONG)

    def _overflow(self) -> None:
        # What lasts is not emptied for it: the oldest are let go.
        del self._stale[next(iter(self._stale))]

    def failed(self, error: Exception) -> PartError | None:
        """See `Part`."""
        try:
            import psycopg
        except ImportError:
            return None
        if isinstance(error, psycopg.Error | OSError):
            return PartError(f"{self.name} refused ({self.address.describe(error)})", down=False)
        return None

    def close(self) -> None:
        """Close the connections; those at work close when they are given back."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
            self._lost(len(free))
        for connection in free:
            connection.close()

    # --- connections

    def _say(self, statement: str, values: Sequence[Any] = (), timeout: float | None = None) -> tuple[list[Any], int]:
        """Run a statement: its rows, and how many it touched. The table is made where it is missing."""
        try:
            return self._run(statement, values, timeout)
        except _driver().errors.UndefinedTable:
            self._create()
        return self._run(statement, values, timeout)

    def _create(self) -> None:
        try:
            self._run(_TABLE)
            return
        except _driver().Error as error:
            problem = self.address.describe(error)
        raise PartError(f"{self.name} has no table {self._table}, and it cannot be made ({problem})")

    def _run(self, statement: str, values: Sequence[Any] = (), timeout: float | None = None) -> tuple[list[Any], int]:
        psycopg = _driver()
        asked = statement.format(table=self._table, index=self._index)
        deadline = time.monotonic() + self._timeout
        while True:
            connection, used = self._take(deadline)
            keep = False
            try:
                connection.deadline = deadline if timeout is None else time.monotonic() + timeout
                cursor = connection.execute(asked, values or None)
                rows = cursor.fetchall() if cursor.description else []
                keep = True
                return rows, cursor.rowcount
            except psycopg.Error as error:
                keep = not connection.closed
                if keep:
                    raise
                if not used:
                    raise self._gone(error) from None
                # The server was started again: what was kept from before is of no use, all of it.
                self._drop()
            except _Late:
                raise self._late() from None
            finally:
                self._give(connection, keep)

    def _late(self) -> PartError:
        return PartError(f"{self.name} does not answer within {self._timeout:g} s")

    def _gone(self, error: Exception) -> PartError:
        return PartError(f"{self.name} does not answer ({self.address.describe(error)})")

    def _take(self, deadline: float) -> tuple[Any, bool]:
        """A connection, and whether it was used before."""
        with self._lock:
            if self._free:
                return self._free.pop(), True
            self._made += 1
        arriving: Future[Any] = Future()
        threading.Thread(target=self._connect, args=(arriving,), name="llm-cache-connect", daemon=True).start()
        problem = self._late()
        try:
            return arriving.result(max(0.0, deadline - time.monotonic())), False
        except TimeoutError:
            # It may still come, and is good for somebody else then.
            arriving.add_done_callback(self._arrived)
        except Exception as error:
            problem = self._gone(error)
            with self._back:
                self._lost(1)
                # The server may have no room for more; then those that there are have to do.
                self._back.wait_for(lambda: self._free or self._made <= 0, deadline - time.monotonic())
                if self._free:
                    return self._free.pop(), True
        raise problem

    def _arrived(self, arriving: Future[Any]) -> None:
        if arriving.exception() is None:
            self._give(arriving.result(), True)
        else:
            with self._lock:
                self._lost(1)

    def _lost(self, number: int) -> None:
        self._made -= number
        self._back.notify_all()

    def _connect(self, arriving: Future[Any]) -> None:
        try:
            arriving.set_result(_connection(self.address.value))
        except BaseException as error:
            arriving.set_exception(error)

    def _give(self, connection: Any, keep: bool) -> None:
        with self._back:
            if keep and not self._closed and not connection.closed:
                self._free.append(connection)
                self._back.notify()
                return
            self._lost(1)
        connection.close()

    def _drop(self) -> None:
        with self._lock:
            free, self._free = self._free, []
            self._lost(len(free))
        for connection in free:
            connection.close()


class _Late(Exception):
    """A word did not end in time."""


_classes: dict[str, Any] = {}


def _driver() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise MissingDependencyError(f"the package psycopg cannot be used: {error}") from error
    return psycopg


def _connection(conninfo: str) -> Any:
    """A connection whose words end at its `deadline`. The driver waits for ever otherwise, where a server hangs."""
    psycopg = _driver()
    if "bounded" not in _classes:

        class Bounded(psycopg.Connection):  # type: ignore[misc,name-defined]
            deadline = float("inf")

            def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
                return super().wait(_until(gen, self.deadline), *args, **kwargs)

        _classes["bounded"] = Bounded
    # Nothing is prepared, since what stands between, such as a PgBouncer, may hand each word to another server.
    return _classes["bounded"].connect(conninfo, autocommit=True, prepare_threshold=None, connect_timeout=_CONNECT)


def _until(gen: Generator[Any, Any, Any], deadline: float) -> Generator[Any, Any, Any]:
    """The same words with the server, given up at the deadline."""
    try:
        wants = next(gen)
        while True:
            ready = yield wants
            if time.monotonic() >= deadline:
                gen.close()
                raise _Late
            wants = gen.send(ready)
    except StopIteration as end:
        return end.value
