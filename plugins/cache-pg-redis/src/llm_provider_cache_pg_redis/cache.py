"""Answers in PostgreSQL, with Redis before it; either may be left out, and either may be down."""

from __future__ import annotations

import asyncio
import math
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from providers import LLMProviderConfigurationError
from providers.caches import CacheEntry, CacheKey, StoreSize
from providers.notices import warn_only

from .address import Address
from .codec import SCHEMA, pack, unpack
from .front import RedisFront
from .part import Part, PartError, as_ours
from .postgres import Postgres

T = TypeVar("T")
Clock = Callable[[], float]

_TABLE_NAME: Final = re.compile(r"(?:[a-z_][a-z0-9_]{0,40}\.)?[a-z_][a-z0-9_]{0,40}")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
# How many puts there are between two looks for old answers in PostgreSQL.
_SWEEP_EVERY: Final = 1000
# What a forked child has of its parent's connections: never closed, since they are not its own.
_inherited: list[_Running] = []


class HybridRedisPostgreSQLCache:
    """A store of answers in PostgreSQL behind Redis, for many processes and machines.

    * A read asks Redis, then PostgreSQL, and what PostgreSQL had goes into Redis too. A write goes to both.
    * Where one of the two is down the other serves alone, with one warning; it is looked for in the background, after
      one second, then two, four, at most fifteen, and used again when it is back. What this process has replaced or
      removed meanwhile is put right in it first. Only where none is left a word fails; `ResponseCache` then goes on
      without the cache.
    * `delete` and `clear` reach both, or raise after they have reached the other.
    * An answer that is damaged, or is none, is a miss.

    All work is done by threads of its own, with connections that they share; so it may be used from any event loop,
    any thread, and in forked children. They end with `close`, or when the store is dropped.

    Args:
        pg_dsn: address of the PostgreSQL database, as `postgresql://user:password@host/name`, or as libpq's pairs.
        redis_url: address of the Redis server, as `redis://user:password@host:6379/0`; `rediss` for TLS, `unix`.
        redis_ttl_seconds: how long Redis keeps an answer; a day where left out.
        compress_pg: whether PostgreSQL gets answers compressed (zlib). Redis always does, where it pays.
        ttl: seconds after which an answer is forgotten by both; `None` keeps it in PostgreSQL for ever.
        table: name of the table, in small letters; its schema may stand before it, with a dot. The version of the
            layout is added: `llm_answers` becomes `llm_answers_1`.
        prefix: what all keys in Redis begin with.
        timeout: seconds that one word with one of the two may take, connecting included. Twice that, and once more for
            a connection that broke, should stay below `ResponseCache`'s patience of 2 s.
        pool_size: most words at the same time, and so most connections to each of the two.
        clock: gives the Unix time.

    Raises:
        LLMProviderConfigurationError: an argument is wrong, or neither address is given.
        MissingDependencyError: the package `redis` or `psycopg` is needed and not installed; an `ImportError`.
    """

    def __init__(
        self,
        pg_dsn: Any = None,
        redis_url: Any = None,
        redis_ttl_seconds: float = 86400,
        compress_pg: bool = True,
        *,
        ttl: float | None = None,
        table: str = "llm_answers",
        prefix: str = "llm-cache",
        timeout: float = 0.5,
        pool_size: int = 8,
        clock: Clock = time.time,
    ) -> None:
        if not pg_dsn and not redis_url:
            raise LLMProviderConfigurationError(
                "the cache pg_redis needs an address: give pg_dsn (PG_DSN), redis_url (REDIS_URL), or both"
            )
        for name, value in (("redis_ttl_seconds", redis_ttl_seconds), ("ttl", ttl), ("timeout", timeout)):
            if value is not None or name != "ttl":
                _check(name, value)
        if isinstance(pool_size, bool) or not isinstance(pool_size, int) or not 1 <= pool_size <= 256:
            raise LLMProviderConfigurationError(f"pool_size must be a whole number from 1 to 256, not {pool_size!r}")
        for name, text, form in (("table", table, _TABLE_NAME), ("prefix", prefix, _PREFIX)):
            if not isinstance(text, str) or not form.fullmatch(text):
                raise LLMProviderConfigurationError(f"{name} {text!r} of the cache is not of the form {form.pattern}")
        self._pg = Address("pg_dsn", pg_dsn, "psycopg") if pg_dsn else None
        self._redis = Address("redis_url", redis_url, "redis") if redis_url else None
        self._redis_ttl = float(redis_ttl_seconds)
        self._compress = bool(compress_pg)
        self._ttl = ttl
        self._table = f"{table}_{SCHEMA}"
        self._prefix = prefix
        self._timeout = float(timeout)
        self._size = pool_size
        self._clock = clock
        self._puts = 0
        self._warned: set[str] = set()
        self._making = threading.Lock()
        self._pid = 0
        self._now: _Running | None = None
        self._end: Any = None

    # --- the protocol

    async def warm(self) -> None:
        """Connect, and make the table where it is missing.

        Raises:
            LLMProviderConnectionError: neither part can be used.
        """
        await self._run(None, self._warm)

    async def get(self, key: CacheKey) -> CacheEntry | None:
        """What is stored, or `None`.

        Raises:
            LLMProviderConnectionError: neither part can be used.
        """
        return await self._run(key, self._get, key)

    async def put(self, key: CacheKey, text: str) -> None:
        """Store a text, in place of what is there.

        Raises:
            LLMProviderConnectionError: neither part has taken it.
        """
        await self._run(key, self._put, key, text)

    async def delete(self, key: CacheKey) -> bool:
        """Remove one entry; whether there was one.

        Raises:
            LLMProviderConnectionError: it may still be in a part that cannot be used now.
        """
        return await self._run(key, self._remove, key.collection, key.digest)

    async def clear(self, collection: str | None = None) -> None:
        """Remove all entries of a collection; of all of them where none is named. It goes on where its caller is
        cancelled, and may then remove what is stored meanwhile.

        Raises:
            LLMProviderConnectionError: some may still be in a part that cannot be used now.
        """
        await self._run(None, self._remove, collection, None)

    async def size(self) -> StoreSize:
        """How much is stored, in bytes as they lie there: in PostgreSQL, or in Redis where that is all there is.

        Raises:
            LLMProviderConnectionError: neither part can be used.
        """
        return await self._run(None, self._measure)

    async def close(self) -> None:
        """Close the connections and end the threads; what they are at is waited for. A later word begins anew."""
        if self._pid != os.getpid():
            return  # Nothing of it is this process's.
        with self._making:
            running, self._now = self._now, None
            if self._end is not None:
                self._end.detach()
        if running is not None:
            closer = ThreadPoolExecutor(1, thread_name_prefix="llm-cache-close")
            try:
                await asyncio.shield(asyncio.get_running_loop().run_in_executor(closer, running.close))
            finally:
                closer.shutdown(wait=False)

    def __repr__(self) -> str:
        parts = [name for name, address in (("PostgreSQL", self._pg), ("Redis", self._redis)) if address is not None]
        return f"<{type(self).__name__} in {' behind '.join(parts)}>"

    # --- threads

    async def _run(self, key: CacheKey | None, work: Callable[..., T], *args: Any) -> T:
        loop = asyncio.get_running_loop()
        while True:
            running = self._running()
            try:
                future = loop.run_in_executor(running.lane(key), work, running, *args)
            except RuntimeError:
                # Another thread has closed the store between the two steps. Once more, with new connections.
                if not running.closed or loop.is_closed():
                    raise
                continue
            problem: PartError | None = None
            try:
                return await future
            except PartError as error:
                problem = error
            finally:
                self._tell(running, quiet=problem is not None)
            raise as_ours(problem)

    def _running(self) -> _Running:
        if self._pid != os.getpid():
            # In a process that was forked the lock may be held by a thread that is not there.
            if self._now is not None:
                _inherited.append(self._now)
            self._making, self._now, self._pid = threading.Lock(), None, os.getpid()
        with self._making:
            if self._now is None:
                redis = RedisFront(self._redis, self._prefix, self._timeout, self._size + 2) if self._redis else None
                pg = Postgres(self._pg, self._table, self._timeout) if self._pg else None
                if redis is not None and pg is not None:
                    pg.newest = partial(_newest, redis, self._compress)
                self._now = _Running(redis, pg, self._size)
                self._end = weakref.finalize(self, _Running.abandon, self._now)
            return self._now

    def _tell(self, running: _Running, quiet: bool) -> None:
        """Warn of a part that has failed; not where the caller is told by an error."""
        for part in running.parts:
            while part.news:
                with suppress(IndexError):
                    said = part.news.popleft()
                    if not quiet and part.name not in self._warned:
                        self._warned.add(part.name)
                        warn_only(f"{said}; the response cache goes on without it until it is back")

    # --- in a thread

    def _warm(self, running: _Running) -> None:
        _some([_try(part, part.probe) for part in running.parts])

    def _get(self, running: _Running, key: CacheKey) -> CacheEntry | None:
        redis, pg = running.redis, running.pg
        problem: PartError | None = None
        blob = None
        if redis is not None:
            found = _try(redis, redis.get, key.collection, key.digest)
            if isinstance(found, PartError):
                problem, redis = found, None
            else:
                blob = found
                entry = unpack(blob)
                if entry is not None and self._left(entry) > 0:
                    if pg is not None and pg.down:
                        # Nobody else would, while all that is asked for is in Redis.
                        pg.look()
                    return entry
        if pg is not None:
            found = _try(pg, pg.get, key.collection, key.digest)
            if not isinstance(found, PartError):
                return self._from_pg(key, found, redis, pg, blob is None)
            problem = found if redis is None else None
        if problem is not None:
            raise problem
        return None

    def _from_pg(
        self, key: CacheKey, blob: bytes | None, redis: RedisFront | None, pg: Postgres, new: bool
    ) -> CacheEntry | None:
        entry = unpack(blob)
        if entry is None or blob is None:
            return None
        left = self._left(entry)
        if left <= 0:
            _try(pg, pg.expire, key.collection, key.digest, entry.created)
            return None
        if redis is not None:
            if not self._compress:
                blob = pack(entry.text, entry.created, True)
            # Only where nothing is there: another one may have put a newer answer since.
            _try(redis, redis.put, key.collection, key.digest, blob, left, new)
        return entry

    def _put(self, running: _Running, key: CacheKey, text: str) -> None:
        now = self._clock()
        redis, pg, place = running.redis, running.pg, (key.collection, key.digest)
        blob = pack(text, now, self._compress)
        outcomes: list[tuple[Part, Any]] = []
        if pg is not None:
            outcomes.append((pg, _try(pg, pg.put, *place, now, blob)))
            self._puts += 1
            if self._ttl is not None and self._puts % _SWEEP_EVERY == 1:
                _try(pg, pg.sweep, now - self._ttl)
        if redis is not None:
            front = blob if self._compress else pack(text, now, True)
            left = self._redis_ttl if self._ttl is None else min(self._redis_ttl, self._ttl)
            outcomes.append((redis, _try(redis, redis.put, *place, front, left)))
        _some([outcome for _, outcome in outcomes])
        for part, outcome in outcomes:
            # What the other part has is newer from here on.
            if isinstance(outcome, PartError) and not part.note(place):
                _try(part, part.remove, [place])

    def _remove(self, running: _Running, collection: str | None, digest: str | None) -> bool:
        removed, problem = False, None
        for part in running.parts:
            outcome = (
                _try(part, part.clear, collection) if digest is None else _try(part, part.delete, collection, digest)
            )
            if isinstance(outcome, PartError):
                problem = outcome
                part.note((collection, digest))
            else:
                removed |= bool(outcome)
        if problem is not None:
            raise problem
        return removed

    def _measure(self, running: _Running) -> StoreSize:
        outcomes = []
        for part in running.parts:
            outcome = _try(part, part.size)
            if not isinstance(outcome, PartError):
                return StoreSize(*outcome)
            outcomes.append(outcome)
        raise outcomes[0]

    def _left(self, entry: CacheEntry) -> float:
        """Seconds for which Redis may keep an answer; 0 or less for one that is too old."""
        if self._ttl is None:
            return self._redis_ttl
        return min(self._redis_ttl, entry.created + self._ttl - self._clock())


class _Running:
    """The threads of a store and what they talk to; made anew after `close`."""

    def __init__(self, redis: RedisFront | None, pg: Postgres | None, threads: int) -> None:
        self.redis = redis
        self.pg = pg
        # What lasts comes first.
        self.parts: list[Any] = [part for part in (pg, redis) if part is not None]
        # One thread each. What is said of one key is said in one of them: a word that was cancelled goes on there, and
        # must not come after the next one.
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix="llm-cache") for _ in range(threads)]
        self.closed = False
        self._pid = os.getpid()

    def lane(self, key: CacheKey | None) -> ThreadPoolExecutor:
        """The thread for a key; any for what is about none."""
        return self._lanes[(random.getrandbits(30) if key is None else hash(key)) % len(self._lanes)]

    def close(self) -> None:
        self.closed = True
        for lane in self._lanes:
            lane.shutdown(wait=True)
        for wait in (False, True):
            for part in self.parts:
                part.end(wait)
        for part in self.parts:
            part.close()

    def abandon(self) -> None:
        """Close what nobody will close, where it is this process's."""
        if self._pid == os.getpid() and not self.closed:
            self.closed = True
            for lane in self._lanes:
                lane.shutdown(wait=False)
            for part in self.parts:
                part.end(False)
                part.close()


def _try(part: Part, word: Callable[..., Any], *args: Any) -> Any:
    """What a part says, or the `PartError`."""
    try:
        return part.ask(word, *args)
    except PartError as error:
        return error


def _newest(redis: RedisFront, compress: bool, collection: str, digest: str) -> tuple[float, bytes] | None:
    """What Redis has of an answer, for PostgreSQL."""
    found = _try(redis, redis.get, collection, digest)
    entry = None if isinstance(found, PartError) else unpack(found)
    return None if entry is None else (entry.created, pack(entry.text, entry.created, compress))


def _some(outcomes: list[Any]) -> None:
    """Raise the first failure where there is nothing else."""
    if outcomes and all(isinstance(outcome, PartError) for outcome in outcomes):
        raise outcomes[0]


def _check(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise LLMProviderConfigurationError(f"{name} of a cache must be a finite number above 0, not {value!r}")
