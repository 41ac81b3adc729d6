"""What is known of one call: noted while it runs, worked out once when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from time import perf_counter, time_ns
from typing import Any, Final, NamedTuple

from ..costs import attempts_of
from ..exceptions import (
    LLMProviderAPIError,
    LLMProviderError,
    LLMProviderResponseError,
    PluginError,
)
from ..pipeline import Assembler
from ..types import LLMResponse, Request, StreamEvent, StreamEventType, Usage, usage_of_error
from ..wire.redaction import shorten
from .secrets import masked, redacted

_META: Final = StreamEventType.META
_USAGE: Final = StreamEventType.USAGE
_MOST_TEXT: Final = 500
# Their texts quote what a backend, or a plugin's code, said: that may be a piece of the conversation.
_QUOTING: Final = (LLMProviderAPIError, LLMProviderResponseError, PluginError)

CURRENT: Final[ContextVar[CallRecord | None]] = ContextVar("llm_providers_call", default=None)
"""The call that runs here; set only while no event is given out, so that it cannot leak into a consumer."""


class Attempt(NamedTuple):
    """One attempt of a call: when it began and ended, as Unix time in nanoseconds, and what it failed with."""

    began: int
    ended: int
    error: LLMProviderError | None


class CallRecord:
    """One call, as the instruments of sight see it.

    Attributes:
        provider: the provider's name, as the conventions of telemetry have it.
        request: the call.
        model: the model that was asked for.
        operation: `"chat"` or `"embeddings"`.
        stream: whether the answer was asked for piece by piece.
        server: host and port of the backend, or `None`.
        content: whether texts of the conversation may be shown.
        began: Unix time in nanoseconds.
        first: seconds until the first piece, or `None`.
        seconds: how long it took, once it has ended.
        outcome: `"ok"`; `"left"`, where a consumer left a stream before its end; `"cancelled"`; or the error's class.
        error: what it ended with, or `None`.
        usage: tokens and cost of all its attempts, or `None` where nothing is known.
        fresh: the same without what a call inside this one has counted already.
        failed: the attempts before the last one, as the layer `retry` notes them, and the targets of a fallback that
            failed; those that it passed over are not among them.
        attempts: all of them with their times, where the layer `attempt` is there and has seen some.
        response: the answer, where `content` is true.
        span: what the tracer gave; its own affair.
        context: what is current while the call runs; the tracer's affair.
    """

    __slots__ = (
        *("_assembler", "_counted", "_facts", "_last", "_since", "attempts", "began", "content", "context", "error"),
        *("failed", "first", "fresh", "model", "operation", "outcome", "provider", "request", "response", "seconds"),
        *("server", "span", "stream", "usage"),
    )

    def __init__(
        self, provider: str, request: Request, content: bool = False, server: tuple[str, int] | None = None
    ) -> None:
        self.provider = provider
        self.server = server
        self.request: Any = request
        self.model = _word(str(request.model)) or ""
        chat = getattr(request, "inputs", None) is None
        self.operation = "chat" if chat else "embeddings"
        self.stream = request.stream
        self.content = content
        self._assembler = Assembler(request, provider) if content and chat else None
        self._facts: dict[str, Any] = {}
        self._last: Any = None
        self._counted: list[tuple[Any, Any]] = []
        self.first: float | None = None
        self.seconds = 0.0
        self.outcome = "ok"
        self.error: BaseException | None = None
        self.usage: Usage | None = None
        self.fresh: Usage | None = None
        self.failed: Sequence[dict[str, Any]] = ()
        self.attempts: list[Attempt] = []
        self.response: LLMResponse | None = None
        self.span: Any = None
        self.context: Any = None
        self.began = time_ns()
        self._since = perf_counter()

    def see(self, event: StreamEvent) -> None:
        """Note what an event says."""
        kind = event.type
        if kind is _META:
            self._note(event.data)
        elif kind is _USAGE:
            self._last = event.data
        elif self.first is None:
            self.first = perf_counter() - self._since
        if self._assembler is not None:
            self._assembler.feed(event)

    def _note(self, data: dict[str, Any]) -> None:
        known = self._facts
        if "restarted" in data:
            # Another backend answers anew; what the first one used stands among the attempts.
            self._last = None
            known = {name: known[name] for name in ("attempts",) if name in known}
        self._facts = {**known, **data}
        before, more = known.get("attempts"), data.get("attempts")
        if isinstance(before, list) and isinstance(more, list):
            # Each layer tells of those that it has seen: `retry` of its own, a fallback of those of its last walk.
            self._facts["attempts"] = [*before, *more]

    @property
    def curious(self) -> bool:
        """Whether pieces of the answer, too, are to be shown to `see`."""
        return self._assembler is not None or self.first is None

    def end(self, error: BaseException | None, outer: CallRecord | None) -> None:
        """The call has ended.

        Args:
            error: what with, or `None`.
            outer: the call that this one is a part of.
        """
        self.seconds = perf_counter() - self._since
        facts = self._facts
        # A stored answer may tell of the attempts that it once took.
        failed = [] if self.cache_hit else attempts_of(facts)
        last = self._last if isinstance(self._last, Usage) else None
        if isinstance(error, GeneratorExit):
            # A consumer that has read the last word and leaves has the whole answer.
            self.outcome = "left" if facts.get("finish_reason") is None else "ok"
        elif isinstance(error, asyncio.CancelledError):
            self.outcome = "cancelled"
        elif error is not None:
            self.error, self.outcome = error, type(error).__name__
            if isinstance(error, LLMProviderError):
                # Those that the stream has told of already are the same objects.
                failed = [*failed, *(item for item in error.failed_attempts or () if _is_new(item, failed))]
                last = last or usage_of_error(error)
        self.failed = [item for item in failed if item.get("error")]
        if self._assembler is not None:
            self.response = self._assembler.response(partial=True)
        usages = [usage for usage in (*(item["usage"] for item in self.failed), last) if isinstance(usage, Usage)]
        self.usage = _sum(usages)
        # A call inside of this one has counted what it gave out; each of its usages is told by its figures.
        inside = self._counted.copy()
        fresh = [usage for usage in usages if not _taken(usage, inside)]
        self.fresh = self.usage if len(fresh) == len(usages) else _sum(fresh)
        if outer is not None:
            outer._counted += [*self._counted, *map(_figures, fresh)]

    def forget(self) -> None:
        """Let go of what is large: tasks and timers that the call has started may hold the record much longer."""
        self.request = self.response = self.error = self._assembler = self._last = None
        self.attempts, self.failed, self._facts, self._counted = [], (), {}, []

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be noted here."""
        return self.request is None

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, or `None`."""
        return _word(self._facts.get("finish_reason"))

    @property
    def response_id(self) -> str | None:
        """The backend's id of the answer, or `None`."""
        return _word(self._facts.get("response_id"))

    @property
    def response_model(self) -> str | None:
        """The model that answered, as the backend names it, or `None`."""
        return _word(self._facts.get("model") or getattr(self._facts.get("embeddings"), "model", None))

    @property
    def target(self) -> str | None:
        """Which target of a fallback answered, or `None`."""
        return _word(self._facts.get("target"))

    @property
    def request_id(self) -> str | None:
        """The backend's id of the request, or `None`."""
        return _word(getattr(self.error, "request_id", None) or self._facts.get("request_id"))

    @property
    def status(self) -> int | None:
        """The HTTP status of the error, or `None`."""
        return getattr(self.error, "status_code", None)

    @property
    def cache_hit(self) -> bool | None:
        """Whether a cache gave the answer; `None` where no cache was asked."""
        facts = self._facts.get("cache")
        return facts.get("hit") is True if isinstance(facts, dict) and "hit" in facts else None

    @property
    def tries(self) -> int:
        """How many attempts were made, as far as it is known; 0 for an answer from a cache."""
        return 0 if self.cache_hit else len(self.failed) + 1

    @property
    def trouble(self) -> str:
        """What the call failed with, in words that show no secret; without `content` none of the conversation either:
        what a backend said is left out, since backends quote what they were sent."""
        return trouble_of(self.error, self.content)


def trouble_of(error: BaseException | None, content: bool) -> str:
    """What an error says, as `CallRecord.trouble`."""
    if error is None:
        return ""
    if content or (isinstance(error, LLMProviderError) and not isinstance(error, _QUOTING)):
        return _line(redacted(str(error)))
    told = [type(error).__name__]
    for name, value in (
        ("status", getattr(error, "status_code", None)),
        ("code", _word(getattr(error, "code", None))),
        ("request id", _word(getattr(error, "request_id", None))),
    ):
        if value is not None:
            told.append(f"{name} {value}")
    return ", ".join(told)


def _word(value: Any) -> str | None:
    """A word of the backend's, fit to be shown: in one line, so that none can write a line of a log by itself."""
    return _line(masked(value)) if isinstance(value, str) and value else None


def _line(text: str) -> str:
    text = text[:_MOST_TEXT]
    return text if text.isprintable() else shorten(text, _MOST_TEXT)


def _is_new(item: dict[str, Any], known: list[dict[str, Any]]) -> bool:
    return not any(item is one for one in known)


def _figures(usage: Usage) -> tuple[Any, Any]:
    return usage.input_tokens, usage.output_tokens


def _taken(usage: Usage, counted: list[tuple[Any, Any]]) -> bool:
    figures = _figures(usage)
    if figures in counted:
        counted.remove(figures)
        return True
    return False


def _sum(usages: list[Usage]) -> Usage | None:
    if len(usages) < 2:
        return usages[0] if usages else None
    total = Usage()
    for usage in usages:
        total = total + usage
    return total
