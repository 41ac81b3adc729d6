"""Schemas and patterns on their way into a grammar, without a model."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_provider_llamacpp.patterns import rewrite
from llm_provider_llamacpp.schema import compile_output, compile_schema
from providers.types import StructuredOutput

# Pieces of patterns as people write them; the law below holds for whatever they are put together to.
_ATOMS = st.sampled_from(
    [
        *(
            "a",
            "Z",
            "7",
            " ",
            "-",
            "_",
            "ä",
            "€",
            "/",
            "'",
            ".",
            r"\d",
            r"\w",
            r"\s",
            r"\D",
            r"\W",
            r"\.",
            r"\-",
            r"\/",
        ),
        *("[abc]", "[^abc]", r"[\w.-]", "[ -~]", r"[^\d]", r"[\x41-\x45]", r"\u00e9", '[^"]', r"[^\\]", "[!-#]"),
        *("[]a]", '"', r"\\", r"\n", r"\b", "^", "$", "(?=a)", r"\1", r"\p{L}"),
    ]
)
_REPEATS = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?"])
_PIECES = st.builds(lambda atom, repeat: atom + repeat, _ATOMS, _REPEATS)
_GROUPS = st.builds(
    lambda left, right, head, tail: f"{head}{''.join(left)}|{''.join(right)}{tail}",
    st.lists(_PIECES, max_size=3),
    st.lists(_PIECES, max_size=3),
    st.sampled_from(["(", "(?:"]),
    st.sampled_from([")", ")+", "){2}"]),
)
PATTERNS = st.builds(
    lambda start, parts, end: start + "".join(parts) + end,
    st.sampled_from(["", "^"]),
    st.lists(_PIECES | _GROUPS, max_size=4),
    st.sampled_from(["", "$"]),
)
TEXTS = st.text(st.sampled_from("aZ7 -_ä€/'.\"\\\nbcDé!#]x") | st.characters(codec="utf-8"), max_size=8)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, TEXTS)
def test_what_a_rewritten_pattern_matches_the_original_matches(pattern: str, text: str) -> None:
    """The law of `rewrite`: narrower is allowed, wider is not; and nothing that JSON would have to escape."""
    found, exact = rewrite(pattern)
    if found is None:
        return
    assert found.startswith("^")
    assert found.endswith("$")
    assert re.compile(found)
    if exact and re.fullmatch(found, text):
        assert re.search(pattern, text, re.ASCII)  # as JSON Schema has it: ECMA's classes are those of ASCII
    for forbidden in ('"', "\\", "\n", "\x7f"):
        assert not re.fullmatch(found, forbidden)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"^a+$", (r"^a+$", True)),
        (r"^\d{2}$", (r"^[0-9]{2}$", True)),
        (r"^(?:ab)?$", (r"^(ab)?$", True)),
        (r"^(?!x)[a-c]$", (r"^[a-c]$", False)),
        (r"^a{1,99999}$", (r"^a{1,1000}$", True)),
        (r"^a{99999}$", (None, False)),
        (r"^(a|)*$", (None, False)),
        (r"^[a-z$", (None, False)),
        (r'^"$', (None, False)),
        (r"^(?<year>\d)\k<year>$", (None, False)),
    ],
)
def test_patterns_one_by_one(pattern: str, expected: tuple[str | None, bool]) -> None:
    """F-040"""
    assert rewrite(pattern) == expected


@pytest.mark.parametrize(
    ("schema", "expected", "noted"),
    [
        (
            {"type": "integer", "minimum": 1.2, "exclusiveMaximum": 4},
            {"type": "integer", "minimum": 2, "maximum": 3},
            "",
        ),
        ({"type": "integer", "minimum": 1e300}, {"type": "integer"}, "minimum"),
        ({"type": "number", "minimum": 0}, {"type": "number"}, "minimum"),
        ({"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 1}, {"enum": [0, 0.5, 1]}, ""),
        ({"type": "string", "format": "date", "maxLength": 3}, {"type": "string", "format": "date"}, "maxLength"),
        ({"type": "string", "minLength": 5000}, {"type": "string", "minLength": 1000}, "minLength above 1000"),
        ({"type": "array", "items": {}, "uniqueItems": True}, {"type": "array", "items": {}}, "uniqueItems"),
        ({"type": "object", "required": ["x"]}, {"type": "object", "required": ["x"]}, "'x' must be there"),
        (
            {"type": "object", "patternProperties": {"^x": {"type": "null"}}, "additionalProperties": False},
            {"type": "object", "additionalProperties": {"type": "null"}},
            "patternProperties",
        ),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, {"anyOf": [{"const": 1}, {"const": 2}]}, "oneOf"),
        ({"anyOf": [{"const": 1}], "not": {"const": 2}}, {"anyOf": [{"const": 1}]}, "not beside anyOf"),
        ({"title": "T", "description": "d", "const": 1}, {"title": "T", "description": "d", "const": 1}, ""),
    ],
)
def test_schemas_one_by_one(schema: dict[str, object], expected: dict[str, object], noted: str) -> None:
    """F-040, F-053"""
    found, notes = compile_schema("T", schema)
    assert found == expected
    assert (noted in notes[0]) if noted else notes == ()
    assert compile_schema("T", {"type": "array", "items": schema})[0]["items"] == expected


def test_the_wire_form() -> None:
    """F-040: the name that was given, with the characters that are allowed; compiled once."""
    output = StructuredOutput(schema={"const": 1}, name="Sentiment Analysis!")
    wire = output.compiled("test", compile_output)
    assert wire.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "Sentiment_Analysis_", "schema": {"const": 1}},
    }
    assert output.compiled("test", compile_output) is wire
    assert compile_output(StructuredOutput()).response_format == {"type": "json_object"}
