"""What a stream's body is read with: parsers from bytes to events, and the contract of what makes something of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NoReturn, Protocol, TypeAlias, TypeVar

from providers.exceptions import LLMProviderError

from .options import EVENTS, JSON
from .sse import Event, SSEParser

T_co = TypeVar("T_co", covariant=True)


class Decoder(Protocol[T_co]):
    """Makes something of the events of one stream."""

    @property
    def done(self) -> bool:
        """Whether the last word was said: what follows is not given to `feed`, and the stream has 0.25 s to end,
        however that may be."""

    def begin(self, request_id: str | None, /) -> object:
        """The reply has begun; with the backend's id of the request."""

    def feed(self, name: str | None, data: bytes, /) -> Iterable[T_co]:
        """Take one server-sent event in: its name, where it has one, and its data; gives what it spells."""

    def finish(self) -> Iterable[T_co]:
        """The stream has ended; gives what is left to say, or raises where it ended too early."""


class Events:
    """The decoder that gives each event as it is."""

    done = False

    def begin(self, request_id: str | None) -> None:
        """Nothing to do."""

    def feed(self, name: str | None, data: bytes) -> tuple[Event, ...]:
        """The event."""
        return ((name, data),)

    def finish(self) -> tuple[Event, ...]:
        """Nothing is left."""
        return ()


AS_THEY_ARE: Final = Events()


Failed: TypeAlias = Callable[[LLMProviderError], object]
"""Sees an error of ours before it is raised."""


def unseen(error: LLMProviderError) -> None:
    """Nobody wants to see it."""


class BodyParser(Protocol):
    """From the pieces of a body to events."""

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Take the next piece; gives the events that are whole now."""

    def close(self) -> Iterable[Event]:
        """Take the end."""


def kind_of(headers: Mapping[str, str]) -> str:
    """The type of a stream's body, without parameters; a server that names none is taken at its word."""
    return headers.get("Content-Type", EVENTS).partition(";")[0].strip().lower()


def parser_of(kind: str, refuse: Callable[[bytes], Exception]) -> BodyParser:
    """The parser for a body.

    Args:
        kind: its type, without parameters.
        refuse: makes the error for a body of another type, of the bytes that it starts with.
    """
    if kind == EVENTS:
        return SSEParser()
    return _Document() if kind == JSON else _Page(refuse)


class _Document:
    """A server that does not stream: all of the body is one event without a name."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, chunk: bytes) -> tuple[Event, ...]:
        self._pieces.append(chunk)
        return ()

    def close(self) -> tuple[Event, ...]:
        return ((None, b"".join(self._pieces)),)


class _Page:
    """Something else, such as a web page: refused at its first bytes."""

    def __init__(self, refuse: Callable[[bytes], Exception]) -> None:
        self._refuse = refuse

    def feed(self, chunk: bytes) -> tuple[Event, ...]:
        if chunk:
            raise self._refuse(chunk[:4000])
        return ()

    def close(self) -> NoReturn:
        raise self._refuse(b"")
