"""Names to provider classes: those of this process first, then those of installed plugins."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from typing import Final

from .base import LLMProvider
from .exceptions import (
    LLMProviderConfigurationError,
    LLMProviderError,
    MissingDependencyError,
    UnknownProviderError,
)
from .notices import shown
from .plugins import ProviderInfo, check_provider_class, manager, missing_packages, named, normalize_name
from .profiles import TABLE_SOURCES, ProfileTable
from .profiles import ModelProfile as ModelProfile  # whose `get` finds what is registered here

BUILT_IN: Final = frozenset({"fallback"})
"""The core's own providers. No plugin takes their names; this process may, with `register_provider(replace=True)`."""

_registered: Final[dict[str, type[LLMProvider]]] = {}
_resolved: Final[dict[str, type[LLMProvider]]] = {}
_lock = threading.Lock()


def _renew_lock() -> None:
    # In a forked child another thread may have held it.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def register_provider(name: str, cls: type[LLMProvider], *, replace: bool = False) -> None:
    """Make a class of this process available by name.

    Args:
        name: the name, in any case; letters, digits, `_` and `-`.
        cls: a subclass of `LLMProvider`.
        replace: whether it may take the place of another class, of an installed plugin or of the core's own provider of
            that name. A class that was defined anew under its old module and name (a notebook's cell run twice) needs
            no permission.

    Raises:
        LLMProviderConfigurationError: the name is taken or malformed.
        PluginError: the class is no provider.
    """
    key = normalize_name(name)
    check_provider_class(key, cls)
    # Looked for before our own lock is taken, so that no thread ever holds two locks of this house at once.
    plugin = None if replace else manager.find().get(key)
    with _lock:
        old = _registered.get(key)
        same = old is not None and (old.__module__, old.__qualname__) == (cls.__module__, cls.__qualname__)
        if not same and not replace:
            if old is not None:
                raise LLMProviderConfigurationError(
                    f"the name {key!r} belongs to {old.__module__}.{old.__qualname__}; pass replace=True to take it"
                )
            if key in BUILT_IN:
                raise LLMProviderConfigurationError(
                    f"the name {key!r} belongs to the core's own provider; pass replace=True to take it in this process"
                )
            if plugin is not None:
                raise LLMProviderConfigurationError(
                    f"the name {key!r} belongs to the installed plugin {plugin.info.distribution}; "
                    "pass replace=True to take it in this process"
                )
        _registered[key] = named(cls, key)
        _resolved.clear()


def unregister_provider(name: str) -> None:
    """Take back `register_provider`; what had that name before, in the core or in a plugin, is used again.

    Unknown names are passed over.
    """
    with _lock:
        _registered.pop(normalize_name(name), None)
        _resolved.clear()


def provider_class(name: str) -> type[LLMProvider]:
    """The class of a provider; a plugin's module is imported at the first time.

    Raises:
        UnknownProviderError: no provider has that name; lists those that are installed.
        PluginError: the plugin of that name is quarantined, with its reason.
        MissingDependencyError: a package that the provider needs is not installed.
    """
    found = _resolved.get(name) if isinstance(name, str) else None
    if found is not None:
        return found
    try:
        key = normalize_name(name)
    except LLMProviderConfigurationError as error:
        raise UnknownProviderError(f"{error.message}; {_what_there_is()}") from None
    cls = registered = _registered.get(key)
    if cls is None and key in BUILT_IN:
        # Loaded where one is asked for: most programs have none.
        from .routing import FallbackProvider

        cls = FallbackProvider
    if cls is None:
        if key not in manager.find():
            raise UnknownProviderError(f"no provider is named {shown(name)}; {_what_there_is()}{_what_to_install(key)}")
        cls = manager.load(key)
    missing = missing_packages(cls)
    if missing:
        plugin = None if key in _registered or key in BUILT_IN else manager.find().get(key)
        brings = _what_brings(plugin.info.distribution, missing) if plugin is not None else ""
        raise MissingDependencyError(
            f"the provider {key!r} needs the package {', '.join(missing)}, which is not installed{brings}", provider=key
        )
    with _lock:
        # Another thread may have replaced the class meanwhile; what is kept here would bring the old one back for good.
        if _registered.get(key) is registered:
            _resolved[name] = cls
    return cls


def available_providers(*, check: bool = True) -> dict[str, ProviderInfo]:
    """All providers by name: state, distribution, version, and the reason where one cannot be used.

    Args:
        check: import each plugin's module (its backend's packages are not imported, only looked for). With `False`
            nothing is imported, and a plugin that is broken shows as `"available"` until somebody asks for it.
    """
    infos = manager.infos(check=check)
    for name in BUILT_IN:
        claims = infos.get(name)
        owner = None if claims is None else claims.distribution or "an installed package"
        reason = None if owner is None else f"{owner} claims this name too, and is not used"
        infos[name] = ProviderInfo(name, "built-in", "llm-provider-system", None, reason)
    with _lock:
        for name, cls in _registered.items():
            infos[name] = ProviderInfo(name, "registered", cls.__module__)
    return dict(sorted(infos.items()))


def _profile_tables() -> Iterator[ProfileTable]:
    """The models' data of all providers, those of this process first; a provider that cannot be loaded has none."""
    for cls in dict.fromkeys(_registered.values()):
        yield cls.profiles
    for name in sorted(manager.find().keys() - _registered.keys()):
        try:
            cls = manager.load(name)
        except LLMProviderError:
            continue  # quarantined; available_providers() tells why
        yield cls.profiles


TABLE_SOURCES.append(_profile_tables)


def _what_there_is() -> str:
    names = {*manager.find(), *_registered}
    return f"installed: {', '.join(sorted(names | BUILT_IN))}" if names else "no provider is installed"


def _what_brings(distribution: str | None, missing: list[str]) -> str:
    """What to run for packages that an installed plugin lacks: its dependencies are one thing, its extras another."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        needs = (requires(distribution) if distribution else None) or []
    except PackageNotFoundError:
        needs = []
    lacks = {name.partition(".")[0].lower().replace("_", "-") for name in missing}
    own, extras = set(), dict[str, list[str]]()
    for need in needs:
        name = re.split(r"[^\w.-]", need, maxsplit=1)[0].lower().replace("_", "-")
        if extra := re.search(r"extra\s*==\s*['\"]([^'\"]+)", need):
            extras.setdefault(extra[1], []).append(name)
        elif name != "llm-provider-system":
            own.add(name)
    # One package may come in several builds, such as one for each kind of machine, under names of their own.
    fit = [
        extra
        for extra, names in extras.items()
        if any(f"{name}-".startswith(f"{lack}-") for name in names for lack in lacks)
    ]
    if own & lacks or (own and not fit):
        return f"; pip install {distribution} brings what it needs"
    if found := sorted(fit or extras):
        return "; " + " or ".join(f"pip install '{distribution}[{extra}]'" for extra in found) + " brings it"
    return f"; {distribution} does not say what brings it"


def _what_to_install(name: str) -> str:
    """The extra or plugin to install, where this distribution's metadata knows one of that or a similar name."""
    from difflib import get_close_matches
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        extras = metadata("llm-provider-system").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        extras = []
    near = get_close_matches(name, sorted({*extras, *manager.find(), *_registered, *BUILT_IN}), n=1)
    hint = f"; did you mean {near[0]!r}?" if near and near[0] != name else ""
    missing = near[0] if near and near[0] in extras and near[0] not in manager.find() else None
    if missing:
        return f"{hint}; to install it: pip install 'llm-provider-system[{missing}]'"
    usual = f", usually llm-provider-{name}" if shown(name) == repr(name) else ""
    return hint or f"; third-party providers are packages of their own{usual}"
