"""What `execute` gives in a streaming mode: the answer's text, piece by piece, and the whole of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Final, Self
from weakref import ReferenceType, ref

from .types import LLMResponse

_TURNS: Final = 1000


class Outcome:
    """Where the generator leaves the whole answer.

    An object of its own: if the generator knew its `TextStream`, the two would keep each other alive, and a stream that
    is dropped would end on the wire only when the garbage collector passes by.
    """

    __slots__ = ("response", "under_way")

    def __init__(self) -> None:
        self.response: LLMResponse | None = None
        self.under_way = False


class TextStream(AsyncIterator[str]):
    """An asynchronous iterator over pieces of text.

    Iterating it streams. Awaiting it gives the whole `LLMResponse`: where nothing was read yet and the mode leaves the
    choice (`StreamMode.AUTO`), through a plain call that does not stream; otherwise by reading the rest.

    Nothing is sent before the first piece is asked for. Leaving the loop early, `aclose()`, the end of `async with` and
    cancelling the task end the call on the wire at once, also while something still holds the stream.
    """

    def __init__(
        self,
        chunks: Callable[[Outcome], AsyncGenerator[str, None]],
        whole: Callable[[], Awaitable[LLMResponse]] | None = None,
    ) -> None:
        self._outcome = Outcome()
        self._chunks: AsyncGenerator[str, None] | None = chunks(self._outcome)
        self._given: ReferenceType[AsyncGenerator[str, None]] | None = None
        self._whole = whole
        self._started = False

    @property
    def response(self) -> LLMResponse | None:
        """The whole answer, once the stream has ended; `None` until then."""
        return self._outcome.response

    def __aiter__(self) -> AsyncIterator[str]:
        # The generator itself, not self: it saves a Python call for each piece. And the loop alone holds it from now
        # on: a loop that is left drops it, and with that the call ends, even if this object lives on in a variable.
        chunks = self._generator()
        if chunks is None:
            return _nothing()
        self._started = True
        self._chunks, self._given = None, ref(chunks)
        return chunks

    async def __anext__(self) -> str:
        chunks = self._generator()
        if chunks is None:
            raise StopAsyncIteration
        self._started = True
        return await anext(chunks)

    def _generator(self) -> AsyncGenerator[str, None] | None:
        if self._chunks is not None:
            return self._chunks
        return self._given() if self._given is not None else None

    def __await__(self) -> Generator[Any, None, LLMResponse]:
        return self._collect().__await__()

    async def _collect(self) -> LLMResponse:
        if not self._started and self._whole is not None:
            self._started = True
            await self.aclose()
            self._outcome.response = await self._whole()
        else:
            async for _ in self:
                pass
        if self.response is None:
            raise RuntimeError("the stream was left before its end, so there is no whole answer")
        return self.response

    async def aclose(self) -> None:
        """End the call; harmless when it has ended."""
        chunks = self._generator()
        if chunks is not None:
            await chunks.aclose()
        # A loop that was left has dropped the generator, and the event loop is about to close it, in its next turns.
        for _ in range(_TURNS):
            if not self._outcome.under_way:
                break
            await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _nothing() -> AsyncGenerator[str, None]:
    return
    yield
