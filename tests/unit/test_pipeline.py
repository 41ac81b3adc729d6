"""Handlers, layers and the assembler: one answer spelled from events, however they come."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import (
    APIType,
    LLMProviderContentFilterError,
    Messages,
    Request,
    StreamEvent,
    StreamEventType,
    StructuredOutput,
    StructuredOutputError,
    ToolCall,
    Usage,
)
from providers.pipeline import Assembler, CallPlaces, Handler, compose, fold, make_call_id
from providers.testing import ScriptedProvider

START, DELTA, END = StreamEventType.TOOL_CALL_START, StreamEventType.TOOL_CALL_DELTA, StreamEventType.TOOL_CALL_END


def request(**fields: Any) -> Request:
    return Request("m", Messages.of("hi"), **fields)


def pushed(events: list[StreamEvent]) -> tuple[list[StreamEvent], Any]:
    assembler = Assembler(request(), "p")
    shown = [shown for event in events for shown in assembler.push(event)]
    shown += assembler.flush()
    return shown, assembler.response()


# --- layers


async def test_the_first_layer_is_the_outermost() -> None:
    trail: list[str] = []

    def layer(name: str) -> Any:
        async def wrap(request: Request, inner: Handler) -> AsyncIterator[StreamEvent]:
            trail.append(f"+{name}")
            async for event in inner(request.replace(model=request.model + name)):
                yield event
            trail.append(f"-{name}")

        return wrap

    async def handler(request: Request) -> AsyncIterator[StreamEvent]:
        yield StreamEvent.token(request.model)

    events = [event.data async for event in compose([layer("a"), layer("b")], handler)(request())]
    assert events == ["mab"]
    assert trail == ["+a", "+b", "-b", "-a"]
    assert compose([], handler) is handler


# --- the assembler


def test_all_kinds_of_events_become_fields() -> None:
    """F-072, F-134."""
    response = fold(
        [
            StreamEvent.meta(model="m-2024", response_id="r1", weather="fine", params={"sent": {"a": 1}}),
            StreamEvent.reasoning("be"),
            StreamEvent.reasoning("cause"),
            StreamEvent.token("Hel"),
            StreamEvent.token(""),
            StreamEvent.token("lo"),
            StreamEvent.usage(Usage(1, 1)),
            StreamEvent.usage(Usage(1, 2, input_tokens_cached=1)),
            StreamEvent.finish("stop", provider_data={"a": 1}, params={"left_out": {}}),
            StreamEvent.meta(provider_data={"b": 2}, api_type=APIType.RESPONSES),
        ],
        request(),
        "p",
    )
    assert (response.content, response.reasoning, response.model, response.provider_type) == (
        "Hello",
        "because",
        "m-2024",
        "p",
    )
    assert (response.response_id, response.finish_reason, response.api_type) == ("r1", "stop", APIType.RESPONSES)
    # Counters are cumulative: the last one stands, they never add.
    assert response.usage == Usage(1, 2, input_tokens_cached=1)
    assert response.metadata == {"weather": "fine", "params": {"sent": {"a": 1}, "left_out": {}}}
    assert response.provider_data == {"a": 1, "b": 2}
    assert response.tool_calls is None
    assert response.ok


def test_what_is_not_said_is_unknown() -> None:
    response = fold([], request(), "p")
    assert (response.content, response.model, response.finish_reason, response.usage) == ("", "m", None, Usage())
    assert response.reasoning is None


def test_the_order_start_delta_end_holds_for_each_call() -> None:
    """F-073: interleaved parallel calls."""
    shown, response = pushed(
        [
            StreamEvent.tool_start(0, "a", "1"),
            StreamEvent.tool_start(1, "b", "2"),
            StreamEvent.tool_delta(1, '{"y":'),
            StreamEvent.tool_delta(0, '{"x":1}'),
            StreamEvent.tool_delta(1, "2}"),
        ]
    )
    for place in ("1", "2"):
        kinds = [event.type for event in shown if event.data.id == place]
        assert kinds[0] is START
        assert kinds[-1] is END
        assert set(kinds[1:-1]) == {DELTA}
    assert [(call.id, call.name, call.arguments) for call in response.tool_calls] == [
        ("1", "a", '{"x":1}'),
        ("2", "b", '{"y":2}'),
    ]


def test_a_delta_without_a_start_gets_one() -> None:
    shown, response = pushed([StreamEvent.tool_delta(0, "{}")])
    assert [event.type for event in shown] == [START, DELTA, END]
    [call] = response.tool_calls
    assert call.id


def test_a_call_without_arguments_has_an_empty_object() -> None:
    """Bad input 53."""
    _, response = pushed([StreamEvent.tool_start(0, "now", "1")])
    assert response.tool_calls[0].parse_arguments() == {}
    assert response.tool_calls[0].arguments == "{}"


def test_whole_calls_are_shown_in_the_promised_order() -> None:
    shown, response = pushed(
        [StreamEvent.tool_call(ToolCall("1", "f", '{"a":1}')), StreamEvent.tool_call(ToolCall("2", "f"))]
    )
    assert [event.type for event in shown] == [START, DELTA, END, START, DELTA, END]
    assert [call.id for call in response.tool_calls] == ["1", "2"]


def test_calls_without_ids_get_ids_that_differ() -> None:
    """F-072, C-18, bad input 53: backends that send none."""
    shown, response = pushed(
        [StreamEvent.tool_call(ToolCall("", "f", "{}")), StreamEvent.tool_call(ToolCall("", "f", "{}"))]
    )
    ids = [call.id for call in response.tool_calls]
    assert all(ids)
    assert len(set(ids)) == 2
    assert [event.data.id for event in shown] == [ids[0]] * 3 + [ids[1]] * 3


def test_an_end_without_id_ends_the_call_that_began_without_one() -> None:
    """A backend without ids that streams its calls makes one call of START, DELTA and END, not two."""
    shown, response = pushed(
        [
            StreamEvent.tool_start(0, "f"),
            StreamEvent.tool_delta(0, '{"a":1}'),
            StreamEvent.tool_call(ToolCall("", "f", '{"a":1}')),
            StreamEvent.tool_call(ToolCall("", "f", '{"a":2}')),
        ]
    )
    assert [call.arguments for call in response.tool_calls] == ['{"a":1}', '{"a":2}']
    assert [event.type for event in shown] == [START, DELTA, END, START, DELTA, END]
    assert len({call.id for call in response.tool_calls}) == 2


def test_an_event_that_is_given_out_twice_is_two_calls() -> None:
    event = StreamEvent.tool_call(ToolCall("", "f", ""))
    one, two = fold([event], request()), fold([event], request())
    assert one.tool_calls[0].id != two.tool_calls[0].id
    assert event.data == ToolCall("", "f", "")


def test_made_ids_differ_between_processes_too(python: Any) -> None:
    """Bad input 26: a conversation that is continued elsewhere must not pair a result with the wrong call."""
    code = "from providers.pipeline import make_call_id; print(make_call_id())"
    ids = {python(code).stdout for _ in range(2)}
    assert len(ids) == 2
    assert make_call_id() != make_call_id()


def test_a_call_whose_end_repeats_it_is_one_call() -> None:
    shown, response = pushed(
        [
            StreamEvent.tool_start(0, "f", "1"),
            StreamEvent.tool_delta(0, '{"a":'),
            StreamEvent.tool_delta(0, "1}"),
            StreamEvent.tool_call(ToolCall("1", "f", '{"a":1}', {"signature": "s"})),
        ]
    )
    assert [event.type for event in shown] == [START, DELTA, DELTA, END]
    assert response.tool_calls == [ToolCall("1", "f", '{"a":1}', {"signature": "s"})]


def test_a_name_that_comes_late_is_taken() -> None:
    _, response = pushed([StreamEvent.tool_start(0, None, "1"), StreamEvent.tool_start(0, "f", "1")])
    assert [call.name for call in response.tool_calls] == ["f"]


@given(st.data())
def test_feeding_and_pushing_spell_the_same_answer(data: st.DataObject) -> None:
    """Streaming and non-streaming cannot disagree."""
    kinds = st.one_of(
        st.text(max_size=5).map(StreamEvent.token),
        st.text(max_size=5).map(StreamEvent.reasoning),
        st.tuples(st.integers(0, 3), st.sampled_from(["f", None])).map(
            lambda t: StreamEvent.tool_start(t[0], t[1], f"id{t[0]}")
        ),
        st.tuples(st.integers(0, 3), st.text(max_size=3)).map(lambda t: StreamEvent.tool_delta(*t)),
        st.builds(Usage, st.none() | st.integers(0, 9), st.none() | st.integers(0, 9)).map(StreamEvent.usage),
        st.dictionaries(st.sampled_from(["model", "finish_reason", "x"]), st.text(max_size=3)).map(
            lambda facts: StreamEvent.meta(**facts)
        ),
    )
    events = data.draw(st.lists(kinds, max_size=20))
    whole = fold(events, request(), "p")
    shown, streamed = pushed(events)
    if whole.tool_calls:
        for one, two in zip(whole.tool_calls, streamed.tool_calls, strict=True):
            one.id = two.id if not one.id.startswith("id") else one.id
    assert streamed == whole
    assert "".join(event.data for event in shown if event.type is StreamEventType.TOKEN) == whole.content
    # What a consumer of the stream puts together from the deltas is what the answer says.
    pieces: dict[int, str] = {}
    for event in shown:
        if event.type is DELTA:
            pieces[event.data.index] = pieces.get(event.data.index, "") + event.data.arguments
    for place, call in zip(
        sorted({event.data.index for event in shown if event.type is START}), whole.tool_calls or (), strict=True
    ):
        assert call.arguments == (pieces.get(place) or "{}")
    started = [event.data.id for event in shown if event.type is START]
    ended = [event.data.id for event in shown if event.type is END]
    assert sorted(started) == sorted(ended)
    assert len(set(started)) == len(started)


async def test_usage_comes_before_done_and_done_has_it() -> None:
    """F-073."""
    provider = ScriptedProvider([[StreamEvent.token("a"), StreamEvent.usage(Usage(1, 2)), StreamEvent.finish("stop")]])
    events = [event async for event in provider.stream("hi")]
    assert [event.type.value for event in events] == ["token", "usage", "meta", "done"]
    assert events[-1].data.usage.total_tokens == 3


def test_a_filtered_or_refused_answer_is_told_as_such() -> None:
    output = StructuredOutput()
    with pytest.raises(LLMProviderContentFilterError) as caught:
        fold([StreamEvent.token("x"), StreamEvent.finish("content_filter")], request(output=output))
    assert caught.value.response.content == "x"
    with pytest.raises(StructuredOutputError, match="I cannot"):
        fold([StreamEvent.finish("stop", refusal="I cannot")], request(output=output))


def test_an_answer_that_calls_tools_is_not_parsed() -> None:
    response = fold([StreamEvent.tool_call(ToolCall("1", "f"))], request(output=StructuredOutput()))
    assert response.parsed is None


def test_what_the_backend_parsed_itself_stands() -> None:
    response = fold(
        [StreamEvent.token("not json"), StreamEvent.meta(parsed={"a": 1})], request(output=StructuredOutput())
    )
    assert response.parsed == {"a": 1}


# --- which call a piece belongs to


class Piece:
    def __init__(self, call: int, id: str | None, index: int | None, name: str | None, text: str) -> None:
        self.call, self.id, self.index, self.name, self.text = call, id, index, name, text


def pieces_of(call: int, cuts: list[str], style: str) -> Iterator[Piece]:
    for at, text in enumerate(cuts):
        first = at == 0
        id, name, index = f"id-{call}", "f" if first else None, call
        if style == "id and index each time":
            yield Piece(call, id, index, name, text)
        elif style == "id first, index each time":
            yield Piece(call, id if first else None, index, name, text)
        elif style == "id second":
            yield Piece(call, id if at == 1 else None, index, name, text)
        elif style == "id each time, index 0":
            yield Piece(call, id, 0, name, text)
        elif style == "id first, index 0":
            yield Piece(call, id if first else None, 0, name, text)
        elif style == "id each time":
            yield Piece(call, id, None, name, text)
        elif style == "id first":
            yield Piece(call, id if first else None, None, name, text)
        elif style == "index each time":
            yield Piece(call, None, index, name, text)
        elif style == "empty id":
            yield Piece(call, id if first else "", index, name, text)
        else:
            assert style == "name first"
            yield Piece(call, None, None, name, text)


INTERLEAVED = [
    "id and index each time",
    "id first, index each time",
    "id second",
    "id each time, index 0",
    "id each time",
    "index each time",
    "empty id",
]
IN_ROWS = [*INTERLEAVED, "id first, index 0", "id first", "name first"]


def reassembled(pieces: list[Piece]) -> tuple[list[str], dict[int, int]]:
    places, texts, owners = CallPlaces(), {}, {}
    for piece in pieces:
        place, new = places.place(piece.id, piece.index, piece.name)
        assert new == (place not in texts)
        texts[place] = texts.get(place, "") + piece.text
        owners.setdefault(piece.call, place)
        assert owners[piece.call] == place
    assert sorted(texts) == list(range(len(texts)))
    return [texts[place] for place in sorted(texts)], owners


@given(
    st.lists(st.lists(st.text(alphabet="abc", max_size=3), min_size=1, max_size=5), min_size=1, max_size=5),
    st.sampled_from(IN_ROWS),
)
def test_calls_one_after_another_come_together(calls: list[list[str]], style: str) -> None:
    """Bad input 53; users: streamed parallel tool calls merged or lost."""
    pieces = [piece for number, cuts in enumerate(calls) for piece in pieces_of(number, cuts, style)]
    texts, _ = reassembled(pieces)
    assert texts == ["".join(cuts) for cuts in calls]


@given(
    st.lists(st.lists(st.text(alphabet="abc", max_size=3), min_size=1, max_size=5), min_size=1, max_size=5),
    st.sampled_from(INTERLEAVED),
    st.randoms(use_true_random=False),
)
def test_interleaved_calls_come_together(calls: list[list[str]], style: str, rng: random.Random) -> None:
    """Bad input 53."""
    rows = [list(pieces_of(number, cuts, style)) for number, cuts in enumerate(calls)]
    pieces = []
    while any(rows):
        row = rng.choice([row for row in rows if row])
        pieces.append(row.pop(0))
    texts, owners = reassembled(pieces)
    assert {number: texts[place] for number, place in owners.items()} == {
        n: "".join(cuts) for n, cuts in enumerate(calls)
    }


def test_a_stray_piece_before_any_call_begins_one() -> None:
    assert CallPlaces().place(None, None, None) == (0, True)


# --- calls that share an id


async def test_two_whole_calls_of_one_id_are_two_calls() -> None:
    """Bad input 53: some servers number no call; each is whole, and each has an id of its own."""
    calls = [ToolCall("get_weather", "get_weather", f'{{"city":"{city}"}}') for city in ("Paris", "Rome")]
    response = fold([StreamEvent.tool_call(call) for call in calls], request())
    assert [call.arguments for call in response.tool_calls or []] == ['{"city":"Paris"}', '{"city":"Rome"}']
    assert len({call.id for call in response.tool_calls or []}) == 2


def test_one_id_under_two_indices_with_a_name_is_two_calls() -> None:
    """The same in a stream; a repeated id at its own index is the same call."""
    places = CallPlaces()
    assert places.place("w", 0, "get_weather") == (0, True)
    assert places.place("w", 0, None) == (0, False)
    assert places.place("w", 1, "get_weather") == (1, True)
    assert places.place(None, 1, None) == (1, False)
    assert places.place(None, 0, None) == (0, False)
