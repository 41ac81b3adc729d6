"""From what a caller says to one `Request`: configuration, overlays and pseudo keys, in their documented order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from .exceptions import LLMProviderConfigurationError, UnknownOptionError
from .notices import warn
from .types import (
    APIType,
    GenerationConfig,
    LLMConfig,
    Messages,
    Request,
    RetryPolicy,
    StreamMode,
    StructuredOutput,
    ToolChoice,
    coerce_tools,
)
from .types.checks import check_fields
from .types.config import CHECKS, PARAMETERS, OnUnsupported, parse_enum, unknown_option
from .types.content import kind_of
from .types.policy import CachePolicy

_PARAMETERS: Final = frozenset(PARAMETERS)
_NOTHING: Final[frozenset[str]] = frozenset()
_CHECKED: Final = ("timeout", "extra", "on_unsupported")
_TEXTS: Final = (
    ("system_prompt", "system prompt"),
    ("system", "system prompt"),
    ("previous_response_id", "previous_response_id"),
)
_MAX_WAIT: Final = RetryPolicy().max_wait
_PARTS: Final = {"image": "images", "document": "documents", "other": "content_parts"}
_CACHE_FLAGS: Final = frozenset({"cache_response", "cache_collection", "rewrite_cache", "regen_cache"})
_OPTIONS: Final = frozenset(
    {
        *_PARAMETERS,
        *_CACHE_FLAGS,
        "api_type",
        "attempts",
        "backoff",
        "config",
        "extra",
        "on_unsupported",
        "previous_response_id",
        "response_format",
        "schema",
        "stream_mode",
        "system",
        "system_prompt",
        "timeout",
        "tool_choice",
        "tools",
    }
)


class RequestBuilder:
    """Builds the requests of one configuration; what does not change from call to call is worked out once.

    Parameters: a call's keyword arguments go over its `config`, which goes over the provider's `LLMConfig`; `None` is
    "not given" everywhere. System prompt: the call's own, then `config.extra["system"]` (or `system_instruction`), then
    `LLMConfig.system`, then the conversation's; two different ones are a warning. Where one thing has two names
    (`system_prompt` and `system`, `schema` and `response_format`), both at once are a warning or an error.

    Args:
        provider: the provider's name, for messages.
        config: the provider's configuration.
        cached: whether a response cache stands around the provider; without one its flags are a warning.
    """

    def __init__(self, provider: str, config: LLMConfig, cached: bool = False) -> None:
        self._provider = provider
        self._config = config
        self._cached = cached
        extras = dict(config.extra_params)
        self._system = _take_system(extras) or config.system
        params = config.parameters()
        self._given = config.given() | _absorb(extras, params)
        self._params = params
        self._extras = extras
        initial = config.retry_delay
        self._retry = RetryPolicy(config.max_retries + 1, initial, max(_MAX_WAIT, initial))

    def build(self, messages: Any, system: str | None, options: Mapping[str, Any], stream: bool) -> Request:
        """One request.

        Args:
            messages: a text, or messages in any spelling.
            system: the system prompt of this call, or `None`.
            options: keyword arguments of the call; `None` values are "not given".
            stream: whether the answer is wanted piece by piece.

        Raises:
            LLMProviderConfigurationError: an argument is wrong, or there is no model or no message.
        """
        config = self._config
        if config.model_name is None:
            raise LLMProviderConfigurationError(
                "no model: pass model_name=..., or set DEFAULT_MODEL_NAME", provider=self._provider
            )
        if system is not None and not isinstance(system, str):
            raise LLMProviderConfigurationError(f"a system prompt must be a text, not {type(system).__name__}")
        given = {name: value for name, value in options.items() if value is not None} if options else None
        if given:
            return self._build_with(messages, system, given, stream)
        own_system, rest = self._read(messages)
        return Request(
            config.model_name,
            rest,
            self.pick_system(system, None, own_system),
            self._params,
            self._given,
            self._extras,
            stream=stream,
            api_type=config.api_type,
            timeout=config.timeout,
            retry=self._retry,
            on_unsupported=config.on_unsupported,
        )

    def _build_with(self, messages: Any, system: str | None, options: dict[str, Any], stream: bool) -> Request:
        config = self._config
        for name in options:
            if name not in _OPTIONS:
                hint = "; the backend's own parameters go into extra={...}"
                raise UnknownOptionError(unknown_option(name, _OPTIONS, "a call") + hint, provider=self._provider)
        check_fields({key: options[key] for key in _CHECKED if key in options}, CHECKS, "argument")
        overlay = GenerationConfig.coerce(options.get("config"))
        # What this call sets, the overlay's parameters below its own.
        layer = overlay.parameters() if overlay is not None else {}
        extra = {**(overlay.extra if overlay is not None else {}), **options.get("extra", {})}
        conversation = config_system = None
        if extra:
            config_system = _take_system(extra)
            conversation = extra.pop("conversation", None)
            if extra.pop("conversations", None) is not None:
                raise LLMProviderConfigurationError(
                    "extra['conversations'] is for batches, one for each input; a single call takes its messages, or "
                    "extra['conversation']",
                    provider=self._provider,
                )
            _absorb(extra, layer)
        call = {name: options[name] for name in options if name in _PARAMETERS}
        if call:
            check_fields(call, CHECKS, "argument")
            layer.update(call)
        if isinstance(conversation, Mapping) and "messages" in conversation:
            extra.update({key: value for key, value in conversation.items() if key != "messages"})
            conversation = conversation["messages"]
        own_system, rest = self._read(messages if conversation is None else conversation)
        for key, name in _TEXTS:
            if key in options and not isinstance(options[key], str):
                raise LLMProviderConfigurationError(f"a {name} must be a text, not {type(options[key]).__name__}")
        if "stream_mode" in options:
            _check_mode(options["stream_mode"], stream)
        if "schema" in options and "response_format" in options:
            raise LLMProviderConfigurationError(
                "schema and response_format are two names of one thing: give one of them"
            )
        own_prompt = system
        if "system_prompt" in options or "system" in options:
            prompts = {key: options.get(key) for key in ("system_prompt", "system")}
            own_prompt = _first({"the call's": system, **{f"{key}=": text for key, text in prompts.items()}})
        cache = None if _CACHE_FLAGS.isdisjoint(options) else _cache_of(options, self._cached)
        return Request(
            config.model_name or "",
            rest,
            self.pick_system(own_prompt, config_system, own_system),
            {**self._params, **layer} if layer else self._params,
            self._given | layer.keys() if layer else self._given,
            {**self._extras, **extra} if extra else self._extras,
            coerce_tools(options.get("tools")),
            ToolChoice.coerce(options.get("tool_choice")),
            StructuredOutput.coerce(options.get("schema", options.get("response_format"))),
            stream,
            parse_enum(APIType, options["api_type"], "api_type") if "api_type" in options else config.api_type,
            options.get("previous_response_id"),
            options.get("timeout", config.timeout),
            self.retry_of(options),
            options.get("on_unsupported", config.on_unsupported),
            cache,
        )

    def fill(
        self, said: Request, system: str | None, *, timeout: float | None, on_unsupported: OnUnsupported
    ) -> Request:
        """A request that was built elsewhere, with this configuration below what its caller said.

        Args:
            said: the request; it has no model of its own.
            system: its system prompt.
            timeout: its own.
            on_unsupported: its own.

        Raises:
            LLMProviderConfigurationError: there is no model.
        """
        config, params, given = self._config, self._params, self._given
        if config.model_name is None:
            raise LLMProviderConfigurationError("no model: pass model_name=...", provider=self._provider)
        if said.given:
            params = {**params, **{name: said.params[name] for name in said.given if name in said.params}}
            given = given | said.given
        return Request(
            config.model_name,
            said.messages,
            system,
            params,
            given,
            {**self._extras, **said.extras} if said.extras else self._extras,
            said.tools,
            said.tool_choice,
            said.output,
            said.stream,
            config.api_type if said.api_type is APIType.AUTO else said.api_type,
            said.previous_response_id,
            timeout,
            said.retry,
            on_unsupported,
            said.cache,
        )

    def _read(self, messages: Any) -> tuple[str | None, Messages]:
        if messages is None or messages == "":
            raise LLMProviderConfigurationError("there is no prompt to send: it is empty", provider=self._provider)
        return Messages.of(messages).split_system()

    def retry_of(self, options: Mapping[str, Any]) -> RetryPolicy:
        """The retry policy of one call, from `attempts` (tries in all) and `backoff` (seconds before the second)."""
        if "attempts" not in options and "backoff" not in options:
            return self._retry
        wait = options.get("backoff", self._retry.initial_wait)
        attempts = options.get("attempts", self._retry.max_attempts)
        check_fields({"retry_delay": wait}, {"retry_delay": CHECKS["retry_delay"]}, "backoff")
        return replace(self._retry, max_attempts=attempts, initial_wait=wait, max_wait=max(self._retry.max_wait, wait))

    def pick_system(self, call: str | None, config: str | None, conversation: str | None) -> str | None:
        """The system prompt: the first of the call's own, its `config.extra`'s, the configuration's, the talk's."""
        if call is None and config is None and conversation is None:
            return self._system
        prompts = {
            "the call's": call,
            "config.extra's": config,
            "LLMConfig's": self._system,
            "the conversation's": conversation,
        }
        return _first(prompts)


def wants(request: Request) -> frozenset[str]:
    """What a request asks for beyond text, in the words of `LLMProvider.understands`."""
    # The usual request wants nothing; it must not pay for a set.
    if request.messages.plain is not None and not (
        request.tools or request.output or request.api_type is APIType.RESPONSES or request.previous_response_id
    ):
        return _NOTHING
    wanted = set()
    if request.tools:
        wanted.add("tools")
    if request.output is not None:
        wanted.add("structured_output")
    if request.api_type is APIType.RESPONSES or request.previous_response_id:
        wanted.add("responses")
    if request.messages.plain is None:
        kinds = {
            kind_of(part)
            for message in request.messages
            if isinstance(message.content, list)
            for part in message.content
        }
        wanted.update(_PARTS[kind] for kind in kinds if kind in _PARTS)
    return frozenset(wanted)


def _cache_of(options: Mapping[str, Any], cached: bool) -> CachePolicy | None:
    """What the flags of a response cache say; nothing without `cache_response=True`."""
    wanted = options.get("cache_response", False)
    if not isinstance(wanted, bool):
        raise LLMProviderConfigurationError(f"cache_response must be true or false, not {wanted!r}")
    policy = CachePolicy(
        options.get("cache_collection"), options.get("rewrite_cache", False), options.get("regen_cache", False)
    )
    asked = ", ".join(sorted(name for name in _CACHE_FLAGS if options.get(name)))
    if asked and not cached:
        warn(f"{asked}: this provider has no response cache; the call is made")
    elif asked and not wanted:
        warn(f"{asked}: without cache_response=True no cache is used; the call is made")
    return policy if wanted else None


def _take_system(extra: dict[str, Any]) -> str | None:
    """Take the system prompt out of extra parameters, under either of its names."""
    if "system" not in extra and "system_instruction" not in extra:
        return None
    found = {f"extra['{key}']": extra.pop(key, None) for key in ("system", "system_instruction")}
    for name, text in found.items():
        if text is not None and not isinstance(text, str):
            raise LLMProviderConfigurationError(f"{name} must be a text, not {type(text).__name__}")
    return _first(found)


def _first(prompts: Mapping[str, str | None]) -> str | None:
    """The first system prompt that is there, with a warning where another one says something else."""
    found = [text for text in prompts.values() if text is not None]
    if len(found) > 1 and len(set(found)) > 1:
        used, *others = [name for name, text in prompts.items() if text is not None]
        warn(f"several system prompts: {used} is used, not {', '.join(others)}")
    return found[0] if found else None


def _check_mode(value: Any, stream: bool) -> None:
    """A verb that always streams, or never does, takes no other mode (`execute` has read its own before)."""
    mode = parse_enum(StreamMode, value, "stream_mode")
    if mode is not StreamMode.AUTO and (mode is StreamMode.ENABLED) is not stream:
        verb = "this verb always streams" if stream else "this verb never streams"
        raise LLMProviderConfigurationError(f"{verb}, so stream_mode={mode.value!r} cannot be; execute() takes it")


def _absorb(extra: dict[str, Any], params: dict[str, Any]) -> frozenset[str]:
    """Move parameters that this package has a name for from the extras to the others, so that they are checked and
    mapped like all of them; gives their names. `None` is "not given"."""
    found = {name: extra.pop(name) for name in list(extra) if name in _PARAMETERS}
    check_fields(found, CHECKS, "extra")
    moved = {name: value for name, value in found.items() if value is not None}
    params.update(moved)
    return frozenset(moved)
