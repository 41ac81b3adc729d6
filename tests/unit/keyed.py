"""A provider that says what it was given, for the tests of the sync face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel

from providers import LLMProviderAuthenticationError, Request, StreamEvent, Usage
from providers.testing import EchoProvider


class City(BaseModel):
    name: str


class Keyed(EchoProvider):
    """Says what it was given."""

    name = "keyed"
    understands = frozenset({"structured_output"})
    seen: list[Request] = []  # noqa: RUF012
    running = most = 0

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        Keyed.seen.append(request)
        Keyed.running += 1
        Keyed.most = max(Keyed.most, Keyed.running)
        try:
            await asyncio.sleep(0.005)
            text = request.messages.last_text
            if text.startswith("fail"):
                raise LLMProviderAuthenticationError(f"no {text}")
            if text.startswith("bug"):
                raise ZeroDivisionError(text)
            yield StreamEvent.token('{"name": "' + text + '"}' if request.output is not None else text)
            yield StreamEvent.usage(Usage(1, 1))
            yield StreamEvent.finish("stop")
        finally:
            Keyed.running -= 1
