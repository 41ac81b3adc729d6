"""streamGenerateContent, piece by piece: the data of each server-sent event to the events that it spells. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from providers.exceptions import LLMProviderError, LLMProviderStreamError
from providers.types import StreamEvent, StreamEventType, Usage
from providers.wire import decode_json

from .common import figures_of, put_finish, renew_usage, usage_of
from .generate import (
    candidates_of,
    check_shape,
    event_of,
    facts_of,
    parts_of,
    put_candidate,
    put_parts,
    refuse_blocked,
)
from .settings import NAME

_TOKEN: Final = StreamEventType.TOKEN
_META: Final = StreamEventType.META
_USAGE: Final = StreamEventType.USAGE

Refuse = Callable[[dict[str, Any], str | None], LLMProviderError]
"""Makes an error of ours of an error inside a stream and the backend's id of the request."""


class GenerateStream:
    """Reads one stream.

    The vendor's streams have no last word: some models name a finish reason in every chunk, and usage may follow it. So
    a stream is whole when it has ended and a reason was named.

    The vendor tells in every chunk what has been used until then. An event for each would cost more than the text: the
    first is given out, and where the figures have changed the last; in between the one that was given out is brought up
    to date in place, so that it is right also where a stream is left or breaks off.

    Args:
        meta: what `encode` said of the request.
        refuse: makes the error that is raised for an error inside the stream.
        secrets: strings that must not appear in errors.

    Attributes:
        request_id: the backend's id of the request, once the reply has begun.
        done: whether the stream said that it is over, as some gateways do.
    """

    __slots__ = (
        *("_choices", "_facts", "_finish", "_first_usage", "_loads", "_meta", "_parts", "_reason", "_refuse"),
        *("_secrets", "_text", "_usage", "done", "request_id"),
    )

    def __init__(self, meta: dict[str, Any], refuse: Refuse, *, secrets: Iterable[str] = ()) -> None:
        from orjson import loads

        self._loads: Callable[[bytes], Any] = loads
        self._meta = meta
        self._refuse = refuse
        self._secrets = secrets
        self._facts: dict[str, Any] | None = None
        self._finish: dict[str, Any] = {}
        self._parts: list[dict[str, Any]] = []
        self._text: list[str] = []  # pieces of a plain text that is under way; joined when something else comes
        self._reason: Any = None
        self._usage: Usage | None = None  # the one that was given out
        self._first_usage: tuple[int | None, ...] = ()  # and its figures then
        self._choices: dict[int, dict[str, Any]] = {}
        self.request_id: str | None = None
        self.done = False

    def begin(self, request_id: str | None) -> None:
        """Take the backend's id of the request in: the reply has begun."""
        self.request_id = request_id

    def feed(self, name: str | None, data: bytes) -> Iterable[StreamEvent]:
        """Take one server-sent event in.

        Args:
            name: the event's name, where it has one.
            data: its data.

        Raises:
            LLMProviderError: the event is an error, or no JSON object.
        """
        try:
            chunk = self._loads(data)
        except ValueError:
            if data.strip() == b"[DONE]":
                self.done = True
                return ()
            if name == "error":
                chunk = {"error": {"message": data.decode("utf-8", "replace")}}
            else:
                chunk = decode_json(data, provider=NAME, request_id=self.request_id, secrets=self._secrets)
        if self._facts is not None and name != "error":
            # Nearly every event: a piece of text, the only part of the only candidate.
            try:
                (only,) = chunk["candidates"]
                (part,) = only["content"]["parts"]
                text = part["text"]
                if (
                    type(text) is str
                    and text
                    and len(part) == 1
                    and ((len(only) == 2 and not only["index"]) or len(only) == 1)
                    and "error" not in chunk
                ):
                    self._text.append(text)
                    usage = chunk.get("usageMetadata")
                    if usage:
                        if self._usage is None:
                            return (StreamEvent(_TOKEN, text), *self._tell(usage))
                        renew_usage(self._usage, usage)
                    return (StreamEvent(_TOKEN, text),)
            except (KeyError, TypeError, ValueError):
                pass
        events: list[StreamEvent] = []
        # Asked without `alt=sse`, or where a gateway loses that on its way, the server sends its chunks as one list.
        for item in chunk if isinstance(chunk, list) else (chunk,):
            self._take(name, item, events)
        return events

    def _take(self, name: str | None, chunk: Any, events: list[StreamEvent]) -> None:
        if not isinstance(chunk, dict):
            raise LLMProviderStreamError(
                f"the stream holds a JSON {type(chunk).__name__} where an object was expected",
                provider=NAME,
                request_id=self.request_id,
            )
        if chunk.get("error") or name == "error":
            raise self._refuse(chunk, self.request_id)
        if self._facts is None:
            check_shape(chunk, self.request_id)
            self._facts = facts_of(chunk, self._meta, self.request_id)
            refuse_blocked(chunk, self._facts, self.request_id)
            events.append(StreamEvent(_META, self._facts))
        elif "promptFeedback" in chunk and not self._parts and not self._text:
            refuse_blocked(chunk, facts_of(chunk, self._meta, self.request_id), self.request_id)
        for candidate in candidates_of(chunk):
            index = candidate.get("index")
            if index and type(index) is int:
                self._collect(index, candidate)
                continue
            for part in parts_of(candidate):
                text = part.get("text")
                if type(text) is str and len(part) == 1:
                    if text:
                        self._text.append(text)
                        events.append(StreamEvent(_TOKEN, text))
                    continue
                self._keep(part)
                event = event_of(part)
                if event is not None:
                    events.append(event)
            if len(candidate) > 1 or "content" not in candidate:
                self._reason = candidate.get("finishReason") or self._reason
                put_candidate(self._finish, candidate)
        usage = chunk.get("usageMetadata")
        if usage:
            if self._usage is None:
                events += self._tell(usage)
            else:
                renew_usage(self._usage, usage)

    def _tell(self, data: Any) -> Iterable[StreamEvent]:
        usage = usage_of(data)
        if usage is None:
            return ()
        self._usage, self._first_usage = usage, figures_of(usage)
        return (StreamEvent(_USAGE, usage),)

    def _keep(self, part: dict[str, Any]) -> None:
        self._join()
        last = self._parts[-1] if self._parts else None
        if last is not None and _goes_on(last, part):
            # A thought that comes in pieces is one part, as it is in a whole reply.
            self._parts[-1] = {**last, "text": last["text"] + part["text"]}
        else:
            self._parts.append(part)

    def _join(self) -> None:
        if self._text:
            self._parts.append({"text": "".join(self._text)})
            self._text = []

    def _collect(self, index: int, candidate: dict[str, Any]) -> None:
        # With `candidate_count` above 1 each answer is kept for the metadata; the first alone is the answer.
        kept = self._choices.setdefault(index, {"index": index, "content": {"role": "model", "parts": []}})
        parts = kept["content"]["parts"]
        for part in parts_of(candidate):
            if parts and parts[-1].keys() == part.keys() and _goes_on(parts[-1], part):
                parts[-1] = {**parts[-1], "text": parts[-1]["text"] + part["text"]}
            else:
                parts.append(part)
        kept.update({key: value for key, value in candidate.items() if key not in ("content", "index")})

    def finish(self) -> list[StreamEvent]:
        """Take the end of the stream.

        Raises:
            LLMProviderStreamError: it ended before its last event.
        """
        if self._facts is None or (self._reason is None and not self.done):
            what = "without a single event" if self._facts is None else "before its last event"
            raise LLMProviderStreamError(f"the stream ended {what}", provider=NAME, request_id=self.request_id)
        self._join()
        facts = self._finish
        put_parts(facts, self._parts)
        put_finish(facts, self._reason, any("functionCall" in part for part in self._parts))
        if self._choices:
            first = {"content": {"role": "model", "parts": self._parts}, "finishReason": self._reason}
            facts["choices"] = [first, *(self._choices[index] for index in sorted(self._choices))]
        events = [StreamEvent(_META, facts)] if facts else []
        if self._usage is not None and figures_of(self._usage) != self._first_usage:
            events.insert(0, StreamEvent(_USAGE, self._usage))
        return events


def _goes_on(last: dict[str, Any], part: dict[str, Any]) -> bool:
    """Whether a part is the next piece of the one before it; what bears a signature is whole."""
    return (
        part.keys() <= {"text", "thought"}
        and last.keys() <= {"text", "thought"}
        and isinstance(part.get("text"), str)
        and isinstance(last.get("text"), str)
        and bool(part.get("thought")) is bool(last.get("thought"))
    )
