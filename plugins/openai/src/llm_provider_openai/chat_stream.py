"""Chat Completions, piece by piece: the data of each server-sent event to the events that it spells. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from providers.exceptions import LLMProviderError, LLMProviderStreamError
from providers.pipeline import CallPlaces, make_call_id
from providers.types import StreamEvent, StreamEventType, ToolCall, ToolCallDelta
from providers.wire import decode_json

from .chat import decode, facts_of, put_finish
from .common import NAME, as_json, kept_of, text_of, usage_of

_TOKEN: Final = StreamEventType.TOKEN
_META: Final = StreamEventType.META
_START: Final = StreamEventType.TOOL_CALL_START
_DELTA: Final = StreamEventType.TOOL_CALL_DELTA
_NOTHING: Final[tuple[StreamEvent, ...]] = ()

Refuse = Callable[[dict[str, Any], str | None], LLMProviderError]
"""Makes an error of ours of an error inside a stream and the backend's id of the request."""


class _Call:
    """One tool call under way."""

    __slots__ = ("arguments", "id", "kept", "name")

    def __init__(self, id: str, name: str, kept: dict[str, Any] | None) -> None:
        self.id = id
        self.name = name
        self.kept = kept
        self.arguments: list[str] = []


class ChatStream:
    """Reads one stream.

    Args:
        meta: what `encode` said of the request.
        refuse: makes the error that is raised for an error inside the stream.
        several: whether more than one answer was asked for (`n`).
        secrets: strings that must not appear in errors.

    Attributes:
        request_id: the backend's id of the request, once the reply has begun.
        done: whether the stream said that it is over; what follows does not matter.
    """

    __slots__ = (
        *("_at", "_calls", "_choices", "_facts", "_finish", "_loads", "_logprobs", "_meta", "_places"),
        *("_quick", "_refusal", "_refuse", "_secrets", "done", "request_id"),
    )

    def __init__(
        self,
        meta: dict[str, Any],
        refuse: Refuse,
        *,
        several: bool = False,
        secrets: Iterable[str] = (),
    ) -> None:
        from orjson import loads

        self._loads: Callable[[bytes], Any] = loads
        self._meta = meta
        self._refuse = refuse
        self._secrets = secrets
        self._facts: dict[str, Any] | None = None
        self._finish: dict[str, Any] = {}
        self._refusal: list[str] = []
        self._logprobs: dict[str, list[Any]] = {}
        self._places: CallPlaces | None = None
        self._at: dict[int, int] = {}  # a server's number of a call to its place
        self._calls: dict[int, _Call] = {}
        self._choices: dict[int, dict[str, Any]] | None = {} if several else None
        self._quick = False
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
        if data == b"[DONE]":
            # Asked before it is tried as JSON: the exception would cost more than all the rest of the stream's end.
            self.done = True
            return _NOTHING
        try:
            chunk = self._loads(data)
        except ValueError:
            if data.strip() == b"[DONE]":
                self.done = True
                return _NOTHING
            chunk = self._odd(name, data)
        if self._quick and name is None:
            # Nearly every chunk: one choice, a piece of text, and nothing else to say.
            try:
                (choice,) = chunk["choices"]
                delta = choice["delta"]
                text = delta["content"]
                if (
                    type(text) is str
                    and text
                    and len(delta) == 1
                    and choice.get("finish_reason") is None
                    and not (choice.get("index") or choice.get("logprobs") or chunk.get("usage"))
                    and "error" not in chunk
                ):
                    return (StreamEvent(_TOKEN, text),)
            except (KeyError, TypeError, ValueError):
                pass
        return self._slowly(name, chunk)

    def _odd(self, name: str | None, data: bytes) -> Any:
        if name == "error":
            return {"error": {"message": data.decode("utf-8", "replace")}}
        return decode_json(data, provider=NAME, request_id=self.request_id, secrets=self._secrets)

    def _slowly(self, name: str | None, chunk: Any) -> list[StreamEvent]:
        if not isinstance(chunk, dict):
            raise LLMProviderStreamError(
                f"the stream holds a JSON {type(chunk).__name__} where an object was expected",
                provider=NAME,
                request_id=self.request_id,
            )
        if chunk.get("error") or name == "error":
            raise self._refuse(chunk, self.request_id)
        events: list[StreamEvent] = []
        choices = chunk.get("choices")
        choices = [item for item in choices if isinstance(item, dict)] if isinstance(choices, list) else []
        if chunk.get("object") == "chat.completion" or (choices and "message" in choices[0]):
            # A server that does not stream answered with the whole of it.
            self.done = True
            self._facts = {}
            return decode(chunk, self._meta, self.request_id)
        if self._facts is None:
            self._facts = facts_of(chunk, self._meta, self.request_id)
            self._quick = self._choices is None
            events.append(StreamEvent(_META, self._facts))
        for choice in choices:
            if not choice.get("index"):
                self._take(choice, events)
            if self._choices is not None:
                self._collect(choice, self._choices)
        if chunk.get("usage"):
            usage = usage_of(chunk["usage"])
            if usage is not None:
                events.append(StreamEvent(StreamEventType.USAGE, usage))
        return events

    def _take(self, choice: dict[str, Any], events: list[StreamEvent]) -> None:
        delta = choice.get("delta")
        if isinstance(delta, dict):
            reasoning = delta.get("reasoning_content") or delta.get("reasoning")
            if reasoning and isinstance(reasoning, str):
                events.append(StreamEvent.reasoning(reasoning))
            text = text_of(delta.get("content"))
            if text:
                events.append(StreamEvent(_TOKEN, text))
            calls = delta.get("tool_calls")
            if isinstance(calls, list):
                for piece in calls:
                    if isinstance(piece, dict):
                        self._take_call(piece, events)
            refusal = delta.get("refusal")
            if refusal and isinstance(refusal, str):
                self._refusal.append(refusal)
            for key in ("annotations", "audio"):
                if delta.get(key):
                    self._finish[key] = delta[key]
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict):
            for key, found in logprobs.items():
                if isinstance(found, list):
                    self._logprobs.setdefault(key, []).extend(found)
        put_finish(self._finish, choice.get("finish_reason"))

    def _take_call(self, piece: dict[str, Any], events: list[StreamEvent]) -> None:
        if self._places is None:
            self._places = CallPlaces()
        body = piece.get("function") or piece.get("custom")
        body = body if isinstance(body, dict) else {}
        id, name, index = text_of(piece.get("id")), text_of(body.get("name")), piece.get("index")
        arguments = body.get("arguments", body.get("input"))
        if not isinstance(arguments, str):
            arguments = as_json(arguments) if isinstance(arguments, dict) else ""
        index = index if type(index) is int else None
        if name and not id and (index is None or self._begins(index)):
            id = make_call_id()
        place, _ = self._places.place(id or None, index, name or None)
        if index is not None:
            self._at[index] = place
        call = self._calls.get(place)
        if call is None:
            call = self._calls[place] = _Call(id or make_call_id(), name, kept_of(piece))
            events.append(StreamEvent(_START, ToolCallDelta(place, call.id, name or None)))
        elif (kept := kept_of(piece)) is not None:
            call.kept = kept
        if name and not call.name:
            call.name = name
            events.append(StreamEvent(_DELTA, ToolCallDelta(place, call.id, name)))
        if arguments:
            call.arguments.append(arguments)
            events.append(StreamEvent(_DELTA, ToolCallDelta(place, call.id, call.name or None, arguments)))

    def _begins(self, index: int) -> bool:
        """Whether a named piece without an id begins a call: under a new number, or under the number of a call that is
        whole (a server that gives no ids and numbers all calls 0)."""
        call = self._calls.get(self._at.get(index, -1))
        if call is None or not call.arguments:
            return call is None
        try:
            return isinstance(self._loads("".join(call.arguments).encode()), dict)
        except ValueError:
            return False

    def _collect(self, choice: dict[str, Any], choices: dict[int, dict[str, Any]]) -> None:
        # With `n` above 1 each answer is kept for the metadata; the first alone is the answer.
        index = choice.get("index")
        index = index if type(index) is int else 0
        kept = choices.get(index)
        if kept is None:
            message = {"role": "assistant", "content": ""}
            kept = choices[index] = {"index": index, "message": message, "finish_reason": None}
        delta = choice.get("delta")
        if isinstance(delta, dict):
            kept["message"]["content"] += text_of(delta.get("content"))
        if choice.get("finish_reason") is not None:
            kept["finish_reason"] = choice["finish_reason"]

    def finish(self) -> list[StreamEvent]:
        """Take the end of the stream.

        Raises:
            LLMProviderStreamError: it ended before its last event.
        """
        if self._facts is None or (not self.done and "finish_reason" not in self._finish):
            what = "without a single event" if self._facts is None else "before its last event"
            raise LLMProviderStreamError(f"the stream ended {what}", provider=NAME, request_id=self.request_id)
        events = []
        for call in self._calls.values():
            if call.kept is not None:
                whole = ToolCall(call.id, call.name, "".join(call.arguments), call.kept)
                events.append(StreamEvent.tool_call(whole))
        facts = self._finish
        if self._refusal:
            facts["refusal"] = "".join(self._refusal)
        if self._logprobs:
            facts["logprobs"] = self._logprobs
        if self._choices:
            facts["choices"] = [self._choices[index] for index in sorted(self._choices)]
        if facts:
            events.append(StreamEvent(_META, facts))
        return events
