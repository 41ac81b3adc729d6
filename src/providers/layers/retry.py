"""The retry layer: the one owner of retries around a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, cast

from ..exceptions import LLMProviderError
from ..pipeline import Handler, WholeHandler, collecting, with_whole
from ..resilience import retries_owned, retrying, return_retries, take_retries, wait_after
from ..types import Request, StreamEvent, StreamEventType

_META: Final = StreamEventType.META


async def retry_whole(request: Request, inner: WholeHandler) -> Sequence[StreamEvent]:
    """Try a whole answer again after a passing failure, until all of it is there; nobody reads along."""
    return await retrying(request.retry, lambda: inner(request))


@with_whole(retry_whole)
async def retry(request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
    """Try a call again after a passing failure, as `request.retry` says, until its first piece was given out.

    Later than that a failure is raised as it is: a second attempt would repeat text that the consumer already has.
    Events that only describe the answer are held back until then, so that a failure that a backend reports inside a
    stream that has just begun is still tried again. Inside another owner of retries this layer stands down.

    Raises:
        LLMProviderError: the last failure, with the number of attempts in `attempts`.
    """
    if not request.stream:
        for event in await retry_whole(request, collecting(inner)):
            yield event
        return
    owned = retries_owned()
    attempt = 0
    while True:
        attempt += 1
        # Handlers are async generators by contract; only their type is the wider one.
        events = cast(Any, inner(request))
        held: list[StreamEvent] = []
        given = False
        try:
            token = take_retries()
            try:
                async for event in events:
                    held.append(event)
                    if event.type is not _META:
                        break
            finally:
                return_retries(token)
            for event in held:
                given = given or event.type is not _META
                yield event
            if given:
                async for event in events:
                    yield event
            return
        except LLMProviderError as error:
            wait = wait_after(request.retry, attempt, error, owned or given)
        finally:
            await events.aclose()
        await asyncio.sleep(wait)
