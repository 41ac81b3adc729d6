"""Events, and their lossless form as server-sent events."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import LLMResponse, StreamEvent, StreamEventType, ToolCall, Usage, format_sse_event
from providers.wire import SSEParser


def read(raw: str) -> list[tuple[str, str]]:
    """What a reader that follows the standard gets: WHATWG HTML, "Interpreting an event stream"."""
    found, event, data = [], "", []
    text = raw.replace("\r\n", "\n").replace("\r", "\n")
    for line in text.split("\n"):
        if not line:
            if data:
                found.append((event, "\n".join(data)))
            event, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event = value
    return found


def test_the_documented_form() -> None:
    """F-074."""
    assert StreamEvent.token("Hello").to_sse() == "event: token\ndata: Hello\n\n"
    assert format_sse_event("token", "Hello") == "event: token\ndata: Hello\n\n"


@given(
    st.text(
        alphabet=st.one_of(st.sampled_from("\n :\u2028\u2029\x85\x0b\x0cde"), st.characters(exclude_characters="\r"))
    )
)
def test_text_with_newlines_is_lossless(text: str) -> None:
    """F-074: leading spaces, blank lines, `data:` inside, a newline at the end."""
    assert read(StreamEvent.token(text).to_sse()) == [("token", text)]


@given(st.text(alphabet="\r\n a", max_size=8))
def test_other_line_ends_become_newlines(text: str) -> None:
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    assert read(StreamEvent.token(text).to_sse()) == [("token", expected)]


def test_our_own_reader_agrees() -> None:
    parser = SSEParser()
    raw = StreamEvent.token("a\n\n b").to_sse() + StreamEvent.usage(Usage(1, 2)).to_sse()
    [(kind, data), (second, _)] = parser.feed(raw.encode())
    assert (str(kind), bytes(data), str(second)) == ("token", b"a\n\n b", "usage")


@pytest.mark.parametrize(
    "event",
    [
        StreamEvent.usage(Usage(1, 2)),
        StreamEvent.tool_start(0, "f", "id"),
        StreamEvent.tool_delta(0, '{"a": "x\ny"}'),
        StreamEvent.tool_call(ToolCall("1", "f", "{}")),
        StreamEvent.finish("stop", model="m"),
        StreamEvent(StreamEventType.DONE, LLMResponse("multi\nline", "m", usage=Usage(1, 2))),
        StreamEvent(StreamEventType.ERROR, {"status": 500, "error": "no\nno"}),
        StreamEvent.meta(odd=object(), bytes=b"x", nested={"u": Usage(1)}, more=[Usage(2)]),
    ],
    ids=lambda event: event.type.value,
)
def test_everything_else_is_one_line_of_json(event: StreamEvent) -> None:
    [(name, data)] = read(event.to_sse())
    assert name == event.type.value
    assert isinstance(json.loads(data), dict)
    assert event.to_sse().count("\n") == 3


def test_types_constructors_and_time() -> None:
    """F-072, F-074: the nine types, and a timestamp of now."""
    assert [kind.value for kind in StreamEventType] == [
        "token", "reasoning", "tool_call_start", "tool_call_delta", "tool_call_end", "meta", "usage", "done", "error",
    ]  # fmt: skip
    before = time.time()
    event = StreamEvent(StreamEventType.TOKEN, "x")
    assert before <= event.timestamp <= time.time()
    assert StreamEvent(StreamEventType.TOKEN, "x", 5.0).timestamp == 5.0
    assert StreamEvent(StreamEventType.TOKEN, "x", 0.0).timestamp == 0.0
    assert event == StreamEvent.token("x")
    assert event != StreamEvent.reasoning("x")
    assert event != "x"
    assert StreamEvent.finish("stop", a=1).data == {"finish_reason": "stop", "a": 1}
    assert str(StreamEventType.TOKEN) == "token"


@pytest.mark.parametrize("value", ["", None, [], {}, 0, False])
def test_empty_data_still_arrives(value: Any) -> None:
    [(_, data)] = read(format_sse_event("x", value))
    assert data == ("" if value == "" else json.dumps(value))


def test_what_json_has_no_word_for_is_sent_as_null() -> None:
    assert format_sse_event("meta", {"a": [float("nan"), float("-inf"), 0.5]}) == (
        'event: meta\ndata: {"a": [null, null, 0.5]}\n\n'
    )
