"""A provider that counts how often it is shut and can be held up, for the tests of factory and cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from providers import LLMProvider, ProviderSettings, Request, Secret, StreamEvent, setting


@dataclass(kw_only=True, eq=False)
class AcmeSettings(ProviderSettings):
    env_prefix = "ACME_"
    api_key: Secret | None = setting()
    url: str | None = setting()


class Acme(LLMProvider):
    name = "acme"
    Settings = AcmeSettings
    made: list[LLMProvider] = []  # noqa: RUF012

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.shuts = 0
        self.gate: asyncio.Event | None = None
        Acme.made.append(self)

    async def shut(self) -> None:
        self.shuts += 1

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        yield StreamEvent.token("a")
        if self.gate is not None:
            await self.gate.wait()
        yield StreamEvent.token("b")


class Other(Acme):
    name = "other"
