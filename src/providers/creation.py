"""The making of one provider, from a name, a preset, what files say and what was given."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from .base import LLMProvider
from .exceptions import LLMProviderConfigurationError, UnknownProviderError
from .notices import warn
from .plugins import manager, normalize_name
from .presets import Preset, making
from .registry import available_providers, provider_class
from .settings import (
    OPTION_NAMES,
    config_of,
    default_model,
    default_provider,
    find_variable,
    keep_secrets,
    secrets_in_reach,
)
from .sources import ConfigurationWarning, last_toml, read_toml
from .types import LLMConfig
from .types.config import CONFIG_FIELDS


def create(
    provider_type: str | None,
    model_name: Any,
    config: LLMConfig | Mapping[str, Any] | None,
    preset: str | None,
    options: dict[str, Any],
    trail: tuple[str, ...],
) -> LLMProvider:
    """Make a provider.

    Args:
        provider_type: as in `create_llm_provider`, and so the next four.
        model_name: see there.
        config: see there.
        preset: see there.
        options: see there; may be changed.
        trail: the presets that lead here: they may name each other.

    Raises:
        LLMProviderError: as `create_llm_provider`.
    """
    own = _config(config)
    is_default = provider_type is None and preset is None
    where, found, source = "targets", None, None
    if preset is not None:
        if preset in trail:
            raise LLMProviderConfigurationError(
                f"presets of {read_toml().path} go round in a circle: {' -> '.join((*trail, preset))}"
            )
        trail = (*trail, preset)
        found = Preset.read(preset, provider_type)
        source = found.place if provider_type is None else None
        provider_type, own = found.provider, own.updated({})
        if options.get("targets") is None:
            where = f"targets of {found.place}"
        given = {OPTION_NAMES.get(key, key): value for key, value in options.items() if value is not None}
        if model_name is not None:
            given["model_name"] = model_name
        found = found.over(given, lambda: _without_preset(own, given, cls, key))
        options = {**found.options(), **given}
        model_name = options.pop("model_name", None)
    chosen, source = (provider_type, source) if provider_type is not None else _default_name()
    try:
        cls = provider_class(chosen)
    except UnknownProviderError as error:
        if source is None:
            raise
        raise UnknownProviderError(f"{source} says: {error.message}", provider=error.provider) from None
    key = normalize_name(chosen)
    model = model_name if model_name is not None else options.pop("model", None)
    takes_targets = getattr(cls, "takes_targets", False)
    if model is None and own.model_name is None and not takes_targets:
        model = _default_model(cls, key, is_default)
    if model is not None:
        options["model_name"] = getattr(model, "model_name", model)
    # The founding document's providers take the configuration first and hand it to super().__init__; ours do too.
    changes = {name: options.pop(name) for name in list(options) if name in CONFIG_FIELDS}
    try:
        merged = own.updated({name: value for name, value in changes.items() if value is not None})
    except LLMProviderConfigurationError as error:
        keep_secrets(error, secrets_in_reach(cls.Settings, key, options))
        raise
    if takes_targets:
        from .routing.configured import with_targets

        make = partial(_make_target, trail)
        return _made(cls, found, {"config": merged, **with_targets(options, where, make, read_toml())})
    return _made(cls, found, options, merged)


def _config(given: Any) -> LLMConfig:
    if given is None or isinstance(given, LLMConfig):
        return given or LLMConfig()
    if isinstance(given, Mapping):
        return config_of(given)
    raise LLMProviderConfigurationError(
        f"config must be an LLMConfig or a dict of its fields, not {type(given).__name__}; a model's name goes into "
        "model_name"
    )


def _made(cls: type[LLMProvider], preset: Preset | None, options: Mapping[str, Any], *args: Any) -> LLMProvider:
    try:
        # It knows its preset while it is made, so that what is refused names the preset's line.
        with making(preset):
            made = cls(*args, **options)
    except BaseException:
        # It may be why; but where warnings are errors, it must not take the place of what was wrong.
        with suppress(ConfigurationWarning):
            _tell_strangers(cls.name)
        raise
    _tell_strangers(cls.name)
    if preset is not None:
        made._preset = preset.as_made(made.config)
    return made


def _without_preset(own: LLMConfig, given: Mapping[str, Any], cls: type[LLMProvider], name: str) -> LLMConfig:
    changes = {key: value for key, value in given.items() if key in CONFIG_FIELDS}
    if "model_name" in changes:
        changes["model_name"] = getattr(changes["model_name"], "model_name", changes["model_name"])
    elif own.model_name is None and not getattr(cls, "takes_targets", False):
        changes["model_name"] = _default_model(cls, name, False)
    return own.updated(changes)


def _make_target(
    trail: tuple[str, ...], preset: str | None, name: str | None, model: Any, options: dict[str, Any]
) -> LLMProvider:
    return create(name, model, options.pop("config", None), preset, options, trail)


_told: Final[set[tuple[str, str]]] = set()
_looked_at: Any = None


def _tell_strangers(own: str) -> None:
    """Warn, once, of each table `[providers.NAME]` that no provider here reads; looks once at each state of the file.

    Args:
        own: a name that is read.
    """
    global _looked_at
    toml = last_toml()
    if toml is _looked_at:
        return
    from difflib import get_close_matches

    _looked_at = toml
    known: set[str] = set()
    for name in toml.names("providers"):
        # An empty one has nothing that could be passed over.
        if name == own or (toml.path, name) in _told or not toml.data["providers"][name]:
            continue
        known = known or {*available_providers(check=False), own}
        if name not in known:
            _told.add((toml.path, name))
            near = get_close_matches(name.strip().lower(), sorted(known), n=1, cutoff=0.75)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            place = toml.place("providers", name)
            warn(f"{place}: no provider of that name is known so far{hint}; it is passed over", ConfigurationWarning)


def _default_name() -> tuple[str, str | None]:
    found = default_provider()
    if found is not None:
        return str(found.value).strip(), found.source
    for _, variable, name in manager.default_candidates():
        if variable is None or find_variable(variable) is not None:
            return name, None
    variables = sorted({variable for _, variable, _ in manager.default_candidates() if variable})
    wanted = f"set DEFAULT_LLM_PROVIDER or one of {', '.join(variables)}" if variables else "set DEFAULT_LLM_PROVIDER"
    raise UnknownProviderError(
        f"no provider was named and none can be chosen: {wanted}, or install one that needs no key "
        "(pip install 'llm-provider-system[all]' brings them all)"
    )


def _default_model(cls: type[LLMProvider], name: str, is_default: bool) -> str | None:
    found = default_model()
    if found is not None:
        owner = None if is_default else default_provider()
        if is_default or owner is None or str(owner.value).strip().lower() == name:
            return str(found.value).strip()
    model = cls.profiles.document.get("default_model")
    return str(model) if model else None
