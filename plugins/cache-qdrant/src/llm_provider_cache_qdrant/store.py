"""The store: exact answers by their digest, and answers to similar questions by their vectors."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any, Final, TypeVar, cast

from providers.caches import CacheEntry, CacheKey, StoreSize, decode
from providers.caches.fs import folder_of
from providers.caches.store import Clock, ThreadedStore, check_bounds
from providers.exceptions import LLMProviderConfigurationError, MissingDependencyError
from providers.types import Secret

from .bound import Bound
from .embedding import Vector, Vectors, embedder_of
from .engine import Engine, point_id
from .failures import translated
from .place import Place
from .questions import Asked, Literals, asked_of, literals_of

logger = logging.getLogger(__name__)
T = TypeVar("T")

_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{1,60}\Z")
# Nearest questions that are looked at: the first of them may have grown too old.
_NEAREST: Final = 8
# Seconds within which a second use is not noted: noting is a write, in a folder one that waits for the disk.
_NOTED: Final = 60.0
# Calls that a server gets at once. Those about one key stay in their order, cancelled ones too, on one thread.
_LANES: Final = 8


class QdrantCache(ThreadedStore):
    """A store in Qdrant that also finds answers to similar questions.

    The same request is found by its digest, without an embedder. Else the last question's text is embedded, and the
    nearest question that was answered is looked for, but only among requests where all but that text is the same:
    provider, model, system prompt, earlier messages, parameters, tools, structure. `questions.question_of` and
    `questions.literals_of` say which requests never get a similar one's answer.

    Args:
        embedder: makes the vectors: a provider with the `Embeddings` capability, which stays the caller's to close, or
            an async function `(list[str]) -> list[list[float]]`.
        location: `":memory:"` keeps everything in this process.
        path: a folder for Qdrant's own local engine, which one process at a time may use; all stores of the process
            share it.
        url: a server's address.
        api_key: its key.
        embedding_provider: in place of `embedder`: the name of a provider to be made for it.
        embedding_model: its model.
        embedding_options: its other options.
        embedder_name: what tells the embedder's vectors from others'; made of provider, model and dimensions, or of the
            function's name, where left out. Vectors of different names are never compared.
        dimensions: length of the vectors. Asked for where the model can choose; a vector of another length counts as a
            failure.
        threshold: least cosine similarity of a question to one whose answer it gets, above 0, at most 1.
        longest_question: most characters of a text that is compared; longer ones are found exactly or not at all.
        literals: finds what must be the same in two questions.
        prefix: begins the name of each collection in Qdrant.
        ttl: seconds after which an answer is forgotten; `None` keeps it.
        max_bytes: most bytes of texts; `None` is no limit. Above it those that were not used for the longest time are
            removed. Others' texts on a server are counted when this process has written a tenth of the bound. In memory
            and in a folder there are at most 20,000 entries too.
        timeout: seconds for one word with a server; Qdrant's client rounds up to whole ones.
        embedding_timeout: seconds that a call waits for a vector. It is made to its end all the same, and serves the
            storing of the answer.
        clock: gives the Unix time.

    Raises:
        LLMProviderConfigurationError: an argument is wrong, or nobody is named who makes vectors.
        MissingDependencyError: the package qdrant-client is not installed.
    """

    def __init__(
        self,
        embedder: Any = None,
        *,
        location: str | None = None,
        path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        api_key: Secret | str | None = None,
        embedding_provider: str | None = None,
        embedding_model: str | None = None,
        embedding_options: Mapping[str, Any] | None = None,
        embedder_name: str | None = None,
        dimensions: int | None = None,
        threshold: float = 0.95,
        longest_question: int = 500,
        literals: Literals = literals_of,
        prefix: str = "llm_cache",
        ttl: float | None = None,
        max_bytes: int | None = 2**28,
        timeout: float = 2.0,
        embedding_timeout: float = 1.0,
        clock: Clock = time.time,
    ) -> None:
        check_bounds(
            ttl,
            max_bytes=max_bytes,
            dimensions=dimensions,
            longest_question=longest_question,
            timeout=cast(Any, timeout),
            embedding_timeout=cast(Any, embedding_timeout),
        )
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
            raise LLMProviderConfigurationError(f"threshold must be above 0 and at most 1, not {threshold!r}")
        if not isinstance(prefix, str) or not _PREFIX.match(prefix):
            raise LLMProviderConfigurationError(f"prefix must be letters, digits, '_' and '-', not {prefix!r}")
        super().__init__(ttl, clock)
        self._place = Place.of(location, path, url, api_key, timeout)
        self._embedder = embedder_of(
            embedder,
            embedding_provider,
            embedding_model,
            embedding_options,
            embedder_name,
            dimensions,
            lasting=self._place.lasting,
        )
        if importlib.util.find_spec("qdrant_client") is None:
            raise MissingDependencyError(
                "the Qdrant cache needs the package qdrant-client, which is not installed; "
                "pip install llm-provider-cache-qdrant brings it"
            )
        self._vectors = Vectors(self._embedder, dimensions, embedding_timeout)
        self._threshold = threshold
        self._longest = longest_question
        self._literals = literals
        self._prefix = prefix
        self._most = max_bytes
        self._dimensions = dimensions
        self._engine: Engine | None = None
        self._end: Any = None
        self._lanes = [] if self._place.local else [ThreadedStore(ttl, clock) for _ in range(_LANES)]
        self._here = os.getpid()
        self._renew()

    def _renew(self) -> None:
        self._opening = Lock()
        self._unswept = False  # whether somebody wrote since the last sweep began
        self._sweeping = Lock()
        self._bound = Bound(self._most, self._place.local)

    # --- the protocol -----------------------------------------------------------------------------------------------

    async def warm(self) -> None:
        """Connect or open the folder, and load the embedder, which goes on by itself where it takes long."""
        await self._run(_look)
        await self._vectors.of("Is everybody ready?")

    async def get(self, key: CacheKey) -> CacheEntry | None:
        """What is stored for this request; else for the most similar one; else `None`."""
        entry = await self._run(self._get, key)
        if entry is not None:
            return entry
        asked = asked_of(key, self._longest, self._literals)
        if asked is None:
            return None
        vector = await self._vectors.of(asked.text)
        return None if vector is None else await self._run(self._similar, key, asked, vector)

    async def put(self, key: CacheKey, text: str) -> None:
        """Store a text, in place of what is there; then its question. One above the bound is not stored."""
        if not await self._run(self._put, key, text):
            return
        self._later(self._keep_bound, len(text))
        asked = asked_of(key, self._longest, self._literals) if _is_plain(text) else None
        if asked is None:
            return
        vector = await self._vectors.of(asked.text)
        if vector is not None:
            await self._run(self._ask_for, key, asked, vector)

    async def delete(self, key: CacheKey) -> bool:
        """Remove the entry of this very request; whether there was one."""
        return await self._run(self._delete, key)

    async def clear(self, collection: str | None = None) -> None:
        """Remove all entries of a collection; of all of them where none is named."""
        await self._run(self._clear, collection)

    async def size(self) -> StoreSize:
        """How much is stored; bytes of texts. Reads the figures of each entry."""
        return await self._run(self._size)

    async def close(self) -> None:
        """Give back the client, the threads and an embedder that was made here."""
        try:
            await self._vectors.close()
        finally:
            for lane in self._lanes:
                await lane.close()
            if self._lanes:
                self._shut()
            await super().close()

    # --- threads ----------------------------------------------------------------------------------------------------

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        if self._here != os.getpid():
            # A process that was forked opens everything anew.
            self._here = os.getpid()
            self._renew()
            self._vectors.renew()
            self._engine = None
        if not self._lanes:
            return await super()._run(work, *args)
        key = next((value for value in args if isinstance(value, CacheKey)), None)
        lane = self._lanes[0 if key is None else hash(key.digest) % _LANES]
        return await lane._run(self._alone, work, *args)

    def _alone(self, work: Callable[..., T], *args: Any) -> T:
        if work == self._shut:
            return work()
        with translated(self._place):
            engine = self._open()
            try:
                with engine.alone:
                    return work(engine, *args)
            finally:
                engine.release()

    def _open(self) -> Engine:
        """The engine, held for one word: who closes the store meanwhile does not take it away."""
        with self._opening:
            if self._engine is None:
                self._engine = self._place.engine()
                self._end = weakref.finalize(self, self._engine.release)
            return self._engine.hold()

    def _later(self, work: Callable[..., None], *args: Any) -> None:
        """Work that nobody waits for: the answer is on its way."""
        # The first thread that is there: some may never have had anything to do.
        there = (store._executor for store in self._lanes or [self])
        executor = next((found for found in there if found is not None), None)
        if executor is not None:
            # It is shut down where the store is closed in this moment.
            with suppress(RuntimeError):
                executor.submit(work, *args)

    def _shut(self) -> None:
        with self._opening:
            self._engine = None
            if self._end is not None:
                self._end()

    # --- on the threads ---------------------------------------------------------------------------------------------

    def _get(self, engine: Engine, key: CacheKey) -> CacheEntry | None:
        name, id = self._answers(key.collection), point_id(key.digest)
        return self._entry(engine, name, id, engine.read(name, [id]).get(id))

    def _entry(
        self, engine: Engine, name: str, id: str, payload: Mapping[str, Any] | None, similarity: float | None = None
    ) -> CacheEntry | None:
        text, created = (payload or {}).get("text"), (payload or {}).get("created")
        if not isinstance(text, str) or not isinstance(created, int | float):
            return None
        if not self._fresh(created):
            engine.erase(name, [id])
            return None
        now, used = self._clock(), (payload or {}).get("used")
        if not isinstance(used, int | float) or abs(now - used) > _NOTED:
            self._later(self._touch, name, id, now)
        return CacheEntry(text, created, similarity)

    def _similar(self, engine: Engine, key: CacheKey, asked: Asked, vector: Vector) -> CacheEntry | None:
        questions, answers = self._questions(key.collection, len(vector)), self._answers(key.collection)
        near = [
            (id, score)
            for id, score, payload in engine.similar(questions, vector, asked.place, self._threshold, _NEAREST)
            # The same words in another order ("from a to b", "from b to a"): vectors hardly know it.
            if payload.get("bag") != asked.bag or payload.get("order") == asked.order
        ]
        if not near:
            return None
        found = engine.read(answers, [id for id, _ in near])
        engine.erase(questions, [id for id, _ in near if id not in found])
        for id, score in near:
            entry = self._entry(engine, answers, id, found.get(id), min(1.0, score))
            if entry is not None:
                return entry
        return None

    def _put(self, engine: Engine, key: CacheKey, text: str) -> bool:
        name = self._answers(key.collection)
        if self._most is not None and len(text) > self._most:
            engine.erase(name, [point_id(key.digest)])
            return False
        now = self._clock()
        engine.write(name, 0, key.digest, (), {"text": text, "created": now, "used": now, "size": len(text)})
        return True

    def _ask_for(self, engine: Engine, key: CacheKey, asked: Asked, vector: Vector) -> None:
        payload = {"place": asked.place, "bag": asked.bag, "order": asked.order}
        engine.write(self._questions(key.collection, len(vector)), len(vector), key.digest, vector, payload)

    def _delete(self, engine: Engine, key: CacheKey) -> bool:
        # Its question is removed when somebody meets it.
        name, id = self._answers(key.collection), point_id(key.digest)
        there = id in engine.read(name, [id])
        engine.erase(name, [id])
        return there

    def _clear(self, engine: Engine, collection: str | None) -> None:
        begin = f"{self._prefix}~" if collection is None else self._answers(collection)
        for name in engine.names():
            if name.startswith(f"{begin}~") or name == begin or (collection is None and name.startswith(begin)):
                engine.drop(name)
        self._bound.counted = None

    def _size(self, engine: Engine) -> StoreSize:
        names = self._all(engine)
        # Whoever asks shall not find more than the bound, only because a sweep is still to come.
        if self._bound.is_passed(self._bound.measure(engine, names)):
            self._bound.sweep(engine, names)
        return self._bound.measure(engine, names)

    def _touch(self, name: str, id: str, now: float) -> None:
        if self._engine is None:
            return
        try:
            self._alone(lambda engine: engine.mark(name, id, {"used": now}))
        except Exception as error:
            logger.debug("a use of the Qdrant cache could not be noted", exc_info=error)

    def _keep_bound(self, written: int) -> None:
        """Sweep away what is too much; one sweep at a time, and one more where somebody wrote during it."""
        self._bound.written += written
        self._unswept = True
        while self._unswept and self._engine is not None and self._sweeping.acquire(blocking=False):
            self._unswept = False
            try:
                if self._alone(lambda engine: self._bound.is_reached(engine, self._all(engine), 0)):
                    self._alone(lambda engine: self._bound.sweep(engine, self._all(engine)))
            except Exception as error:
                logger.debug("the bound of the Qdrant cache could not be kept", exc_info=error)
            finally:
                self._sweeping.release()

    # --- names ------------------------------------------------------------------------------------------------------

    def _answers(self, collection: str) -> str:
        return f"{self._prefix}~{folder_of(collection)}"

    def _questions(self, collection: str, dimensions: int) -> str:
        name = hashlib.sha256(self._embedder.name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return f"{self._answers(collection)}~{name}~{dimensions}"

    def _all(self, engine: Engine) -> Sequence[str]:
        begin = f"{self._prefix}~"
        return [name for name in engine.names() if name.startswith(begin) and name.count("~") == 1]


def _look(engine: Engine) -> None:
    """Whether somebody answers."""
    engine.names()


def _is_plain(text: str) -> bool:
    """Whether an answer is text alone: calls of tools are made from the very words of a question."""
    try:
        return not decode(text).calls
    except ValueError:
        return False
