"""Targets as configuration names them, read; who asks makes the providers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from ..base import LLMProvider
from ..exceptions import LLMProviderConfigurationError, LLMProviderError, UnknownProviderError
from ..sources import Toml

Make: TypeAlias = Callable[[str | None, str | None, Any, dict[str, Any]], LLMProvider]
"""Makes a provider from a preset's name, a provider's name, a model, each of which may be `None`, and options."""


def with_targets(options: Mapping[str, Any], where: str, make: Make, toml: Toml) -> dict[str, Any]:
    """The arguments of a `FallbackProvider` from options of `create_llm_provider`, its targets made.

    It owns those that were made here.

    Args:
        options: `targets`, a list of providers, names of presets, `"provider/model"` and tables, and the rest.
        where: what holds the list, in words for messages.
        make: makes a provider.
        toml: where presets stand.

    Raises:
        LLMProviderError: what `make` raises, and a wrong entry; the message names the entry.
    """
    rest = dict(options)
    entries = rest.pop("targets", None) or ()
    if isinstance(entries, str | Mapping) or not isinstance(entries, Iterable):
        raise LLMProviderConfigurationError(f"{where} must be a list, not {type(entries).__name__}")
    targets: list[LLMProvider] = []
    made: list[LLMProvider] = []
    labels: list[str | None] = []
    for place, entry in enumerate(entries, 1):
        label = None
        if isinstance(entry, LLMProvider):
            target = entry
        else:
            try:
                label, target = _target(entry, make, toml)
            except LLMProviderError as error:
                # A table is not shown: it may hold a key.
                told = repr(entry) if isinstance(entry, str) else f"entry {place}"
                raise type(error)(
                    f"{where}, {told}: {error.message}", provider=error.provider, model=error.model
                ) from error
            made.append(target)
        targets.append(target)
        labels.append(label)
    return {"own": made, "labels": labels, **rest, "targets": targets}


def _target(entry: Any, make: Make, toml: Toml) -> tuple[str | None, LLMProvider]:
    """A target, and its name where configuration gives it one."""
    if isinstance(entry, str):
        presets = toml.names("presets")
        if entry in presets:
            return entry, make(entry, None, None, {})
        name, _, model = entry.partition("/")
        try:
            return None, make(None, name, model or None, {})
        except UnknownProviderError as error:
            known = ", ".join(presets) or "none"
            raise UnknownProviderError(f"{error.message}; presets of {toml.searched}: {known}") from None
    if not isinstance(entry, Mapping):
        raise LLMProviderConfigurationError(
            f"a target is a provider, the name of a preset, 'provider/model' or a table, not {type(entry).__name__}"
        )
    options = dict(entry)
    preset, name = options.pop("preset", None), options.pop("provider", None) or options.pop("provider_type", None)
    if not isinstance(name if preset is None else preset, str):
        raise LLMProviderConfigurationError("it needs a text under 'provider', or under 'preset'")
    model = options.pop("model_name", None) or options.pop("model", None)
    return preset, make(preset, name, model, options)
