"""What a backend says is left of its limits, on its way from the wire to whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, NamedTuple, TypeAlias


class Headroom(NamedTuple):
    """What is left until a limit's next reset; `None` where the backend does not say.

    Attributes:
        requests: requests that may still be made.
        tokens: tokens that may still be used.
    """

    requests: int | None = None
    tokens: int | None = None


Listener: TypeAlias = Callable[[Headroom], None]

listening: Final[ContextVar[Listener | None]] = ContextVar("listening", default=None)
"""Whom the wire tells what a reply's headers say. Nobody listens by default, and then no header is looked at."""
