"""From a name to a provider: presets, defaults, and a cache of providers that closes what it drops."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from .base import LLMProvider
from .creation import create
from .sources import files_stamp
from .types import LLMConfig

logger = logging.getLogger("providers.factory")

_CACHE_SIZE: Final = 128


def create_llm_provider(
    provider_type: str | None = None,
    model_name: Any = None,
    *,
    config: LLMConfig | Mapping[str, Any] | None = None,
    preset: str | None = None,
    **options: Any,
) -> LLMProvider:
    """Create a provider by name.

    Args:
        provider_type: the provider's name. Left out: `DEFAULT_LLM_PROVIDER`; where that is not set, the installed
            provider whose key is found in the environment or `.env`; else an installed one that needs no key.
        model_name: the model. Left out: the configuration's, then `DEFAULT_MODEL_NAME` (for the default provider), then
            the provider's own default.
        config: an `LLMConfig`, or a dict of its fields; it is copied.
        preset: a table `[presets.NAME]` of `config/providers.toml`: `provider` and any options.
        options: fields of `LLMConfig` and of the provider's settings; they override `config` and the preset. With
            `"fallback"`: `targets`, a list of providers, names of presets, `"provider/model"` and dicts of options
            (`{"provider": ..., "model": ...}` or `{"preset": ...}`), and the arguments of `FallbackProvider`. What is
            made here is closed with it.

    Raises:
        UnknownProviderError: no such provider; lists what is installed and what to install.
        PluginError: the plugin of that name is quarantined, or a package that it needs is missing.
        LLMProviderConfigurationError: a value is wrong, or a key is missing; names where it came from.
    """
    return create(provider_type, model_name, config, preset, options, ())


class _Cached:
    __slots__ = ("environment", "files", "names", "provider", "unset")

    def __init__(self, provider: LLMProvider) -> None:
        self.provider = provider
        names = tuple(map(_encode, (*_HOUSE, *provider.variables)))
        # Most are not set, and one look for all of those is the cheapest.
        self.unset = frozenset(name for name in names if name not in _raw)
        self.names = tuple(name for name in names if name not in self.unset)
        self.environment = tuple(map(_raw.get, self.names))
        self.files = _files.stamp()

    def is_good(self) -> bool:
        """Whether the provider is open, and environment and files are those that it was made from."""
        return (
            not self.provider.is_closed
            and _raw.keys().isdisjoint(self.unset)
            and self.environment == tuple(map(_raw.get, self.names))
            and self.files == _files.stamp()
        )


class _Files:
    """What `.env` and the toml file were when they were last looked at, once a second at most: a look at each costs
    several times what the whole look-up may."""

    def __init__(self) -> None:
        self._looked = float("-inf")
        self._stamp: Any = None

    def stamp(self) -> Any:
        """Something that is equal while the files are the same."""
        now = monotonic()
        if now - self._looked > 1.0:
            self._stamp, self._looked = files_stamp(), now
        return self._stamp

    def forget(self) -> None:
        """Look anew the next time."""
        self._looked = float("-inf")


_files: Final = _Files()


class ProviderCache:
    """Providers by everything that makes them: arguments, the environment variables that they read, and the files.

    A provider that is dropped (the cache is full or cleared, a variable changed) gives back its connections and models
    after its last call and stream have ended. It is not closed: somebody may hold it still, and a further call opens it
    again.
    """

    def __init__(self, size: int = _CACHE_SIZE) -> None:
        self._size = size
        self._cached: OrderedDict[Any, _Cached] = OrderedDict()
        self.renew_locks()

    def renew_locks(self) -> None:
        """Make all locks anew."""
        self._lock = threading.Lock()
        self._locks: dict[Any, threading.Lock] = {}

    def get(self, provider_type: str | None, model_name: Any, options: dict[str, Any]) -> LLMProvider:
        """The provider of these arguments, made at the first time; many threads get one and the same."""
        if not isinstance(model_name, str | None):
            model_name = getattr(model_name, "model_name", model_name)
        names = (provider_type, model_name)
        if not (isinstance(model_name, str | None) and isinstance(provider_type, str | None)):
            names = (_key_of(provider_type), _key_of(model_name))
        key = (*names, _key_of_options(options)) if options else names
        found = self._cached.get(key)
        if found is None and isinstance(provider_type, str):
            # Another spelling of the name is the same provider; the usual one does not pay for that.
            key = (provider_type.strip().lower(), *key[1:])
            found = self._cached.get(key)
        if found is not None and found.is_good():
            with suppress(KeyError):  # another thread dropped it in this moment
                self._cached.move_to_end(key)
            return found.provider
        return self._make(key, provider_type, model_name, options)

    def _make(self, key: Any, provider_type: str | None, model_name: Any, options: dict[str, Any]) -> LLMProvider:
        with self._lock:
            making = self._locks.setdefault(key, threading.Lock())
        with making:
            try:
                with self._lock:
                    found = self._cached.get(key)
                    if found is not None and found.is_good():
                        return found.provider
                made = create_llm_provider(provider_type, model_name, **options)
                provider, dropped = self._keep(key, made)
            finally:
                with self._lock:
                    self._locks.pop(key, None)
        for old in dropped:
            _rest_soon(old)
        return provider

    def _keep(self, key: Any, made: LLMProvider) -> tuple[LLMProvider, list[LLMProvider]]:
        """The provider to give out, and those that are no longer wanted."""
        with self._lock:
            found = self._cached.pop(key, None)
            if found is not None and found.is_good():  # another thread was faster, after a third had failed
                self._cached[key] = found
                return found.provider, [made]
            dropped = [] if found is None else [found.provider]
            self._cached[key] = _Cached(made)
            while len(self._cached) > self._size:
                dropped.append(self._cached.popitem(last=False)[1].provider)
        return made, dropped

    def clear(self) -> None:
        """Drop all providers."""
        _files.forget()
        with self._lock:
            dropped, self._cached = list(self._cached.values()), OrderedDict()
        for old in dropped:
            _rest_soon(old.provider)

    def __len__(self) -> int:
        return len(self._cached)


def _key_of_options(options: dict[str, Any]) -> Any:
    for value in options.values():
        if type(value) is not str:
            return _key_of(options)
    return frozenset(options.items())  # the usual ones


def _key_of(value: Any) -> Any:
    """A value as a key; the type stands in it, since 1, 1.0 and True are equal."""
    if isinstance(value, dict):
        return tuple((name, _key_of(value[name])) for name in sorted(value, key=str))
    if isinstance(value, list | tuple):
        return (type(value), tuple(map(_key_of, value)))
    if isinstance(value, LLMConfig):
        return _key_of({**value.__dict__, "given": sorted(value.given())})
    try:
        hash(value)
    except TypeError:
        # What cannot be compared by value is compared by identity; the entry keeps it alive, so no id comes back.
        return (id(value), type(value), _Alive(value))
    return (type(value), value)


class _Alive:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alive) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


# The dict under os.environ: reading the variables of one provider through os.environ itself costs 4 us, more than the
# whole look-up may take. Where Python is built without it, os.environ serves.
_raw: Final[Any] = getattr(os.environ, "_data", os.environ)
_encode: Final[Any] = getattr(os.environ, "encodekey", str) if _raw is not os.environ else str
_HOUSE: Final = ("DEFAULT_LLM_PROVIDER", "DEFAULT_MODEL_NAME")


_closing: Final[set[asyncio.Task[None]]] = set()


def _rest_soon(provider: LLMProvider) -> None:
    """Put a provider to rest after its last call, from any thread, inside an event loop or not."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(_rest_quietly(provider))
        return
    task = loop.create_task(_rest_quietly(provider))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _rest_quietly(provider: LLMProvider) -> None:
    try:
        await provider.rest_when_idle()
    except Exception as error:  # nobody waits for it, and the others must be closed too
        logger.warning("%r could not be put to rest: %s: %s", provider, type(error).__name__, error)


_cache: Final = ProviderCache()

if hasattr(os, "register_at_fork"):
    # In the child another thread may have held one of them.
    os.register_at_fork(after_in_child=_cache.renew_locks)


def get_cached_provider(
    provider_type: str | None = None,
    model_name: Any = None,
    api_type: Any = None,
    stream_mode: Any = None,
    **options: Any,
) -> LLMProvider:
    """The same provider for the same arguments and environment; made at the first time.

    Args:
        provider_type: as in `create_llm_provider`.
        model_name: as in `create_llm_provider`.
        api_type: as in `LLMConfig`.
        stream_mode: as in `LLMConfig`.
        options: as in `create_llm_provider`; dicts and lists are compared by value.

    Raises:
        LLMProviderError: as `create_llm_provider`.
    """
    if api_type is not None:
        options["api_type"] = api_type
    if stream_mode is not None:
        options["stream_mode"] = stream_mode
    return _cache.get(provider_type, model_name, options)


def clear_provider_cache() -> None:
    """Forget all cached providers; each gives back what it holds after its last call and stream have ended."""
    _cache.clear()
