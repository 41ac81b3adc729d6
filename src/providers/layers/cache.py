"""The cache layer: answers that were given before, and one request for many identical calls at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from threading import Lock
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary

from ..caches.entries import decode, encode
from ..caches.key import UncacheableError, key_of
from ..caches.store import DEFAULT_COLLECTION, CacheEntry, CacheKey, CacheStore
from ..exceptions import LLMProviderError
from ..notices import warn_only
from ..pipeline import Assembler, Handler, WholeHandler
from ..types import Request, StreamEvent
from ..types.policy import CachePolicy

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Why an answer that is whole ended. Cut off, filtered, refused, or in a word that nobody knows: not stored.
_WHOLE: Final = frozenset({"stop", "tool_calls"})


class ResponseCache:
    """A layer that answers from a store where a call says `cache_response=True`, and keeps what was answered.

    * Identical calls at once, of one event loop and with the same limits of time and tries, are one request: all wait
      for the first one's answer. Where the first caller leaves, the request goes on for the others; where the last one
      leaves, it ends at once. Where it fails, the first caller is told, and each other one makes a call of its own.
      Other loops and processes share the store, not the request.
    * Kept is only a whole answer: not one that was cut off, filtered or refused, nor an empty one, nor one that does
      not fit the structure that was asked for, nor a call of a tool whose arguments are no JSON.
    * A hit comes as the same events, in pieces where a stream was asked for, without the backend's rhythm. Its metadata
      say so: `cache: {"hit": True, "key": digest, "age": seconds, "usage": what the answer used when it was made}`, and
      `"similarity"` where it is the answer to a similar question, which only stores give that look for such. Its
      own usage is 0 in every figure: it is known that nothing was used, and a sum over calls stays what the backend
      bills. An answer from the backend has `cache: {"hit": False, "key": digest, "stored": whether}`.
    * A store that is down costs hits, never an answer: one warning, then silence. One that hangs is given up after
      `patience` seconds and left alone as long.

    Args:
        store: where answers are kept; the layer's to close.
        provider: name of the provider whose answers they are.
        version: version of the provider's plugin; another one knows no answer of this one.
        scope: what else tells two backends of one name apart (address, organization), as JSON values; no secrets.
        collection: which part of the store, where a call does not say.
        patience: seconds for one word with the store.
        first_patience: the same until the store has answered once: it may have to load a package; as `patience` where
            left out.
    """

    caches: Final = True
    """Tells `RequestBuilder` that the flags of a call are heard."""

    def __init__(
        self,
        store: CacheStore,
        provider: str,
        version: str = "",
        scope: Mapping[str, Any] | None = None,
        collection: str = DEFAULT_COLLECTION,
        patience: float = 2.0,
        first_patience: float | None = None,
    ) -> None:
        self.store = store
        self._digest_of = partial(key_of, provider=provider, version=version, scope=dict(scope or {}))
        self._collection = collection
        self._patience = patience
        self._first_patience = patience if first_patience is None else first_patience
        self._rests_until = 0.0
        self._heard = False
        self._warned: set[str] = set()
        self._flights: WeakKeyDictionary[Any, dict[Any, _Flight]] = WeakKeyDictionary()
        self._lock = Lock()

    def __call__(self, request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
        """The layer: a call that does not ask for the cache passes as it is."""
        if request.cache is None:
            return inner(request)
        return self._stream(request, request.cache, inner)

    def whole(self, request: Request, inner: WholeHandler) -> Awaitable[Sequence[StreamEvent]]:
        """The same for whole answers."""
        if request.cache is None:
            return inner(request)
        return self._whole(request, request.cache, inner)

    async def warm(self) -> None:
        """Open the store; where it is down, a warning."""
        await self._ask(self.store.warm)

    async def close(self) -> None:
        """Close the store; a later call opens it again."""
        self._rests_until = 0.0  # also one that is left alone for a while
        heard = self._heard
        await self._ask(self.store.close)
        self._heard = heard  # one that was never opened may have nothing to say but to load no package for it

    async def _whole(self, request: Request, policy: CachePolicy, inner: WholeHandler) -> Sequence[StreamEvent]:
        key = self._key(request, policy)
        if key is None:
            return await inner(request)

        async def fetch(flight: _Flight) -> Sequence[StreamEvent]:
            return await inner(request)

        alone = False
        while True:
            flight, leads = self._board(key, policy, request, fetch, alone)
            try:
                await asyncio.wait({flight.task})
                found = self._landed(flight, leads, request, key)
            finally:
                await flight.leave()
            if found is not None:
                return [*flight.events, *found] if leads and not flight.hit else found
            alone = not flight.task.cancelled()

    async def _stream(self, request: Request, policy: CachePolicy, inner: Handler) -> AsyncGenerator[StreamEvent, None]:
        key = self._key(request, policy)
        if key is None:
            async with aclosing(cast(Any, inner(request))) as events:
                async for event in events:
                    yield event
            return

        async def fetch(flight: _Flight) -> Sequence[StreamEvent]:
            got: list[StreamEvent] = []
            async with aclosing(cast(Any, inner(request))) as events:
                async for event in events:
                    got.append(event)
                    flight.fresh.append(event)
                    flight.bell.set()
            return got

        alone = False
        while True:
            flight, leads = self._board(key, policy, request, fetch, alone)
            try:
                while leads and (flight.fresh or not flight.ended):
                    while flight.fresh:
                        yield flight.fresh.popleft()
                    flight.bell.clear()
                    if not flight.ended and not flight.fresh:
                        await flight.bell.wait()
                await asyncio.wait({flight.task})
                found = self._landed(flight, leads, request, key)
            finally:
                await flight.leave()
            if found is not None:
                for event in found:
                    yield event
                return
            alone = not flight.task.cancelled()

    # --- flights ----------------------------------------------------------------------------------------------------

    def _board(
        self, key: CacheKey, policy: CachePolicy, request: Request, fetch: Fetch, alone: bool
    ) -> tuple[_Flight, bool]:
        """The flight that brings this answer, and whether it is this caller's own."""
        loop = asyncio.get_running_loop()
        with self._lock:
            flights = self._flights.setdefault(loop, {})
        # Nobody shall wait under another one's limits.
        place = (key, policy.rewrite, policy.regen, request.timeout, request.retry)
        known = None if alone else flights.get(place)
        if known is not None:
            known.readers += 1
            return known, False
        flight = _Flight()
        if not alone:
            flights[place] = flight
            flight.land = partial(_forget, flights, place, flight)
        flight.task = loop.create_task(self._fly(flight, key, policy, request, fetch, alone))
        flight.task.add_done_callback(flight.end)
        return flight, True

    async def _fly(
        self, flight: _Flight, key: CacheKey, policy: CachePolicy, request: Request, fetch: Fetch, alone: bool
    ) -> None:
        try:
            if not (policy.rewrite or policy.regen or alone):
                entry = await self._ask(partial(self.store.get, key))
                found = None if entry is None else self._read(entry, request, key)
                if found is not None:
                    flight.entry, flight.events, flight.hit = entry, found, True
                    return
            flight.events = await fetch(flight)
            text, flight.parsed = self._text(flight.events, request)
            if text is not None:
                flight.entry = CacheEntry(text, time.time())
                # A store that fails to say what it has is not written to either: what is there shall stay.
                if not policy.regen or policy.rewrite or not await self._ask(partial(self._has, key), True):
                    flight.stored = await self._ask(partial(self._put, key, text)) is not None
        except Exception as error:
            flight.error = error

    async def _has(self, key: CacheKey) -> bool:
        entry = await self.store.get(key)
        return entry is not None and entry.similarity is None

    async def _put(self, key: CacheKey, text: str) -> bool:
        await self.store.put(key, text)
        return True

    def _landed(self, flight: _Flight, leads: bool, request: Request, key: CacheKey) -> Sequence[StreamEvent] | None:
        """What a flight has brought; for the caller that it was made for, what comes after its events. `None` where
        there is nothing for this caller."""
        if leads and flight.hit:
            return flight.events
        if leads:
            if flight.error is not None:
                try:
                    raise flight.error
                finally:
                    flight.error = None  # or it and the frames that it holds would keep each other alive
            if flight.task.cancelled():
                raise asyncio.CancelledError
            facts: dict[str, Any] = {"cache": {"hit": False, "key": key.digest, "stored": flight.stored}}
            if flight.parsed is not None:
                facts["parsed"] = flight.parsed
            return [StreamEvent.meta(**facts)]
        return None if flight.entry is None else self._read(flight.entry, request, key)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _key(self, request: Request, policy: CachePolicy) -> CacheKey | None:
        try:
            digest = self._digest_of(request)
        except UncacheableError as error:
            self._tell("key", f"a call was made without the response cache: {error}")
            return None
        return CacheKey(digest, policy.collection or self._collection, request, self._digest_of)

    def _read(self, entry: CacheEntry, request: Request, key: CacheKey) -> Sequence[StreamEvent] | None:
        """The events of a stored text; `None` where it is damaged, or does not fit what is asked for today."""
        try:
            stored = decode(entry.text)
            parsed = None
            if request.output is not None and not stored.calls:
                parsed = request.output.parse(stored.content)
        except (ValueError, LLMProviderError) as error:
            logger.debug("a stored answer is of no use: %s", error)
            return None
        age = max(0.0, time.time() - entry.created)
        told = {"hit": True, "key": key.digest, "age": age}
        if entry.similarity is not None:
            told["similarity"] = entry.similarity
        return stored.events(request.stream, told, parsed)

    def _text(self, events: Sequence[StreamEvent], request: Request) -> tuple[str | None, Any]:
        """The text to store, or `None` where the answer shall not be; and the object that the answer was read as, so
        that its parser runs once."""
        assembler = Assembler(request)
        for event in events:
            assembler.feed(event)
        response = assembler.response(partial=True)
        if response.finish_reason not in _WHOLE or response.metadata.get("refusal"):
            return None, None
        if not response.content and not response.tool_calls:
            return None, None
        parsed = None
        try:
            for call in response.tool_calls or ():
                call.parse_arguments()
            if request.output is not None and not response.tool_calls:
                parsed = request.output.parse(response.content)
            return encode(response), parsed
        except UncacheableError as error:
            self._tell("text", f"an answer was not stored in the response cache: {error}")
        except (ValueError, LLMProviderError) as error:
            logger.debug("an answer was not stored: %s", error)
        return None, parsed

    # --- the store --------------------------------------------------------------------------------------------------

    async def _ask(self, word: Callable[[], Coroutine[Any, Any, T]], otherwise: T | None = None) -> T | None:
        """What the store says; `otherwise` where it is down."""
        if time.monotonic() < self._rests_until:
            return otherwise
        try:
            async with asyncio.timeout(self._patience if self._heard else self._first_patience):
                found = await word()
            self._heard = True
            return found
        except TimeoutError:
            self._rests_until = time.monotonic() + self._patience
            self._tell(
                "down", f"the response cache does not answer within {self._patience:g} s; calls go on without it"
            )
        except Exception as error:
            logger.debug("the response cache failed", exc_info=error)
            # Our own errors say what to do, and hold no secret.
            own = f": {error.message}" if isinstance(error, LLMProviderError) else ""
            self._tell("down", f"the response cache is down ({type(error).__name__}{own}); calls go on without it")
        return otherwise

    def _tell(self, subject: str, message: str) -> None:
        if subject not in self._warned:
            self._warned.add(subject)
            warn_only(message)


class _Flight:
    """One request that several calls wait for."""

    __slots__ = (
        *("bell", "ended", "entry", "error", "events", "fresh", "hit", "land", "parsed"),
        *("readers", "stored", "task"),
    )

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.readers = 1
        self.land: Callable[[], None] = _nothing  # no new caller may board from here on
        self.bell = asyncio.Event()
        self.fresh: deque[StreamEvent] = deque()  # what the first caller has not seen yet
        self.ended = False
        self.hit = False
        self.stored = False
        self.entry: CacheEntry | None = None
        self.events: Sequence[StreamEvent] = ()
        self.parsed: Any = None
        self.error: Exception | None = None

    def end(self, task: asyncio.Task[None]) -> None:
        """The task is done, however it ended."""
        self.ended = True
        self.land()
        self.bell.set()

    async def leave(self) -> None:
        """A caller has what it came for, or gives up; the last one ends the request, and waits until it has ended."""
        self.readers -= 1
        if not self.readers and not self.task.done():
            self.land()
            self.task.cancel()
            await asyncio.wait({self.task})


Fetch = Callable[[_Flight], Awaitable[Sequence[StreamEvent]]]


def _nothing() -> None:
    """There is no place to give up."""


def _forget(flights: dict[Any, _Flight], place: Any, flight: _Flight) -> None:
    if flights.get(place) is flight:
        del flights[place]
