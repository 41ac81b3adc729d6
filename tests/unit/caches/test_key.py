"""The key: a changed field changes it, the order of fields and the spelling do not."""

from __future__ import annotations

import enum
import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from providers.caches import UncacheableError, canonical, key_of
from providers.request_builder import RequestBuilder
from providers.types import (
    APIType,
    LLMConfig,
    Message,
    Messages,
    Request,
    RetryPolicy,
    StructuredOutput,
    ToolCall,
    ToolChoice,
    ToolSpec,
)
from providers.types.policy import CachePolicy

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
BASE = Request("m", Messages.of("Hello"))
# Each field of a request to values that all are different requests.
CHANGES: dict[str, list[Any]] = {
    "model": ["m2", "M"],
    "messages": [
        Messages.of("Hello "),
        Messages.of(["Hello", "Hello"]),
        Messages.of({"role": "assistant", "content": "Hello"}),
        Messages.of([Message.user("Hello", name="Ann")]),
        Messages.of([Message.user([{"type": "text", "text": "Hello"}])]),
        Messages.of([Message.assistant("Hello", [ToolCall("1", "f")])]),
        Messages.of([Message.assistant("Hello", [ToolCall("2", "f")])]),
        Messages.of([Message.assistant("Hello", [ToolCall("1", "f", '{"a":1}')])]),
        Messages.of([Message.assistant("Hello", [ToolCall("1", "f", provider_data={"s": b"1"})])]),
        Messages.of([Message.tool_result("1", "Hello")]),
        Messages.of([Message.tool_result("2", "Hello")]),
        Messages.of({"role": "assistant", "content": "Hello", "reasoning": "so"}),
        Messages.of({"role": "assistant", "content": "Hello", "provider_data": {"so": 1}}),
    ],
    "system": ["", "Be kind."],
    "params": [{"temperature": 0.7}, {"temperature": 0}, {"top_p": 0}, {"stop": "x"}, {"stop": ["x", "y"]}],
    "given": [frozenset({"temperature"})],
    "extras": [{"a": 1}, {"a": "1"}, {"a": True}, {"a": None}, {"a": [1]}, {"a": {"0": 1}}, {"a": b"1"}, {"a": b"2"}],
    "tools": [
        (ToolSpec("f"),),
        (ToolSpec("g"),),
        (ToolSpec("f"), ToolSpec("g")),
        (ToolSpec("g"), ToolSpec("f")),
        (ToolSpec("f", "does"),),
        (ToolSpec("f", parameters={"type": "object"}),),
        (ToolSpec("f", strict=True),),
        (ToolSpec("f", raw={"type": "f"}),),
        (ToolSpec("f", extra={"x": 1}),),
    ],
    "tool_choice": [
        ToolChoice(),
        ToolChoice("none"),
        ToolChoice("named", "f"),
        ToolChoice("named", "g"),
        ToolChoice("auto", None, False),
    ],
    "output": [
        StructuredOutput(),
        StructuredOutput(name="Other"),
        StructuredOutput(strict=False),
        StructuredOutput({"type": "object"}),
        StructuredOutput({"type": "object", "title": "x"}),
    ],
    "api_type": [APIType.RESPONSES, APIType.AUTO],
    "previous_response_id": ["r1", "r2"],
    "on_unsupported": ["error", "drop"],
}
SAME: dict[str, list[Any]] = {
    "timeout": [None, 1, 60.0],
    "retry": [RetryPolicy(1)],
    "stream": [True],
    "cache": [CachePolicy(), CachePolicy("x", True, True)],
}


def test_every_field_is_either_in_the_key_or_named_as_not() -> None:
    """A field that is added to `Request` some day must be decided on."""
    assert {item.name for item in fields(Request)} == CHANGES.keys() | SAME.keys()
    assert canonical(BASE).keys() == CHANGES.keys()


def test_a_changed_field_changes_the_key() -> None:
    requests = [BASE, *(BASE.replace(**{name: value}) for name, values in CHANGES.items() for value in values)]
    keys = [key_of(request, "acme") for request in requests]
    assert len(set(keys)) == len(requests)
    others = [key_of(BASE, "acme", "1"), key_of(BASE, "acme", "2"), key_of(BASE, "other")]
    others += [key_of(BASE, "acme", "", {"base_url": "a"}), key_of(BASE, "acme", "", {"base_url": "b"})]
    assert len({*keys, *others}) == len(requests) + len(others)


def test_what_the_answer_does_not_depend_on_does_not() -> None:
    for name, values in SAME.items():
        for value in values:
            assert key_of(BASE.replace(**{name: value}), "acme") == key_of(BASE, "acme"), name


def test_the_key_is_the_same_on_every_machine() -> None:
    """A key that changes with a release of ours loses all that is stored: only with another SCHEMA_VERSION."""
    assert key_of(BASE, "acme", "1.0") == "e7b79a30f20d782188c7a83a22f4dcfedfdae4e05c1f7280f2875549208233d8"


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=6), JSON, max_size=5))
def test_the_order_of_fields_does_not_matter(extras: dict[str, Any]) -> None:
    assert key_of(BASE.replace(extras=extras), "a") == key_of(BASE.replace(extras=shuffled(extras)), "a")


def typed(value: Any) -> Any:
    """A value with its types, as Python's own 1 == 1.0 == True would hide what JSON keeps apart."""
    if isinstance(value, dict):
        return ("dict", frozenset((name, typed(item)) for name, item in value.items()))
    if isinstance(value, list):
        return ("list", tuple(map(typed, value)))
    return (type(value).__name__, repr(value))


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3), st.dictionaries(st.text(max_size=3), JSON, max_size=3))
def test_different_values_have_different_keys(one: dict[str, Any], two: dict[str, Any]) -> None:
    same = key_of(BASE.replace(extras=one), "a") == key_of(BASE.replace(extras=two), "a")
    assert same == (typed(one) == typed(two))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text()), min_size=1, max_size=4))
def test_the_spelling_of_messages_does_not_matter(talk: list[tuple[str, str]]) -> None:
    dicts = [{"role": role, "content": text} for role, text in talk]
    reverse = [{"content": text, "role": role} for role, text in talk]
    objects = [Message.from_dict(item) for item in dicts]
    keys = {key_of(Request("m", Messages.of(value)), "a") for value in (dicts, reverse, objects)}
    assert len(keys) == 1


def test_numbers_of_parameters_are_one_value_however_they_are_written() -> None:
    assert len({key_of(BASE.replace(params={"temperature": value}), "a") for value in (0, 0.0, -0.0)}) == 1


def test_a_pydantic_class_and_its_schema_are_told_by_the_schema() -> None:
    class Answer(BaseModel):
        x: int

    first = key_of(BASE.replace(output=StructuredOutput.coerce(Answer)), "a")

    class Other(BaseModel):
        x: str

    assert key_of(BASE.replace(output=StructuredOutput(pydantic_model=Answer, name="Answer", parser=id)), "a") == first
    assert key_of(BASE.replace(output=StructuredOutput(pydantic_model=Other, name="Answer")), "a") != first


class Color(str, enum.Enum):
    RED = "red"


def test_values_that_only_equal_json() -> None:
    assert key_of(BASE.replace(extras={"a": Color.RED, "b": (1, 2)}), "a") == key_of(
        BASE.replace(extras={"b": [1, 2], "a": "red"}), "a"
    )


loop: list[Any] = []
loop.append(loop)


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {1, 2}, loop, 10**5000, open], ids=lambda value: type(value).__name__
)
def test_what_no_key_can_be_made_of(value: Any) -> None:
    with pytest.raises(UncacheableError) as caught:
        key_of(BASE.replace(extras={"x": value}), "a")
    assert "0x" not in str(caught.value)


def test_the_builder_fills_the_flags() -> None:
    """F-064: the four flags reach the layer through the request."""
    builder = RequestBuilder("acme", LLMConfig("m"), cached=True)

    def flags(**options: Any) -> CachePolicy | None:
        return builder.build("Hello", None, options, False).cache

    assert flags() is None
    assert flags(cache_response=False) is None
    assert flags(cache_response=True) == CachePolicy()
    assert flags(cache_response=True, cache_collection="x", rewrite_cache=True, regen_cache=True) == CachePolicy(
        "x", True, True
    )
    assert flags(cache_response=True, cache_collection=None, rewrite_cache=None) == CachePolicy()
    with pytest.warns(UserWarning, match="rewrite_cache: without cache_response=True"):
        assert flags(rewrite_cache=True) is None
    for wrong in ({"cache_response": 1}, {"cache_collection": " "}, {"cache_collection": 3}, {"regen_cache": "yes"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            flags(**wrong)


def test_canonical_is_json() -> None:
    for name, values in CHANGES.items():
        for value in values:
            json.dumps(canonical(BASE.replace(**{name: value})), allow_nan=False)
