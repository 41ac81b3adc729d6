"""What is asked of Qdrant: its client's words, called on the threads of a store; one client for each folder."""

from __future__ import annotations

import hashlib
import importlib
import os
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from threading import RLock
from typing import IO, Any, Final
from weakref import WeakSet

from providers.exceptions import LLMProviderConfigurationError

_PAGE: Final = 1000
_PROBED: Final = 64

# Clients of this process, and the engines of its folders: Qdrant's own engine lets one client open a folder.
_clients: Final[WeakSet[Any]] = WeakSet()
_folders: Final[dict[str, Engine]] = {}
_parents: Final[list[Engine]] = []
_opening = RLock()
_counting = RLock()  # of users; held for moments only, as the end of a store may come in the middle of anything


def _forked() -> None:
    # What the parent has opened is its own to close: a child that did would take away the lock of its folder.
    global _opening, _counting
    _opening, _counting = RLock(), RLock()
    for client in _clients:
        client.close = _nothing
    _parents.extend(_folders.values())
    _folders.clear()


def _nothing(**options: Any) -> None:
    """In place of `close`, in a child."""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def point_id(digest: str) -> str:
    """The id of an entry: Qdrant takes a UUID."""
    return str(uuid.UUID(bytes=hashlib.sha256(digest.encode("utf-8", "surrogatepass")).digest()[:16]))


class Engine:
    """One client of Qdrant.

    Args:
        options: of `qdrant_client.QdrantClient`.
        folder: where the engine is in this process and keeps its data, or `None`.
        local: whether the engine is in this process.

    Attributes:
        alone: held by whoever uses the client, where only one may at a time.
    """

    def __init__(self, options: Mapping[str, Any], folder: str | None, local: bool) -> None:
        import qdrant_client

        self.alone: AbstractContextManager[Any] = RLock() if local else nullcontext()
        self._models = qdrant_client.models
        self._client = qdrant_client.QdrantClient(**options)
        _clients.add(self._client)
        self._folder = folder
        self._local = local
        self._owner = os.getpid()
        self._users = 1
        self._lock: IO[str] | None = None
        self._there: set[str] = set()

    @classmethod
    def of_folder(cls, path: Path) -> Engine:
        """The engine of a folder, which all stores of this process share.

        Raises:
            LLMProviderConfigurationError: others may write to the folder, or another process has it open.
        """
        folder = os.path.realpath(path)
        with _opening:
            with _counting:
                engine = _folders.get(folder)
                if engine is not None:
                    return engine.hold()
            lock = _locked(Path(folder))
            try:
                _complete(Path(folder))
                engine = cls({"path": folder, "force_disable_check_same_thread": True}, folder, True)
            except BaseException:
                lock.close()
                raise
            engine._lock = lock
            with _counting:
                _folders[folder] = engine
            return engine

    def hold(self) -> Engine:
        """One user more."""
        with _counting:
            self._users += 1
        return self

    def release(self) -> None:
        """One user less; the last one closes the client."""
        with _counting:
            self._users -= 1
            if self._users or self._owner != os.getpid():
                return
            if self._folder is not None:
                _folders.pop(self._folder, None)
            self._client.close()
            if self._lock is not None:
                self._lock.close()

    # --- points -----------------------------------------------------------------------------------------------------

    def write(self, name: str, size: int, digest: str, vector: Sequence[float], payload: Mapping[str, Any]) -> None:
        """Put a point, in place of what is there; the collection is made where it is missing.

        Args:
            name: the collection.
            size: how many dimensions its vectors have; 0 where it has none.
            digest: of the request.
            vector: as many numbers.
            payload: what else is kept.
        """
        point = self._models.PointStruct(
            id=point_id(digest), vector=list(vector) if size else {}, payload=dict(payload)
        )
        for again in (True, False):
            self._make(name, size)
            try:
                self._client.upsert(name, [point])
                return
            except Exception as error:
                # Another process has removed the collection since.
                self._there.discard(name)
                if not (again and self._is_missing(name, error)):
                    raise

    def read(self, name: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is kept at points, by their id."""
        found = self._unless_missing(name, lambda: self._client.retrieve(name, list(ids), with_payload=True))
        return {str(point.id): point.payload or {} for point in found or ()}

    def similar(
        self, name: str, vector: Sequence[float], place: str, threshold: float, limit: int
    ) -> list[tuple[str, float, dict[str, Any]]]:
        """Id, score and payload of the nearest points of one place, the nearest first."""
        if self._local:
            # The local engine finds out for all points at once which are near, but asks each for its place, in Python.
            found = self._nearest(name, vector, None, threshold, _PROBED)
            if len(found) < _PROBED:
                return [(id, score, payload) for id, score, payload in found if payload.get("place") == place][:limit]
        return self._nearest(name, vector, place, threshold, limit)

    def _nearest(
        self, name: str, vector: Sequence[float], place: str | None, threshold: float, limit: int
    ) -> list[tuple[str, float, dict[str, Any]]]:
        models = self._models
        only = None
        if place is not None:
            only = models.Filter(must=[models.FieldCondition(key="place", match=models.MatchValue(value=place))])
        found = self._unless_missing(
            name,
            lambda: self._client.query_points(
                name,
                query=list(vector),
                query_filter=only,
                limit=limit,
                with_payload=True,
                score_threshold=threshold,
            ),
        )
        return [(str(point.id), float(point.score), point.payload or {}) for point in found.points] if found else []

    def mark(self, name: str, id: str, payload: Mapping[str, Any]) -> None:
        """Change what is kept at a point, without waiting for it."""
        self._unless_missing(name, lambda: self._client.set_payload(name, dict(payload), [id], wait=False))

    def count(self, name: str) -> int:
        """How many points a collection has."""
        found = self._unless_missing(name, lambda: self._client.count(name))
        return 0 if found is None else int(found.count)

    def erase(self, name: str, ids: Sequence[str]) -> None:
        """Remove points."""
        for start in range(0, len(ids), _PAGE):
            self._unless_missing(name, partial(self._client.delete, name, list(ids[start : start + _PAGE])))

    def figures(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id, size and time of use of all points of a collection."""
        offset: Any = None
        while True:
            scroll = partial(self._client.scroll, name, limit=_PAGE, offset=offset, with_payload=["size", "used"])
            page = self._unless_missing(name, scroll)
            if page is None:
                return
            points, offset = page
            for point in points:
                yield str(point.id), point.payload or {}
            if offset is None:
                return

    # --- collections ------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All collections, others' too."""
        return [collection.name for collection in self._client.get_collections().collections]

    def drop(self, name: str) -> None:
        """Remove a collection."""
        self._there.discard(name)
        # The local engine forgets its file without closing it.
        inner = getattr(getattr(self._client, "_client", None), "collections", {}).get(name) if self._local else None
        self._client.delete_collection(name)
        if inner is not None:
            inner.close()

    def _make(self, name: str, size: int) -> None:
        if name in self._there:
            return
        if not self._client.collection_exists(name):
            models = self._models
            vectors = models.VectorParams(size=size, distance=models.Distance.COSINE) if size else {}
            try:
                self._client.create_collection(name, vectors_config=vectors)
            except Exception:
                # Another one may have been quicker.
                if not self._client.collection_exists(name):
                    raise
            if size and not self._local:
                self._client.create_payload_index(name, "place", models.PayloadSchemaType.KEYWORD)
        self._there.add(name)

    def _unless_missing(self, name: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except Exception as error:
            if not self._is_missing(name, error):
                raise
            self._there.discard(name)
            return None

    def _is_missing(self, name: str, error: Exception) -> bool:
        if self._local:
            return isinstance(error, ValueError) and not self._client.collection_exists(name)
        return getattr(error, "status_code", None) == 404


def _locked(folder: Path) -> IO[str]:
    """A folder for one process, until what comes back is closed.

    The engine has a lock of its own, but takes it when it has read everything, and leaves files open where it fails.
    """
    portalocker: Any = importlib.import_module("portalocker")  # what the engine locks with; not before it is needed
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid"):
        about = folder.stat()
        # The local engine keeps its points as pickles: whoever may write them, has his code run here.
        if about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise LLMProviderConfigurationError(
                f"the folder {folder} of the Qdrant cache may be written to by others, whose code would run here: "
                "name one that is yours alone (chmod 700)"
            )
    file = open(folder / ".process", "a", encoding="ascii")  # noqa: SIM115 - it stays open as long as the lock
    try:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.LockException as error:
        file.close()
        raise LLMProviderConfigurationError(
            f"another process has the Qdrant cache in {folder} open: Qdrant's local engine is for one process at a "
            "time; give each process a folder of its own, or run a server and pass its address"
        ) from error
    except BaseException:
        file.close()
        raise
    return file


def _complete(folder: Path) -> None:
    # The engine writes this file in two steps the first time; one that died in between would never open again.
    meta = folder / "meta.json"
    if not meta.exists() or not meta.stat().st_size:
        descriptor, temporary = tempfile.mkstemp(prefix="meta.json.", dir=folder)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write('{"collections": {}, "aliases": {}}')
            os.replace(temporary, meta)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
