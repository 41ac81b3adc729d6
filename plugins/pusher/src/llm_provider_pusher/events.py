"""From stream events to what a channel carries: texts joined, large values cut into parts, names checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from providers import LLMProviderConfigurationError, StreamEvent, StreamEventType, ToolCallDelta
from providers.types.response import json_safe
from providers.wire import encode_json

MOST_BYTES: Final = 10_000
"""Most bytes of one event's data. Pusher: 10 kB, https://pusher.com/docs/channels/library_auth_reference/rest-api/."""

_CHANNEL: Final = re.compile(r"(?:#server-to-user-)?[-a-zA-Z0-9_=@,.;]+")
_LONGEST_NAME: Final = 200
_LONGEST_TYPE: Final = max(len(kind.value) for kind in StreamEventType)
# Room for everything beside the text itself: type, seq, timestamp, part and parts.
_ROOM: Final = MOST_BYTES - 400
_TEXTS: Final = frozenset({StreamEventType.TOKEN, StreamEventType.REASONING})
_DELTA: Final = StreamEventType.TOOL_CALL_DELTA


def check_channel(channel: object) -> str:
    """The name of a channel, where it is one.

    Raises:
        LLMProviderConfigurationError: it is no text, empty, longer than 200 characters, holds others than letters,
            digits and `-_=@,.;`, or is an encrypted channel, for which a server would have to encrypt.
    """
    if not isinstance(channel, str) or not _CHANNEL.fullmatch(channel) or len(channel) > _LONGEST_NAME:
        raise LLMProviderConfigurationError(
            f"channel must be 1 to {_LONGEST_NAME} letters, digits and -_=@,.; not {channel!r:.80}"
        )
    if channel.startswith("private-encrypted-"):
        raise LLMProviderConfigurationError("encrypted channels are not supported: name another channel")
    return channel


def check_event(event: object) -> str:
    """The start of the events' names, where it is one.

    Raises:
        LLMProviderConfigurationError: it is no text, blank, too long with a type behind it, holds control characters,
            or begins as Pusher's own events do.
    """
    most = _LONGEST_NAME - _LONGEST_TYPE - 1
    if not isinstance(event, str) or not event.strip() or len(event) > most or not event.isprintable():
        raise LLMProviderConfigurationError(f"event must be a text of 1 to {most} characters, not {event!r:.80}")
    if event.startswith(("pusher:", "pusher_internal:", "client-")):
        raise LLMProviderConfigurationError(f"event must not begin with {event.partition(':')[0]!r}: that is Pusher's")
    return event


@dataclass(slots=True)
class Entry:
    """One event that waits, or several texts of one kind that came one after another.

    Attributes:
        type: what it says.
        data: JSON value; of a text nothing, it stands in `texts`; of a piece of a tool call its fields without it.
        timestamp: Unix time in seconds of the first of them.
        texts: pieces of text, to be joined.
        arrived: when the first came, in seconds of `time.monotonic()`.
        number: its place among all entries, from 1.
    """

    type: StreamEventType
    data: Any
    timestamp: float
    texts: list[str] = field(default_factory=list)
    arrived: float = field(default_factory=monotonic)
    number: int = 0

    @classmethod
    def of(cls, event: StreamEvent) -> Entry:
        """The event as it is now: what its consumer does to it later changes nothing."""
        if event.type in _TEXTS:
            return cls(event.type, None, event.timestamp, [str(event.data)])
        if event.type is _DELTA and isinstance(event.data, ToolCallDelta):
            fields = event.data.to_dict()
            return cls(event.type, fields, event.timestamp, [fields.pop("arguments") or ""])
        return cls(event.type, json_safe(event.data), event.timestamp)

    def joined(self, other: Entry) -> bool:
        """Whether the other one, which came next, is part of this one now."""
        if self.type is not other.type or not (self.texts and other.texts):
            return False
        if self.type is _DELTA and not (
            self.data["index"] == other.data["index"]
            and other.data["id"] in (None, self.data["id"])
            and other.data["name"] in (None, self.data["name"])
        ):
            return False
        self.texts += other.texts
        return True

    def payloads(self) -> Iterator[dict[str, Any]]:
        """What is sent of it, each small enough, without `seq` and `timestamp`.

        A long text becomes several events like it. Any other value that is too large becomes its JSON, cut into texts:
        `{"type", "data": text, "part": 1..n, "parts": n}`.
        """
        kind = self.type.value
        if self.texts:
            room = _ROOM - (len(encode_json(self.data)) if self.data else 0)
            for piece in cut("".join(self.texts), max(room, 1000)):
                yield {"type": kind, "data": {**self.data, "arguments": piece} if self.type is _DELTA else piece}
            return
        written = encode_json(self.data)
        if len(written) <= _ROOM:
            yield {"type": kind, "data": self.data}
            return
        pieces = list(cut(written.decode()))
        for number, piece in enumerate(pieces, 1):
            yield {"type": kind, "data": piece, "part": number, "parts": len(pieces)}


def cut(text: str, room: int = _ROOM) -> Iterator[str]:
    """Pieces of a text that each have at most so many bytes as JSON; one empty piece of an empty text."""
    start, size = 0, room
    while True:
        piece = text[start : start + size]
        written = len(encode_json(piece))
        if written > room:
            size = max(1, len(piece) * room // written - 1)
            continue
        yield piece
        start += len(piece)
        size = room
        if start >= len(text):
            return
