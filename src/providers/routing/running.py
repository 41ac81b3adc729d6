"""A target that is asked: its stream, and what is told of who answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..exceptions import LLMProviderError
from ..pipeline import ABOUT
from ..resilience import return_retries, take_retries
from ..types import StreamEvent, StreamEventType, Usage
from .walk import Try

_USAGE: Final = StreamEventType.USAGE


class Running:
    """A stream of one target: begun under taken retries, and closed whatever happens."""

    __slots__ = ("_life", "_priced", "_tried", "events", "usage")

    def __init__(self, tried: Try) -> None:
        self._tried = tried
        self._life: Any = None
        self._priced: Any = None
        self.events: Any = None
        self.usage: Usage | None = None

    async def begin(self) -> list[StreamEvent]:
        """The events up to the first piece of the answer."""
        tried = self._tried
        calls = tried.target.provider._calls
        held: list[StreamEvent] = []
        token = take_retries()
        try:
            if not calls.life.count():
                await calls.life.begin()
            self._life = calls.life
            tried.opening = False
            self._priced = calls.priced
            self.events = calls.handler(tried.request)
            async for event in self.events:
                held.append(event)
                self.see(event)
                if event.type not in ABOUT:
                    break
        finally:
            return_retries(token)
        return held

    def see(self, event: StreamEvent) -> None:
        """Note what an event says of the usage, at the target's own prices; to be shown all but the tokens."""
        if event.type is _USAGE:
            self.usage = event.data
        if self._priced is not None:
            self._priced.see(self._tried.request, event)

    def read(self, error: Exception) -> LLMProviderError:
        """The error as one of ours, with what the stream had said of its usage."""
        ours = self._tried.ours(error)
        if ours.usage is None:
            ours.usage = self.usage
        if self._priced is not None:
            self._priced.fail(self._tried.request, ours)
        return ours

    async def end(self) -> None:
        """Close the stream; the target's life goes on without it."""
        try:
            if self.events is not None:
                await self.events.aclose()
        finally:
            if self._life is not None and self._life.discount():
                await self._life.settle()


async def whole_of(tried: Try) -> Sequence[StreamEvent]:
    """A target's whole answer, at its own prices: those that are its outermost layer stand in its `Calls`."""
    calls = tried.target.provider._calls
    life, priced = calls.life, calls.priced
    if not life.count():
        await life.begin()
    tried.opening = False
    try:
        if priced is None:
            return await calls.whole(tried.request)
        return await priced.whole(tried.request, calls.whole)
    finally:
        if life.discount():
            await life.settle()


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
