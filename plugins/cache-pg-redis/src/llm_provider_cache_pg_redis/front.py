"""Redis: the front of the cache, with one key for each answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from providers import LLMProviderConfigurationError, MissingDependencyError

from .address import Address
from .codec import SCHEMA, safe
from .part import Part, PartError, Stale

_BATCH: Final = 500


def connect(address: Address, timeout: float, connections: int) -> Any:
    """A client whose words fail within `timeout` seconds each, and are said once.

    Raises:
        LLMProviderConfigurationError: the address has an option that the client does not know.
        MissingDependencyError: the package cannot be imported.
    """
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise MissingDependencyError(f"the package redis cannot be used: {error}") from error
    problem = ""
    try:
        # The pool sees which connections broke while they were idle; the client's own retries would wait for seconds.
        once = Retry(NoBackoff(), 0)
        return redis.Redis.from_url(
            address.value,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            socket_keepalive=True,
            retry=once,
            protocol=2,
            decode_responses=False,
            max_connections=connections,
        )
    except (ValueError, TypeError) as error:
        problem = type(error).__name__
    raise LLMProviderConfigurationError(f"redis_url cannot be read ({problem})")


def redis_failed(part: Part, error: Exception) -> PartError | None:
    """What an error of the client means."""
    try:
        from redis.exceptions import ConnectionError, RedisError, TimeoutError
    except ImportError:
        return None
    if isinstance(error, ConnectionError | TimeoutError | OSError):
        return PartError(f"{part.name} does not answer ({part.address.describe(error)})")
    if isinstance(error, RedisError):
        return PartError(f"{part.name} refused ({part.address.describe(error)})", down=False)
    return None


class RedisFront(Part):
    """Answers in Redis.

    Args:
        address: where it is.
        prefix: what all keys begin with.
        timeout: seconds for one word.
        connections: most of them.
    """

    def __init__(self, address: Address, prefix: str, timeout: float, connections: int) -> None:
        super().__init__("Redis", address)
        self._prefix = f"{prefix}:{SCHEMA}:"
        self._timeout = timeout
        self._connections = connections
        self._made: Any = None

    @property
    def _client(self) -> Any:
        # Made in the thread that asks first: the import takes a while.
        if self._made is None:
            with self._lock:
                self._made = self._made or connect(self.address, self._timeout, self._connections)
        return self._made

    def key(self, collection: str, digest: str) -> str:
        """The name that an answer has in Redis."""
        return f"{self._prefix}{safe(collection)}:{safe(digest)}"

    def get(self, collection: str, digest: str) -> bytes | None:
        """What is stored; something that is no string counts as damaged."""
        from redis.exceptions import ResponseError

        try:
            found: bytes | None = self._client.get(self.key(collection, digest))
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            return b""
        return found

    def put(self, collection: str, digest: str, blob: bytes, seconds: float, new: bool = False) -> None:
        """Store bytes for so many seconds; with `new` only where nothing is stored."""
        self._client.set(self.key(collection, digest), blob, px=max(1, int(seconds * 1000)), nx=new)

    def delete(self, collection: str, digest: str) -> bool:
        """Remove one entry; whether there was one."""
        return bool(self._client.unlink(self.key(collection, digest)))

    def clear(self, collection: str | None) -> None:
        """Remove all entries of a collection, or all."""
        for keys in self._keys(collection):
            self._client.unlink(*keys)

    def size(self) -> tuple[int, int]:
        """How many entries there are, and the bytes of their values."""
        entries = used = 0
        for keys in self._keys(None):
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.strlen(key)
                lengths = [length for length in pipe.execute(raise_on_error=False) if isinstance(length, int)]
            entries += sum(length > 0 for length in lengths)
            used += sum(lengths)
        return entries, used

    def _keys(self, collection: str | None) -> Iterator[list[bytes]]:
        where = "" if collection is None else f"{safe(collection)}:"
        batch: set[bytes] = set()
        seen: set[bytes] = set()
        for key in self._client.scan_iter(match=f"{self._prefix}{where}*", count=_BATCH):
            # A scan may give a key twice.
            if key not in seen:
                seen.add(key)
                batch.add(key)
            if len(batch) >= _BATCH:
                yield list(batch)
                batch.clear()
        if batch:
            yield list(batch)

    def probe(self) -> None:
        """See `Part`."""
        self._client.ping()

    def remove(self, stale: list[Stale]) -> None:
        """See `Part`."""
        keys = [
            self.key(collection, digest)
            for collection, digest in stale
            if collection is not None and digest is not None
        ]
        for at in range(0, len(keys), _BATCH):
            self._client.unlink(*keys[at : at + _BATCH])
        for collection, digest in stale:
            if digest is None:
                self.clear(collection)

    def failed(self, error: Exception) -> PartError | None:
        """See `Part`."""
        return redis_failed(self, error)

    def close(self) -> None:
        """Give the connections back; a later word makes others."""
        if self._made is not None:
            self._made.close()
