"""The retry layer: the one owner of retries around a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import Any, cast

from ..exceptions import LLMProviderError
from ..pipeline import ABOUT, Handler, WholeHandler, collecting, keep_usage, with_whole
from ..resilience import retries_owned, retrying, return_retries, take_retries, wait_after
from ..types import Request, StreamEvent
from .handover import HandingOver


def retry_whole(request: Request, inner: WholeHandler) -> Awaitable[Sequence[StreamEvent]]:
    """Try a whole answer again after a passing failure, until all of it is there; nobody reads along."""
    return retrying(request.retry, partial(inner, request), _tell)


def _tell(events: Sequence[StreamEvent], failed: list[dict[str, Any]]) -> Sequence[StreamEvent]:
    return [StreamEvent.meta(attempts=failed), *events]


@with_whole(retry_whole)
def retry(request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
    """Try a call again after a passing failure, as `request.retry` says, until its first piece was given out.

    Later than that a failure is raised as it is: a second attempt would repeat text that the consumer already has.
    Events that only describe the answer are held back until then, so that a failure that a backend reports inside a
    stream that has just begun is still tried again. Inside another owner of retries this layer stands down.

    Where there was more than one attempt, `metadata["attempts"]` of the answer lists those that failed: dicts of
    `error` (the name of its class), `status` (the HTTP status or `None`), `usage` (a `Usage`, or `None` where nothing
    is known) and `wait` (seconds until the next one). The answer's own usage is that of the attempt which gave it;
    `providers.costs.total_usage` adds them up.

    Raises:
        LLMProviderError: the last failure, with the number of attempts in `attempts`, and those before the last one in
            `failed_attempts`.
    """
    return _Retrying(request, inner) if request.stream else _one_by_one(request, inner)


async def _one_by_one(request: Request, inner: Handler) -> AsyncGenerator[StreamEvent, None]:
    for event in await retry_whole(request, collecting(inner)):
        yield event


class _Retrying(HandingOver):
    """The events of a stream, until its first piece is there."""

    __slots__ = ("_events", "_failure", "_held", "_inner", "_request")

    def __init__(self, request: Request, inner: Handler) -> None:
        self._request = request
        self._inner = inner
        self._events: Any = None
        self._held: list[StreamEvent] = []
        self._failure: LLMProviderError | None = None
        super().__init__(self._begin)

    async def aclose(self) -> None:
        """End the call; harmless when it has ended."""
        if self._events is not None:
            await self._events.aclose()

    async def _begin(self) -> StreamEvent:
        request, owned, attempt = self._request, retries_owned(), 0
        failed: list[dict[str, Any]] = []
        while True:
            attempt += 1
            held: list[StreamEvent] = []
            token = take_retries()
            try:
                # Handlers are async generators by contract; only their type is the wider one.
                self._events = cast(Any, self._inner(request))
                async for event in self._events:
                    held.append(event)
                    if event.type not in ABOUT:
                        break
            except LLMProviderError as error:
                keep_usage(error, held)
                try:
                    wait = wait_after(request.retry, attempt, error, owned, failed)
                except LLMProviderError as last:
                    if not held:
                        raise
                    # What was said of the answer until then, tokens to pay for among it, is given out first.
                    held.reverse()
                    self._held, self._failure, self._next = held, last, self._give
                    return held.pop()
            else:
                if failed:
                    held.insert(0, StreamEvent.meta(attempts=failed))
                # The last one first, to be popped from the end.
                held.reverse()
                self._held, self._next = held, self._give
                return await self._give()
            finally:
                return_retries(token)
            await self.aclose()
            await asyncio.sleep(wait)

    async def _give(self) -> StreamEvent:
        if not self._held:
            # Only descriptions came: the stream has ended.
            if self._failure is None:
                raise StopAsyncIteration
            failure, self._failure = self._failure, None
            try:
                raise failure
            finally:
                del failure  # or it and this frame would hold each other
        event = self._held.pop()
        if not self._held and event.type not in ABOUT:
            self._hand_over(self._events)
        return event


retry.embeddings = True  # type: ignore[attr-defined]  # it knows requests for embeddings too
