"""Who reads a stream goes on in the turn in which bytes come, and otherwise as with any future."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest

from providers.wire.arrival import Arriving, Pieces, pieces_of
from providers.wire.http import HttpClient

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name")


class Below:
    """What stands below `Arriving`: hands bytes to the body while its parser is at work."""

    connected = True
    content: Any

    def data_received(self, data: bytes) -> None:
        """Give the bytes to the body, as aiohttp's parser does, and say who went on meanwhile."""
        self.seen_inside = list(self.content.seen)
        if data == b"damaged":
            self.content.break_with(ValueError("damaged"))
        elif data == b"fails":
            self.content.feed(b"before")
            raise OSError("fails")
        elif data:
            self.content.feed(data)
        self.seen_inside = list(self.content.seen)


class Place(Arriving, Below):
    """A protocol."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()


class Body:
    """The parts of aiohttp's reader that matter here."""

    def __init__(self, place: Place) -> None:
        self._protocol = place
        place.content = self
        self._buffer: list[bytes] = []
        self._eof = False
        self._exception: BaseException | None = None
        self._waiter: Any = None
        self.seen: list[bytes] = []

    def _read_nowait(self, _: int) -> bytes:
        data, self._buffer = b"".join(self._buffer), []
        return data

    async def readany(self) -> bytes:
        """aiohttp's own way."""
        return b"its own"

    def feed(self, data: bytes) -> None:
        """Bytes came."""
        self._buffer.append(data)
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def break_with(self, error: BaseException) -> None:
        """The body is broken."""
        self._exception = error
        waiter, self._waiter = self._waiter, None
        if waiter is not None and asyncio.isfuture(waiter) and not waiter.done():
            waiter.set_exception(error)


async def read(body: Body) -> list[bytes]:
    """Read until the end."""
    more = pieces_of(body)  # type: ignore[arg-type]
    while data := await more:
        body.seen.append(data)
    return body.seen


async def waiting(factory: Any = None) -> tuple[Place, Body, asyncio.Task[list[bytes]]]:
    """A task that waits for a body's first bytes."""
    place = Place()
    body = Body(place)
    loop = asyncio.get_running_loop()
    task = loop.create_task(read(body)) if factory is None else factory(read(body), loop=loop)
    await asyncio.sleep(0)
    assert body._waiter is not None
    return place, body, task


def from_the_loop(place: Place, *pieces: bytes) -> Awaitable[list[list[bytes]]]:
    """Give bytes as a loop does, outside of any task; what had been read after each of them."""
    done: asyncio.Future[list[list[bytes]]] = place.loop.create_future()

    def give() -> None:
        seen = []
        for piece in pieces:
            place.data_received(piece)
            seen.append(list(place.content.seen))
        done.set_result(seen)

    place.loop.call_soon(give)
    return done


@pytest.mark.parametrize("kind", [None, asyncio.tasks._PyTask])  # type: ignore[attr-defined]
async def test_each_piece_is_read_before_the_loop_turns(kind: Any) -> None:
    """At once, and not inside the parser; by both kinds of tasks that asyncio has."""
    place, body, task = await waiting(kind)
    assert await from_the_loop(place, b"a", b"b", b"") == [[b"a"], [b"a", b"b"], [b"a", b"b"]]
    assert place.seen_inside == [b"a", b"b"]
    assert place.receiving is False
    body._eof = True
    body.feed(b"")
    assert await task == [b"a", b"b"]


async def test_nobody_goes_on_inside_the_parser() -> None:
    """While bytes are taken in, nothing is read."""
    place, body, task = await waiting()
    assert await from_the_loop(place, b"a") == [[b"a"]]
    assert place.seen_inside == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert body._waiter is None


async def test_bytes_that_come_while_a_task_runs() -> None:
    """One task cannot run inside another: then the reader goes on in the next turn."""
    place, body, task = await waiting()
    place.data_received(b"a")
    assert body.seen == []
    await asyncio.sleep(0)
    assert body.seen == [b"a"]
    task.cancel()


async def test_the_readers_context_is_its_own() -> None:
    """What a caller keeps in context variables (the owner of retries, a span) is there behind each piece."""
    place = Place()
    body = Body(place)
    names = []

    async def reader() -> None:
        NAME.set("reader")
        more = pieces_of(body)  # type: ignore[arg-type]
        for _ in range(3):
            await more
            names.append(NAME.get())

    NAME.set("elsewhere")
    task = asyncio.create_task(reader())
    await asyncio.sleep(0)
    await from_the_loop(place, b"a", b"b", b"c")
    await task
    assert names == ["reader"] * 3
    assert NAME.get() == "elsewhere"


async def test_a_cancellation_behind_the_bytes_and_before() -> None:
    """Cancelled before bytes come, or in the same turn behind them: the task ends as cancelled, once."""
    place, body, task = await waiting()
    task.cancel("enough")
    place.data_received(b"late")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert body.seen == []

    place, body, task = await waiting()
    feed = body.feed

    def feed_and_cancel(data: bytes) -> None:
        feed(data)
        task.cancel()

    body.feed = feed_and_cancel  # type: ignore[method-assign]
    await from_the_loop(place, b"a")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert body.seen == []


async def test_what_breaks_is_raised_where_it_is_waited_for() -> None:
    """An error of the body; and one of the parser leaves what came before it to be read."""
    place, _, task = await waiting()
    await from_the_loop(place, b"damaged")
    with pytest.raises(ValueError, match="damaged"):
        await task

    place, body, task = await waiting()

    def give() -> None:
        with pytest.raises(OSError, match="fails"):
            place.data_received(b"fails")

    place.loop.call_soon(give)
    await asyncio.sleep(0)
    assert body.seen == [b"before"]
    body.break_with(ValueError("later"))
    with pytest.raises(ValueError, match="later"):
        await task
    with pytest.raises(ValueError, match="later"):
        await pieces_of(body)  # type: ignore[arg-type]


async def test_a_connection_that_this_side_closed() -> None:
    """There is nothing to wait for, as aiohttp says."""
    place = Place()
    body = Body(place)
    place.connected = False
    with pytest.raises(RuntimeError, match="Connection closed"):
        await read(body)


@pytest.mark.parametrize("part", ["_buffer", "_waiter", "_exception", "_eof", "_protocol"])
async def test_another_aiohttp_is_read_in_its_own_way(part: str) -> None:
    """Where a private part is gone, nothing here is used."""
    body = Body(Place())
    delattr(body, part)
    assert await pieces_of(body) == b"its own"  # type: ignore[arg-type]
    assert await pieces_of(SimpleNamespace(readany=body.readany)) == b"its own"  # type: ignore[arg-type]


async def test_the_aiohttp_that_is_here_has_all_parts(serve: Any) -> None:
    """A stream over a real connection is read in this way: nothing is left in the buffer behind the bytes' turn."""
    goes_on = threading.Event()

    def body(connection: Any) -> None:
        connection.request()
        connection.send(serve.stream_head())
        connection.chunk(b"data: 0\n\n")
        goes_on.wait(10)
        connection.chunk(b"data: 1\n\ndata: 2\n\n")
        connection.send(b"0\r\n\r\n")

    client = HttpClient(serve(body).url, headers={}, provider="p")
    stream = client.stream("/s", b"", timeout=10)
    assert await anext(stream) == (None, b"0")
    [call] = next(iter(client._pools.values())).calls
    content = call.response.content
    place: Any = content._protocol
    assert isinstance(pieces_of(content), Pieces)
    taken_in, left = place.data_received, []

    def data_received(data: bytes) -> None:
        taken_in(data)
        left.append(len(content._buffer))

    place.data_received = data_received
    goes_on.set()
    assert [data async for _, data in stream] == [b"1", b"2"]
    await asyncio.sleep(0)  # until here all went on inside of data_received
    assert left
    assert not any(left)
    await client.close()
