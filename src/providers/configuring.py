"""What a provider is configured with: its `LLMConfig` and its settings, from options, presets and all other sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .exceptions import LLMProviderConfigurationError, MissingCredentialsError, UnknownOptionError
from .layer_settings import NAMES
from .presets import Preset
from .settings import (
    OPTION_NAMES,
    Given,
    ProviderSettings,
    config_of,
    facts_of,
    keep_secrets,
    missing_key,
    secrets_in_reach,
    settings_fields,
)
from .types import LLMConfig
from .types.config import CONFIG_FIELDS, unknown_option


class Configured(NamedTuple):
    """What a provider is configured with.

    Attributes:
        config: defaults of calls.
        settings: what its settings class holds.
        arguments: the options for settings and layers that were given.
        preset: where some of them come from.
    """

    config: LLMConfig
    settings: ProviderSettings
    arguments: Given
    preset: Preset | None


def configure(
    provider: str,
    kind: type[ProviderSettings],
    config: LLMConfig | Mapping[str, Any] | str | None,
    options: Mapping[str, Any],
    preset: Preset | None = None,
) -> Configured:
    """Sort options, and read the settings from all sources.

    Args:
        provider: the provider's name.
        kind: its settings class.
        config: an `LLMConfig`, a dict of its fields, or the model's name.
        options: fields of `LLMConfig`, of the settings class and of `LayerSettings`.
        preset: where some of the options come from.

    Raises:
        UnknownOptionError: an option that none of them knows.
        LLMProviderConfigurationError: a value is refused; the message names field and source.
        MissingCredentialsError: no source has a key that is needed.
    """
    try:
        return _configured(provider, kind, config, options, preset)
    except LLMProviderConfigurationError as error:
        named = {OPTION_NAMES.get(key, key): value for key, value in options.items()}
        keep_secrets(error, secrets_in_reach(kind, provider, named))
        raise


def _configured(
    provider: str,
    kind: type[ProviderSettings],
    config: LLMConfig | Mapping[str, Any] | str | None,
    options: Mapping[str, Any],
    preset: Preset | None,
) -> Configured:
    own = facts_of(kind).names
    changes: dict[str, Any] = {}
    arguments = Given()
    for key, value in options.items():
        name = OPTION_NAMES.get(key, key)
        source = preset.source(name, value) if preset is not None else None
        if name in own or name in NAMES:
            arguments[name] = value
            if source is not None:
                arguments.sources[name] = source
        elif name in CONFIG_FIELDS:
            if value is not None:
                changes[name] = value
        elif value is not None:
            owner = f"provider {provider!r}" if provider else "this provider"
            text = unknown_option(key, own | NAMES | CONFIG_FIELDS, f"{source}: {owner}" if source else owner)
            raise UnknownOptionError(text, provider=provider or None)
    if isinstance(config, Mapping):
        config = config_of(config)
    elif config is not None and not isinstance(config, LLMConfig):
        changes.setdefault("model_name", config)
        config = None
    if "model_name" in changes:
        changes["model_name"] = getattr(changes["model_name"], "model_name", changes["model_name"])
    settings = kind.resolve(provider, arguments, NAMES)
    for item in settings_fields(kind):
        if item.metadata.get("required") and not getattr(settings, item.name):
            raise MissingCredentialsError(missing_key(kind, item.name), provider=provider)
    settings.check()
    # A copy even without changes: update_config must not reach the caller's object, nor the caller's changes us.
    return Configured((config or LLMConfig()).updated(changes), settings, arguments, preset)


def configure_anew(
    provider: str, kind: type[ProviderSettings], former: Configured, changes: Mapping[str, Any]
) -> Configured:
    """The same from all sources as they are now.

    Args:
        provider: the provider's name.
        kind: its settings class.
        former: what it was configured with; its `config` is that in use.
        changes: options that go before those that were given then.

    Raises:
        LLMProviderError: as `configure`, and as `Preset.reread`.
    """
    changes = {OPTION_NAMES.get(key, key): value for key, value in changes.items()}
    preset = former.preset
    if preset is None:
        return configure(provider, kind, former.config, {**former.arguments, **changes})
    preset, config, options = preset.reread(former.config, former.arguments, changes, option_names(kind))
    return configure(provider, kind, config, options, preset)


def option_names(kind: type[ProviderSettings]) -> frozenset[str]:
    """The names of options beside the fields of `LLMConfig`."""
    return NAMES | facts_of(kind).names
