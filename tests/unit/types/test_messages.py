"""Messages: every spelling, a fast path that equals the slow one, bad shapes named by their place."""

from __future__ import annotations

import copy
import json
import time
import warnings
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import LLMProviderConfigurationError, Message, Messages, Role, ToolCall, normalize_messages
from providers.types.messages import _read

plain_dicts = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant"]),
        "content": st.text(max_size=20),
    }
)


def slow(items: list[dict[str, Any]]) -> Messages:
    return Messages(_read(item, place) for place, item in enumerate(items))


# --- the fast path and the slow one


@given(st.lists(plain_dicts, min_size=1, max_size=8))
def test_the_fast_path_equals_the_slow_one(items: list[dict[str, Any]]) -> None:
    """F-119."""
    fast, other = Messages.of(items), slow(items)
    assert fast.plain is not None
    assert other.plain is None
    assert fast == other
    assert hash(fast) == hash(other)
    assert list(fast) == list(other)
    assert len(fast) == len(other) == len(items)
    assert fast.last_text == other.last_text
    (fast_system, fast_rest), (slow_system, slow_rest) = fast.split_system(), other.split_system()
    assert fast_system == slow_system
    assert fast_rest == slow_rest
    assert len(fast_rest) == len(slow_rest)


@given(st.lists(plain_dicts, min_size=1, max_size=5))
def test_what_goes_in_comes_out(items: list[dict[str, Any]]) -> None:
    assert [message.to_dict() for message in Messages.of(items)] == items


@given(st.lists(plain_dicts, min_size=1, max_size=5))
def test_the_callers_dicts_are_not_changed_and_the_list_is_not_kept(items: list[dict[str, Any]]) -> None:
    """Bad input 29. The dicts themselves are shared: to copy them would cost a long talk as much as checking it."""
    before = copy.deepcopy(items)
    messages, untouched = Messages.of(items), Messages.of(items)
    messages.split_system()
    list(messages)
    assert items == before
    items.append({"role": "user", "content": "more"})
    items[0] = {"role": "user", "content": "another"}
    assert [message.to_dict() for message in messages] == before
    assert untouched.plain == before
    assert list(untouched) == list(messages)


def test_messages_with_more_than_text_leave_the_callers_dicts_alone() -> None:
    """Bad input 29."""
    items = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "tool_call_id": "1", "content": "r"},
    ]
    before = copy.deepcopy(items)
    messages = Messages.of(items)
    messages.split_system()
    assert items == before


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "a", "name": "n"},
        {"role": "tool", "content": "a", "tool_call_id": "1"},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None},
        {"role": "developer", "content": "a"},
        MappingProxyType({"role": "user", "content": "a"}),
        type("Text", (str,), {})("a"),
        Message.user("a"),
        "a",
    ],
    ids=str,
)
def test_what_is_not_plain_takes_the_slow_path(item: Any) -> None:
    assert Messages.of([{"role": "user", "content": "x"}, item]).plain is None


def test_ten_thousand_messages_are_quick() -> None:
    """Bad input 25."""
    items = [{"role": "user", "content": "hello"}] * 10_000
    started = time.perf_counter()
    assert len(Messages.of(items)) == 10_000
    assert time.perf_counter() - started < 0.5


# --- spellings


@pytest.mark.parametrize(
    "value",
    [
        "hi",
        {"role": "user", "content": "hi"},
        {"role": Role.USER, "content": "hi"},
        Message.user("hi"),
        ["hi"],
        [Message.user("hi")],
        ({"role": "user", "content": "hi"},),
        [MappingProxyType({"role": "human", "content": "hi"})],
        Messages.of("hi"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_spelling_gives_the_same_message(value: Any) -> None:
    """F-064, F-119."""
    assert normalize_messages(value) == [Message(Role.USER, "hi")]


def test_a_generator_and_a_conversation_are_read() -> None:
    class Conversation:
        def get_messages(self) -> list[Message]:
            return [Message.user("hi")]

    assert normalize_messages(text for text in ["a", "b"]) == [Message.user("a"), Message.user("b")]
    assert normalize_messages(Conversation()) == [Message.user("hi")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("word", "role"),
    [
        ("system", Role.SYSTEM),
        ("developer", Role.SYSTEM),
        ("user", Role.USER),
        ("human", Role.USER),
        ("assistant", Role.ASSISTANT),
        ("model", Role.ASSISTANT),
        ("ai", Role.ASSISTANT),
    ],
)
def test_roles_are_known_by_their_other_names(word: str, role: Role) -> None:
    assert Message.from_dict({"role": word, "content": "x"}).role is role


def test_the_constructors_and_the_dict_agree() -> None:
    """F-119: fields, constructors, round trip."""
    call = ToolCall("1", "f", '{"a": 1}')
    for message in (
        Message.user("a", name="n"),
        Message.assistant("b", [call]),
        Message.assistant(None, [call]),
        Message.system("s"),
        Message.tool_result("1", "r", "f"),
        Message(Role.ASSISTANT, "c", reasoning="because", provider_data={"signature": "x"}),
    ):
        assert Message.from_dict(message.to_dict()) == message
        assert Message.from_dict(json.loads(json.dumps(message.to_dict()))) == message


def test_text_parts_are_joined_and_others_left_out() -> None:
    message = Message.user(
        [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": "x"}},
            {"type": "input_text", "text": "b"},
        ]
    )
    assert message.text == "ab"


@pytest.mark.parametrize("text", ["\u2028", "\x00", "\u202eabc", "🦆", "e\u0301", "\ud83d", " ", "\n"])
def test_text_arrives_as_it_is(text: str) -> None:
    """Bad input 24."""
    assert Messages.of([{"role": "user", "content": text}])[0].content == text
    assert Messages.of(text)[0].content == text


def test_leading_system_messages_are_split_off() -> None:
    messages = Messages.of(
        [
            {"role": "system", "content": "a"},
            {"role": "system", "content": "b"},
            {"role": "user", "content": "c"},
            {"role": "system", "content": "d"},
        ]
    )
    system, rest = messages.split_system()
    assert system == "a\n\nb"
    assert [message.content for message in rest] == ["c", "d"]


def test_only_a_system_message_leaves_an_empty_conversation() -> None:
    """Bad input 23: no IndexError."""
    system, rest = Messages.of([{"role": "system", "content": "a"}]).split_system()
    assert system == "a"
    assert len(rest) == 0
    assert list(rest) == []
    assert rest.last_text == ""


# --- bad shapes


@pytest.mark.parametrize(
    "value",
    [[], (), iter([]), Messages(), None, 5, b"bytes", bytearray(b"x"), 1.5, object()],
    ids=lambda value: type(value).__name__,
)
def test_no_messages_or_no_such_thing(value: Any) -> None:
    """Bad input 23, 30."""
    with pytest.raises(LLMProviderConfigurationError, match=r"message"):
        Messages.of(value)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"role": "wizard", "content": "x"}, "wizard"),
        ({"role": None, "content": "x"}, "None"),
        ({"role": 5, "content": "x"}, "5"),
        ({"role": ["user"], "content": "x"}, "user"),
        ({"content": "x"}, "role"),
        ({}, "role"),
        ({"role": "user", "content": 5}, "int"),
        ({"role": "user", "content": {"a": 1}}, "dict"),
        ({"role": "user", "content": b"x"}, "bytes"),
        ({"role": "user", "content": (part for part in "ab")}, "generator"),
        ({"role": "user", "content": ["x"]}, "part"),
        ({"role": "user", "content": [{"text": "x"}]}, "type"),
        ({"role": "user", "content": [{"type": None}]}, "type"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "tool", "content": "x", "tool_call_id": ""}, "tool_call_id"),
        ({"role": "tool", "content": "x", "tool_call_id": 5}, "tool_call_id"),
        ({"role": "assistant", "tool_calls": "x"}, "tool call"),
        ({"role": "assistant", "tool_calls": 5}, "tool_calls"),
        ({"role": "assistant", "tool_calls": {"name": "f"}}, "tool_calls"),
        ({"role": "assistant", "tool_calls": [5]}, "tool call"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "name"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": {1, 2}}]}, "arguments"),
        (5, "int"),
        (None, "NoneType"),
        (b"x", "bytes"),
        (["user", "x"], "list"),
        (Message("wizard", "x"), "wizard"),  # type: ignore[arg-type]
        (Message(Role.USER, 5), "int"),  # type: ignore[arg-type]
        (Message(Role.USER, [{"text": "x"}]), "type"),
        (Message(Role.TOOL, "x"), "tool_call_id"),
    ],
    ids=str,
)
def test_a_bad_message_is_named_by_its_place(bad: Any, said: str) -> None:
    """Bad input 26, 30: before any request."""
    with pytest.raises(LLMProviderConfigurationError, match=rf"message 2\b.*{said}"):
        Messages.of([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, bad])


def test_a_generator_that_raises_half_way_raises_that() -> None:
    def half() -> Any:
        yield "a"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        Messages.of(half())


def test_a_role_of_plain_text_in_a_message_is_read_where_it_is_known() -> None:
    assert Role("user") is Role.USER
    assert str(Role.USER) == "user"
    assert Messages.of([Message("human", "x"), {"role": "user", "content": "y"}])[0].role is Role.USER  # type: ignore[arg-type]


# --- nothing vanishes


def test_keys_that_are_not_known_are_named_with_their_place() -> None:
    """What somebody put into a message is sent or reported."""
    marked = {"role": "user", "content": "b", "cache_control": {"type": "ephemeral"}, "audio": {"id": "x"}}
    with pytest.warns(UserWarning, match=r"^message 1 has keys .* not sent: cache_control, audio$") as caught:
        messages = Messages.of([{"role": "user", "content": "a"}, marked])
    assert len(caught) == 1
    assert messages[1] == Message.user("b")
    for value in (False, 0, "no"):
        with pytest.warns(UserWarning, match="a message has keys .*: refusal"):
            Message.from_dict({"role": "assistant", "content": "a", "refusal": value})


def test_keys_that_say_nothing_are_no_loss() -> None:
    """The dict of an SDK's message holds these beside what was said."""
    nothing = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None, "x": {}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Messages.of([{"role": "assistant", "content": "a", **nothing}])[0] == Message.assistant("a")
        Messages.of([Message(Role.ASSISTANT, "c", [ToolCall("1", "f")], None, "n", "because", {"a": 1}).to_dict()])


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text"},
        {"type": "text", "text": None},
    ],
    ids=str,
)
def test_a_system_message_with_more_than_text_stays_among_the_messages(part: dict[str, Any]) -> None:
    items = [
        {"role": "system", "content": "a"},
        {"role": "system", "content": [{"type": "text", "text": "b"}, part]},
        {"role": "system", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    system, rest = Messages.of(items).split_system()
    assert system == "a"
    assert [message.to_dict() for message in rest] == items[1:]
    system, rest = Messages.of(items[1:]).split_system()
    assert system is None
    assert [message.to_dict() for message in rest] == items[1:]


def test_a_system_message_of_plain_parts_is_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    system, rest = Messages.of([{"role": "system", "content": parts}, "c"]).split_system()
    assert system == "ab"
    assert rest == Messages.of("c")
    named = {"role": "system", "content": "a", "name": "n"}
    assert Messages.of([named, "c"]).split_system()[0] is None
