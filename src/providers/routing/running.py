"""A target that is asked: its stream, and what is told of who answers."""

from __future__ import annotations

from typing import Any, Final

from ..exceptions import LLMProviderError
from ..resilience import return_retries, take_retries
from ..types import StreamEvent, StreamEventType, Usage
from .walk import Try

ABOUT: Final = (StreamEventType.META, StreamEventType.USAGE)
"""Events that only describe an answer."""

_USAGE: Final = StreamEventType.USAGE


class Running:
    """A stream of one target: begun under taken retries, and closed whatever happens."""

    __slots__ = ("_life", "_tried", "events", "usage")

    def __init__(self, tried: Try) -> None:
        self._tried = tried
        self._life: Any = None
        self.events: Any = None
        self.usage: Usage | None = None

    async def begin(self) -> list[StreamEvent]:
        """The events up to the first piece of the answer."""
        tried = self._tried
        calls = tried.target.provider._calls
        held: list[StreamEvent] = []
        token = take_retries()
        try:
            if not calls._life.count():
                await calls._life.begin()
            self._life = calls._life
            tried.opening = False
            self.events = calls._handler(tried.request)
            async for event in self.events:
                held.append(event)
                if event.type is _USAGE:
                    self.usage = event.data
                if event.type not in ABOUT:
                    break
        finally:
            return_retries(token)
        return held

    def read(self, error: Exception) -> LLMProviderError:
        """The error as one of ours, with what the stream had said of its usage."""
        ours = error if isinstance(error, LLMProviderError) else self._tried.target.provider._calls._bug(error)
        if ours is not error:
            ours.__cause__ = error
        if ours.usage is None:
            ours.usage = self.usage
        return ours

    async def end(self) -> None:
        """Close the stream; the target's life goes on without it."""
        try:
            if self.events is not None:
                await self.events.aclose()
        finally:
            if self._life is not None and self._life.discount():
                await self._life.settle()


def about(tried: Try, attempts: list[dict[str, Any]], broken: dict[str, Any] | None = None) -> StreamEvent:
    """Who answers, and what was tried before."""
    request = tried.request
    facts = {
        "target": tried.target.label,
        "provider_type": tried.target.provider.name,
        "model": request.model,
        "api_type": request.api_type,
    }
    if attempts:
        facts["attempts"] = attempts
    if broken is not None:
        facts["restarted"] = broken
    return StreamEvent(StreamEventType.META, facts)
