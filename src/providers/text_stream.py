"""What `execute` gives in a streaming mode: the answer's text, piece by piece, and the whole of it afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Self

from .types import LLMResponse


class Outcome:
    """Where the generator leaves the whole answer.

    An object of its own: if the generator knew its `TextStream`, the two would keep each other alive, and a stream that
    is dropped would end on the wire only when the garbage collector passes by.
    """

    __slots__ = ("response",)

    def __init__(self) -> None:
        self.response: LLMResponse | None = None


class TextStream(AsyncIterator[str]):
    """An asynchronous iterator over pieces of text.

    Iterating it streams. Awaiting it gives the whole `LLMResponse`: where nothing was read yet and the mode leaves the
    choice (`StreamMode.AUTO`), through a plain call that does not stream; otherwise by reading the rest.

    Nothing is sent before the first piece is asked for. `aclose()`, the end of `async with`, cancelling the task, or
    dropping the stream (leaving the loop when nothing else holds it) ends the call on the wire at once. While something
    holds it, a loop that was left may be taken up again.

    """

    def __init__(
        self,
        chunks: Callable[[Outcome], AsyncGenerator[str, None]],
        whole: Callable[[], Awaitable[LLMResponse]] | None = None,
    ) -> None:
        self._outcome = Outcome()
        self._chunks = chunks(self._outcome)
        self._whole = whole
        self._started = False

    @property
    def response(self) -> LLMResponse | None:
        """The whole answer, once the stream has ended; `None` until then."""
        return self._outcome.response

    def __aiter__(self) -> AsyncIterator[str]:
        # The generator itself, not self: it saves a Python call for each piece.
        self._started = True
        return self._chunks

    async def __anext__(self) -> str:
        self._started = True
        return await anext(self._chunks)

    def __await__(self) -> Generator[Any, None, LLMResponse]:
        return self._collect().__await__()

    async def _collect(self) -> LLMResponse:
        if not self._started and self._whole is not None:
            self._started = True
            await self._chunks.aclose()
            self._outcome.response = await self._whole()
        else:
            async for _ in self._chunks:
                pass
        if self.response is None:
            raise RuntimeError("the stream was closed before its end, so there is no whole answer")
        return self.response

    async def aclose(self) -> None:
        """End the call; harmless when it has ended."""
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
