"""The lives of one provider: one after the other where its settings change, and their common end."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from .life import Life, Shut


@asynccontextmanager
async def changing(life_of: Callable[[], Life]) -> AsyncIterator[Life]:
    """The life of a provider whose settings change: one thread at a time, while nobody opens or shuts the provider.

    What was opened meanwhile from the old settings would be known to neither side. There must be no `await` inside.
    """
    while True:
        life = life_of()
        turn = await life.take_turn()
        try:
            with _changing:
                mine = life is life_of()
                if mine:
                    yield life
        except BaseException:
            life.end_turn(turn)
            await life.settle()
            raise
        life.end_turn(turn)
        if mine:
            return
        await life.settle()


async def close_all(lives_of: Callable[[], Sequence[Life]], then: Shut) -> None:
    """Close all lives of a provider, also where one cannot be shut, and do what comes after; and once more after the
    calls that are under way, which may use again what `then` gives back.

    Raises:
        LLMProviderError: the first that a backend says when it is shut.
    """
    first: Exception | None = None
    with _changing:  # no `reload` begins another life meanwhile
        lives = lives_of()
        for life in lives:
            life.closed = True
    for life in lives:
        try:
            await life.close()
        except Exception as error:
            first = first or error
    await then()
    for life in lives:
        if life.under_way:
            await life.afterwards(then)
    if first is not None:
        raise first


_changing = threading.RLock()


def _after_fork() -> None:
    # In the child another thread may have held it.
    global _changing
    _changing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
