"""Who is asked first: by weight, by cost, and what is wrong with arguments."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from providers import LLMProviderConfigurationError, LLMProviderServerError
from providers.profiles import ProfileTable
from providers.routing import FallbackProvider
from providers.testing import EchoProvider, ScriptedProvider

from .backend import ask


def down() -> LLMProviderServerError:
    return LLMProviderServerError("down")


def named(*names: str, answer: Any = None) -> list[ScriptedProvider]:
    return [ScriptedProvider(lambda request: answer() if answer else "x", name) for name in names]


async def test_as_they_stand() -> None:
    targets = named("a", "b")
    response = await ask(FallbackProvider(targets))
    assert response.metadata["target"] == "scripted/a"
    assert "attempts" not in response.metadata, "where the first one answers there is nothing to tell"


async def test_by_weight_as_often_as_it_says_and_the_heaviest_next() -> None:
    fallback = FallbackProvider(named("a", "b", "c", "d"), "weighted", weights=[1, 6, 0, 3], rng=Random(5))
    drawn = Counter([(await ask(fallback)).model for _ in range(1000)])
    assert set(drawn) == {"a", "b", "d"}
    assert 60 < drawn["a"] < 140
    assert 540 < drawn["b"] < 660
    dead = FallbackProvider(
        named("a", "b", "c", "d", answer=down), "weighted", weights=[1, 6, 0, 3], max_retries=0, failures=100
    )
    for _ in range(20):
        with pytest.raises(LLMProviderServerError) as caught:
            await ask(dead)
        order = [item["model"] for item in caught.value.failed_attempts or ()] + [caught.value.model]
        assert order[1:] == [name for name in "bdac" if name != order[0]]


async def test_the_same_seed_draws_the_same() -> None:
    rows = [
        [(await ask(fallback)).model for _ in range(20)]
        for fallback in (FallbackProvider(named("a", "b"), "weighted", rng=Random(3)) for _ in range(2))
    ]
    assert rows[0] == rows[1]
    assert set(rows[0]) == {"a", "b"}


PRICES = {"cheap-in": (1, 100), "cheap-out": (10, 1), "free": (0, 0), "half-known": (1, None)}


class Priced(ScriptedProvider):
    name = "priced"
    profiles = ProfileTable()


Priced.profiles._own = {
    "models": {
        name: {"input_price": read, **({} if written is None else {"output_price": written})}
        for name, (read, written) in PRICES.items()
    }
}


def priced(*names: str) -> list[Priced]:
    return [Priced(lambda request: "x", name) for name in names]


@pytest.mark.parametrize("streaming", [False, True])
async def test_the_cheapest_for_this_call(streaming: bool) -> None:
    """By the prompt's length and max_tokens; unknown prices come last, equal ones as they stand."""
    fallback = FallbackProvider(priced("half-known", "unknown", "cheap-in", "cheap-out"), "cheapest")
    assert (await ask(fallback, "long " * 3000, max_tokens=10, streaming=streaming)).model == "cheap-in"
    assert (await ask(fallback, "short", max_tokens=500, streaming=streaming)).model == "cheap-out"
    assert (await ask(fallback, "short", streaming=streaming)).model == "cheap-out", "1000 where nobody says"
    first = FallbackProvider(priced("cheap-in", "unknown", "free"), "cheapest")
    assert (await ask(first, streaming=streaming)).model == "free"
    assert (await ask(FallbackProvider(priced("unknown", "half-known"), "cheapest"))).model == "unknown"
    inner = FallbackProvider(priced("unknown", "free"), "cheapest")
    assert (await ask(FallbackProvider([*priced("cheap-out"), inner], "cheapest"))).model == "free"


async def test_the_targets_own_max_tokens_is_no_word_of_the_call() -> None:
    targets = priced("cheap-in", "cheap-out")
    for target in targets:
        target.update_config(max_tokens=1)
    fallback = FallbackProvider(targets, "cheapest")
    assert (await ask(fallback, "short")).model == "cheap-out"
    assert (await ask(fallback, "short", max_tokens=1)).model == "cheap-in"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"targets": []}, "at least one provider"),
        ({}, "at least one provider"),
        ({"targets": ["fast"]}, "target 0 must be a provider, not str; names are taken by create_llm_provider"),
        ({"targets": "fast"}, "must be a list of providers"),
        ({"targets": EchoProvider()}, "must be a list of providers"),
        ({"targets": [EchoProvider], "choice": "ordered"}, "not type"),
        ({"choice": "sometimes"}, "'ordered', 'weighted', 'cheapest'"),
        ({"weights": [1]}, "one figure for each target, 2, not 1"),
        ({"weights": [0, 0]}, "not all be 0"),
        ({"weights": [1, -1]}, "weights"),
        ({"weights": [1, float("nan")]}, "weights"),
        ({"weights": [1, float("inf")]}, "weights"),
        ({"failures": 0}, "failures"),
        ({"failures": 2.5}, "failures"),
        ({"cooldown": -1}, "cooldown"),
        ({"replay": "yes"}, "replay must be true or false"),
        ({"refused": 1}, "refused must be true or false"),
        ({"own": "all"}, "own"),
        ({"labels": ["a"]}, "labels"),
        ({"labels": ["a", ""]}, "labels"),
        ({"temprature": 1}, "did you mean 'temperature'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], said: str) -> None:
    if "targets" not in arguments and arguments:
        arguments = {"targets": [EchoProvider(), EchoProvider()], **arguments}
    with pytest.raises(LLMProviderConfigurationError, match=said):
        FallbackProvider(**arguments)


async def test_equal_targets_have_names_of_their_own() -> None:
    names = [target.label for target in FallbackProvider([EchoProvider()] * 3, labels=["a #2", "a", "a"])._targets]
    assert len(set(names)) == 3, "what did not fit one of them is held against it by its name"
    fallback = FallbackProvider([EchoProvider(), EchoProvider(), EchoProvider("x")], labels=[None, None, "mine"])
    assert [target["target"] for target in fallback.get_model_info()["targets"]] == [
        "echo/echo",
        "echo/echo #2",
        "mine",
    ]
    assert repr(fallback) == "<FallbackProvider fallback/echo/echo | echo/echo #2 | mine>"
