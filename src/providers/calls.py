"""The life of a provider's calls: opened once, counted while they run, folded into answers, closed at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, cast

from .exceptions import LLMProviderError, ProviderClosedError
from .failures import MISTAKES, error_data
from .pipeline import Assembler, Handler, WholeHandler, attach
from .text_stream import Outcome
from .types import LLMResponse, Request, StreamEvent, StreamEventType

_TOKEN: Final = StreamEventType.TOKEN


class Calls:
    """Runs requests through a handler and gives whole answers, text or events.

    Args:
        provider: the provider's name.
        handler: what answers a request: the provider's `generate` with its layers around it.
        whole: the same for whole answers.
        open: gets the provider ready; called once, before the first call, again after a failure.
        slow_open: whether `open` must not run on the event loop's thread.
        shut: gives back what `open` took; called once.
    """

    def __init__(
        self,
        provider: str,
        handler: Handler,
        whole: WholeHandler,
        open: Callable[[], None],
        slow_open: bool,
        shut: Callable[[], Awaitable[None]],
    ) -> None:
        self._provider = provider
        self._handler = handler
        self._whole = whole
        self._open = open
        self._slow_open = slow_open
        self._shut = shut
        self._lock = threading.Lock()
        self._open_lock = threading.Lock()
        self._opened = False
        self._closed = False
        self._close_when_idle = False
        self.under_way = 0

    @property
    def is_closed(self) -> bool:
        """Whether the provider was closed."""
        return self._closed

    async def answer(self, request: Request) -> LLMResponse:
        """The whole answer."""
        if not self._opened or self._closed:
            await self.ensure_open()
        # begin() and end() without their two coroutines.
        with self._lock:
            self.under_way += 1
        assembler = Assembler(request, self._provider)
        feed = assembler.feed
        try:
            for event in await self._whole(request):
                feed(event)
            return assembler.response()
        except LLMProviderError as error:
            attach(error, assembler)
            raise
        finally:
            with self._lock:
                self.under_way -= 1
            if self._close_when_idle:
                await self._close_if_idle()

    async def text(self, request: Request, outcome: Outcome) -> AsyncGenerator[str, None]:
        """The answer's text, piece by piece; the whole answer goes into `outcome` at the end."""
        await self.begin()
        assembler = Assembler(request, self._provider)
        try:
            async with aclosing(cast(Any, self._handler(request))) as events:
                async for event in events:
                    assembler.feed(event)
                    if event.type is _TOKEN:
                        yield event.data
            outcome.response = assembler.response()
        except LLMProviderError as error:
            attach(error, assembler)
            raise
        finally:
            await self.end()

    async def events(self, request: Request) -> AsyncGenerator[StreamEvent, None]:
        """The answer's events, with DONE and the whole answer at the end; or ERROR, where the backend failed.

        Raises:
            LLMProviderError: of a class in `failures.MISTAKES`: no failure of the backend.
        """
        await self.begin()
        assembler = Assembler(request, self._provider)
        feed, push = assembler.feed, assembler.push
        try:
            async with aclosing(cast(Any, self._handler(request))) as events:
                async for event in events:
                    if event.type is _TOKEN:
                        feed(event)
                        yield event
                    else:
                        for shown in push(event):
                            yield shown
            for shown in assembler.flush():
                yield shown
            yield StreamEvent(StreamEventType.DONE, assembler.response())
        except MISTAKES:
            raise
        except LLMProviderError as error:
            attach(error, assembler)
            yield StreamEvent(StreamEventType.ERROR, error_data(error))
        finally:
            await self.end()

    async def begin(self) -> None:
        """A call begins: open the provider at the first one, and count.

        Raises:
            ProviderClosedError: the provider was closed.
            LLMProviderError: what `open` raises.
        """
        if not self._opened or self._closed:
            await self.ensure_open()
        with self._lock:
            if self._closed:  # by another thread, since the look above
                raise self._gone()
            self.under_way += 1

    async def end(self) -> None:
        """A call ends; the last one closes a provider that waits for that."""
        with self._lock:
            self.under_way -= 1
        if self._close_when_idle:
            await self._close_if_idle()

    async def _close_if_idle(self) -> None:
        with self._lock:
            busy = self.under_way > 0
        if not busy:
            await self.close()

    async def ensure_open(self) -> None:
        """Open the provider where that has not been done; many threads and loops may ask at once.

        Raises:
            ProviderClosedError: the provider was closed.
        """
        if self._closed:
            raise self._gone()
        if self._opened:
            return
        if self._slow_open:
            await asyncio.to_thread(self._open_once)
        else:
            self._open_once()

    def _gone(self) -> ProviderClosedError:
        return ProviderClosedError("this provider was closed; create a new one", provider=self._provider)

    def _open_once(self) -> None:
        with self._open_lock:
            if not self._opened:
                self._open()
                self._opened = True

    async def close(self) -> None:
        """Shut the provider, once."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            await self._shut()

    async def close_when_idle(self) -> None:
        """Shut the provider once no call is under way."""
        with self._lock:
            self._close_when_idle = True
        await self._close_if_idle()
