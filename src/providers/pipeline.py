"""How a call flows: a handler makes events, layers wrap handlers, and one assembler spells the whole answer.

Handler        (request) -> events                    what a provider's `generate` is
Layer          (request, inner handler) -> events     retry, cache, limit...: all of one shape
compose        layers + handler -> handler
compose_whole  the same for whole answers, without a generator for each layer
Assembler      events -> LLMResponse                  the only place where an answer is put together
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias, TypeVar

from .exceptions import (
    LLMProviderContentFilterError,
    LLMProviderError,
    OutputTruncatedError,
    StructuredOutputError,
)
from .types import LLMResponse, Request, StreamEvent, StreamEventType, ToolCall, ToolCallDelta, Usage

Handler: TypeAlias = Callable[[Request], AsyncIterator[StreamEvent]]
Layer: TypeAlias = Callable[[Request, Handler], AsyncIterator[StreamEvent]]

WholeHandler: TypeAlias = Callable[[Request], Awaitable[Sequence[StreamEvent]]]
WholeLayer: TypeAlias = Callable[[Request, WholeHandler], Awaitable[Sequence[StreamEvent]]]
L = TypeVar("L", bound=Layer)

_TOKEN: Final = StreamEventType.TOKEN
_REASONING: Final = StreamEventType.REASONING
_START: Final = StreamEventType.TOOL_CALL_START
_DELTA: Final = StreamEventType.TOOL_CALL_DELTA
_END: Final = StreamEventType.TOOL_CALL_END
_META: Final = StreamEventType.META
_USAGE: Final = StreamEventType.USAGE
_DONE: Final = StreamEventType.DONE

ABOUT: Final = (_META, _USAGE)
"""Events that only describe an answer."""


def compose(layers: Sequence[Layer], handler: Handler) -> Handler:
    """Wrap a handler in layers; the first layer is the outermost.

    A layer that stops reading early must close what it reads (`contextlib.aclosing`), so that an abandoned call ends
    at once on the wire.
    """
    for layer in reversed(layers):
        handler = _bind(layer, handler)
    return handler


def bound_layers(layers: Iterable[Layer], provider: str, profiles: Any) -> tuple[Layer, ...]:
    """The layers as one provider uses them: one that wants to know whose calls it sees has `bound_to(name, profiles)`,
    which gives the layer to be used."""
    return tuple(
        bind(provider, profiles) if (bind := getattr(layer, "bound_to", None)) is not None else layer
        for layer in layers
    )


def with_whole(whole: WholeLayer) -> Callable[[L], L]:
    """Mark a layer with a second form of itself for whole answers: a coroutine function that gives all events at once.

    Optional. An event loop keeps account of each generator that it starts, which costs more than all that a layer like
    `retry` does; a coroutine costs next to nothing.
    """

    def mark(layer: L) -> L:
        layer.whole = whole  # type: ignore[attr-defined]
        return layer

    return mark


def collecting(handler: Handler) -> WholeHandler:
    """A handler's events, all at once; what it had said of usage before it failed goes with the error."""

    async def collect(request: Request) -> Sequence[StreamEvent]:
        events: list[StreamEvent] = []
        try:
            async for event in handler(request):
                events.append(event)
        except LLMProviderError as error:
            keep_usage(error, events)
            raise
        return events

    return collect


def keep_usage(error: LLMProviderError, events: Sequence[StreamEvent]) -> None:
    """What a failed attempt had said of its usage goes with its error."""
    if error.usage is None:
        error.usage = next((event.data for event in reversed(events) if event.type is _USAGE), None)


def compose_whole(layers: Sequence[Layer], handler: Handler, respond: WholeHandler) -> WholeHandler:
    """Wrap what gives whole answers in layers; through generators where some layer has no form for whole answers.

    Args:
        layers: the first is the outermost.
        handler: what gives the events one by one.
        respond: what gives them all at once.
    """
    forms: list[WholeLayer | None] = [getattr(layer, "whole", None) for layer in layers]
    if None in forms:
        return collecting(compose(layers, handler))
    for form in reversed(forms):
        assert form is not None
        respond = _bind_whole(form, respond)
    return respond


def respond_of(provider: Any) -> WholeHandler:
    """A provider's `respond`, unless a class below it overrides `generate` alone: then that one, collected."""
    for cls in type(provider).__mro__:
        if "respond" in cls.__dict__:
            found: WholeHandler = provider.respond
            return found
        if "generate" in cls.__dict__:
            break
    return collecting(provider.generate)


def _bind_whole(layer: WholeLayer, respond: WholeHandler) -> WholeHandler:
    def bound(request: Request) -> Awaitable[Sequence[StreamEvent]]:
        return layer(request, respond)

    return bound


def _bind(layer: Layer, handler: Handler) -> Handler:
    def bound(request: Request) -> AsyncIterator[StreamEvent]:
        return layer(request, handler)

    return bound


class Assembler:
    """Reads the events of one answer and spells the whole of it.

    `push` is for a stream: it gives the events that a consumer shall see, in the promised order (a call's START, its
    DELTAs, its END; ids filled in). `feed` is for a whole answer: it only takes in. `response` ends both.
    """

    __slots__ = ("_calls", "_ended", "_meta", "_reasoning", "_request", "_text", "_usage", "add_text", "provider_type")

    def __init__(self, request: Request, provider_type: str = "") -> None:
        self._request = request
        self.provider_type = provider_type
        self._text: list[str] = []
        self.add_text = self._text.append  # what `feed` does with a TOKEN, for loops that have asked already
        self._reasoning: list[str] = []
        self._calls: dict[int, tuple[ToolCall, list[str]]] = {}
        self._ended: frozenset[int] = frozenset()  # most answers have no calls, and a set is large
        self._usage: Usage | None = None
        self._meta: dict[str, Any] = {}

    def feed(self, event: StreamEvent) -> None:
        """Take one event in."""
        kind = event.type
        if kind is _TOKEN:
            self._text.append(event.data)
        elif kind is _META:
            self._note(event.data)
        elif kind is _USAGE:
            self._usage = event.data
        elif kind is _REASONING:
            self._reasoning.append(event.data)
        else:
            for _ in self._push_call(event):
                pass

    def push(self, event: StreamEvent) -> Iterable[StreamEvent]:
        """Take one event in and give those that the consumer shall see."""
        kind = event.type
        if kind is _START or kind is _DELTA or kind is _END:
            return self._push_call(event)
        self.feed(event)
        return (event,)

    def flush(self) -> Iterator[StreamEvent]:
        """The ENDs of calls that no event ended."""
        for index, (call, _) in self._calls.items():
            if index not in self._ended:
                self._end(index)
                yield StreamEvent.tool_call(call)

    def _note(self, data: dict[str, Any]) -> None:
        if "restarted" in data:
            self._restart()
        if not self._meta:
            self._meta = data.copy()
            return
        for key, value in data.items():
            known = self._meta.get(key)
            if key in ("provider_data", "params") and isinstance(known, dict):
                self._meta[key] = {**known, **value}
            elif key == "attempts" and isinstance(known, list) and isinstance(value, list):
                self._meta[key] = [*known, *value]
            else:
                self._meta[key] = value

    def _restart(self) -> None:
        """Another backend answers anew: of what came before, only the account of attempts stays."""
        self._text.clear()
        self._reasoning.clear()
        self._calls.clear()
        self._ended = frozenset()
        self._usage = None
        self._meta = {key: value for key, value in self._meta.items() if key == "attempts"}

    def _push_call(self, event: StreamEvent) -> Iterator[StreamEvent]:
        if event.type is _END:
            yield from self._push_end(event)
            return
        if event.type is not _START and event.type is not _DELTA:
            return
        delta: ToolCallDelta = event.data
        known = self._calls.get(delta.index)
        if known is None:
            # An id that another call has already would make one of two calls for whoever answers them.
            taken = any(other.id == delta.id for other, _ in self._calls.values())
            call = ToolCall(make_call_id() if taken or not delta.id else delta.id, delta.name or "", "")
            known = self._calls[delta.index] = (call, [])
            yield StreamEvent(_START, ToolCallDelta(delta.index, call.id, call.name), event.timestamp)
        elif delta.name and not known[0].name:
            known[0].name = delta.name
        if delta.arguments:
            known[1].append(delta.arguments)
            yield StreamEvent(
                _DELTA, ToolCallDelta(delta.index, known[0].id, known[0].name, delta.arguments), event.timestamp
            )

    def _push_end(self, event: StreamEvent) -> Iterator[StreamEvent]:
        # A copy: a provider may give out one event twice, and each answer's call gets an id of its own.
        call = replace(event.data)
        index = next((at for at, (known, _) in self._calls.items() if self._ends(call, at, known)), None)
        if index is not None:
            call.id = self._calls[index][0].id
        else:
            taken = any(other.id == call.id for other, _ in self._calls.values())
            call.id = make_call_id() if taken or not call.id else call.id
            index = max(self._calls, default=-1) + 1
            yield StreamEvent(_START, ToolCallDelta(index, call.id, call.name), event.timestamp)
            if call.arguments:
                yield StreamEvent(_DELTA, ToolCallDelta(index, call.id, call.name, call.arguments), event.timestamp)
        self._calls[index] = (call, [call.arguments])
        if index not in self._ended:
            self._end(index)
            yield StreamEvent(_END, call, event.timestamp)

    def _ends(self, call: ToolCall, index: int, known: ToolCall) -> bool:
        """Whether a whole call is the one that began at an index and has not ended; without an id, by its name."""
        return index not in self._ended and (known.id == call.id if call.id else known.name == call.name)

    def _end(self, index: int) -> None:
        call, parts = self._calls[index]
        call.arguments = "".join(parts) or "{}"
        self._ended |= {index}

    def response(self, *, partial: bool = False) -> LLMResponse:
        """The whole answer, with the structure that the request asks for.

        Args:
            partial: the answer was interrupted; it is put together as far as it came and not parsed.

        Raises:
            OutputTruncatedError: structure was asked for and the answer was cut off at a token limit.
            StructuredOutputError: the answer does not fit the structure; its `response` has the raw text.
        """
        request, meta = self._request, self._meta
        for index in self._calls:
            if index not in self._ended:
                self._end(index)
        response = LLMResponse(
            self._text[0] if len(self._text) == 1 else "".join(self._text),
            meta.pop("model", None) or request.model,
            meta.pop("provider_type", None) or self.provider_type,
            meta.pop("api_type", None) or request.api_type,
            finish_reason=meta.pop("finish_reason", None),
            response_id=meta.pop("response_id", None),
            metadata=meta,
            usage=self._usage or Usage(),
            tool_calls=[call for _, (call, _) in sorted(self._calls.items())] if self._calls else None,
            reasoning="".join(self._reasoning) if self._reasoning else None,
            parsed=meta.pop("parsed", None),
            provider_data=meta.pop("provider_data", None),
        )
        self._meta = {}
        if request.output is not None and not partial and response.parsed is None and not response.tool_calls:
            self._parse(response)
        return response

    def _parse(self, response: LLMResponse) -> None:
        output = self._request.output
        assert output is not None
        reason = response.finish_reason
        try:
            if reason == "length":
                raise OutputTruncatedError(
                    "the answer was cut off at the token limit, so it was not parsed; raise max_tokens"
                )
            if reason == "content_filter":
                raise LLMProviderContentFilterError("the backend's content filter stopped the answer")
            if not response.content and response.metadata.get("refusal"):
                raise StructuredOutputError(f"the model refused: {response.metadata['refusal']}")
            response.parsed = output.parse(response.content)
        except LLMProviderError as error:
            error.provider, error.model, error.response = response.provider_type, response.model, response
            raise


def make_call_id() -> str:
    """An id for a tool call whose backend sends none; unique wherever the conversation is continued."""
    return f"call_{os.urandom(12).hex()}"


def fold(events: Iterable[StreamEvent], request: Request, provider_type: str = "") -> LLMResponse:
    """The whole answer that a finished row of events spells (of a batch line, a cache entry, a test)."""
    assembler = Assembler(request, provider_type)
    for event in events:
        assembler.feed(event)
    return assembler.response()


class CallPlaces:
    """Tells which tool call a piece of a stream belongs to: by its id, then by its index, then by where calls start.

    Backends disagree: some repeat the id in each piece, some send it once, some give all parallel calls the index 0,
    some send neither.
    """

    __slots__ = ("_by_id", "_by_index", "_last", "_next")

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, tuple[int, str | None]] = {}
        self._next = 0
        self._last = -1

    def place(self, id: str | None, index: int | None, name: str | None) -> tuple[int, bool]:
        """The place of the call, from 0, and whether the call is new."""
        found = self._find(id, index, name)
        if found is not None:
            self._last = found
            if id:
                self._by_id.setdefault(id, found)
            return found, False
        place = self._next
        self._next += 1
        self._last = place
        if id:
            self._by_id.setdefault(id, place)
        if index is not None:
            self._by_index[index] = (place, id)
        return place, True

    def _find(self, id: str | None, index: int | None, name: str | None) -> int | None:
        if id and id in self._by_id and not (name and index is not None and index not in self._by_index):
            return self._by_id[id]
        if index is not None and index in self._by_index:
            place, known_id = self._by_index[index]
            # The same index under another id is another call, seen where a server numbers every call 0.
            return None if id and known_id and id != known_id else place
        if index is not None or id or name:
            return None
        return self._last if self._last >= 0 else None


def attach(error: LLMProviderError, assembler: Assembler) -> None:
    """Put what had arrived on an error that ends a stream."""
    if error.response is None:
        error.response = assembler.response(partial=True)
