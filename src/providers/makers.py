"""What layers hold, made from settings: stores of answers, places for limits, budgets. Loaded when one is asked for."""

from __future__ import annotations

import inspect
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from .caches.fs import FSCache
from .caches.memory import MemoryCache
from .caches.sqlite import SQLiteCache
from .caches.store import DEFAULT_COLLECTION, CacheStore
from .exceptions import LLMProviderConfigurationError, MissingDependencyError
from .layer_settings import LayerSettings
from .layers.budget import Budget
from .layers.cache import ResponseCache
from .layers.observe import Observe, attempt, observed
from .notices import shown
from .pipeline import Layer
from .resilience.limiter import LimitStore
from .resilience.shared_limits import SQLiteLimits
from .settings import ProviderSettings, keep_secrets, refused_value

CACHES: Final = "llm_providers.caches"
"""Group of entry points: the name of a cache to a callable that makes its store of `LayerSettings`."""
LIMITS: Final = "llm_providers.limits"
"""The same for places where limits are kept."""

# What else may stand in the place of a name.
_WORDS: Final = {CACHES: ("off",), LIMITS: ("process", "off")}
_FIRST_WORD: Final = 10.0  # seconds in which a store may load its client's package
_PACKAGES: Final = {
    (CACHES, "pg_redis"): "llm-provider-system[cache-pg-redis]",
    (CACHES, "qdrant"): "llm-provider-system[cache-qdrant]",
    (LIMITS, "redis"): "llm-provider-system[cache-pg-redis]",
}


def cache_layer(settings: LayerSettings, provider: str, module: str, scope: Mapping[str, Any]) -> ResponseCache:
    """The layer of `cache_backend`.

    Args:
        settings: which one.
        provider: the provider's name.
        module: the module that the provider's class is from; the version of its package is in the keys of answers.
        scope: what tells two backends of one name apart.

    Raises:
        LLMProviderConfigurationError: a value is refused.
        MissingDependencyError: the store needs a package that is not installed.
    """
    store = _no_class(settings, "cache_backend")
    if isinstance(store, str):
        store = _named(store, settings, CACHES, _caches(settings), "cache_backend")
    if not isinstance(store, CacheStore):
        raise _refused(settings, "cache_backend", f"must be a name or a CacheStore, not {type(store).__name__}")
    collection = settings.cache_collection or DEFAULT_COLLECTION
    return ResponseCache(store, provider, _version(module), scope, collection, first_patience=_FIRST_WORD)


def limit_store(settings: LayerSettings) -> LimitStore:
    """The place of `limits`, where that is neither this process nor off.

    Raises:
        LLMProviderConfigurationError: a value is refused.
        MissingDependencyError: it needs a package that is not installed.
    """
    store = _no_class(settings, "limits")
    if isinstance(store, str):
        store = _named(store, settings, LIMITS, {"machine": partial(_machine, settings)}, "limits")
    if not callable(getattr(store, "acquire", None)):
        raise _refused(settings, "limits", f"must be a name or a LimitStore, not {type(store).__name__}")
    found: LimitStore = store
    return found


def make_budget(settings: LayerSettings) -> Budget:
    """The budget of `budget`, where that is a dict of its arguments, or such a dict as JSON.

    Raises:
        LLMProviderConfigurationError: a value is refused.
    """
    caps = _no_class(settings, "budget")
    if isinstance(caps, Budget):
        return caps
    if isinstance(caps, str):
        try:
            caps = json.loads(caps)
        except ValueError as error:
            wanted = "a Budget, a dict of its arguments, such a dict as JSON ({\"max_cost\": 5}), or 'off'"
            raise _refused(settings, "budget", f"is no JSON ({error}); it must be {wanted}") from None
    if not isinstance(caps, Mapping):
        raise _refused(settings, "budget", f"must be a Budget or a dict, not {type(caps).__name__}")
    found: Budget = _with_options(Budget, settings, "budget", caps)
    return found


def observe_layers(settings: LayerSettings, own: ProviderSettings) -> tuple[Observe, Layer] | None:
    """The layers of `telemetry`, the outermost and the innermost one; `None` where it is off.

    Raises:
        LLMProviderConfigurationError: a value is refused.
        MissingDependencyError: what it asks for needs a package that is not installed.
    """
    with _told(settings, "telemetry"):
        layer = observed(_no_class(settings, "telemetry"))
    return None if layer is None else (layer.for_settings(settings).for_settings(own), attempt)


def _refused(settings: LayerSettings, name: str, problem: str) -> LLMProviderConfigurationError:
    return refused_value(settings, name, problem)


def _no_class(settings: LayerSettings, name: str) -> Any:
    """The value of a setting that takes an object. A class has all the methods of its objects, and fails at a call."""
    value = getattr(settings, name)
    if isinstance(value, type):
        raise _refused(settings, name, f"must be an object, not the class {value.__name__}: give {value.__name__}(...)")
    return value


def _with_options(make: Callable[..., Any], settings: LayerSettings, name: str, options: Mapping[str, Any]) -> Any:
    """Something made with options that nobody has checked yet."""
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            raise _refused(settings, name, f"has no {option!r}; it takes {', '.join(sorted(known))}")
    with _told(settings, name):
        return make(**options)


@contextmanager
def _told(settings: LayerSettings, name: str) -> Iterator[None]:
    """Let an error about what was made of a setting tell the setting, and where it came from."""
    try:
        yield
    except LLMProviderConfigurationError as error:
        value = getattr(settings, name)
        if isinstance(value, str):
            # It may be quoted, whole or a word of it, by what knows nothing of addresses and keys.
            words = (value, *(word.strip() for word in value.split(",")))
            keep_secrets(error, [word for word in words if shown(word) != repr(word)])
        source = settings.sources.get(name)
        error.message = f"{error.message} (in {name}, {source})" if source else error.message
        raise


def _caches(settings: LayerSettings) -> dict[str, Callable[[], Any]]:
    """The caches of this package, by name."""
    options, folder = settings.cache_options or {}, settings.cache_dir

    def made(make: Callable[..., Any]) -> Any:
        return _with_options(make, settings, "cache_options", options)

    return {
        "memory": lambda: made(MemoryCache),
        "sqlite": lambda: made(partial(SQLiteCache, Path(folder) / "answers.sqlite")),
        "fs": lambda: made(partial(FSCache, folder)),
    }


def _machine(settings: LayerSettings) -> SQLiteLimits:
    """The limits in a file; one object for all providers of this process that use it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(settings.limits_file or Path(base) / "llm-provider-system" / "limits.sqlite").absolute()
    with _lock:
        found = _files.get(path)
        if found is None:
            found = _files[path] = SQLiteLimits(path)
        return found


_lock: Final = threading.Lock()
_files: Final[WeakValueDictionary[Path, SQLiteLimits]] = WeakValueDictionary()


def _named(name: str, settings: LayerSettings, group: str, own: Mapping[str, Callable[[], Any]], option: str) -> Any:
    """What a name stands for: one of this package's, or that of an installed plugin."""
    if name in own:
        return own[name]()
    entries = [entry for entry in entry_points(group=group) if entry.name == name]
    makers = {entry.value for entry in entries}
    if len(makers) > 1:
        raise _refused(settings, option, f"{name!r} is brought by several packages: {', '.join(sorted(makers))}")
    if not entries:
        package = _PACKAGES.get((group, name))
        if package is not None:
            raise MissingDependencyError(
                f"{option}={name!r} needs a package that is not installed; pip install '{package}' brings it"
            )
        known = sorted({*own, *entry_points(group=group).names, *_WORDS[group]})
        near = get_close_matches(name, [*known, *(word for place, word in _PACKAGES if place == group)], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise _refused(settings, option, f"must be one of {', '.join(known)}, not {shown(name)}{hint}")
    try:
        make = entries[0].load()
    except ImportError as error:
        raise MissingDependencyError(f"{option}={name!r} cannot be loaded: {error}") from error
    with _told(settings, option):
        return make(settings)


def _version(module: str) -> str:
    """The version of the distribution that a module is from; that of this package where it has none."""
    root = module.partition(".")[0]
    for name in (root.replace("_", "-"), "llm-provider-system"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
