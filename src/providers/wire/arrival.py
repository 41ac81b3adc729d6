"""What waits for the pieces of a stream: it goes on in the very turn of the loop in which bytes come.

An ordinary future wakes its task by a callback, which the loop calls a turn later: one more look at the selector for
each piece. Who waits for `Pieces` goes on as soon as the connection has taken the bytes in, on the loop's own stack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aiohttp import StreamReader

# Private parts of aiohttp's reader; one that lacks any is read in aiohttp's own way.
_PARTS: Final = ("_buffer", "_eof", "_exception", "_read_nowait", "_waiter")


class Pieces:
    """A body, piece by piece: `await` it for the next one, as for `content.readany()`; empty bytes at the end.

    To the task that awaits it and to aiohttp it is a future, as asyncio defines one (anything that has
    `_asyncio_future_blocking` and these methods), but one that can be waited for again.

    Args:
        content: aiohttp's reader.
        place: the connection's protocol.
    """

    __slots__ = ("_asyncio_future_blocking", "_content", "_context", "_done", "_error", "_place", "_wake")

    def __init__(self, content: Any, place: Arriving) -> None:
        self._asyncio_future_blocking = False
        self._content = content
        self._place = place
        self._done = True
        self._error: BaseException | None = None
        self._wake: Callable[[Any], object] | None = None
        self._context: Context | None = None

    def __await__(self) -> Generator[Any, None, bytes]:
        content = self._content
        if content._exception is not None:
            raise content._exception
        while not content._buffer and not content._eof:
            if not self._place.connected:
                raise RuntimeError("Connection closed.")
            content._waiter = self
            self._done = False
            self._asyncio_future_blocking = True
            try:
                yield self
            finally:
                content._waiter = None
        data: bytes = content._read_nowait(-1)
        return data

    # --- what a task calls

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the connection."""
        return self._place.loop

    def add_done_callback(self, fn: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Keep what wakes the task."""
        self._wake, self._context = fn, context

    def result(self) -> None:
        """What the task is told when it wakes: nothing, or an error."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def cancel(self, msg: Any | None = None) -> bool:
        """The task is cancelled."""
        if self._done:
            return False
        self._done, self._error = True, asyncio.CancelledError(*(() if msg is None else (msg,)))
        self._later()
        return True

    # --- what aiohttp calls

    def done(self) -> bool:
        """Whether nobody waits."""
        return self._done

    def set_result(self, _: None) -> None:
        """Something came, or the end."""
        self._done = True
        place = self._place
        if place.receiving:
            # The parser is at work: the task must not come across it.
            place.arrived = self
        else:
            self._later()

    def set_exception(self, error: BaseException) -> None:
        """Something broke."""
        self._done, self._error = True, error
        self._later()

    # --- what wakes the task

    def go(self) -> None:
        """Let the task go on: now, if none runs."""
        wake, context = self._wake, self._context
        if wake is None or context is None or asyncio.current_task(self._place.loop) is not None:
            self._later()
        else:
            self._wake = None
            context.run(wake, self)

    def _later(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            self._place.loop.call_soon(wake, self, context=self._context)


class Arriving:
    """Part of a protocol: lets go on who waits for its bytes when they have been taken in.

    Attributes:
        loop: the loop of the connection.
        connected: whether it stands.
        receiving: whether bytes are being taken in.
        arrived: who waits for them.
    """

    loop: asyncio.AbstractEventLoop
    connected: bool
    receiving = False
    arrived: Pieces | None = None

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.receiving = True
        try:
            super().data_received(data)  # type: ignore[misc]
        finally:
            self.receiving = False
            arrived = self.arrived
            if arrived is not None:
                self.arrived = None
                arrived.go()


class _Plain:
    """The same in aiohttp's own way."""

    __slots__ = ("_content",)

    def __init__(self, content: StreamReader) -> None:
        self._content = content

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._content.readany().__await__()


def pieces_of(content: StreamReader) -> Awaitable[bytes]:
    """A body, piece by piece: to be awaited again and again, it gives what `content.readany()` gives each time, and
    empty bytes at the end."""
    place: Any = getattr(content, "_protocol", None)
    if not isinstance(place, Arriving) or not all(hasattr(content, part) for part in _PARTS):
        return _Plain(content)
    return Pieces(content, place)
