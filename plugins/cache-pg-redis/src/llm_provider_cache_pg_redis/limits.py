"""Limits in Redis, shared by the processes of all machines that reach it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

from providers import LLMProviderConfigurationError
from providers.notices import warn_only
from providers.resilience.asked import Ask, Reply
from providers.resilience.levels import Amounts, Rate
from providers.resilience.lines import LinedLimits

from .address import Address
from .shared import SharedState


class RedisLimits(LinedLimits):
    """A `LimitStore` in Redis: buckets and cooldowns that all processes share that use the same server and prefix.

    Each word is one script that Redis runs as a whole, by its own clock, so machines need not agree on the time. Names
    of keys hold what `limit_key` gives, a fingerprint of the credential; keys expire when they say nothing any more,
    and a cooldown is a time that passes. A process that is killed loses what one waiting caller had paid for each key,
    no more.

    Where Redis cannot be used there is one warning, and the limits hold for this process alone until it can be: a limit
    store never fails a call. Redis is looked for in the background then, at most every fifteen seconds.

    Args:
        redis_url: address of the server, as `redis://user:password@host:6379/0`. Redis 5 or newer.
        prefix: what all keys begin with.
        timeout: seconds that one word may take.

    Raises:
        LLMProviderConfigurationError: an argument is wrong.
        MissingDependencyError: the package `redis` is not installed.
    """

    thread_name: ClassVar[str] = "llm-limits-redis"

    def __init__(self, redis_url: Any, *, prefix: str = "llm-limits", timeout: float = 0.5) -> None:
        if not redis_url:
            raise LLMProviderConfigurationError("limits in Redis need an address: give redis_url (REDIS_URL)")
        if not isinstance(prefix, str) or not prefix:
            raise LLMProviderConfigurationError(f"prefix must be a text, not {prefix!r}")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
            raise LLMProviderConfigurationError(f"timeout must be a finite number above 0, not {timeout!r}")
        self._address = Address("redis_url", redis_url, "redis")
        self._prefix = prefix
        self._timeout = float(timeout)
        self._warned = False
        self.patience = 10 * self._timeout
        super().__init__()

    def begin(self) -> None:
        """See `LinedLimits`."""
        super().begin()
        self._state = SharedState(self._address, self._prefix, self._timeout)

    def disown(self) -> None:
        """See `LinedLimits`."""
        _inherited.append(self._state)

    def asking(self) -> nullcontext[Callable[[str, Ask], Reply | None]]:
        """See `LinedLimits`. The connection outlives the thread, until `close`."""
        return nullcontext(self._state.say)

    async def acquire(self, key: str, rates: Sequence[Rate], amounts: Amounts) -> int:
        """See `LimitStore`."""
        generation = await super().acquire(key, rates, amounts)
        if self._state.news and not self._warned:
            self._tell()
        return generation

    def close(self) -> None:
        """See `LinedLimits`. Closes the connection too, where nobody waits; a later use makes another."""
        super().close()
        with self.lock:
            if self.at_rest:
                self._state.close()

    @property
    def fingerprint(self) -> str:
        """What two stores over the same server have in common; does not tell the address."""
        return hashlib.sha256(f"{self._prefix}\0{self._address.value}".encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} under {self._prefix!r}>"

    # --- in here

    def _tell(self) -> None:
        self._warned = True
        warn_only(f"{self._state.news[0]}; limits hold for this process alone until it is back")


# What a forked child has of its parent's connections: never closed, since they are not its own.
_inherited: list[SharedState] = []
