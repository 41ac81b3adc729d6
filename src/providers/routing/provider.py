"""The provider made of providers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Any, ClassVar, Final, TypeVar

from ..base import LLMProvider
from ..capabilities import EmbeddingRequest, Embeddings
from ..exceptions import LLMProviderContentFilterError, LLMProviderError
from ..layers.retrying import retry
from ..pipeline import ABOUT
from ..profiles import estimate_tokens
from ..resilience import return_retries, take_retries
from ..types import APIType, EmbeddingResult, LLMConfig, Messages, Request, StreamEvent, StreamEventType
from ..types.checks import Number, check_fields
from ..types.config import is_default
from .arguments import labels_of, owned_of, providers_of, weights_of, wrong
from .choice import CHOICES, Choice, by_cost, by_weight, expected
from .embedding import EmbeddingWalk, embed_with, embeds
from .health import Health
from .running import Running, about, whole_of
from .targets import OWN_ON_UNSUPPORTED, OWN_TIMEOUT, FallbackBuilder, Target
from .walk import MovesOn, Try, Walk

T = TypeVar("T")
_TOKEN: Final = StreamEventType.TOKEN
_MOST_KEPT: Final = 8
# What stands for "the targets' own" where nobody gives a value.
_OPEN: Final = {"api_type": APIType.AUTO, "timeout": OWN_TIMEOUT, "on_unsupported": OWN_ON_UNSUPPORTED}


class FallbackProvider(LLMProvider):
    """Answers through the first of its targets that can; `providers.routing` tells the rules.

    Around it stands `retry` alone: caches, limits, prices and budgets are its targets'. Others are put there by hand,
    as in `layers=(ResponseCache(...), retry)`.

    Args:
        targets: providers, at least one. They are used as they are: their own configuration stands below what the call,
            and this provider's configuration, give; their caches, limits, prices and budgets are at work. Only their
            retries stand down: this provider's own policy is the one that counts, and one attempt is one walk.
        choice: who is asked first: `"ordered"`, as they stand; `"weighted"`, drawn by `weights`; `"cheapest"`, by the
            expected cost of the call, a target of unknown price last. The others follow as they stand, by weight, by
            cost.
        weights: for each target how often it is drawn, in proportion; all alike where left out. One of weight 0 is
            asked only where the others fail.
        replay: whether another target may answer when a stream breaks after its first piece. The consumer of `stream`
            is told by a META event `restarted`, and shall drop what it has; that of a text stream is not told, and has
            both texts.
        refused: whether a refusal for its content moves on too.
        moves_on: is given each error of a target and says whether the next one is asked; `None` leaves it to
            `providers.routing.RULES`.
        failures: outages in a row after which a target is not asked for a while.
        cooldown: seconds of that while, where the backend names no time of its own.
        own: whether the targets are closed with this provider; or those that are.
        any_vectors: whether embeddings, which it makes where a target does, may fall back to a target with another
            model, whose vectors do not compare.
        labels: names of the targets, for metadata and messages; `provider/model` where left out.
        clock: monotonic time in seconds.
        rng: draws by weight.
        config: an `LLMConfig`, or a name for `model_name`, which is only shown: the targets' labels where left out.
            What is given there goes before the targets' own. Left to them is what equals a default: `api_type`,
            `timeout`, `on_unsupported`, the default temperature; and `api_type="auto"` of a call.
        options: as in `LLMProvider`.

    Raises:
        LLMProviderConfigurationError: an argument is refused.
    """

    name = "fallback"
    takes_targets: ClassVar[bool] = True
    """Tells the factory that `targets` name providers to be made."""

    layers = (retry,)
    understands: ClassVar[frozenset[str]] = frozenset(
        {"tools", "structured_output", "responses", "images", "documents", "content_parts"}
    )

    def __init__(
        self,
        targets: Iterable[LLMProvider] = (),
        choice: Choice = "ordered",
        *,
        weights: Iterable[float] | None = None,
        replay: bool = False,
        refused: bool = False,
        moves_on: MovesOn | None = None,
        failures: int = 5,
        cooldown: float = 30.0,
        own: bool | Iterable[LLMProvider] = False,
        any_vectors: bool = False,
        labels: Iterable[str | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
        config: LLMConfig | str | None = None,
        **options: Any,
    ) -> None:
        self._replay, self._any_vectors = replay, any_vectors
        for name, value in (("replay", replay), ("refused", refused), ("any_vectors", any_vectors)):
            if not isinstance(value, bool):
                raise wrong(f"{name} must be true or false, not {value!r}")
        if choice not in CHOICES:
            raise wrong(f"choice must be one of {', '.join(map(repr, CHOICES))}, not {choice!r}")
        checks = {"failures": Number(1, integer=True, optional=False), "cooldown": Number(0, optional=False)}
        check_fields({"failures": failures, "cooldown": cooldown}, checks, "fallback")
        self._choice = choice
        self._decides = self._decides_of(refused, moves_on)
        self._rng = rng or Random()
        providers = providers_of(targets)
        self._owned = owned_of(providers, own)
        named, weighed = labels_of(providers, labels), weights_of(weights, len(providers))
        self._targets = tuple(
            Target(label, provider, Health(failures, cooldown, clock), weight, isinstance(provider, FallbackProvider))
            for label, provider, weight in zip(named, providers, weighed, strict=True)
        )
        self._overflowed: dict[int, tuple[Messages, frozenset[str]]] = {}
        if any(map(embeds, self._targets)) and not isinstance(self, Embeddings):
            # Powers are asked for by isinstance, and this one comes with the targets.
            self.__class__ = _with_embeddings(type(self))
        super().__init__(config, **options)
        self._open_to_targets({name for name in ("timeout", "on_unsupported") if options.get(name) is not None})

    def _open_to_targets(self, given: Collection[str]) -> None:
        """Leave to the targets what nobody gave."""
        config, default, changes = self.config, LLMConfig(), dict[str, Any]()
        if config.model_name is None:
            changes["model_name"] = " | ".join(target.label for target in self._targets)
        for name, own in _OPEN.items():
            if name not in given and getattr(config, name) == getattr(default, name):
                changes[name] = own
        self.update_config(**changes)

    def update_config(self, **changes: Any) -> None:
        """As in `LLMProvider`; what is changed goes before the targets' own configuration from then on."""
        super().update_config(**changes)
        self._leave_open()

    def _surround(self) -> None:
        super()._surround()
        self._leave_open()

    def _leave_open(self) -> None:
        self._builder = FallbackBuilder(self.name, self.config, self._caches)

    def _caches(self) -> bool:
        """Whether the flags of a call are heard: where a target has a response cache, too."""
        return self._cached or any(target.caches for target in self._targets)

    # --- calls ------------------------------------------------------------------------------------------------------

    async def respond(self, request: Request) -> Sequence[StreamEvent]:
        """The whole answer of the first target that can."""
        walk = self._walk(request)
        tried, events = await self._first(walk, whole_of, lambda: self._end(walk, request))
        return [about(tried, walk.attempts), *events]

    async def _first(
        self, walk: Walk, ask: Callable[[Try], Awaitable[T]], end: Callable[[], LLMProviderError]
    ) -> tuple[Try, T]:
        """The first target that can, and what it gives when it is asked.

        Raises:
            LLMProviderError: one that ends the call; where all targets have failed, what `end` gives.
        """
        token = take_retries()
        try:
            while (tried := walk.next()) is not None:
                try:
                    with walk.patient():
                        found = await ask(tried)
                    tried.up()
                    return tried, found
                except AssertionError:
                    raise
                except Exception as error:
                    ours = tried.ours(error)
                    try:
                        if not walk.fail(tried, ours):
                            raise ours
                    finally:
                        del ours  # or it and this frame would hold each other
                finally:
                    tried.end()
            raise end()
        finally:
            return_retries(token)
            walk.forget()

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """The events of the first target that can; of another one after a break only where `replay` allows it."""
        if not request.stream:
            for event in await self.respond(request):
                yield event
            return
        walk = self._walk(request)
        told, broken = 0, None
        try:
            while (tried := walk.next()) is not None:
                shown = False
                running = Running(tried)
                try:
                    with walk.patient():
                        held = await running.begin()
                    tried.begun()
                    yield about(tried, walk.attempts[told:], broken)
                    told, broken = len(walk.attempts), None
                    for event in held:
                        shown = shown or event.type not in ABOUT
                        yield event
                    async for event in running.events:
                        if event.type is not _TOKEN:
                            running.see(event)
                        yield event
                    tried.up()
                    return
                except AssertionError:
                    raise
                except Exception as error:
                    ours = running.read(error)
                    try:
                        if not walk.fail(tried, ours, shown, replay=self._replay):
                            raise ours
                        if shown:
                            broken = {"from": tried.target.label, "error": type(ours).__name__}
                    finally:
                        del ours  # or it and this frame would hold each other
                finally:
                    tried.end()
                    await running.end()
            raise self._end(walk, request)
        finally:
            walk.forget()

    def _in_order(self, expect: Callable[[], tuple[int, int]]) -> Sequence[Target]:
        """The targets in the order of choice for a call of which so many tokens are expected, in and out."""
        if self._choice == "weighted":
            return by_weight(self._targets, self._rng)
        if self._choice == "cheapest":
            return by_cost(self._targets, *expect())
        return self._targets

    def _walk(self, request: Request) -> Walk:
        order = self._in_order(lambda: expected(request))
        past = self._overflowed.pop(id(request.messages), None) if self._overflowed else None
        return Walk(self.name, order, request, self._decides, past[1] if past is not None else frozenset())

    def _end(self, walk: Walk, request: Request) -> LLMProviderError:
        error = walk.end()
        if error.retryable and walk.overflowed:
            # Another walk may follow, with the same messages; they are kept, so that their id stays theirs.
            kept = self._overflowed
            kept[id(request.messages)] = (request.messages, walk.overflowed)
            for key in list(kept)[:-_MOST_KEPT]:
                kept.pop(key, None)
        return error

    def _decides_of(self, refused: bool, moves_on: MovesOn | None) -> MovesOn | None:
        if not refused:
            return moves_on

        def decide(error: LLMProviderError) -> bool | None:
            said = moves_on(error) if moves_on is not None else None
            return True if said is None and isinstance(error, LLMProviderContentFilterError) else said

        return decide

    # --- life -------------------------------------------------------------------------------------------------------

    async def warm_cache(self) -> None:
        """Get this provider and its targets ready; a target that cannot be is a warning, unless none can.

        Raises:
            LLMProviderError: of the first target, where all fail.
        """
        await super().warm_cache()
        found = await asyncio.gather(
            *(target.provider.warm_cache() for target in self._targets), return_exceptions=True
        )
        failed = [(target, error) for target, error in zip(self._targets, found, strict=True) if error is not None]
        for target, error in failed:
            if len(failed) == len(self._targets) or not isinstance(error, LLMProviderError):
                raise error
            target.warn("warm", f"{self.name}: {target.label} could not be got ready: {error}")

    async def reload(self, **changes: Any) -> None:
        """Read the settings anew, those of the targets that belong to this provider too. All are asked again then: a
        key that was refused may be another one now. The changes are this provider's own."""
        before = self.config
        await super().reload(**changes)
        # What a preset said before and says no more is the targets' to say again.
        self._open_to_targets(
            {*changes, *(name for name in _OPEN if getattr(before, name) == getattr(self.config, name))}
        )
        try:
            await self._each_owned("reload")
        finally:
            for target in self._targets:
                target.health.forget()

    def _configured_anew(self, changes: Mapping[str, Any]) -> Any:
        # What a target would refuse is refused before anything changes.
        for provider in self._owned:
            provider._configured_anew({})
        return super()._configured_anew(changes)

    async def shut(self) -> None:
        """Put the targets that belong to this provider to rest, or close them where it was closed."""
        await self._each_owned("close" if self.is_closed else "rest_when_idle")

    async def close(self) -> None:
        """Close this provider, and the targets that belong to it. Calls that are under way are not waited for.

        Raises:
            LLMProviderError: what a target says when it is shut; all are closed before.
        """
        try:
            await super().close()
        finally:
            await self._each_owned("close")

    async def close_when_idle(self) -> None:
        """Close once the last call and the last stream have ended; at once where none is under way."""
        await super().close_when_idle()
        if self.is_closed:
            await self._each_owned("close")

    async def _each_owned(self, what: str) -> None:
        found = await asyncio.gather(*(getattr(provider, what)() for provider in self._owned), return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException):
                raise error

    # --- facts ------------------------------------------------------------------------------------------------------

    @property
    def targets(self) -> tuple[LLMProvider, ...]:
        """The providers that it is made of."""
        return tuple(target.provider for target in self._targets)

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that the settings are read from, the targets' among them."""
        theirs = (name for provider in self.targets for name in provider.variables)
        return tuple(dict.fromkeys((*super().variables, *theirs)))

    @property
    def capabilities(self) -> frozenset[str]:
        """What any of the targets can do beyond text."""
        found = frozenset[str]().union(*(target.powers for target in self._targets))
        return found | {"embeddings"} if any(map(embeds, self._targets)) else found

    @property
    def token_limit(self) -> int:
        """The context window in tokens: as configured here, else the largest of the targets'."""
        configured = self.config.token_limit
        if not is_default(configured):
            return configured
        return max(target.provider.token_limit for target in self._targets)

    def get_model_info(self) -> dict[str, Any]:
        """As in `LLMProvider`; and `choice`, and `targets`: of each its `target` (its name here), `state` (of its
        circuit breaker), `weight`, and its own facts."""
        targets = [
            {
                **target.provider.get_model_info(),
                "target": target.label,
                "state": target.health.state,
                "weight": target.weight,
            }
            for target in self._targets
        ]
        return {**super().get_model_info(), "choice": self._choice, "targets": targets}


class EmbeddingFallback(Embeddings, FallbackProvider):
    """What a `FallbackProvider` becomes when one of its targets makes embeddings."""

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        """The vectors of the first target that can, all of them from one."""
        order = self._in_order(lambda: (sum(map(estimate_tokens, request.inputs)), 0))
        walk = EmbeddingWalk(self.name, order, self._targets, request, self._decides, any_vectors=self._any_vectors)
        _, found = await self._first(walk, lambda tried: embed_with(tried, request), walk.end)
        return found


_embedding: Final[dict[type[FallbackProvider], type[FallbackProvider]]] = {FallbackProvider: EmbeddingFallback}


def _with_embeddings(cls: type[FallbackProvider]) -> type[FallbackProvider]:
    """A class of fallbacks, a user's own too, with the power to make embeddings."""
    if cls not in _embedding:
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        _embedding.setdefault(cls, type(cls.__name__, (cls, EmbeddingFallback), names))
    return _embedding[cls]
