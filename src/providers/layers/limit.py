"""The limit layer: each attempt waits for its turn, within the model's limits and what the backend asks to wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, cast

from ..exceptions import LLMProviderError
from ..headroom import listening
from ..pipeline import ABOUT, Handler, WholeHandler
from ..profiles import ProfileTable
from ..resilience.concurrency import Concurrency
from ..resilience.limiter import LimitedCall, Limiter, LimitStore
from ..types import Request, StreamEvent, StreamEventType, Usage
from .estimate import prompt_tokens
from .handover import HandingOver
from .models import Models

_USAGE: Final = StreamEventType.USAGE
_KEPT: Final = 256


class LimitLayer:
    """Keeps a provider's calls within the limits of their models. A layer, to stand inside of `retry`, and in every
    provider's stack by default.

    The limits of a model come from its profile, so with profiles that know none only the cooldown is at work: after the
    backend said "too many requests", all callers of the same key and model wait together: as long as it asks for, else
    as long as the call's own retry would wait before its second attempt. Tokens are estimated before a
    call, the answer's at `max_tokens` or, without that, at what answers took before, and settled after it.

    Args:
        provider: the provider's name; that of the provider whose layer it is, where left out.
        credential: the key that is used, or `None`. Limits are shared by all layers with the same provider, key and
            model; only a fingerprint of it is kept.
        profile: gives a model's profile by its name, such as `ProfileTable.get`; asked for each call, so that a changed
            file takes effect. The provider's own where left out.
        store: where limits are kept; in this process where left out.
        concurrency: how many calls may be under way at once, learned from what the backend says; no bound where left
            out.
        limits: more arguments for each `Limiter`, such as `requests_per_minute`.
    """

    embeddings: Final = True
    """Tells that it knows requests for embeddings too."""

    def __init__(
        self,
        provider: str = "",
        credential: str | None = None,
        profile: Callable[[str], Any] | None = None,
        *,
        store: LimitStore | None = None,
        concurrency: Concurrency | None = None,
        **limits: Any,
    ) -> None:
        self._provider = provider
        self._credential = credential
        self._profile = profile
        self._store = store
        self._concurrency = concurrency
        self._limits = limits
        self._limiters: dict[str, tuple[Any, Limiter]] = {}
        self._means: dict[str, float] = {}

    def bound_to(self, provider: str, profiles: ProfileTable) -> LimitLayer:
        """The same layer for one provider's calls; what it was made with stays."""
        return LimitLayer(
            self._provider or provider,
            self._credential,
            self._profile or Models(profiles).get,
            store=self._store,
            concurrency=self._concurrency,
            **self._limits,
        )

    def __call__(self, request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
        """The layer for events."""
        if self._concurrency is not None:
            return self._bounded(request, inner)
        limiter = self.limiter(request.model)
        return _Idle(limiter, request, inner(request)) if limiter.is_idle else self._events(request, inner)

    def whole(self, request: Request, inner: WholeHandler) -> Awaitable[Sequence[StreamEvent]]:
        """The layer for whole answers."""
        return self._whole(request, inner) if self._concurrency is None else self._bounded_whole(request, inner)

    async def _bounded_whole(self, request: Request, inner: WholeHandler) -> Sequence[StreamEvent]:
        assert self._concurrency is not None
        async with self._concurrency.call():
            heard = listening.set(self._concurrency.hear)
            try:
                return await self._whole(request, inner)
            finally:
                listening.reset(heard)

    async def _whole(self, request: Request, inner: WholeHandler) -> Sequence[StreamEvent]:
        limiter = self.limiter(request.model)
        if limiter.is_idle:
            try:
                return await inner(request)
            except LLMProviderError as error:
                limiter.cool(error, request.retry.initial_wait)
                raise
        async with self._ask(limiter, request) as call:
            try:
                events = await inner(request)
            except LLMProviderError as error:
                self._settle(limiter, call, error.usage)
                raise
            if limiter.tokens_per_minute is not None:
                for event in reversed(events):
                    if event.type is _USAGE:
                        self._settle(limiter, call, event.data)
                        break
            return events

    async def _bounded(self, request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
        assert self._concurrency is not None
        async with self._concurrency.call(), aclosing(cast(Any, self._events(request, inner))) as events:
            # Only around the step that brings the reply: between steps the consumer's code runs.
            heard = listening.set(self._concurrency.hear)
            try:
                event = await anext(events, None)
            finally:
                listening.reset(heard)
            if event is None:
                return
            yield event
            async for event in events:
                yield event

    async def _events(self, request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
        limiter = self.limiter(request.model)
        async with self._ask(limiter, request) as call, aclosing(cast(Any, inner(request))) as events:
            try:
                async for event in events:
                    if event.type is _USAGE:
                        self._settle(limiter, call, event.data)
                    yield event
            except LLMProviderError as error:
                self._settle(limiter, call, error.usage)
                raise

    def limiter(self, model: str) -> Limiter:
        """The limiter of a model, as its profile says now."""
        profile = self._profile(model) if self._profile is not None else None
        known = self._limiters.get(model)
        if known is not None and known[0] is profile:
            return known[1]
        if len(self._limiters) >= _KEPT:
            self._limiters.clear()
        limiter = Limiter(
            profile,
            model=model,
            provider=self._provider,
            credential=self._credential,
            store=self._store,
            **self._limits,
        )
        self._limiters[model] = (profile, limiter)
        return limiter

    def _ask(self, limiter: Limiter, request: Request) -> LimitedCall:
        most = limiter.tokens_per_minute
        if most is None:
            call = limiter.limit()
            call.pause = request.retry.initial_wait
            return call
        # An estimate may be too high: it must not refuse what may fit.
        tokens = min(float(prompt_tokens(request)), most)
        asked = request.params.get("max_tokens")
        output = asked if isinstance(asked, int) else self._means.get(request.model, 0.0)
        call = limiter.limit(tokens, output=min(output, most - tokens))
        call.pause = request.retry.initial_wait
        return call

    def _settle(self, limiter: Limiter, call: LimitedCall, usage: Any) -> None:
        if isinstance(usage, Usage):
            call.input_tokens, call.output_tokens = usage.input_tokens, usage.output_tokens
            if usage.output_tokens is not None and limiter.tokens_per_minute is not None:
                if len(self._means) >= _KEPT:
                    self._means.clear()
                mean = self._means.get(limiter.model, usage.output_tokens)
                self._means[limiter.model] = mean + 0.1 * (usage.output_tokens - mean)


class _Idle(HandingOver):
    """The events of a stream that has nothing to wait for and nothing to account for, until its first piece is there.

    So the wish to wait is heard where backends utter it, in the place of an answer, and not in the middle of one.
    """

    __slots__ = ("_events", "_limiter", "_pause")

    def __init__(self, limiter: Limiter, request: Request, events: AsyncIterator[StreamEvent]) -> None:
        self._limiter = limiter
        self._pause = request.retry.initial_wait
        self._events: Any = events
        super().__init__(self._begin)

    async def aclose(self) -> None:
        """End the call; harmless when it has ended."""
        await self._events.aclose()

    async def _begin(self) -> StreamEvent:
        try:
            event: StreamEvent = await self._events.__anext__()
        except LLMProviderError as error:
            self._limiter.cool(error, self._pause)
            raise
        if event.type not in ABOUT:
            self._hand_over(self._events)
        return event
