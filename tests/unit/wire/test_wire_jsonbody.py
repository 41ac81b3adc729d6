"""JSON bodies: what cannot be written is refused by name, what can be read is read (bad input 3, 24, 32)."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.exceptions import LLMProviderConfigurationError, LLMProviderResponseError
from providers.wire import Checked, decode_json, decode_object, encode_json


def test_text_arrives_as_it_is() -> None:
    text = "NUL \0 U+2028 \u2028 right-to-left \u202e emoji \U0001f600 NFD e\u0301"
    assert json.loads(encode_json({"t": text})) == {"t": text}
    assert encode_json({"a": [1, 2.5, True, None, "ä"]}) == '{"a":[1,2.5,true,null,"ä"]}'.encode()


def test_lone_surrogates_become_replacement_characters() -> None:
    body = {"messages": [{"content": "a\ud83db", "\udc00": ("x", None)}], "whole": "\ud83d\ude00"}
    before = repr(body)
    assert json.loads(encode_json(body)) == {
        "messages": [{"content": "a\ufffdb", "\ufffd": ["x", None]}],
        "whole": "\U0001f600",
    }
    assert repr(body) == before, "the caller's value is left alone"


class Kept(dict[str, Any]):
    """A kind of dict that orjson writes as it writes any."""


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_no_json_are_refused(number: float) -> None:
    """orjson would write `null` for them, and the call would go out with a wrong parameter."""
    for body, place in (
        ({"temperature": number}, "body.temperature"),
        ({"input": [[1.0, 2.0], (3.0, number)]}, "body.input[1][1]"),
        ({"messages": [{"content": "hi"}], "x": {"y": {"z": number}}}, "body.x.y.z"),
        ({"tools": [{"type": "f", "p": {"default": number}}]}, "body.tools[0].p.default"),
        ({"include": ["a", {"b": (1, number)}]}, "body.include[1].b[1]"),
        ({"x": [{}, Kept(a=[number])]}, "body.x[1].a[0]"),
        ([{"a": number}], "body[0].a"),
    ):
        with pytest.raises(LLMProviderConfigurationError, match="not a finite number") as caught:
            encode_json(body)
        assert place in str(caught.value)


def test_what_need_not_be_searched_is_not() -> None:
    nan = float("nan")
    body = {"m": [{"a": nan}], "x": Checked(a=nan)}
    assert encode_json(body, unsearched=("m",)) == b'{"m":[{"a":null}],"x":{"a":null}}'
    with pytest.raises(LLMProviderConfigurationError, match=r"body\.x\.m is not"):
        encode_json({"x": {"m": nan}}, unsearched=("m",))


class Odd:
    def __repr__(self) -> str:
        return "sk-canary-0123456789"


@dataclass
class Settings:
    key: Any


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"tools": [{"x": Odd()}]}, r"body\.tools\[0\]\.x is of type Odd"),
        ({"x": {1, 2}}, r"body\.x is of type set"),
        ({"x": b"raw"}, r"body\.x is of type bytes"),
        ({"x": {1: 2}}, r"body\.x has a key of type int"),
        ({"x": 10**30}, "64-bit"),
        ({"\ud83d": Odd()}, "is of type Odd"),
        ({"x": Settings(Odd())}, r"body\.x is of type Settings"),
    ],
)
def test_what_json_cannot_hold_is_named(body: Any, said: str) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=said) as caught:
        encode_json(body)
    assert "canary" not in str(caught.value)


def test_a_value_that_contains_itself_is_refused() -> None:
    body: dict[str, Any] = {}
    body["self"] = body
    with pytest.raises(LLMProviderConfigurationError):
        encode_json(body)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(LLMProviderConfigurationError):
        encode_json(deep)


def test_the_check_for_finite_numbers_costs_next_to_nothing() -> None:
    body = {"messages": [{"role": "user", "content": "hello there " * 40} for _ in range(101)], "temperature": 0.5}

    def best(call: Any) -> float:
        times = []
        for _ in range(30):
            began = time.perf_counter()
            for _ in range(20):
                call()
            times.append(time.perf_counter() - began)
        return min(times)

    import orjson

    assert best(lambda: encode_json(body, unsearched=("messages",))) < 2.0 * best(lambda: orjson.dumps(body))


@pytest.mark.parametrize(
    "body", [b"", b"  \n", b'{"a": 1', b"<html>oops</html>", b"\xff\xfe\xfd", b"{} {}", b'{"a": "\xc3']
)
def test_what_is_not_json_is_a_response_error(body: bytes) -> None:
    with pytest.raises(LLMProviderResponseError) as caught:
        decode_json(body, provider="test", request_id="r1")
    assert caught.value.provider == "test"
    assert caught.value.request_id == "r1"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "the decoder's error carries the whole document"


def test_the_snippet_is_short_and_without_secrets() -> None:
    body = b"<p>\x1b[31m sk-canary-0123456789 \n\n" + b"x" * 100_000
    with pytest.raises(LLMProviderResponseError) as caught:
        decode_json(body, provider="test", secrets=["sk-canary-0123456789"])
    assert "canary" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "<p> [31m *** xxx" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_servers_send_although_json_forbids_it() -> None:
    """An answer that was paid for is not thrown away over a logprob of minus infinity."""
    assert decode_json(b'{"logprob": -Infinity}') == {"logprob": float("-inf")}
    assert decode_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    assert decode_json(b'{"a": "x\\ud83d", "b": ["\\ud83d\\ude00"]}') == {"a": "x\ufffd", "b": ["\U0001f600"]}


def test_nesting_without_end_is_no_recursion_error() -> None:
    for body in (b"[" * 200_000, b"[" * 200_000 + b"]" * 200_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000):
        with pytest.raises(LLMProviderResponseError):
            decode_json(body)


@pytest.mark.parametrize(("body", "said"), [(b"null", "null"), (b"[]", "list"), (b'"text"', "str"), (b"1", "int")])
def test_json_that_is_no_object(body: bytes, said: str) -> None:
    """Bad input 32: not an empty answer that looks well."""
    decode_json(body)
    with pytest.raises(LLMProviderResponseError, match=said):
        decode_object(body, provider="test")
    assert decode_object(b'{"a": 1}') == {"a": 1}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
@settings(deadline=None)
def test_there_and_back(value: Any) -> None:
    assert decode_json(encode_json(value)) == value


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_bytes_either_decode_or_are_a_response_error(body: bytes) -> None:
    told = ""
    try:
        decode_json(body)
    except LLMProviderResponseError as error:
        told = str(error)
    assert len(told) < 500
