"""Which layers stand around a provider's calls, where nobody composes them by hand: found from settings."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import iscoroutinefunction
from itertools import count
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from .exceptions import LLMProviderConfigurationError
from .layer_settings import NAMES, LayerSettings
from .layers.limit import LimitLayer
from .layers.pricing import priced
from .layers.retrying import retry
from .notices import shown
from .pipeline import Layer, bound_layers
from .profiles import ProfileTable
from .resilience.concurrency import Concurrency
from .resilience.limiter import LimitStore
from .settings import ProviderSettings, keep_secrets, refused_value, secrets_in_reach, settings_fields
from .types import Secret


class Part(NamedTuple):
    """A layer that holds something: what it was made from, what it is, and how to give back what it holds."""

    source: Any
    what: Any
    close: Callable[[], Awaitable[None]] | None = None


class Owner(NamedTuple):
    """Whose calls the layers stand around: a provider's name, its models, its own settings and its class's module."""

    name: str
    profiles: ProfileTable
    settings: ProviderSettings
    module: str


class Stack:
    """Layers, outermost first, and those of their parts that hold something.

    Args:
        layers: as they were bound to their provider.
        parts: what is to be closed with them, by name.
        sources: where the settings came from.
        variables: the environment variables that they depend on.
    """

    def __init__(
        self,
        layers: tuple[Layer, ...],
        parts: Mapping[str, Part] = MappingProxyType({}),
        sources: Mapping[str, str] = MappingProxyType({}),
        variables: tuple[str, ...] = (),
    ) -> None:
        self.layers = layers
        self.parts = parts
        self.sources = sources
        self.variables = variables

    async def close(self, but: Stack | None = None) -> None:
        """Give back what was made for this stack; it is made anew where a later call needs it.

        Args:
            but: the stack that goes on with some of it.
        """
        kept = [part.what for part in but.parts.values()] if but is not None else []
        for part in self.parts.values():
            if part.close is not None and not any(part.what is other for other in kept):
                await part.close()


def as_layers(given: Any) -> tuple[Layer, ...]:
    """Layers that were given, as a tuple.

    Raises:
        LLMProviderConfigurationError: it is no list of layers.
    """
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise LLMProviderConfigurationError(f"layers must be a list of layers, outermost first, not {shown(given)}")
    return tuple(given)


def make_stack(
    owner: Owner, composed: Iterable[Layer] | None, arguments: Mapping[str, Any], former: Stack | None = None
) -> Stack:
    """The layers around a provider's calls: sight, cache, prices, retry, limits, budget, as settings ask for them.

    Args:
        owner: the provider.
        composed: layers that somebody has composed by hand; they take the place of all others, and are theirs to close.
        arguments: options that were given.
        former: the stack before this one, whose caches and budgets go on where nothing of theirs has changed.

    Raises:
        LLMProviderConfigurationError: a value is refused, or given beside layers that were composed by hand.
        MissingDependencyError: a cache, or a place for limits, needs a package that is not installed.
    """
    if composed is None:
        try:
            return _Making(owner, LayerSettings.resolve(owner.name, arguments), former).stack()
        except LLMProviderConfigurationError as error:
            keep_secrets(error, [*owner.settings.secrets(), *secrets_in_reach(LayerSettings, owner.name, arguments)])
            raise
    for name in NAMES & arguments.keys():
        # The provider may have a setting of that name.
        if name not in owner.settings.sources and arguments[name] is not None:
            raise LLMProviderConfigurationError(
                f"{name} has no effect where layers were composed by hand, or are a provider's own: put it among "
                "layers, or give it to the targets of a fallback",
                provider=owner.name or None,
            )
    for layer in (composed := tuple(composed)):
        if not callable(layer) or isinstance(layer, type):
            raise LLMProviderConfigurationError(
                f"layers must hold layers such as retry or Budget(...), not {layer!r}", provider=owner.name or None
            )
    settled = (layer.for_settings(owner.settings) if hasattr(layer, "for_settings") else layer for layer in composed)
    return Stack(bound_layers(settled, owner.name, owner.profiles))


class _Making:
    """The making of one stack from settings."""

    def __init__(self, owner: Owner, settings: LayerSettings, former: Stack | None) -> None:
        self._owner = owner
        self._settings = settings
        self._former = former.parts if former is not None else {}
        self._parts: dict[str, Part] = {}

    def stack(self) -> Stack:
        settings, owner = self._settings, self._owner
        layers: list[Layer] = []
        if settings.cache_backend is not None:
            layers.append(self._cache())
        layers += [priced, retry]
        if settings.limits != "off":
            layers.append(self._limit())
        else:
            for name in (*_RATES, "max_concurrency"):
                # One from elsewhere is what is being turned off.
                if getattr(settings, name) is not None and settings.was_given(name):
                    raise refused_value(settings, name, "has no effect with limits='off'")
        if settings.budget is not None:
            layers.append(self._budget())
        if settings.telemetry is not None and (seen := _makers().observe_layers(settings, owner.settings)):
            # Outermost to see the whole call, innermost to see each attempt without its waiting for a turn.
            layers = [seen[0], *layers, seen[1]]
        bound = bound_layers(layers, owner.name, owner.profiles)
        return Stack(bound, self._parts, settings.sources, settings.variables)

    def _part(self, name: str, source: Any, make: Callable[[], Part]) -> Any:
        """The part of the former stack, where it was made from the same; else a new one."""
        known = self._former.get(name)
        part = known if known is not None and known.source == source else make()
        self._parts[name] = part
        return part.what

    def _cache(self) -> Layer:
        settings, owner, scope = self._settings, self._owner, _scope(self._owner.settings)

        def make() -> Part:
            layer = _makers().cache_layer(settings, owner.name, owner.module, scope)
            # A store that was given is for its owner to close.
            return Part(source, layer, layer.close if isinstance(settings.cache_backend, str) else None)

        source = (_values(settings, _CACHE), scope)
        layer: Layer = self._part("cache", source, make)
        return layer

    def _limit(self) -> Layer:
        settings, owner = self._settings, self._owner

        def make() -> Part:
            if settings.limits == "process":
                return Part(source, None)
            store = _makers().limit_store(settings)
            close = getattr(store, "close", None) if isinstance(settings.limits, str) else None
            # One that needs no loop to be closed closes itself.
            return Part(source, store, close if iscoroutinefunction(close) else None)

        source = _values(settings, _LIMITS)
        store: LimitStore | None = self._part("limits", source, make)
        more = {name: value for name in _RATES if (value := getattr(settings, name)) is not None}
        for name, value in more.items():
            if not 1 <= value < float("inf"):
                raise refused_value(settings, name, f"must be a finite number of at least 1, not {shown(value)}")
        bound: Concurrency | None = None
        if (most := settings.max_concurrency) is not None:
            bound = self._part("concurrency", most, lambda: Part(most, _concurrency(settings)))
        account = _account(owner.settings)
        if account is None and store is None:
            # A backend with neither key nor address is that of this provider object alone.
            account = self._part("account", None, lambda: Part(None, f"the provider {next(_numbers)} of this process"))
        return LimitLayer(owner.name, account, store=store, concurrency=bound, **more)

    def _budget(self) -> Layer:
        settings, source = self._settings, self._settings.budget
        layer: Layer = self._part("budget", source, lambda: Part(source, _makers().make_budget(settings)))
        return layer


_RATES: Final = ("requests_per_minute", "tokens_per_minute")
_LIMITS: Final = ("limits", "limits_file", "redis_url")
_CACHE: Final = tuple(sorted(NAMES - {*_LIMITS, *_RATES, "max_concurrency", "budget", "telemetry"} | {"redis_url"}))


_numbers: Final = count()


def _concurrency(settings: LayerSettings) -> Concurrency:
    most = settings.max_concurrency
    if isinstance(most, Concurrency):
        return most
    if isinstance(most, str):
        word = most.strip().lower()
        if word == "adaptive":
            return Concurrency()
        most = int(word) if word.isdecimal() else most
    if type(most) is not int or most < 1:
        problem = f"must be a whole number from 1, 'adaptive' or a Concurrency, not {shown(most)}"
        raise refused_value(settings, "max_concurrency", problem)
    return Concurrency(start=most, most=most)


def _makers() -> Any:
    # Stores and budgets, and what they stand on, are loaded where one is asked for: most providers have none.
    from . import makers

    return makers


def _values(settings: LayerSettings, names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(getattr(settings, name) for name in names)


def _scope(own: ProviderSettings) -> dict[str, Any]:
    """What tells two backends of one name apart: all settings that are no secrets, and that somebody has set."""
    scope = {}
    for item in settings_fields(type(own)):
        value = getattr(own, item.name)
        if item.repr and item.name != "transport" and value != item.default and not isinstance(value, Secret):
            scope[item.name] = str(value) if isinstance(value, os.PathLike) else value
    return scope


def _account(own: ProviderSettings) -> str | None:
    """What limits are shared by: the key, and the address that it is for. Only a fingerprint of it is kept."""
    told = (*own.secrets(), *(str(value) for name in ("base_url", "url") if (value := getattr(own, name, None))))
    return "\n".join(told) or None
