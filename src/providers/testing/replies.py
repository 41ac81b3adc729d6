"""What the loopback server answers: replies, and faults, which are replies with something wrong."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import isasyncgen, isgenerator
from typing import Literal, NamedTuple, TypeAlias

# `Reply.bytes` is a constructor, so the type needs a second name inside of that class.
Octets: TypeAlias = bytes
HeaderLines: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
Items: TypeAlias = Iterable[object] | AsyncIterable[object]
ItemSource: TypeAlias = Items | Callable[[], Items]
How: TypeAlias = Literal["end", "close", "reset", "stall"]

_LINE_END = re.compile(r"\r\n|\r|\n")


class ScriptError(AssertionError):
    """What a test scripted cannot be played: the test is wrong, not the client."""


class Cut(NamedTuple):
    """Where an answer stops before its end, and what the client sees there."""

    how: How
    unit: Literal["nothing", "bytes", "events"]
    after: int = 0


class Stream:
    """A body that is made while it is sent: one piece for each item of its source.

    Args:
        source: an iterable, an async iterable, or a function that gives a fresh one for each answer.
        encode: turns an item into bytes.
        last: sent after the last item, or `None`.
    """

    def __init__(self, source: ItemSource, encode: Callable[[object], bytes], last: bytes | None = None) -> None:
        if isinstance(source, (str, bytes, Mapping)):
            raise TypeError(f"a stream needs a list or an iterator of items, not one {type(source).__name__}")
        self._source = source
        self._encode = encode
        self._last = last
        self._spent = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The encoded pieces, one by one; closes the generator that the source may be.

        Raises:
            ScriptError: the source is an iterator that an earlier answer has used up.
        """
        items = self._source() if callable(self._source) else self._source
        if items is self._source and isinstance(items, (Iterator, AsyncIterator)):
            if self._spent:
                raise ScriptError("an iterator can be streamed once: script a list, or a function that makes one")
            self._spent = True
        try:
            if isinstance(items, AsyncIterable):
                async for item in items:
                    yield self._encode(item)
            else:
                for item in items:
                    yield self._encode(item)
            if self._last is not None:
                yield self._last
        finally:
            if isasyncgen(items):
                await items.aclose()
            elif isgenerator(items):
                items.close()


def encode_event(event: object, newline: str = "\n") -> bytes:
    """One server-sent event.

    `bytes` go out as they are (comments, malformed events); a `str` is the data, one `data:` line for each of its
    lines; a `(name, data)` tuple has an `event:` line too; anything else is data as JSON.
    """
    if isinstance(event, bytes):
        return event
    lines = []
    if isinstance(event, tuple):
        name, event = event
        lines.append(f"event: {name}")
    data = event if isinstance(event, str) else _dumps(event)
    lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return "".join(f"{line}{newline}" for line in [*lines, ""]).encode()


def _dumps(value: object) -> str:
    # Not escaped, so that a cut can fall inside of a character.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _as_bytes(chunk: object) -> bytes:
    if not isinstance(chunk, bytes):
        raise ScriptError(f"Reply.stream sends bytes, not {type(chunk).__name__}")
    return chunk


def _headers(content_type: str | None, extra: HeaderLines | None) -> tuple[tuple[str, str], ...]:
    pairs = tuple(extra.items()) if isinstance(extra, Mapping) else tuple(extra or ())
    if content_type is None or any(name.lower() == "content-type" for name, _ in pairs):
        return pairs
    return (("Content-Type", content_type), *pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One scripted answer, as a value: make it with `json`, `text`, `bytes`, `sse`, `stream` or `raw`.

    `Content-Length` or chunked framing is added on the wire; headers given here win over what would be added, so a
    wrong `Content-Length` is a header like any other (the connection closes after it).

    Attributes:
        status: HTTP status.
        headers: pairs of name and value, in order; a name may come twice.
        body: the whole body, or a `Stream`.
        delay: seconds before the first byte.
        pause: seconds between two pieces of a stream.
        chunk_size: at most so many bytes of the body in one packet, or `None`: each piece in one.
        chunk_pause: seconds between two packets.
        cut: where the answer stops early, or `None`.
        refused: no answer, and no connection where that can still be refused.
        verbatim: the body is all that is sent: no status line, no headers; then the connection closes.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: Octets | Stream = b""
    delay: float = 0.0
    pause: float = 0.0
    chunk_size: int | None = None
    chunk_pause: float = 0.0
    cut: Cut | None = None
    refused: bool = False
    verbatim: bool = False

    def __post_init__(self) -> None:
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ValueError("chunk_size must be at least one byte")

    @staticmethod
    def json(value: object, status: int = 200, headers: HeaderLines | None = None) -> Reply:
        """A JSON body, in UTF-8 without escapes."""
        return Reply(status=status, headers=_headers("application/json", headers), body=_dumps(value).encode())

    @staticmethod
    def text(text: str, status: int = 200, headers: HeaderLines | None = None) -> Reply:
        """A plain-text body in UTF-8."""
        return Reply(status=status, headers=_headers("text/plain; charset=utf-8", headers), body=text.encode())

    @staticmethod
    def bytes(body: Octets, status: int = 200, headers: HeaderLines | None = None) -> Reply:
        """Any body; `application/octet-stream` where the headers name no other type."""
        return Reply(status=status, headers=_headers("application/octet-stream", headers), body=body)

    @staticmethod
    def sse(
        events: ItemSource,
        *,
        done: str | None = "[DONE]",
        pause: float = 0.0,
        chunk_size: int | None = None,
        newline: str = "\n",
        status: int = 200,
        headers: HeaderLines | None = None,
    ) -> Reply:
        """A stream of server-sent events.

        Args:
            events: a list, an iterator (endless ones too), an async iterator, or a function that gives one of these.
                `bytes` are sent as they are, a `str` is data, `(name, data)` a named event, the rest JSON data.
            done: data of one more event after the last, or `None`.
            pause: seconds between two events.
            chunk_size: at most so many bytes in one packet: 1 sends every byte alone, and takes about a seventh of a
                millisecond for it. `None`: each event in one packet.
            newline: `"\\n"`, `"\\r\\n"` or `"\\r"`.
            status: HTTP status.
            headers: further headers; they win over `Content-Type: text/event-stream`.
        """
        last = None if done is None else encode_event(done, newline)
        return Reply(
            status=status,
            headers=_headers("text/event-stream", headers),
            body=Stream(events, lambda event: encode_event(event, newline), last),
            pause=pause,
            chunk_size=chunk_size,
        )

    @staticmethod
    def stream(
        chunks: ItemSource, *, pause: float = 0.0, status: int = 200, headers: HeaderLines | None = None
    ) -> Reply:
        """A chunked body out of `bytes`, one HTTP chunk each; `pause` seconds between two."""
        body = Stream(chunks, _as_bytes)
        return Reply(status=status, headers=_headers("application/octet-stream", headers), body=body, pause=pause)

    @staticmethod
    def raw(wire: Octets) -> Reply:
        """These very bytes in place of an HTTP answer, and then the end of the connection."""
        return Reply(body=wire, verbatim=True)

    def gzipped(self) -> Reply:
        """The same answer with its body compressed; `ValueError` for a stream."""
        if isinstance(self.body, Stream):
            raise ValueError("only a whole body can be gzipped, not a stream")
        headers = (*self.headers, ("Content-Encoding", "gzip"))
        return replace(self, headers=headers, body=gzip.compress(self.body, mtime=0))
