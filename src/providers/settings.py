"""Settings of providers: argument, environment, `.env`, toml, default, in that order, read at first use.

Nothing is read at import and `os.environ` is never changed. Settings are dataclasses, so that the way to the first
answer does not pay for pydantic's import; a value that is not of its field's type already is handed to pydantic, which
converts it or says what is wrong.
"""

from __future__ import annotations

import inspect
import os
import types
import typing
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Final, TypeVar

from .exceptions import LLMProviderConfigurationError, LLMProviderError, UnknownOptionError
from .notices import warn, without_secrets
from .sources import ConfigurationWarning, DotEnv, Found, house_variable, read_dotenv, read_toml
from .types import LLMConfig, Secret
from .types.config import CONFIG_FIELDS, unknown_option

S = TypeVar("S", bound="ProviderSettings")

OPTION_NAMES: Final[Mapping[str, str]] = {"model": "model_name", "default_temperature": "temperature"}
"""Other names that the founding documents use for options."""


def setting(default: Any = None, *, env: str | tuple[str, ...] = (), required: bool = False, help: str = "") -> Any:
    """A field of a settings class.

    Args:
        default: value where no source has one.
        env: variables to read, in this order; `env_prefix` + the field's name where left out.
        required: whether a provider cannot be made without it.
        help: one sentence for documentation.
    """
    names = (env,) if isinstance(env, str) else env
    return field(default=default, metadata={"env": names, "required": required, "help": help})


@dataclass(kw_only=True, eq=False)
class ProviderSettings:
    """Base of a provider's settings: subclass it as a dataclass and add fields.

    Attributes:
        env_prefix: prefix of the environment variables, for instance `"ACME_"`.
        sources: field name to where its value came from, in words.
    """

    env_prefix: ClassVar[str] = ""

    sources: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def resolve(cls: type[S], provider: str, arguments: Mapping[str, Any], also: frozenset[str] = frozenset()) -> S:
        """Settings from all sources.

        Args:
            provider: the provider's name, for its table `[providers.NAME]` in the toml file.
            arguments: values that the caller gave; `None` is "not given".
            also: names that may stand in that table too, and are none of these settings.

        Raises:
            LLMProviderConfigurationError: a value is of the wrong type; names the field and its source.
        """
        table = read_toml().table("providers", provider)
        found = cls._from(provider, settings_fields(cls), arguments, table)
        if table:
            warn_unknown(cls, provider, table, also)
        return found

    @classmethod
    def _from(
        cls: type[S],
        provider: str,
        items: Iterable[Field[Any]],
        arguments: Mapping[str, Any],
        table: Mapping[str, Found],
    ) -> S:
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        dotenv = cache(read_dotenv)  # one look at the file for all of them
        for item in items:
            found = _find(cls, item, arguments, table, dotenv)
            if found is None:
                continue
            if found.clash:
                _warn_clash(provider, item.name, found)
            values[item.name] = _convert(cls, item, found)
            sources[item.name] = found.source
        return cls(**values, sources=sources)

    def check(self) -> None:
        """Refuse values that cannot be: called when a provider is made, and by `reload` before anything has changed.

        To be overridden where a setting has rules of its own.

        Raises:
            LLMProviderConfigurationError: names the setting, where it came from, and what is allowed.
        """

    def was_given(self, name: str) -> bool:
        """Whether the caller chose a setting's value, by an argument or by naming a preset."""
        source = self.sources.get(name, "")
        return source == "argument" or source.startswith("[presets.")

    def secrets(self) -> list[str]:
        """The values that must never be shown."""
        values = (getattr(self, item.name) for item in settings_fields(type(self)))
        return [value.get_secret_value() for value in values if isinstance(value, Secret) and value]


class Given(dict[str, Any]):
    """Options as they were given; its repr shows their names only, since a key may be among them.

    Attributes:
        sources: where values came from that are no arguments themselves, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<given: {', '.join(sorted(self))}>"


_UNIONS: Final = (typing.Union, types.UnionType)


class _Facts:
    """What a settings class says of its fields, worked out once."""

    def __init__(self, cls: type[ProviderSettings]) -> None:
        if "__dataclass_fields__" not in cls.__dict__ and inspect.get_annotations(cls):
            raise LLMProviderConfigurationError(f"the settings class {cls.__qualname__} must be marked with @dataclass")
        self.fields: tuple[Field[Any], ...] = tuple(item for item in fields(cls) if item.name != "sources")
        self.names = frozenset(item.name for item in self.fields)
        self.variables: dict[str, tuple[str, ...]] = {
            item.name: item.metadata.get("env") or (f"{cls.env_prefix}{item.name.upper()}",) for item in self.fields
        }
        hints = typing.get_type_hints(cls)
        self.hints = {item.name: hints[item.name] for item in self.fields}
        # The members of a union, or the one type that it is.
        self.members = {
            name: typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
            for name, hint in self.hints.items()
        }


_facts: Final[dict[type[ProviderSettings], _Facts]] = {}


def facts_of(cls: type[ProviderSettings]) -> _Facts:
    """The facts of a settings class."""
    found = _facts.get(cls)
    if found is None:
        found = _facts[cls] = _Facts(cls)
    return found


def settings_fields(cls: type[ProviderSettings]) -> tuple[Field[Any], ...]:
    """The fields that sources may fill."""
    return facts_of(cls).fields


def known_variables() -> set[str]:
    """The variables that the settings classes in use read."""
    return {name for facts in list(_facts.values()) for names in facts.variables.values() for name in names}


def all_variables(cls: type[ProviderSettings], only: Container[str] | None = None) -> tuple[str, ...]:
    """Every environment variable that a settings class reads, or that it reads for some of its fields."""
    found = facts_of(cls).variables
    return tuple(name for field in found if only is None or field in only for name in found[field])


def _find(
    cls: type[ProviderSettings],
    item: Field[Any],
    arguments: Mapping[str, Any],
    table: Mapping[str, Found],
    dotenv: Callable[[], DotEnv],
) -> Found | None:
    value = arguments.get(item.name)
    if value is not None:
        sources = arguments.sources if isinstance(arguments, Given) else {}
        return Found(value, sources.get(item.name, "argument"))
    names = facts_of(cls).variables[item.name]
    found = find_variable(*names, dotenv=dotenv)
    return found if found is not None else table.get(item.name)


def find_variable(*names: str, dotenv: Callable[[], DotEnv] = read_dotenv) -> Found | None:
    """The first of these variables that is set and not blank, in the environment, then in `.env`.

    All names are looked for in one source before the next source is asked. Where two names hold different values, the
    find tells of the clash.
    """
    inside = [
        Found(value, f"environment variable {name}", name)
        for name in names
        if (value := os.environ.get(name)) and not value.isspace()
    ]
    if not inside:
        file = dotenv()
        inside = [file[name] for name in names if name in file and file[name].value.strip()]
    if not inside:
        return None
    clash = next((found.name for found in inside[1:] if found.value.strip() != inside[0].value.strip()), "")
    return inside[0].with_clash(clash) if clash else inside[0]


def warn_unknown(cls: type[ProviderSettings], owner: str, table: Mapping[str, Found], also: Iterable[str] = ()) -> None:
    """Tell of names in a table that are no settings."""
    known = {*also, *(item.name for item in settings_fields(cls))}
    for name in table.keys() - known:
        text = unknown_option(name, known, f"{table[name].source}: {owner}")
        warn(f"{text}; it is passed over", ConfigurationWarning)


def _warn_clash(provider: str, name: str, found: Found) -> None:

    warn(
        f"{provider}: {found.name} and {found.clash} hold different values; {name} is taken from {found.name}",
        ConfigurationWarning,
    )


_PLAIN: Final = (str, int, float, bool, dict, list)
_NUMBERS: Final = frozenset({int, float})


def _convert(cls: type[ProviderSettings], item: Field[Any], found: Found) -> Any:
    facts = facts_of(cls)
    members = facts.members[item.name]
    value = found.value
    if Secret in members:
        try:
            return Secret(value)
        except (TypeError, ValueError) as error:
            raise LLMProviderConfigurationError(f"{item.name} ({found.source}): {error}") from None
    if type(value) in members or (type(value) in _PLAIN and Any in members):
        return value.strip() if isinstance(value, str) else value
    if isinstance(value, bool) and not _NUMBERS.isdisjoint(members):
        # pydantic would take it for 1 or 0.
        raise LLMProviderConfigurationError(f"{item.name} ({found.source}) must be a number, not {value}")
    return _convert_with_pydantic(item.name, facts.hints[item.name], found)


def _convert_with_pydantic(name: str, hint: Any, found: Found) -> Any:
    from pydantic import TypeAdapter, ValidationError

    value = found.value
    try:
        adapter = TypeAdapter(hint)
        if isinstance(value, str) and found.name and value.lstrip()[:1] in ("[", "{"):
            return adapter.validate_json(value)
        return adapter.validate_python(value)
    except ValidationError as error:
        problems = "; ".join(item["msg"] for item in error.errors(include_url=False, include_input=False)[:3])
        raise LLMProviderConfigurationError(f"{name} ({found.source}): {problems}") from None
    except Exception as error:
        # A type that pydantic knows nothing of (an object passed through to an engine) is taken as it is.
        if type(error).__name__ != "PydanticSchemaGenerationError":
            raise
        return value


def refused_value(settings: ProviderSettings, name: str, problem: str) -> LLMProviderConfigurationError:
    """The error for a value that a setting cannot have; names the setting and where the value came from."""
    return LLMProviderConfigurationError(f"{name} ({settings.sources.get(name, 'default')}) {problem}")


def secrets_in_reach(cls: type[ProviderSettings], provider: str, arguments: Mapping[str, Any]) -> list[str]:
    """What the sources hold for a class's secret fields, for errors that come before its settings are made."""
    facts = facts_of(cls)
    items = (item for item in facts.fields if Secret in facts.members[item.name])
    try:
        table = read_toml().table("providers", provider)
        found = [_find(cls, item, arguments, table, read_dotenv) for item in items]
    except LLMProviderConfigurationError:  # a file cannot be read, which is what the error will say
        return []
    values = [item.value for item in found if item is not None]
    return [value.get_secret_value() if isinstance(value, Secret) else str(value) for value in values]


def keep_secrets(error: LLMProviderError, secrets: Iterable[str]) -> None:
    """Take secrets out of an error's message: a value that is refused may be a key that came into the wrong place."""
    error.message = without_secrets(error.message, secrets)
    error.args = (error.message,)


def config_of(given: Mapping[Any, Any]) -> LLMConfig:
    """A configuration from a dict of its fields.

    Raises:
        UnknownOptionError: a key is no field.
        LLMProviderConfigurationError: a value is refused.
    """
    values = {OPTION_NAMES.get(key, key): value for key, value in given.items()}
    for name in values:
        if name not in CONFIG_FIELDS:
            text = unknown_option(str(name), CONFIG_FIELDS, "config: LLMConfig")
            raise UnknownOptionError(f"{text}; settings of a provider are options beside config")
    return LLMConfig().updated(values, "config")


def missing_key(cls: type[ProviderSettings], name: str) -> str:
    """The sentence for a key that no source has: names the variables and every file searched."""
    wanted = " or ".join(facts_of(cls).variables[name])
    dotenv, toml = read_dotenv(), read_toml()
    return (
        f"no {name}: set {wanted} in the environment or in {dotenv.searched}, or pass {name}=... "
        f"(also searched: {toml.searched})"
    )


def default_provider() -> Found | None:
    """`DEFAULT_LLM_PROVIDER`, where it is set."""
    return find_variable("DEFAULT_LLM_PROVIDER") or house_variable("default_llm_provider")


def default_model() -> Found | None:
    """`DEFAULT_MODEL_NAME`, where it is set."""
    return find_variable("DEFAULT_MODEL_NAME") or house_variable("default_model_name")
