"""The retry layer: the one owner of retries around a call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final, cast

from ..exceptions import LLMProviderError
from ..pipeline import Handler
from ..resilience import next_wait, retries_owned, return_retries, take_retries
from ..types import Request, StreamEvent, StreamEventType

logger = logging.getLogger("providers.retry")

_META: Final = StreamEventType.META


async def retry(request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
    """Try a call again after a passing failure, as `request.retry` says, until its first piece was given out.

    Later than that a failure is raised as it is: a second attempt would repeat text that the consumer already has.
    Events that only describe the answer are held back until then, so that a failure that a backend reports inside a
    stream that has just begun is still tried again. Inside another owner of retries this layer stands down.

    Raises:
        LLMProviderError: the last failure, with the number of attempts in `attempts`.
    """
    owned = retries_owned()
    attempt = 0
    while True:
        attempt += 1
        # Handlers are async generators by contract; only their type is the wider one.
        events = cast(Any, inner(request))
        held: list[StreamEvent] = []
        given = False
        try:
            # By hand, not by `with owning_retries()`: that would cost a call a microsecond.
            token = take_retries()
            try:
                if request.stream:
                    async for event in events:
                        held.append(event)
                        if event.type is not _META:
                            break
                else:
                    # Nobody reads along, so a whole answer is tried again until all of it is there.
                    held = [event async for event in events]
            finally:
                return_retries(token)
            if not request.stream:
                for event in held:
                    yield event
                return
            for event in held:
                given = given or event.type is not _META
                yield event
            if given:
                async for event in events:
                    yield event
            return
        except LLMProviderError as error:
            error.attempts = attempt
            wait = None if given or owned else next_wait(request.retry, attempt, error)
            if wait is None:
                raise
            logger.debug(
                "attempt %d of %d failed (%s), next in %.2f s",
                attempt,
                request.retry.max_attempts,
                type(error).__name__,
                wait,
            )
        finally:
            await events.aclose()
        await asyncio.sleep(wait)
