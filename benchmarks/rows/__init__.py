"""One module for each way to reach the server; each has a class `Door`."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

ROWS = {
    "floor": "benchmarks.rows.floor",
    "raw-openai": "benchmarks.rows.raw_openai",
    "ours": "benchmarks.rows.ours",
    "ceiling": "benchmarks.rows.ceiling",
}
"""Row name to module. Each runs in a process of its own, in an environment of its own if the caller names one."""


class Door(Protocol):
    """A client of the server. What a row cannot do it leaves out, and measures.py leaves it out there.

    Each method gives the text that the user wanted, so that the worker can check it.
    """

    def __init__(self, base_url: str, *, text_stream: bool = False) -> None: ...

    async def call(self) -> str:
        """One message in, one answer out."""

    async def talk(self) -> str:
        """The same with a long talk."""

    async def typed(self) -> str:
        """One message in, a pydantic object out; its `city`."""

    async def events(self) -> str:
        """A streamed answer, event by event as the library gives them."""

    async def text(self) -> str:
        """A streamed answer, text by text as the library gives it."""

    async def close(self) -> None:
        """Close what is open."""


def row_module(name: str) -> Any:
    """The module of a row: `Door`, and where the row has one `look_up(base_url)`.

    Raises:
        KeyError: no row has that name.
        ImportError: the row's library is not installed.
    """
    return import_module(ROWS[name])
