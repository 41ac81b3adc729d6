"""What a store of answers is, and the thread on which those work that touch a disk."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from ..exceptions import LLMProviderConfigurationError
from ..types import Request

T = TypeVar("T")
Clock = Callable[[], float]

DEFAULT_COLLECTION: Final = "default"


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Where an answer is kept. Two keys are equal where digest and collection are.

    Attributes:
        digest: 64 hexadecimal digits, from `key_of`.
        collection: which part of the cache.
        request: the request itself, for stores that look for similar ones; never stored by the others.
        digest_of: the digest of another request to the same backend, for stores that look for similar ones; it may
            raise `UncacheableError`.
    """

    digest: str
    collection: str = DEFAULT_COLLECTION
    request: Request | None = field(default=None, compare=False, repr=False)
    digest_of: Callable[[Request], str] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """What a store gives back.

    Attributes:
        text: what was put in, one line of JSON in ASCII.
        created: Unix time in seconds when it was put in.
        similarity: where it is the answer to another, similar question: how similar, 1.0 is the same; `None` where it
            is that of this very request.
    """

    text: str
    created: float
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class StoreSize:
    """How much a store holds.

    Attributes:
        entries: how many answers.
        bytes: their size, as the store counts it.
    """

    entries: int
    bytes: int


@runtime_checkable
class CacheStore(Protocol):
    """Keeps texts under keys. Used from many event loops and threads; every method may raise when the store is down.

    An entry older than the store's TTL is not given out. A store with a bound lets go of what was not used for the
    longest time. `put` of a text that another process puts at the same time leaves one of the two, whole.
    `close` may be repeated, and a call afterwards opens the store again. `providers.testing.conformance.caches` has the
    tests that each store must pass.
    """

    async def warm(self) -> None:
        """Get ready: open files, connect."""

    async def get(self, key: CacheKey) -> CacheEntry | None:
        """What is stored, or `None`."""

    async def put(self, key: CacheKey, text: str) -> None:
        """Store a text, in place of what is there."""

    async def delete(self, key: CacheKey) -> bool:
        """Remove one entry; whether there was one."""

    async def clear(self, collection: str | None = None) -> None:
        """Remove all entries of a collection; of all of them where none is named."""

    async def size(self) -> StoreSize:
        """How much is stored, expired entries that nobody has met yet included."""

    async def close(self) -> None:
        """Give back files and connections; what is stored stays where the store outlives its process."""


def check_bounds(ttl: float | None, **bounds: int | None) -> None:
    """Check the limits of a store.

    Raises:
        LLMProviderConfigurationError: one of them is not above 0.
    """
    for name, value in {"ttl": ttl, **bounds}.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and value > 0):
            raise LLMProviderConfigurationError(f"{name} of a cache must be a number above 0 or None, not {value!r}")


class ThreadedStore:
    """Base of stores that touch a disk: all their work runs on one thread, off the event loop.

    The thread ends with `close`, or when the store is dropped. A process that was forked gets one of its own.
    """

    def __init__(self, ttl: float | None, clock: Clock = time.time) -> None:
        self._ttl = ttl
        self._clock = clock
        self._executor: ThreadPoolExecutor | None = None
        self._pid = 0
        self._making = Lock()
        self._working = Lock()

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        loop = asyncio.get_running_loop()
        while True:
            try:
                future = loop.run_in_executor(self._thread(), self._alone, work, *args)
            except RuntimeError:
                # Another thread has closed the store between the two steps. Once more, on a thread of its own.
                if self._executor is not None or loop.is_closed():
                    raise
                continue
            return await future

    def _thread(self) -> ThreadPoolExecutor:
        if self._pid != os.getpid():
            # In a process that was forked the locks may be held by a thread that is not there.
            self._making, self._working, self._executor, self._pid = Lock(), Lock(), None, os.getpid()
        with self._making:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="response-cache")
            return self._executor

    def _alone(self, work: Callable[..., T], *args: Any) -> T:
        # While one thread ends, after `close`, the next one may have begun.
        with self._working:
            return work(*args)

    def _fresh(self, created: float) -> bool:
        return self._ttl is None or self._clock() - created < self._ttl

    async def close(self) -> None:
        """Give back the thread and what it holds."""
        executor, self._executor = self._executor, None
        if executor is not None and self._pid == os.getpid():
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(executor, self._alone, self._shut))
            executor.shutdown(wait=False)

    def _shut(self) -> None:
        """Give back what the thread holds; runs on it."""
