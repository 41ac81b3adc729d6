"""A provider that counts what is done to it, for the tests of its life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from providers import LLMProvider, Request, StreamEvent, Usage


class Counting(LLMProvider):
    """Counts what is done to it."""

    name = "counting"

    def __init__(self, *args: Any, **options: Any) -> None:
        self.opened = self.shuts = 0
        self.gate: asyncio.Event | None = None
        super().__init__(*args, **options)

    def open(self) -> None:
        time.sleep(0.01)
        self.opened += 1

    async def shut(self) -> None:
        self.shuts += 1

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        yield StreamEvent.token("a")
        if self.gate is not None:
            await self.gate.wait()
        yield StreamEvent.token("b")
        yield StreamEvent.usage(Usage(1, 2))
        yield StreamEvent.finish("stop")
