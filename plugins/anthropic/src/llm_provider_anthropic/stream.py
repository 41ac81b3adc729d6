"""The Messages API, piece by piece: the data of each server-sent event to the events that it spells. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from providers.exceptions import LLMProviderError, LLMProviderStreamError
from providers.pipeline import make_call_id
from providers.types import StreamEvent, StreamEventType, ToolCall, ToolCallDelta
from providers.wire import decode_json

from .common import META, NAME, TOKEN, USAGE, UsageReader, call_of, kept_of, put_stop, quotes_of, text_of
from .messages import decode, facts_of, put_content

_REASONING: Final = StreamEventType.REASONING
_START: Final = StreamEventType.TOOL_CALL_START
_DELTA: Final = StreamEventType.TOOL_CALL_DELTA
_NOTHING: Final[tuple[StreamEvent, ...]] = ()

Refuse = Callable[[dict[str, Any], str | None], LLMProviderError]
"""Makes an error of ours of an error inside a stream and the backend's id of the request."""


class _Block:
    """One block under way: as it began, and the pieces that came since."""

    __slots__ = ("call", "data", "index", "pieces")

    def __init__(self, data: dict[str, Any], index: int, call: ToolCall | None) -> None:
        self.data = data
        self.index = index  # place among the calls of the answer, for a call
        self.call = call
        self.pieces: list[str] = []

    def whole(self) -> dict[str, Any]:
        """The block as a whole reply would hold it."""
        data, joined = self.data, "".join(self.pieces)
        kind = data.get("type")
        if kind == "text":
            return {**data, "text": text_of(data.get("text")) + joined}
        if kind == "thinking":
            return {**data, "thinking": text_of(data.get("thinking")) + joined}
        if joined and isinstance(data.get("input"), dict | str | None):
            try:
                given = ToolCall("", text_of(data.get("name")), joined).parse_arguments()
            except ValueError:
                given = {"INVALID_JSON": joined}
            return {**data, "input": given}
        return data


class MessageStream:
    """Reads one stream.

    Args:
        meta: what `encode` said of the request.
        refuse: makes the error that is raised for an error inside the stream.
        secrets: strings that must not appear in errors.

    Attributes:
        request_id: the backend's id of the request, once the reply has begun.
        done: whether the stream said that it is over; what follows does not matter.
        and_then: gives more events at the end, of the whole text and the last facts.
    """

    __slots__ = (
        *("_blocks", "_calls", "_facts", "_finish", "_last", "_loads", "_meta", "_order", "_refuse"),
        *("_secrets", "_text", "_unknown", "_usage", "and_then", "done", "request_id"),
    )

    def __init__(self, meta: dict[str, Any], refuse: Refuse, *, secrets: Iterable[str] = ()) -> None:
        from orjson import loads

        self._loads: Callable[[bytes], Any] = loads
        self._meta = meta
        self._refuse = refuse
        self._secrets = secrets
        self._facts: dict[str, Any] | None = None
        self._finish: dict[str, Any] = {}
        self._blocks: dict[int, _Block] = {}  # by the server's number
        self._order: list[_Block] = []  # as they began: a server may number all of them 0
        self._text: list[str] | None = None  # the pieces of the text block under way
        self._last = -1  # and its number
        self._calls = 0
        self._unknown: list[str] = []
        self._usage = UsageReader()
        self.request_id: str | None = None
        self.done = False
        self.and_then: Callable[[str, dict[str, Any]], Iterable[StreamEvent]] | None = None

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
            event = self._loads(data)
        except ValueError:
            event = self._odd(name, data)
            if event is None:
                return _NOTHING
        if self._text is not None:
            # Nearly every event: a piece of text.
            try:
                delta = event["delta"]
                plain = delta["type"] == "text_delta" and event["type"] == "content_block_delta"
                if plain and event["index"] == self._last:
                    text = delta["text"]
                    if type(text) is str and text:
                        self._text.append(text)
                        return (StreamEvent(TOKEN, text),)
            except (KeyError, TypeError):
                pass
        return self._slowly(name, event)

    def _odd(self, name: str | None, data: bytes) -> Any:
        if name == "error":
            return {"error": {"message": data.decode("utf-8", "replace")}}
        if data.strip() == b"[DONE]":  # servers of two dialects end with it
            self.done = True
            return None
        return decode_json(data, provider=NAME, request_id=self.request_id, secrets=self._secrets)

    def _slowly(self, name: str | None, event: Any) -> Iterable[StreamEvent]:
        if not isinstance(event, dict):
            raise LLMProviderStreamError(
                f"the stream holds a JSON {type(event).__name__} where an object was expected",
                provider=NAME,
                request_id=self.request_id,
            )
        kind = event.get("type") or name
        if kind == "error" or event.get("error"):
            told = event.get("request_id")
            raise self._refuse(event, self.request_id or (told if isinstance(told, str) else None))
        match kind:
            case "message_start":
                return self._start(event.get("message"))
            case "content_block_start":
                return self._open(event)
            case "content_block_delta":
                return self._piece(event)
            case "content_block_stop":
                return self._close(event)
            case "message_delta":
                return self._delta(event)
            case "message_stop":
                self.done = True
            case "message":
                # A server that does not stream answered with the whole of it.
                self.done, self._facts = True, {}
                events = decode(event, self._meta, self.request_id)
                content = event.get("content")
                for block in content if isinstance(content, list) else ():
                    if isinstance(block, dict):
                        self._begin_block(len(self._order), _Block(block, -1, None))
                put_stop(self._finish, event)
                return events
            case "ping":
                pass
            case _:
                self._note_unknown(f"event {kind}")
        return _NOTHING

    def _start(self, message: Any) -> list[StreamEvent]:
        message = message if isinstance(message, dict) else {}
        self._facts = facts_of(message, self._meta, self.request_id)
        usage = self._usage.read(message.get("usage"), begun=True)
        return [StreamEvent(META, self._facts), *([StreamEvent(USAGE, usage)] if usage is not None else ())]

    def _open(self, event: dict[str, Any]) -> Iterable[StreamEvent]:
        at, data = event.get("index"), event.get("content_block")
        at = at if type(at) is int else len(self._order)
        data = data if isinstance(data, dict) else {}
        self._text = None
        kind = data.get("type")
        if kind != "tool_use":
            self._begin_block(at, _Block(data, -1, None))
            if kind == "text":
                text = text_of(data.get("text"))
                return (StreamEvent(TOKEN, text),) if text else _NOTHING
            if kind == "thinking" and (text := text_of(data.get("thinking"))):
                return (StreamEvent(_REASONING, text),)
            return _NOTHING
        call = ToolCall(text_of(data.get("id")) or make_call_id(), text_of(data.get("name")), "", kept_of(data))
        self._begin_block(at, _Block(data if data.get("id") else {**data, "id": call.id}, self._calls, call))
        self._calls += 1
        return (StreamEvent(_START, ToolCallDelta(self._calls - 1, call.id, call.name)),)

    def _begin_block(self, at: int, block: _Block) -> None:
        self._blocks[at] = block
        self._order.append(block)

    def _piece(self, event: dict[str, Any]) -> Iterable[StreamEvent]:
        at, delta = event.get("index"), event.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        kind = delta.get("type")
        block = self._blocks.get(at) if type(at) is int else None
        if block is None or type(at) is not int:
            # A server that does not say where a block begins.
            begin = _BEGINS.get(kind) if isinstance(kind, str) else None
            if begin is None:
                self._note_unknown(f"delta {kind}")
                return _NOTHING
            opened = self._open({"index": at, "content_block": {"type": begin}})
            at = at if type(at) is int else len(self._order) - 1
            return [*opened, *self._piece({**event, "index": at})]
        match kind:
            case "text_delta":
                self._text, self._last = block.pieces, at
                return self._said(block, TOKEN, delta.get("text"))
            case "thinking_delta":
                return self._said(block, _REASONING, delta.get("thinking"))
            case "signature_delta":
                # It comes whole; of two the last one stands, as in the vendor's SDK.
                if signature := text_of(delta.get("signature")):
                    block.data = {**block.data, "signature": signature}
            case "input_json_delta":
                text = text_of(delta.get("partial_json"))
                block.pieces.append(text)
                if text and block.call is not None:
                    return (StreamEvent(_DELTA, ToolCallDelta(block.index, block.call.id, block.call.name, text)),)
            case "citations_delta":
                block.data = {**block.data, "citations": [*quotes_of(block.data), delta.get("citation")]}
            case _:
                self._note_unknown(f"delta {kind}")
        return _NOTHING

    def _said(self, block: _Block, kind: StreamEventType, text: Any) -> Iterable[StreamEvent]:
        if not isinstance(text, str) or not text:
            return _NOTHING
        block.pieces.append(text)
        return (StreamEvent(kind, text),)

    def _close(self, event: dict[str, Any]) -> Iterable[StreamEvent]:
        at = event.get("index")
        if at == self._last:
            self._text = None
        block = self._blocks.get(at) if type(at) is int else None
        if block is None or block.call is None:
            return _NOTHING
        call, block.call = block.call, None
        whole = call_of(block.data)
        call.arguments = "".join(block.pieces) or whole.arguments
        return (StreamEvent.tool_call(call),)

    def _delta(self, event: dict[str, Any]) -> Iterable[StreamEvent]:
        delta = event.get("delta")
        if isinstance(delta, dict):
            put_stop(self._finish, delta)
        usage = self._usage.read(event.get("usage"))
        return (StreamEvent(USAGE, usage),) if usage is not None else _NOTHING

    def _note_unknown(self, what: str) -> None:
        if what not in self._unknown:
            self._unknown.append(what[:80])

    @property
    def text(self) -> str:
        """The text until now."""
        return "".join(block.whole()["text"] for block in self._order if block.data.get("type") == "text")

    def finish(self) -> list[StreamEvent]:
        """Take the end of the stream.

        Raises:
            LLMProviderStreamError: it ended before its last event.
        """
        if self._facts is None or (not self.done and "finish_reason" not in self._finish):
            what = "without a single event" if self._facts is None and not self._order else "before its last event"
            raise LLMProviderStreamError(f"the stream ended {what}", provider=NAME, request_id=self.request_id)
        facts = self._finish
        facts.update(self._usage.facts)
        put_content(facts, [block.whole() for block in self._order])
        if self._unknown:
            facts["unknown"] = self._unknown
        return [StreamEvent(META, facts), *(self.and_then(self.text, facts) if self.and_then is not None else ())]


_BEGINS: Final = {"text_delta": "text", "thinking_delta": "thinking"}
