"""Roots that are no objects: what was wrapped comes back as it was, however it is cut into pieces."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.types import StreamEvent, StreamEventType
from providers.unwrap import Unwrapper, Unwrapping, has_object_root, unwrap_whole, with_plain_root, wrap_root

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.sampled_from([None, 1]), st.lists(st.integers(0, 60), max_size=6))
def test_a_wrapped_value_comes_back(value: Any, indent: int | None, cuts: list[int]) -> None:
    text = json.dumps({"value": value}, indent=indent)
    unwrapper, given_out, at = Unwrapper(), "", 0
    for cut in [*sorted(cuts), len(text)]:
        given_out += unwrapper.feed(text[at : max(cut, at)])
        at = max(cut, at)
    given_out += unwrapper.flush()
    assert json.loads(given_out) == value


@given(st.text(), st.lists(st.integers(0, 30), max_size=3))
def test_a_text_that_is_not_wrapped_is_kept(text: str, cuts: list[int]) -> None:
    unwrapper, given_out, at = Unwrapper(), "", 0
    for cut in [*sorted(cuts), len(text)]:
        given_out += unwrapper.feed(text[at : max(cut, at)])
        at = max(cut, at)
    assert given_out + unwrapper.flush() == text


class Words:
    """A decoder: each event is a word, and the last word is an empty one."""

    done = False

    def begin(self, request_id: str | None) -> None:
        self.begun = request_id

    def feed(self, name: str | None, data: bytes) -> list[StreamEvent]:
        self.done = not data
        return [StreamEvent.token(data.decode())] if data else [StreamEvent.finish("stop")]

    def finish(self) -> list[StreamEvent]:
        return [StreamEvent.meta(whole=self.done)]


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ([b'{"val', b'ue": [1,', b" 2]", b"}", b""], ["[1,", " 2]"]),
        ([b"no wrapping", b""], ["no wrapping"]),
        ([b'{"value": 12', b""], ['{"value": 12']),  # cut inside a number: whatever comes, not another number
        ([b'{"value": "cut'], ['"cut']),
    ],
)
def test_a_decoder_without_the_wrapping(words: list[bytes], texts: list[str]) -> None:
    """What is held back at the end comes before the inner decoder's last words."""
    words_of = Words()
    decoder = Unwrapping(words_of)
    decoder.begin("r-1")
    assert words_of.begun == "r-1"
    events = [event for word in words for event in decoder.feed(None, word)]
    assert decoder.done == (words[-1] == b"")
    events += decoder.finish()
    said = [event.data for event in events if event.type is StreamEventType.TOKEN]
    assert said == texts
    assert events[-1] == StreamEvent.meta(whole=decoder.done)


def in_pieces(text: str) -> str:
    unwrapper = Unwrapper()
    return "".join(map(unwrapper.feed, text)) + unwrapper.flush()


def in_one(text: str) -> str:
    return "".join(event.data for event in unwrap_whole([StreamEvent.token(text)]))


@pytest.mark.parametrize("run", [in_pieces, in_one])
def test_long_runs_of_white_space_change_nothing_and_cost_nothing(run: Any) -> None:
    """Models without a bound run into them; whole and streamed answers agree, in time that grows with the text."""
    blank = " \n" * 5000
    value = '"a' + " " * 10_000 + 'b } "'
    started = perf_counter()
    assert run(f'{blank}{{{blank}"value"{blank}:{blank}{value}{blank}}}{blank}') == value
    assert perf_counter() - started < 2


@pytest.mark.parametrize("run", [in_pieces, in_one])
@pytest.mark.parametrize(
    "cut", ['{"value": 12', '{"value":-', '{"value": 1.5e3 ', '{"value"', '{"value":"a', '{"value":[1']
)
def test_an_answer_that_was_cut_is_never_json(run: Any, cut: str) -> None:
    """A stop string or a lost end must not make another number of a number."""
    with pytest.raises(ValueError, match="line 1"):
        json.loads(run(cut))


def test_whole_answers() -> None:
    events = [StreamEvent.token('{"value": [1, 2]}'), StreamEvent.finish("stop")]
    assert unwrap_whole(events) == [StreamEvent.token("[1, 2]"), StreamEvent.finish("stop")]
    cut_off = [StreamEvent.token('{"va'), StreamEvent.finish("length")]
    assert unwrap_whole(cut_off) == cut_off


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object"}, True),
        ({"properties": {}}, True),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}}, True),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "array"}}}, False),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, False),
        ({"anyOf": [{"type": "object"}]}, False),
        ({"enum": ["a"]}, False),
        ({}, False),
    ],
)
def test_which_roots_are_objects(schema: dict[str, Any], expected: bool) -> None:
    assert has_object_root(schema) is expected


def test_a_wrapped_schema_means_the_same() -> None:
    tree = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#"}}]}
    named = {"type": "array", "items": {"$ref": "#/$defs/N"}, "$defs": {"N": {"type": "integer"}}}
    inner = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#/anyOf/0"}}]}
    for schema, good, bad in ((tree, [1, [2, []]], ["x"]), (named, [1], ["x"]), (inner, [1], ["x"])):
        validator = jsonschema_rs.validator_for(wrap_root(schema))
        assert validator.is_valid({"value": good})
        assert not validator.is_valid({"value": bad})


def test_a_root_that_only_refers_is_written_out() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}
    assert with_plain_root({"$ref": "#/$defs/N", "$defs": {"N": node}}) == {**node, "$defs": {"N": node}}
    both = {"$ref": "#/$defs/N", "required": ["a"], "$defs": {"N": {**node, "required": ["b"]}}}
    assert with_plain_root(both) == both
    nowhere = {"$ref": "#/$defs/X"}
    assert with_plain_root(nowhere) == nowhere
