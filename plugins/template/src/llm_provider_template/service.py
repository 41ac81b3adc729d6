"""Stands for a vendor's SDK, so that this plugin runs as it is: a service that says back what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Piece:
    """One word of an answer, and what has been read and written until then."""

    text: str
    words_read: int
    words_written: int
    cut: bool = False


class Service:
    """A client of the service.

    Args:
        api_key: the key.
        voice: `"plain"` or `"loud"`.

    Raises:
        ValueError: the voice is neither.
    """

    def __init__(self, api_key: str, voice: str = "plain") -> None:
        if voice not in ("plain", "loud"):
            raise ValueError(f"voice must be 'plain' or 'loud', not {voice!r}")
        self._api_key = api_key
        self._voice = voice

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[Piece]:
        """Says back the last of `body["turns"]`, at most `body["limit"]` words of it; to nothing it says nothing."""
        texts, limit = [str(turn["text"]) for turn in body["turns"]], body.get("limit")
        words = texts[-1].split() if texts else []
        read = sum(len(text.split()) for text in (str(body.get("system") or ""), *texts))
        most = limit if isinstance(limit, int) else len(words)
        for place, word in enumerate(words[:most]):
            await asyncio.sleep(0)
            said = word.upper() if self._voice == "loud" else word
            yield Piece(f" {said}" if place else said, read, place + 1, most < len(words))
