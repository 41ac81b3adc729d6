"""Answers as files: one JSON file for each, in a folder for each collection."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from .store import CacheEntry, CacheKey, Clock, StoreSize, ThreadedStore, check_bounds

_SAFE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\Z")
_HEAD: Final = re.compile(r'\{"created": ([0-9.e+]+), "value": ')
_NAME: Final = re.compile(r"[0-9a-f]{64}\.json\Z")
_TEMPORARY: Final = ".writing-"
# Of a file that no process can still be writing, in seconds.
_LEFT_BEHIND: Final = 3600.0
# What is swept away at once, as a part of the bound: so that a full cache is not swept at each write.
_SWEPT: Final = 0.1


class FSCache(ThreadedStore):
    """A store of files, `<cache_dir>/<collection>/<digest>.json`, that many processes may share.

    A file is written beside its place and then moved there, so that a process that dies at any point leaves the old
    entry, the new one or none. Other files in the folder are left alone. Files are for their owner's eyes only (mode
    600); they hold answers, never requests.

    Args:
        cache_dir: the folder; made where it is missing.
        max_bytes: most bytes of all files; `None` is no limit. Above it the files that were not used for the longest
            time are removed. Other processes' files are counted when this one has written a tenth of the bound, so
            each process may exceed it by that much.
        ttl: seconds after which an answer is forgotten; `None` keeps it.
        clock: gives the Unix time.

    Raises:
        LLMProviderConfigurationError: a limit is not above 0.
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] = "./cache",
        max_bytes: int | None = 2**30,
        ttl: float | None = None,
        clock: Clock = time.time,
    ) -> None:
        check_bounds(ttl, max_bytes=max_bytes)
        super().__init__(ttl, clock)
        self._root = Path(cache_dir)
        self._most = max_bytes
        # Bytes of all files when they were last counted, and what this process has written since.
        self._counted: int | None = None
        self._written = 0

    async def warm(self) -> None:
        """Make the folder."""
        await self._run(self._make, self._root)

    async def get(self, key: CacheKey) -> CacheEntry | None:
        """What is stored, or `None`; a file that is damaged is removed."""
        return await self._run(self._get, key)

    async def put(self, key: CacheKey, text: str) -> None:
        """Store a text, in place of what is there. One above the bound is not stored."""
        await self._run(self._put, key, text)

    async def delete(self, key: CacheKey) -> bool:
        """Remove one entry; whether there was one."""
        return await self._run(_remove, self._path(key))

    async def clear(self, collection: str | None = None) -> None:
        """Remove all entries of a collection; of all of them where none is named."""
        await self._run(self._clear, collection)

    async def size(self) -> StoreSize:
        """How much is stored; bytes of files."""
        return await self._run(self._size)

    def _path(self, key: CacheKey) -> Path:
        return self._root / folder_of(key.collection) / f"{key.digest}.json"

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except FileNotFoundError:
            # In two steps: the mode is that of the last folder alone.
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)

    def _get(self, key: CacheKey) -> CacheEntry | None:
        path = self._path(key)
        try:
            content = path.read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            content = ""
        head = _HEAD.match(content)
        if head is None or not content.endswith("}\n"):
            _remove(path)
            return None
        created = float(head[1])
        if not self._fresh(created):
            _remove(path)
            return None
        with suppress(OSError):
            now = self._clock()
            os.utime(path, (now, now))
        return CacheEntry(content[head.end() : -2], created)

    def _put(self, key: CacheKey, text: str) -> None:
        path, now = self._path(key), self._clock()
        content = f'{{"created": {now!r}, "value": {text}}}\n'.encode("ascii")
        if self._most is not None and len(content) > self._most:
            _remove(path)
            return
        self._make(path.parent)
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            os.utime(temporary, (now, now))
            os.replace(temporary, path)
        except BaseException:
            _remove(Path(temporary))
            raise
        self._written += len(content)
        if self._most is not None:
            if self._counted is None or self._written > self._most * _SWEPT:
                self._counted, self._written = self._size().bytes, 0
            if self._counted + self._written > self._most:
                self._sweep(path)

    def _sweep(self, newest: Path) -> None:
        assert self._most is not None
        found = sorted(((stat.st_mtime, stat.st_size, path) for path, stat in self._files()), key=lambda item: item[:2])
        total, goal = sum(size for _, size, _ in found), self._most
        if total > goal:
            goal = int(goal * (1 - _SWEPT))
        for _, size, path in found:
            if total <= goal:
                break
            if path != newest and _remove(path):
                total -= size
        self._counted, self._written = total, 0
        now = time.time()
        for temporary in self._root.glob(f"*/{_TEMPORARY}*"):
            with suppress(OSError):
                if now - temporary.stat().st_ctime > _LEFT_BEHIND:
                    temporary.unlink()

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._root.glob("*/*.json"):
            # Nothing but our own files is ever removed, whatever folder somebody names.
            if _NAME.match(path.name):
                # Another process may remove it in this moment.
                with suppress(OSError):
                    yield path, path.stat()

    def _clear(self, collection: str | None) -> None:
        folder = None if collection is None else folder_of(collection)
        for path, _ in list(self._files()):
            if folder is None or path.parent.name == folder:
                _remove(path)
        self._counted = None

    def _size(self) -> StoreSize:
        sizes = [stat.st_size for _, stat in self._files()]
        return StoreSize(len(sizes), sum(sizes))


def folder_of(collection: str) -> str:
    """A collection's name as a name of a folder: itself where that is safe on every system, else with a digest."""
    if _SAFE.match(collection) and collection == collection.lower():
        return collection
    digest = hashlib.sha256(collection.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{re.sub(r'[^a-z0-9_-]+', '_', collection.lower())[:60]}.{digest}"


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
