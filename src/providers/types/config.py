"""Configuration of a provider (`LLMConfig`) and of one call on top of it (`GenerationConfig`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar

from ..exceptions import LLMProviderConfigurationError, UnknownOptionError
from ..notices import shown, warn
from .checks import Check, Dict, Number, OneOf, StopSequences, Text, check_fields

OnUnsupported = Literal["error", "warn", "drop"]


class APIType(str, Enum):
    """Which of a provider's interfaces carries a call."""

    CHAT_COMPLETION = "chat_completion"
    RESPONSES = "responses"
    AUTO = "auto"
    """The provider decides."""

    __str__ = str.__str__


class StreamMode(str, Enum):
    """Whether `execute` gives the whole answer or a stream of text."""

    DISABLED = "disabled"
    ENABLED = "enabled"
    AUTO = "auto"
    """Both: the result can be awaited for the whole answer, or iterated for a stream."""

    __str__ = str.__str__


# A float of its own, so that identity tells whether a user gave the value: a default that a model refuses is left out
# silently, a value that somebody gave is reported. Identity survives dataclasses.replace and copy.
DEFAULT_TEMPERATURE: Final[float] = float("0.7")
DEFAULT_TOKEN_LIMIT: Final[int] = int("8192")

PARAMETERS: Final[tuple[str, ...]] = (
    "temperature",
    "top_p",
    "max_tokens",
    "frequency_penalty",
    "presence_penalty",
    "stop",
    "seed",
    "reasoning_effort",
)
"""The parameters of generation, by the names of this package. A codec maps each to its wire format or reports it."""

CHECKS: Final[dict[str, Check]] = {
    "model_name": Text(),
    "token_limit": Number(1, integer=True, optional=False),
    "temperature": Number(0, 2),
    "top_p": Number(0, 1),
    "max_tokens": Number(1, integer=True),
    "frequency_penalty": Number(-2, 2),
    "presence_penalty": Number(-2, 2),
    "stop": StopSequences(),
    "seed": Number(-(2**63), 2**64 - 1, integer=True),
    "reasoning_effort": Text(),
    "timeout": Number(0, open_low=True),
    "max_retries": Number(0, integer=True, optional=False),
    "retry_delay": Number(0, optional=False),
    "system": Text(),
    "on_unsupported": OneOf(("error", "warn", "drop")),
    "extra_params": Dict(),
    "extra": Dict(),
}

E = TypeVar("E", bound=Enum)


def parse_enum(kind: type[E], value: Any, name: str) -> E:
    """A member of an enum from the member or its value, in any case.

    Raises:
        LLMProviderConfigurationError: names the field and lists the values allowed.
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, str):
        for member in kind:
            if value.strip().lower() in (member.value, member.name.lower()):
                return member
    allowed = ", ".join(repr(member.value) for member in kind)
    raise LLMProviderConfigurationError(f"{name} must be one of {allowed}, not {shown(value)}")


@dataclass
class LLMConfig:
    """What a provider does by default.

    Every field is checked when the object is made. `0`, `0.0`, `False` and `[]` are values; `None` is "not set": so
    `LLMConfig(timeout=None)` has no limit of time and `LLMConfig(temperature=None)` sends none. As an option beside a
    configuration (`create_llm_provider(..., timeout=None)`, `execute(..., temperature=None)`) `None` is "not given":
    the configuration's value stays.

    Attributes:
        model_name: the model; `None` leaves it to the provider's default.
        api_type: which interface carries a call.
        token_limit: size of the model's context window in tokens, for `validate_token_limit`.
        temperature: randomness, 0 to 2. The default of 0.7 is sent only to models that accept it; a value that you
            give is always sent or reported.
        max_tokens: most tokens of the answer.
        top_p: nucleus sampling, 0 to 1.
        frequency_penalty: -2 to 2.
        presence_penalty: -2 to 2.
        stop: a text, or several, at which the answer ends.
        stream_mode: whether `execute` streams.
        timeout: seconds for one attempt; of a stream, seconds without a new piece. `None` is no limit.
        max_retries: attempts after the first one that failed.
        retry_delay: seconds before the first retry, doubled at each further one.
        extra_params: parameters of the backend's own, sent as they are.
        seed: for backends that can repeat an answer.
        reasoning_effort: how long a reasoning model thinks, for instance `"low"`, `"medium"`, `"high"`.
        system: the system prompt where a call has none.
        on_unsupported: what becomes of a parameter that you gave and the model cannot honour: `"error"`, `"warn"`
            (default) or `"drop"`. The response's metadata lists it in each case.

    Raises:
        LLMProviderConfigurationError: a field is of the wrong type or out of range.
    """

    model_name: str | None = None
    api_type: APIType = APIType.CHAT_COMPLETION
    token_limit: int = DEFAULT_TOKEN_LIMIT
    temperature: float | None = DEFAULT_TEMPERATURE
    max_tokens: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: str | list[str] | None = None
    stream_mode: StreamMode = StreamMode.DISABLED
    timeout: float | None = 60
    max_retries: int = 3
    retry_delay: float = 1.0
    extra_params: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    reasoning_effort: str | None = None
    system: str | None = None
    on_unsupported: OnUnsupported = "warn"

    def __post_init__(self) -> None:
        self.check("LLMConfig")

    def check(self, source: str) -> None:
        """Check every field and read enums from their strings.

        Args:
            source: where the values come from, for the message.

        Raises:
            LLMProviderConfigurationError: names the field and its source.
        """
        self.api_type = parse_enum(APIType, self.api_type, f"api_type ({source})")
        self.stream_mode = parse_enum(StreamMode, self.stream_mode, f"stream_mode ({source})")
        check_fields(self.__dict__, CHECKS, source)

    def updated(self, changes: Mapping[str, Any], source: str = "argument") -> LLMConfig:
        """A copy with changes; either all of them are good or there is no copy.

        Raises:
            UnknownOptionError: a name is no field.
            LLMProviderConfigurationError: a value is refused.
        """
        for name in changes:
            if name not in CONFIG_FIELDS:
                raise UnknownOptionError(unknown_option(name, CONFIG_FIELDS, "LLMConfig"))
        if changes.get("model_name", "") is None and self.model_name is not None:
            raise LLMProviderConfigurationError(f"model_name ({source}) must be a text that is not blank, not None")
        check_fields(changes, CHECKS, source)
        copy = replace(self, **changes)
        copy.extra_params = dict(copy.extra_params)
        if isinstance(copy.stop, list):
            copy.stop = list(copy.stop)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        # Defaults stay behind, so that they are this module's own objects again where the copy arrives.
        return {name: value for name, value in self.__dict__.items() if not is_default(value)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"temperature": DEFAULT_TEMPERATURE, "token_limit": DEFAULT_TOKEN_LIMIT, **state})

    def parameters(self) -> dict[str, Any]:
        """The parameters of generation that are set, by name."""
        values = self.__dict__
        return {name: values[name] for name in PARAMETERS if values[name] is not None}

    def given(self) -> frozenset[str]:
        """The names in `parameters()` that somebody gave, as opposed to defaults."""
        names = self.parameters()
        return frozenset(name for name in names if not (name == "temperature" and is_default(self.temperature)))


CONFIG_FIELDS: Final[frozenset[str]] = frozenset(item.name for item in fields(LLMConfig))


def is_default(value: Any) -> bool:
    """Whether a value is one of this module's defaults itself, not an equal one that somebody gave."""
    return value is DEFAULT_TEMPERATURE or value is DEFAULT_TOKEN_LIMIT


def unknown_option(name: str, known: Any, owner: str) -> str:
    """The sentence for an option that nothing reads, with the nearest name that exists."""
    from difflib import get_close_matches

    near = get_close_matches(name, sorted(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{owner} has no option {shown(name)}{hint}"


@dataclass
class GenerationConfig:
    """What one call asks for, on top of the provider's `LLMConfig`.

    Attributes:
        temperature: randomness, 0 to 2.
        top_p: nucleus sampling, 0 to 1.
        max_tokens: most tokens of the answer.
        seed: for backends that can repeat an answer.
        extra: parameters of the backend's own (`{"stop": [...]}`), and the pseudo keys `system`,
            `system_instruction` (the system prompt), `conversation` (messages in place of the input) and, in a batch,
            `conversations` (one for each input), which are never forwarded as they are.

    Raises:
        LLMProviderConfigurationError: a field is of the wrong type or out of range.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self.__dict__, CHECKS, "GenerationConfig")

    def parameters(self) -> dict[str, Any]:
        """The parameters of generation that are set, by name; those in `extra` not among them."""
        values = self.__dict__
        return {name: values[name] for name in _OVERLAID if values[name] is not None}

    @classmethod
    def coerce(cls, value: Any) -> GenerationConfig | None:
        """Read a `GenerationConfig`, a dict, or `None`. Keys of a dict that are no field are folded into `extra`.

        Raises:
            TypeError: it is something else.
            LLMProviderConfigurationError: a value is refused.
        """
        if value is None or isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise UnknownOptionError(f"config must be a GenerationConfig or a dict, not {type(value).__name__}")
        known = {key: value[key] for key in _GENERATION_FIELDS if key in value}
        extra = known.pop("extra", None)
        if extra is None:
            extra = {}
        check_fields({"extra": extra}, CHECKS, "config")
        folded = {key: item for key, item in value.items() if key not in _GENERATION_FIELDS}
        for key in folded:
            if near := _nearly(str(key)):
                warn(f"config: {key!r} goes to the backend as it is; did you mean {near!r}?")
        return cls(**known, extra={**folded, **extra})


@lru_cache(maxsize=256)
def _nearly(key: str) -> str | None:
    """The field that a key is a misspelling of, most likely."""
    from difflib import get_close_matches

    near = get_close_matches(key, _GENERATION_FIELDS, n=1, cutoff=0.9)
    return near[0] if near else None


_OVERLAID: Final = ("temperature", "top_p", "max_tokens", "seed")
_GENERATION_FIELDS: Final[tuple[str, ...]] = tuple(item.name for item in fields(GenerationConfig))
