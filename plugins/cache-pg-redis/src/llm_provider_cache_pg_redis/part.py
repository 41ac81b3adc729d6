"""A server that a cache or limits lean on: asked while it answers, left alone and looked for while it does not."""

from __future__ import annotations

import logging
import random
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from providers import LLMProviderConnectionError, LLMProviderError

from .address import Address

T = TypeVar("T")
logger = logging.getLogger("providers.caches")

# Seconds before a server that does not answer is looked for: at first, at most.
_FIRST: Final = 1.0
_LONGEST: Final = 15.0
# Seconds that closing waits for a thread that looks, and may be putting things right.
_PATIENCE: Final = 0.5

Stale = tuple[str | None, str | None]
"""Collection and digest of an entry; without the digest the whole collection, without both everything."""


class PartError(Exception):
    """A word with a server failed; the text holds no secret.

    Attributes:
        down: whether the server is down, and not only this one word refused.
    """

    def __init__(self, text: str, down: bool = True) -> None:
        super().__init__(text)
        self.down = down


class Part:
    """One server. Used from many threads.

    While it is down no caller waits for it: one thread looks for it after a rest that grows to fifteen seconds, and
    only where somebody wants it. What was replaced or removed elsewhere meanwhile is remembered by `note`, and goes to
    `remove` before it is asked again.

    Args:
        name: for messages.
        address: where it is.

    Attributes:
        news: sentences that users should be warned of, at most one for each kind of failure.
    """

    most: int = 10_000
    """How much of what was missed is remembered."""

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self.address = address
        self.news: deque[str] = deque()
        self._told: set[bool] = set()
        # Reentrant: what the garbage collector ends may come here in the middle.
        self._lock = threading.RLock()
        self._reason: str | None = None  # why it is down
        self._looking: threading.Thread | None = None
        self._ended = False
        self._until = 0.0
        self._rest = _FIRST
        self._stale: dict[Stale, None] = {}

    @abstractmethod
    def probe(self) -> None:
        """Reach the server, however long that takes within its own time-outs."""

    @abstractmethod
    def remove(self, stale: list[Stale]) -> None:
        """Remove entries and collections that are out of date."""

    @abstractmethod
    def failed(self, error: Exception) -> PartError | None:
        """What an error of the driver means; `None` where it is none of the driver's."""

    def meaning(self, error: Exception) -> PartError:
        """What any error means: whatever is wrong with one part, the other one shall be asked."""
        if isinstance(error, PartError):
            return error
        found = self.failed(error)
        if found is None:
            text = f"{self.name} cannot be used ({self.address.describe(error)})"
            found = PartError(text, down=isinstance(error, LLMProviderError))
        return found

    @property
    def down(self) -> bool:
        """Whether it is left alone at the moment."""
        return self._reason is not None

    def ask(self, word: Callable[..., T], *args: Any) -> T:
        """Say something to the server.

        Raises:
            PartError: it is down, or it refused.
        """
        if self._reason is not None:
            self.look()
            raise PartError(self._reason)
        try:
            return word(*args)
        except Exception as error:
            problem = self.meaning(error)
        # Outside of the block, so that no error hangs on it whose text may tell a secret.
        self._fell(problem)
        raise problem

    def note(self, stale: Stale) -> bool:
        """Remember what has to be removed before the server is asked again; false where it is up."""
        with self._lock:
            if self._reason is None:
                return False
            if (None, None) not in self._stale:
                self._stale[stale] = None
                if len(self._stale) > self.most:
                    self._overflow()
            return True

    def _overflow(self) -> None:
        # A front may always be emptied.
        self._stale = {(None, None): None}

    def _fell(self, problem: PartError) -> None:
        with self._lock:
            if problem.down and self._reason is None:
                self._reason = str(problem)
                self._until = time.monotonic() + _FIRST * random.uniform(0.8, 1.2)
                self._rest = _FIRST
                logger.info("%s is left alone for now: %s", self.name, problem)
            if problem.down not in self._told:
                self._told.add(problem.down)
                self.news.append(str(problem))

    def look(self) -> None:
        """See whether it is back, in the background, where it is down and has rested long enough."""
        with self._lock:
            if self._looking or self._ended or self._reason is None or time.monotonic() < self._until:
                return
            self._looking = threading.Thread(target=self._find, name="llm-cache-look", daemon=True)
            self._looking.start()

    def end(self, wait: bool) -> None:
        """Look for the server no more, and change nothing in it."""
        with self._lock:
            self._ended = True
            looking = self._looking
        if wait and looking is not None:
            looking.join(_PATIENCE)

    def _find(self) -> None:
        reason: str | None = None
        try:
            self.probe()
            while True:
                with self._lock:
                    if self._ended:
                        return
                    stale, self._stale = list(self._stale), {}
                    if not stale:
                        self._reason = None
                        break
                try:
                    self.remove(stale)
                except BaseException:
                    with self._lock:
                        self._stale = {**dict.fromkeys(stale), **self._stale}
                    raise
            logger.info("%s is used again", self.name)
        except Exception as error:
            reason = str(self.meaning(error))
        finally:
            with self._lock:
                self._looking = None
                if self._reason is not None:
                    self._reason = reason or self._reason
                    self._rest = min(self._rest * 2, _LONGEST)
                    self._until = time.monotonic() + self._rest * random.uniform(0.8, 1.2)


def as_ours(error: PartError) -> LLMProviderConnectionError:
    """The error for a caller whose last server has failed."""
    return LLMProviderConnectionError(str(error))
