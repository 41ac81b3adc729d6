"""The options of a call, for type checkers and editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypedDict

from .config import APIType, GenerationConfig, OnUnsupported, StreamMode

Streaming: TypeAlias = Literal["enabled", "auto", StreamMode.ENABLED, StreamMode.AUTO]
NotStreaming: TypeAlias = Literal["disabled", StreamMode.DISABLED]


class CallOptions(TypedDict, total=False):
    """What the verbs take as keyword arguments; `None` is "not given".

    Attributes:
        temperature: randomness, 0 to 2.
        top_p: nucleus sampling, 0 to 1.
        max_tokens: most tokens of the answer.
        seed: for backends that can repeat an answer.
        stop: a text, or several, at which the answer ends.
        frequency_penalty: -2 to 2.
        presence_penalty: -2 to 2.
        reasoning_effort: how long a reasoning model thinks.
        tools: tools in any spelling.
        tool_choice: `"auto"`, `"none"`, `"required"`, a tool's name, or a vendor's dict.
        schema: what the answer must look like: a pydantic model class, a `StructuredOutput` or a JSON Schema dict.
        response_format: another name of `schema`; `"text"` and `"json_object"` too.
        config: a `GenerationConfig` or a dict like it.
        extra: the backend's own parameters.
        system: the system prompt.
        timeout: seconds for one attempt.
        attempts: tries in all.
        backoff: seconds before the second try.
        api_type: which interface carries the call.
        previous_response_id: the answer that this one continues, where the backend keeps conversations.
        on_unsupported: what becomes of a parameter that cannot be honoured.
        cache_response: whether a response cache may answer.
        cache_collection: which part of the cache.
        rewrite_cache: whether the answer replaces what the cache has.
        regen_cache: whether the cache is passed by.
    """

    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    seed: int | None
    stop: str | list[str] | None
    frequency_penalty: float | None
    presence_penalty: float | None
    reasoning_effort: str | None
    tools: Any
    tool_choice: Any
    schema: Any
    response_format: Any
    config: GenerationConfig | Mapping[str, Any] | None
    extra: Mapping[str, Any] | None
    system: str | None
    timeout: float | None
    attempts: int | None
    backoff: float | None
    api_type: APIType | str | None
    previous_response_id: str | None
    on_unsupported: OnUnsupported | None
    cache_response: bool | None
    cache_collection: str | None
    rewrite_cache: bool | None
    regen_cache: bool | None
