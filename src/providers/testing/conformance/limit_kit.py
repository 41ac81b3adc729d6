"""What the tests of limit stores stand on: what the author says of the store, and how a test talks to one."""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from ...resilience.levels import Amounts, Rate
from ...resilience.limiter import LimitStore

T = TypeVar("T")
Open = Callable[[], LimitStore]

NEVER = 1e-6
"""Units a second of a bucket into which nothing comes back while a test runs."""

# Seconds in which a caller that must wait is watched, and in which one that must not has to be let in.
_WATCHED = 0.25
_SOON = 2.0


class LimitKit:
    """What an author says of a limit store; `LimitConformance` says what its attributes are."""

    shared: ClassVar[bool] = False
    slack: ClassVar[float] = 0.3
    threads: ClassVar[Sequence[str]] = ()
    room: Path

    # --- what an author writes

    @abstractmethod
    def make_store(self) -> LimitStore:
        """A store over one and the same place within a test, which is unused when the test begins (`self.room`, an
        empty folder, is one)."""
        raise NotImplementedError(f"{type(self).__qualname__} needs make_store()")

    @abstractmethod
    def source(self) -> str:
        """Python text, with its imports, that leaves in `store` what `make_store` gives: for other processes."""
        raise NotImplementedError(f"{type(self).__qualname__} needs source()")

    def check_place(self) -> None:
        """Look at the place once all stores are closed that processes were killed over; by default at nothing."""

    # --- tools of the tests

    @pytest.fixture(autouse=True)
    def _room(self, tmp_path: Path) -> None:
        self.room = tmp_path

    def _run(self, work: Callable[[Open], Awaitable[T]]) -> T:
        """Give what makes stores to a coroutine function, in a new event loop, and close them afterwards."""
        made: list[LimitStore] = []

        def make() -> LimitStore:
            made.append(self.make_store())
            return made[-1]

        async def main() -> T:
            try:
                return await work(make)
            finally:
                for store in made:
                    await self._close(store)

        return asyncio.run(main())

    async def _close(self, store: LimitStore) -> None:
        """Have done what a store has left to do; one without `close` does all at once."""
        close: Any = getattr(store, "close", None)
        if close is not None and inspect.isawaitable(left := close()):
            await left

    async def _soon(self, work: Awaitable[T], after: float = 0.0) -> T:
        """What must not wait, or not for longer than some seconds."""
        return await asyncio.wait_for(work, after + self.slack + _SOON)

    async def _must_wait(self, store: LimitStore, key: str, rates: Sequence[Rate], amounts: Amounts) -> None:
        """A caller who is not let in, and goes away."""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.acquire(key, rates, amounts), _WATCHED)
