"""Plugins: found through metadata, loaded one name at a time, quarantined with a reason where they fail.

A plugin is a distribution with an entry point in the group `llm_providers`, whose name is the provider's name and whose
object is a module (or any object) with the hook below, or the provider class itself:

    [project.entry-points.llm_providers]
    acme = "llm_provider_acme.plugin"

Two more groups are read without importing anything:

    [project.entry-points."llm_providers.names"]        names lent to the front door: from providers import AcmeProvider
    AcmeProvider = "llm_provider_acme:AcmeProvider"

    [project.entry-points."llm_providers.default"]      may be the default provider, where the variable is set;
    "50.ACME_API_KEY" = "acme"                          lowest number first; without a variable: always
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import pluggy

from .base import LLMProvider
from .exceptions import LLMProviderConfigurationError, MissingDependencyError, PluginError, UnknownProviderError
from .notices import shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "llm_providers"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
logger = logging.getLogger("providers.plugins")

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
# What the machine refuses may be granted a moment later; what the code says will be said again.
_PASSING: Final = (OSError, MemoryError)
_RANKED: Final = re.compile(r"(\d+)(?:\.(\w+))?")
# Documented names that packages of their own bring, which are no providers: what to install for them.
_EXTRAS: Final = {
    "HybridRedisPostgreSQLCache": "cache-pg-redis",
    "RedisLimits": "cache-pg-redis",
    "QdrantCache": "cache-qdrant",
    "PusherStreamer": "pusher",
}


class Hooks:
    """What the house asks of a plugin."""

    @hookspec
    def llm_providers(self) -> dict[str, type[LLMProvider]]:  # type: ignore[empty-body]
        """Return the providers of this plugin, name to class."""


@dataclass(slots=True)
class ProviderInfo:
    """What is known of one provider.

    Attributes:
        name: its name.
        state: `"available"` (installed, not loaded yet), `"loaded"`, `"registered"` (by `register_provider`),
            `"built-in"` (the core's own), or `"quarantined"` (cannot be used; `reason` says why).
        distribution: the package that brings it, or `None`.
        version: that package's version, or `None`.
        reason: why it cannot be used, or which plugin of its name is not used, or `None`.
    """

    name: str
    state: str
    distribution: str | None = None
    version: str | None = None
    reason: str | None = None


@dataclass
class _Plugin:
    info: ProviderInfo
    entry: EntryPoint | None = None
    cls: type[LLMProvider] | None = None
    error: BaseException | None = field(default=None, repr=False)
    # One for each plugin: while one is being imported, which may take long, all others can be asked for.
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)


def normalize_name(name: Any) -> str:
    """A provider's name as it is looked up: lower case, no white space around.

    Raises:
        LLMProviderConfigurationError: it is no text, or has characters other than letters, digits, `_` and `-`.
    """
    if not isinstance(name, str):
        raise LLMProviderConfigurationError(f"a provider's name must be a text, not {shown(name)}")
    found = name.strip().lower()
    if not _NAME.fullmatch(found):
        raise LLMProviderConfigurationError(
            f"a provider's name must be letters, digits, '_' and '-', not {shown(name)}"
        )
    return found


class PluginManager:
    """Finds plugins and loads them, each once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._plugins: dict[str, _Plugin] | None = None
        self._names: dict[str, list[EntryPoint]] = {}
        self._defaults: list[tuple[int, str | None, str]] = []

    def forget(self) -> None:
        """Look for plugins anew at the next use, for instance after an installation."""
        with self._lock:
            self._plugins = None

    def find(self) -> dict[str, _Plugin]:
        """All installed plugins by name, found through metadata alone; nothing of theirs is imported."""
        with self._lock:
            if self._plugins is None:
                self._discover()
            assert self._plugins is not None
            return self._plugins

    def _discover(self) -> None:
        claims: dict[str, list[EntryPoint]] = {}
        plugins: dict[str, _Plugin] = {}
        found = _entry_points()
        for entry in found[GROUP]:
            try:
                name = normalize_name(entry.name)
            except LLMProviderConfigurationError as error:
                plugins[entry.name] = _Plugin(_info(entry.name, entry, "quarantined", error.message), entry)
                continue
            _claim(claims, name, entry)
        for name, entries in claims.items():
            if len(entries) == 1:
                plugins[name] = _Plugin(_info(name, entries[0], "available"), entries[0])
            else:
                owners = _owners(entries)
                reason = f"several packages claim the name {name!r}: {owners}; uninstall all but one"
                plugins[name] = _Plugin(ProviderInfo(name, "quarantined", owners, None, reason))
        self._names = {}
        for entry in found[f"{GROUP}.names"]:
            _claim(self._names, entry.name, entry)
        self._defaults = _read_defaults(found[f"{GROUP}.default"])
        self._plugins = plugins

    def load(self, name: str) -> type[LLMProvider]:
        """The provider class of an installed plugin; its module is imported at the first time.

        A plugin that fails stays quarantined, except where what failed may pass (`OSError`, `MemoryError`): then the
        next request tries again.

        Raises:
            UnknownProviderError: no plugin has that name.
            PluginError: the plugin is quarantined; what it raised is the cause.
            MissingDependencyError: the plugin is quarantined because a module that it imports is not there.
        """
        plugin = self.find().get(name)
        if plugin is None:
            raise UnknownProviderError(f"no plugin brings a provider named {name!r}", provider=name)
        with plugin.lock:
            self._load(name, plugin)
            cls, error, reason = plugin.cls, plugin.error, plugin.info.reason
        if cls is None:
            kind = MissingDependencyError if isinstance(error, ModuleNotFoundError) else PluginError
            raise kind(f"the provider {name!r} cannot be used: {reason}", provider=name) from error
        return cls

    def _load(self, name: str, plugin: _Plugin) -> None:
        with plugin.lock:
            if plugin.cls is None and (plugin.info.state == "available" or isinstance(plugin.error, _PASSING)):
                self._load_now(name, plugin)

    def _load_now(self, name: str, plugin: _Plugin) -> None:
        assert plugin.entry is not None
        # The info is replaced and not changed: somebody may be looking at the one that was given out.
        try:
            cls = named(_class_of(name, plugin.entry.load()), name)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit too: a plugin must not be able to end the program
            plugin.error = error
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            reason = f"{plugin.info.distribution or plugin.entry.value} failed to load: {what}"
            plugin.info = replace(plugin.info, state="quarantined", reason=reason)
            logger.warning("provider %r is quarantined: %s", name, reason)
        else:
            plugin.cls, plugin.error = cls, None
            plugin.info = replace(plugin.info, state="loaded", reason=None)

    def infos(self, *, check: bool) -> dict[str, ProviderInfo]:
        """What is known of each plugin.

        Args:
            check: load each plugin that was not loaded yet, and look whether the packages that it needs are installed.
        """
        found = {}
        for name, plugin in sorted(self.find().items()):
            if check:
                self._load(name, plugin)
            info = plugin.info
            if check and plugin.cls is not None:
                missing = missing_packages(plugin.cls)
                if missing:
                    reason = f"needs the package {', '.join(missing)}, which is not installed"
                    info = ProviderInfo(name, "quarantined", info.distribution, info.version, reason)
            found[name] = info
        return found

    def lent(self, name: str) -> Any:
        """What a plugin lends to the front door under a name.

        Raises:
            AttributeError: no plugin lends that name, or several do.
            MissingDependencyError: it is a documented name, and its package is not installed.
            PluginError: the plugin's module cannot be imported; what it raised is the cause.
        """
        self.find()
        entries = self._names.get(name, [])
        if not entries and name in _EXTRAS:
            # An AttributeError would be "cannot import name" to whoever imports it, and no word of what to do.
            raise MissingDependencyError(
                f"{name} is in a package that is not installed; pip install 'llm-provider-system[{_EXTRAS[name]}]' "
                "brings it"
            )
        if len(entries) != 1:
            who = (
                f"several packages lend that name: {_owners(entries)}"
                if entries
                else "no installed plugin lends that name"
            )
            raise AttributeError(f"module 'providers' has no attribute {name!r}: {who}")
        try:
            return entries[0].load()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit too
            raise PluginError(
                f"{name} of {_owners(entries)} failed to load: {type(error).__name__}: {error}"
            ) from error

    def default_candidates(self) -> list[tuple[int, str | None, str]]:
        """Rank, variable (or `None`) and provider name of those that may be the default, best first."""
        self.find()
        return self._defaults


def _class_of(name: str, target: Any) -> type[LLMProvider]:
    if isinstance(target, type):
        return check_provider_class(name, target)
    # A manager of hooks for this plugin alone: what others bring is not asked for, and a hook that takes long keeps
    # nobody waiting who asks for another provider.
    hooks = pluggy.PluginManager(GROUP)
    hooks.add_hookspecs(Hooks)
    hooks.register(target)
    hooks.check_pending()
    if not hooks.hook.llm_providers.get_hookimpls():
        raise PluginError(f"{target!r} has no function llm_providers() marked with @hookimpl")
    brought: dict[str, Any] = {}
    for classes in hooks.hook.llm_providers():
        if not isinstance(classes, Mapping):
            raise PluginError(f"its llm_providers() must return a dict of name to class, not {classes!r}")
        brought.update({normalize_name(key): cls for key, cls in classes.items()})
    if name not in brought:
        raise PluginError(f"its llm_providers() brings {sorted(brought)}, not {name!r}")
    return check_provider_class(name, brought[name])


def missing_packages(cls: type[LLMProvider]) -> list[str]:
    """Import names of packages that a provider needs and that are not installed."""
    missing = []
    for name in cls.requires:
        try:
            if importlib.util.find_spec(name) is None:
                missing.append(name)
        except (ImportError, ValueError):
            missing.append(name)
    return missing


def check_provider_class(name: str, cls: Any) -> type[LLMProvider]:
    """Say clearly, and before anything is called, where a class is no provider.

    Raises:
        PluginError: it is no subclass of `LLMProvider`, it overrides neither `generate` nor a verb, its `generate` is
            no generator, or it lacks what one of its capabilities asks for.
    """
    if not isinstance(cls, type) or not issubclass(cls, LLMProvider):
        raise PluginError(f"the provider {name!r} must be a subclass of providers.LLMProvider, not {cls!r}")
    if all(getattr(cls, verb) is getattr(LLMProvider, verb) for verb in ("generate", "execute", "complete", "stream")):
        raise PluginError(f"the provider {name!r} ({cls.__qualname__}) has no generate(): it cannot answer anything")
    generate = cls.generate
    if not callable(generate) or inspect.iscoroutinefunction(generate) or inspect.isgeneratorfunction(generate):
        what = ", and it is a plain generator: write `async def`" if inspect.isgeneratorfunction(generate) else ""
        raise PluginError(
            f"generate() of the provider {name!r} ({cls.__qualname__}) must be an async function with yield{what}"
        )
    lacking = [key for key in dir(cls) if getattr(getattr(cls, key, None), "__isabstractmethod__", False)]
    if lacking:
        raise PluginError(f"the provider {name!r} ({cls.__qualname__}) has no {', '.join(lacking)}()")
    return cls


def named(cls: type[LLMProvider], name: str) -> type[LLMProvider]:
    """The class, with the name that it is found under where it says none of its own."""
    if not cls.__dict__.get("name"):
        cls.name = name
    return cls


def _entry_points() -> dict[str, list[EntryPoint]]:
    """The entry points of our groups, of all distributions whose metadata can be read."""
    from importlib.metadata import distributions, entry_points

    groups = (GROUP, f"{GROUP}.names", f"{GROUP}.default")
    try:
        entries = entry_points()
        return {group: list(entries.select(group=group)) for group in groups}
    except Exception:  # one broken file among all packages, which need not be one of ours
        found: dict[str, list[EntryPoint]] = {group: [] for group in groups}
    for dist in distributions():
        try:
            for group in groups:
                found[group].extend(dist.entry_points.select(group=group))
        except Exception as error:
            logger.warning("a package's entry points cannot be read: %s: %s", type(error).__name__, error)
    return found


def _claim(claims: dict[str, list[EntryPoint]], name: str, entry: EntryPoint) -> None:
    """Note who claims a name; a distribution that stands twice on the path claims it once."""
    same = claims.setdefault(name, [])
    if not any(_owner(other) == _owner(entry) and other.value == entry.value for other in same):
        same.append(entry)


def _owners(entries: list[EntryPoint]) -> str:
    return ", ".join(f"{_owner(entry)[0]} ({entry.value})" for entry in entries)


def _owner(entry: EntryPoint) -> tuple[str, str]:
    try:
        return entry.dist.name or "an unknown package", entry.dist.version  # type: ignore[union-attr]
    except Exception:  # no distribution, or one whose metadata is missing
        return "an unknown package", ""


def _info(name: str, entry: EntryPoint, state: str, reason: str | None = None) -> ProviderInfo:
    distribution, version = _owner(entry)
    return ProviderInfo(name, state, distribution, version, reason)


def _read_defaults(entries: Any) -> list[tuple[int, str | None, str]]:
    found = []
    for entry in entries:
        match = _RANKED.fullmatch(entry.name)
        if match is None:
            logger.warning("entry point %r of group %s.default is not RANK or RANK.VARIABLE", entry.name, GROUP)
            continue
        found.append((int(match[1]), match[2], entry.value))
    return sorted(found, key=lambda item: (item[0], item[2], item[1] or ""))


manager: Final = PluginManager()


def _renew_locks() -> None:
    # In a forked child another thread may have held them.
    manager._lock = threading.RLock()
    for plugin in (manager._plugins or {}).values():
        plugin.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
