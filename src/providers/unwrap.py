"""Answers whose root is no object, for backends that take object schemas only: wrapped on the way, unwrapped back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from .types import StreamEvent, StreamEventType

KEY: Final = "value"

_TOKEN: Final = StreamEventType.TOKEN
_HEAD: Final = re.compile(rf'\s*\{{\s*"{KEY}"\s*:\s*(?=\S)')
_BARE_HEAD: Final = f'{{"{KEY}":'
_NUMBER: Final = re.compile(r"[-+.0-9eE]+\s*")
_WORDS: Final = frozenset({"title", "description"})


def has_object_root(schema: Mapping[str, Any]) -> bool:
    """Whether every answer that fits a JSON Schema is an object, as far as its root says."""
    node = with_plain_root(schema)
    return node.get("type") == "object" or ("type" not in node and "properties" in node)


def with_plain_root(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with what its root refers to written out at the root, where a reference is all that stands there.

    Models that hold themselves are described by such a root; backends that look for `"type": "object"` refuse it.
    """
    seen: set[str] = set()
    node: Mapping[str, Any] = schema
    while "$ref" in node and "type" not in node and node["$ref"] not in seen and node["$ref"] != "#":
        seen.add(node["$ref"])
        found: Any = schema
        for step in str(node["$ref"]).split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            return schema
        beside = {key: item for key, item in node.items() if key != "$ref"}
        if (beside.keys() & found.keys()) - _WORDS:
            return schema  # both hold at once, which one dict cannot say
        node = {**beside, **found}
    return node


def wrap_root(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An object schema whose only property, `value`, is what the schema describes; definitions stay at the root."""
    inner = {key: item for key, item in schema.items() if key not in ("$defs", "definitions", "$schema", "$id")}
    wrapped: dict[str, Any] = {
        "type": "object",
        "properties": {KEY: _point_inside(inner)},
        "required": [KEY],
        "additionalProperties": False,
    }
    for key in ("$defs", "definitions"):
        if key in schema:
            wrapped[key] = _point_inside(schema[key])
    return wrapped


def _point_inside(node: Any) -> Any:
    """A copy whose references to the old root lead to its new place."""
    if isinstance(node, Mapping):
        return {
            key: _moved(item) if key == "$ref" and isinstance(item, str) else _point_inside(item)
            for key, item in node.items()
        }
    return [_point_inside(item) for item in node] if isinstance(node, list) else node


def _moved(ref: str) -> str:
    if ref == "#" or (ref.startswith("#/") and not ref.startswith(("#/$defs/", "#/definitions/"))):
        return f"#/properties/{KEY}{ref[1:]}"
    return ref


class Unwrapper:
    """Takes the wrapping off an answer's text, piece by piece; a text that is not wrapped comes through as it is."""

    __slots__ = ("_bare", "_head", "_held", "_inside")

    def __init__(self) -> None:
        self._held = ""
        self._bare = ""  # what is held of the beginning, without its white space
        self._head = ""  # the wrapping's beginning, as long as what follows it is a number whose end has not come
        self._inside: bool | None = None

    def feed(self, text: str) -> str:
        """The next piece without the wrapping; what may belong to the wrapping's end is held back."""
        self._held += text
        if self._inside is None:
            self._bare += "".join(text.split())
            if _BARE_HEAD.startswith(self._bare):
                return ""
            found = _HEAD.match(self._held)
            self._inside = found is not None
            if found is not None:
                self._head, self._held = self._held[: found.end()], self._held[found.end() :]
        if not self._inside:
            given, self._held = self._held, ""
            return given
        if self._head:
            # An answer that is cut inside a number would look like a whole one, of another value.
            if _NUMBER.fullmatch(self._held):
                return ""
            self._head = ""
        bare = self._held.rstrip()
        at = len(bare[:-1].rstrip() if bare.endswith("}") else bare)
        given, self._held = self._held[:at], self._held[at:]
        return given

    def flush(self) -> str:
        """What is left at the answer's end; the wrapping's own end is not."""
        held, self._held = self._head + self._held, ""
        return "" if self._inside and not self._head and "}" in held else held


class Unwrapping:
    """A decoder of a stream whose events come without the wrapping.

    Args:
        decoder: the one that reads the backend's events; a `providers.wire.Decoder`.
    """

    __slots__ = ("_decoder", "_unwrapper", "begin")

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._unwrapper = Unwrapper()
        self.begin = decoder.begin

    @property
    def done(self) -> bool:
        """Whether the last word was said."""
        return bool(self._decoder.done)

    def feed(self, name: str | None, data: bytes) -> Iterator[StreamEvent]:
        """Take one server-sent event in."""
        return _unwrapped(self._decoder.feed(name, data), self._unwrapper)

    def finish(self) -> Iterator[StreamEvent]:
        """Take the end of the stream."""
        if rest := self._unwrapper.flush():
            yield StreamEvent.token(rest)
        yield from self._decoder.finish()


def _unwrapped(events: Iterable[StreamEvent], unwrapper: Unwrapper) -> Iterator[StreamEvent]:
    for event in events:
        if event.type is not _TOKEN:
            yield event
        elif text := unwrapper.feed(event.data):
            yield StreamEvent.token(text)


def unwrap_whole(events: Iterable[StreamEvent]) -> list[StreamEvent]:
    """The events of a whole answer without the wrapping."""
    unwrapper = Unwrapper()
    made: list[StreamEvent] = []
    place = 0
    for event in _unwrapped(events, unwrapper):
        made.append(event)
        if event.type is _TOKEN:
            place = len(made)
    if rest := unwrapper.flush():
        made.insert(place, StreamEvent.token(rest))
    return made
