"""Presets: tables `[presets.NAME]` of the toml file, whose values tell their line, and which `reload` reads anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final

from .exceptions import LLMProviderConfigurationError, UnknownOptionError
from .notices import shown, shown_name
from .settings import OPTION_NAMES, Given, keep_secrets
from .sources import Found, read_toml
from .types import LLMConfig
from .types.config import CONFIG_FIELDS, unknown_option

_NAMES: Final[Mapping[str, str]] = {**OPTION_NAMES, "provider_type": "provider"}
_PUBLIC: Final = CONFIG_FIELDS | {"provider"}
# Names that mean something else where a provider is made.
_NO_OPTIONS: Final = frozenset({"config", "preset", "self", "cls"})


_making: Final[ContextVar[Any]] = ContextVar("preset", default=None)


@contextmanager
def making(preset: Preset | None) -> Iterator[None]:
    """A provider is made from a preset: the next one in this context."""
    token = _making.set(preset)
    try:
        yield
    finally:
        _making.reset(token)


def taken_preset() -> Preset | None:
    """What the provider is made from that is being made; said once, so that others which it makes have none."""
    found: Preset | None = _making.get()
    if found is not None:
        _making.set(None)
    return found


@dataclass(frozen=True, slots=True, repr=False)
class Preset:
    """What a provider has from a preset.

    Attributes:
        name: the table's name.
        place: file and line of the table, in words for messages.
        provider: the name of the provider that these options are for.
        values: the table's options by their proper names.
        asked: the provider's name that was given in place of the table's own, or `None`.
        beside: names of options that were given beside the preset; they go before its own.
        without: gives the configuration that the provider would have without the preset.
        made: the configuration's values as the provider was made with them.
    """

    name: str
    place: str
    provider: str
    values: Mapping[str, Found]
    asked: str | None = None
    beside: frozenset[str] = frozenset()
    without: Callable[[], LLMConfig] = LLMConfig
    made: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        # Without the values: a key may be among them.
        return f"<preset {self.name}>"

    @classmethod
    def read(cls, name: str, asked: str | None = None) -> Preset:
        """A preset as it stands in the file.

        Args:
            name: the table's name.
            asked: a provider's name that goes before the table's. Another provider than the table's does not get the
                table's model, which it could not know.

        Raises:
            LLMProviderConfigurationError: there is no such table, it names no provider, or `LLMConfig` refuses a value;
                settings of a provider are checked by the provider.
        """
        toml = read_toml()
        table = toml.table("presets", name)
        if not table:
            known = ", ".join(map(shown_name, toml.names("presets"))) or "none"
            raise LLMProviderConfigurationError(f"no preset {shown(name)} in {toml.searched}; presets there: {known}")
        values = _checked(name, table)
        place = toml.place("presets", name)
        named = values["provider"].value if "provider" in values else None
        chosen = asked if asked is not None else named
        if not isinstance(chosen, str):
            raise LLMProviderConfigurationError(f"{place} needs a text under 'provider'")
        keeps_model = asked is None or not isinstance(named, str) or _plain(asked) == _plain(named)
        dropped = ("provider",) if keeps_model else ("provider", "model_name")
        values = {key: found for key, found in values.items() if key not in dropped}
        return cls(name, place, chosen, values, asked)

    def over(self, given: Mapping[str, Any], without: Callable[[], LLMConfig]) -> Preset:
        """The preset below options that were given beside it; the names are the proper ones, `None` is not given."""
        return replace(
            self, beside=frozenset(key for key, value in given.items() if value is not None), without=without
        )

    def options(self) -> dict[str, Any]:
        """The options that nobody gave a value beside the preset for."""
        return {key: found.value for key, found in self.values.items() if key not in self.beside}

    def source(self, name: str, value: Any) -> str | None:
        """Where an option's value came from, if it is this preset's."""
        found = self.values.get(name)
        return found.source if found is not None and found.value is value and name not in self.beside else None

    def as_made(self, config: LLMConfig) -> Preset:
        """The preset of a provider that has been made with this configuration."""
        return replace(self, made=dict(vars(config)))

    def reread(
        self, config: LLMConfig, arguments: Given, changes: Mapping[str, Any], known: Set[str]
    ) -> tuple[Preset, LLMConfig, dict[str, Any]]:
        """The preset as it stands in the file now, with the configuration and the options that follow from it.

        Values of `config` that were changed since the provider was made stay as they are.

        Args:
            config: the configuration in use.
            arguments: options in use, those of the preset among them.
            changes: options that are given now, by their proper names; `None` takes back what was given before.
            known: names of options beside the fields of `LLMConfig`.

        Raises:
            LLMProviderConfigurationError: as `read`; or the table names another provider now, or has another value for
                something that only the making of a provider takes.
            UnknownOptionError: the table has a new option that is none.
        """
        now = Preset.read(self.name, self.asked)
        if _plain(now.provider) != _plain(self.provider):
            named = shown(now.provider)
            raise LLMProviderConfigurationError(
                f"{now.place} names the provider {named} now, not {self.provider!r}; create a new provider"
            )
        given = {key: value for key, value in changes.items() if value is not None}
        now = replace(now, beside=self.beside - changes.keys() | given.keys(), without=self.without)
        self._check_fixed(now, known)
        own = arguments.keys() - arguments.sources.keys() - changes.keys()
        options = {key: arguments[key] for key in own} | given
        options.update((key, value) for key, value in now.options().items() if key in known)
        moved = self._moved(now, config)
        told = {key: value for key, value in given.items() if key in CONFIG_FIELDS}
        return replace(now, made={**(self.made or {}), **moved, **told}), replace(config, **moved), options

    def _moved(self, now: Preset, config: LLMConfig) -> dict[str, Any]:
        """Fields of the configuration that have another value in the file now."""
        without, moved = self.without(), dict[str, Any]()
        for name in (self.values.keys() | now.values.keys()) & CONFIG_FIELDS - now.beside:
            old, new = self.values.get(name), now.values.get(name)
            if old is not None and new is not None and old.value == new.value:
                continue
            if self.made is not None and getattr(config, name) != self.made.get(name):
                continue
            value = getattr(without.updated({name: new.value}) if new is not None else without, name)
            if name != "model_name" or value is not None:
                moved[name] = value
        return moved

    def _check_fixed(self, now: Preset, known: Set[str]) -> None:
        for name in sorted((self.values.keys() | now.values.keys()) - CONFIG_FIELDS - now.beside):
            old, new = self.values.get(name), now.values.get(name)
            if name in known or (old is not None and new is not None and old.value == new.value):
                continue
            if old is None and new is not None:
                raise UnknownOptionError(f"{new.source}: {unknown_option(name, known | CONFIG_FIELDS, 'reload')}")
            where = new.source if new is not None else now.place
            raise LLMProviderConfigurationError(f"{where}: {name} has changed; create a new provider for that")


def _plain(name: str) -> str:
    return name.strip().lower()


_read: Final[dict[str, tuple[Mapping[str, Found], Mapping[str, Found]]]] = {}


def _checked(name: str, table: Mapping[str, Found]) -> Mapping[str, Found]:
    """The table by the proper names, its fields of `LLMConfig` checked; once, while the file stays as it is."""
    before, values = _read.get(name, (None, {}))
    if before is table:
        return values
    values = {}
    for key, found in table.items():
        proper = _NAMES.get(key, key)
        if proper == key or proper not in table:
            values[proper] = found
        if key in _NO_OPTIONS:
            raise LLMProviderConfigurationError(
                f"{found.source}: a preset has no {key!r}; fields of LLMConfig and settings of the provider stand in "
                "the preset's own table"
            )
        if proper in CONFIG_FIELDS:
            try:
                LLMConfig().updated({proper: found.value}, found.source)
            except LLMProviderConfigurationError as error:
                # Which settings are secret only the provider knows, which may not be loaded yet.
                own = (item.value for name, item in table.items() if _NAMES.get(name, name) not in _PUBLIC)
                keep_secrets(error, [value for value in own if isinstance(value, str) and value in str(found.value)])
                if found.source not in error.message:
                    error.message = f"{found.source}: {error.message}"
                raise
    _read[name] = (table, values)
    return values
