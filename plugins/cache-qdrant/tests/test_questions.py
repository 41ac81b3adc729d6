"""Which requests may have the answer of another wording, and what in a wording must be the same."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_provider_cache_qdrant import literals_of
from llm_provider_cache_qdrant.questions import question_of
from providers.caches import key_of
from providers.types import APIType, Message, Messages, Request, StructuredOutput, ToolCall, ToolSpec
from providers.types.content import image_part

from .conftest import ask

digest_of = partial(key_of, provider="acme", version="1", scope={"base_url": "https://example.org"})
TEXT = "How do I boil an egg?"


def place_of(request: Request, digest: Any = digest_of) -> str:
    question = question_of(request, 500)
    assert question is not None
    found: str = digest(question.rest)
    return found


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Who won the cup in 2018?", "Who won the cup in 2022?"),
        ("What is 5 plus 3?", "What is 3 plus 5?"),
        ("What is 5 + 3?", "What is 5 - 3?"),
        ("Is x greater than y?", "Is y greater than x?"),
        ("Is it true that 3.5 m are enough?", "Is it true that 35 m are enough?"),
        ("Is it true that x < 5 holds?", "Is it true that x > 5 holds?"),
        ("What is -5 degrees like?", "What is 5 degrees like?"),
        ("Is $5 enough for lunch?", "Is €5 enough for lunch?"),
        ("٣ eggs are how much?", "٤ eggs are how much?"),
        ("What is 5² in all?", "What is 52 in all?"),
        ("What does Ⅷ stand for here?", "What does Ⅸ stand for here?"),
        ("What is the capital of France?", "What is the capital of Germany?"),
        ("Flights from Paris to Rome", "Flights from Rome to Paris"),
        ('Translate "dog" to French', 'Translate "cat" to French'),
        ("Translate 'dog' to French", "Translate 'cat' to French"),
        ("Translate «chien» to English", "Translate «chat» to English"),
        ("What does `ls` do here?", "What does `rm` do here?"),
        ("What is at example.org today?", "What is at example.com today?"),
        ("Who is me@example.org?", "Who is you@example.org?"),
        ("What does read_file give back?", "What does read_line give back?"),
        ("Where is /etc/passwd kept?", "Where is /etc/group kept?"),
        ("Why is the sky blue?", "Why is the sky not blue?"),
        ("Can I eat grapes?", "Can't I eat grapes?"),
        ("Warum ist der Himmel blau?", "Warum ist der Himmel nicht blau?"),
        ("Est-ce que je peux manger?", "Est-ce que je ne peux pas manger?"),
        ("May I swim before lunch?", "May I swim after lunch?"),
        ("I feel 🙂 today, why?", "I feel 😢 today, why?"),
        ("What is the NATO about?", "What is the OPEC about?"),
    ],
)
def test_what_must_be_the_same(one: str, two: str) -> None:
    """Digits of any script, signs, names, quotations, addresses, code, and words that turn a question round."""
    assert literals_of(one) != literals_of(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("What are the top five cities?", "What are the top ten cities?"),
        ("How do I boil two eggs?", "How do I boil three eggs?"),
        ("Wie koche ich zwei Eier?", "Wie koche ich drei Eier?"),
        ("Who won the first race?", "Who won the second race?"),
        ("What was the hottest day this year?", "What was the hottest day last year?"),
        ("What is the minimum age to drive?", "What is the maximum age to drive?"),
        ("How tall is the left tower?", "How tall is the right tower?"),
        ("Is it legal to park here?", "Is it illegal to park here?"),
        ("Is this mushroom safe to eat?", "Is this mushroom unsafe to eat?"),
        ("Is this glue toxic to dogs?", "Is this glue non-toxic to dogs?"),
        ("How do I turn on dark mode?", "How do I turn off dark mode?"),
        ("Why can I log in?", "Why cant I log in?"),
    ],
)
def test_what_vectors_hardly_show(one: str, two: str) -> None:
    """A model that is made for embeddings finds such pairs up to 0.98 alike."""
    assert literals_of(one) != literals_of(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("How do I boil an egg?", "How can I boil an egg?"),
        ("What is the capital of France?", "Which city is France's capital?"),
        ("Who wrote Hamlet?", "Who is the author of Hamlet?"),
        ("Who won the cup in 2018?", "In 2018, who won the cup?"),
        ("I'd like tea. What is best?", "Well, I want tea. Which one is best?"),
        ("What is a well-known fish?", "Which fish is known well?"),
        ("Don't we need eggs?", "Do we not need eggs?"),
        ("I dont understand this question", "I don't get this question"),
        ("Which university is under the hill?", "Until when is the university there?"),
    ],
)
def test_what_may_be_said_otherwise(one: str, two: str) -> None:
    assert literals_of(one) == literals_of(two)


@settings(deadline=None, max_examples=80)
@given(st.text(max_size=200), st.text(max_size=200))
def test_texts_that_differ_in_digits_differ(one: str, two: str) -> None:
    """Whatever else they hold."""

    def digits(text: str) -> list[str]:
        return [char for char in text if char.isdecimal()]

    if digits(one) != digits(two):
        found = [[int(c) for word in literals_of(text) for c in word if c.isdecimal()] for text in (one, two)]
        if [int(c) for c in digits(one)] != [int(c) for c in digits(two)]:
            assert found[0] != found[1]
            assert literals_of(one) != literals_of(two)


def test_questions() -> None:
    """A text at the end, alone or after others; what stands before it stays."""
    question = question_of(ask("Hello", TEXT), 500)
    assert question is not None
    assert question.text == TEXT
    assert [message.content for message in question.rest.messages] == ["Hello", ""]
    parts: list[dict[str, Any]] = [{"type": "text", "text": "A recipe"}, {"type": "text", "text": TEXT}]
    question = question_of(ask(Message.user(parts)), 500)
    assert question is not None
    assert question.text == TEXT
    assert [message.content for message in question.rest.messages] == [[parts[0], {"type": "text", "text": ""}]]
    plain = Request("m", Messages.of([{"role": "user", "content": TEXT}]))
    assert place_of(plain) == place_of(ask(TEXT)) == place_of(Request("m", Messages.of("What else is there?")))
    assert question_of(ask("法国的首都是哪里"), 500) is not None


@pytest.mark.parametrize(
    "request_",
    [
        ask(""),
        ask(" \n"),
        ask("dog"),
        ask("two words"),
        ask("5 + 3 = ?"),
        ask("🙂 🙂 🙂"),
        ask("word " * 200),
        ask(TEXT, tools=(ToolSpec("f", "", {"type": "object"}),)),
        ask(TEXT, Message.assistant("An egg is")),
        ask(TEXT, Message.assistant(None, [ToolCall("1", "f", "{}")]), Message.tool_result("1", TEXT)),
        ask(Message.user([image_part("https://example.org/a.png"), {"type": "text", "text": TEXT}])),
        ask(Message.user([{"type": "text", "text": TEXT}, image_part("https://example.org/a.png")])),
        ask(Message.user([{"type": "text", "text": TEXT}, {"type": "file", "file": {"file_id": "1"}}])),
        ask(Message.user([])),
        ask(Message.user(None)),
        ask(Message.assistant(TEXT)),
    ],
    ids=lambda request: str([m.content for m in request.messages])[:50],
)
def test_no_questions(request_: Request) -> None:
    """Tools, pictures, documents, results of tools, prefilled answers, material, single words, nothing at all."""
    assert question_of(request_, 500) is None


_TEXTS = st.text(alphabet=st.characters(codec=None), max_size=30)
_WORDED = _TEXTS.map(lambda text: f"some words here {text}")
_CHANGES = st.one_of(
    st.fixed_dictionaries({"model": _TEXTS}),
    st.fixed_dictionaries({"system": _TEXTS}),
    st.fixed_dictionaries(
        {"params": st.dictionaries(st.sampled_from(["temperature", "seed", "top_p"]), st.integers())}
    ),
    st.fixed_dictionaries({"given": st.frozensets(_TEXTS)}),
    st.fixed_dictionaries({"extras": st.dictionaries(_TEXTS, st.integers() | _TEXTS)}),
    st.fixed_dictionaries({"output": st.just(StructuredOutput())}),
    st.fixed_dictionaries({"api_type": st.sampled_from(APIType)}),
    st.fixed_dictionaries({"previous_response_id": _TEXTS}),
    st.fixed_dictionaries({"on_unsupported": st.sampled_from(["error", "drop"])}),
)


@settings(deadline=None, max_examples=80)
@given(st.lists(_TEXTS, max_size=3), _WORDED, _WORDED, _CHANGES)
def test_another_last_text_has_the_same_place(earlier: list[str], one: str, two: str, changes: dict[str, Any]) -> None:
    """F-107: of any request."""
    before = ask(*earlier, one, **changes)
    assert place_of(before) == place_of(ask(*earlier, two, **changes))
    assert (digest_of(before) == digest_of(ask(*earlier, two, **changes))) == (one == two)


@settings(deadline=None, max_examples=80)
@given(st.lists(_TEXTS, min_size=1, max_size=3), _WORDED, _WORDED, _CHANGES, _TEXTS, st.data())
def test_any_other_change_has_another_place(
    earlier: list[str], one: str, two: str, changes: dict[str, Any], text: str, data: st.DataObject
) -> None:
    """F-107: model, system prompt, earlier messages, parameters, structure, interface, provider, version, scope."""
    plain = ask(*earlier, one)
    other = ask(*earlier, two, **changes)
    # A change that is none, such as the default's own value.
    if digest_of(other.replace(messages=plain.messages)) != digest_of(plain):
        assert place_of(other) != place_of(plain)
    at = data.draw(st.integers(0, len(earlier) - 1))
    if text != earlier[at]:
        assert place_of(ask(*earlier[:at], text, *earlier[at + 1 :], two)) != place_of(plain)
    assert place_of(ask(*earlier, text, two)) != place_of(plain)
    assert place_of(ask(*earlier[1:], two)) != place_of(plain)
    for words in ({"provider": "other"}, {"version": "2"}, {"scope": {}}):
        given_ = {"provider": "acme", "version": "1", "scope": {"base_url": "https://example.org"}, **words}
        assert place_of(ask(*earlier, two), partial(key_of, **given_)) != place_of(plain)
