"""The table of errors: complete, and what each entry does to a call."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from providers import LLMProviderError, exceptions
from providers.exceptions import (
    BudgetExceededError,
    LLMProviderAuthenticationError,
    LLMProviderBadRequestError,
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    LLMProviderContentFilterError,
    LLMProviderNotFoundError,
    LLMProviderOverloadedError,
    LLMProviderPermissionError,
    LLMProviderQuotaError,
    LLMProviderRateLimitError,
    LLMProviderResponseError,
    LLMProviderServerError,
    LLMProviderStreamError,
    LLMProviderTimeoutError,
    LLMProviderTokenLimitError,
    LLMProviderUnsupportedOperationError,
    MissingCredentialsError,
    MissingDependencyError,
    OutputTruncatedError,
    PluginError,
    ProviderClosedError,
    StructuredOutputError,
    UnknownOptionError,
    UnsupportedParameterError,
)
from providers.routing import RULES, FallbackProvider, rule_of
from providers.testing import ScriptedProvider

from .backend import ask

# kind, whether the next target is asked, whether there is a warning
DOCUMENTED: dict[type[LLMProviderError], tuple[str, bool, bool]] = {
    LLMProviderTokenLimitError: ("context", True, False),
    LLMProviderContentFilterError: ("content", False, False),
    LLMProviderUnsupportedOperationError: ("unsupported", True, False),
    UnsupportedParameterError: ("unsupported", True, False),
    BudgetExceededError: ("budget", False, False),
    MissingCredentialsError: ("credentials", True, True),
    PluginError: ("plugin", True, True),
    MissingDependencyError: ("plugin", True, True),
    ProviderClosedError: ("closed", True, True),
    LLMProviderConfigurationError: ("mistake", False, False),
    UnknownOptionError: ("mistake", False, False),
    LLMProviderQuotaError: ("quota", True, True),
    LLMProviderRateLimitError: ("throttled", True, False),
    LLMProviderAuthenticationError: ("sign-in", True, True),
    LLMProviderPermissionError: ("sign-in", True, True),
    LLMProviderNotFoundError: ("not found", True, True),
    LLMProviderServerError: ("outage", True, False),
    LLMProviderOverloadedError: ("outage", True, False),
    LLMProviderConnectionError: ("outage", True, False),
    LLMProviderTimeoutError: ("late", True, False),
    LLMProviderStreamError: ("cut", True, False),
    StructuredOutputError: ("structure", False, False),
    OutputTruncatedError: ("structure", False, False),
    LLMProviderResponseError: ("nonsense", True, False),
    LLMProviderBadRequestError: ("refused", False, False),
}


def pair(error: Any, **options: Any) -> tuple[FallbackProvider, ScriptedProvider, ScriptedProvider]:
    first = ScriptedProvider(lambda request: error, "a")
    second = ScriptedProvider(lambda request: "fine", "b")
    return FallbackProvider([first, second], max_retries=0, **options), first, second


@pytest.mark.parametrize("kind", DOCUMENTED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("streaming", [False, True])
async def test_each_error_does_what_is_documented(kind: type[LLMProviderError], streaming: bool) -> None:
    name, moves, warns = DOCUMENTED[kind]
    error = kind("it failed")
    assert rule_of(error).kind == name
    fallback, first, second = pair(error)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(2):
            if moves:
                assert (await ask(fallback, streaming=streaming)).content == "fine"
            else:
                with pytest.raises(kind) as caught:
                    await ask(fallback, streaming=streaming)
                assert caught.value is error
    assert len(second.requests) == (2 if moves else 0)
    told = [str(warning.message) for warning in seen if "scripted/a" in str(warning.message)]
    assert len(told) == warns, "once, not at each call"
    assert all("it failed" in text for text in told)
    rests = warns or kind is LLMProviderRateLimitError
    assert fallback.get_model_info()["targets"][0]["state"] == ("open" if rests else "closed")
    assert len(first.requests) == (1 if rests else 2)


def test_no_class_of_the_tree_is_forgotten() -> None:
    concrete = {
        thing
        for thing in vars(exceptions).values()
        if isinstance(thing, type) and issubclass(thing, LLMProviderError) and thing is not LLMProviderError
    }
    named = {cls for rule in RULES for cls in rule.errors}
    untold = {cls for cls in concrete if not issubclass(cls, tuple(named))}
    assert {cls.__name__ for cls in untold} == {"LLMProviderAPIError", "BatchFailedError"}
    shadowed = [
        cls.__name__
        for place, rule in enumerate(RULES)
        for cls in rule.errors
        if any(issubclass(cls, earlier) for before in RULES[:place] for earlier in before.errors)
    ]
    assert shadowed == []


@pytest.mark.parametrize("passing", [False, True])
async def test_what_the_table_does_not_name_moves_on_where_it_may_pass(passing: bool) -> None:
    fallback, _, second = pair(exceptions.LLMProviderAPIError("odd", status_code=418, retryable=passing))
    if passing:
        assert (await ask(fallback)).content == "fine"
    else:
        with pytest.raises(exceptions.LLMProviderAPIError):
            await ask(fallback)
    assert len(second.requests) == passing


async def test_a_refusal_for_its_content_moves_on_where_that_is_allowed() -> None:
    error = LLMProviderContentFilterError("no")
    assert (await ask(pair(error, refused=True)[0])).content == "fine"
    for moves_on, moves in ((lambda error: None, True), (lambda error: False, False)):
        fallback = pair(error, refused=True, moves_on=moves_on)[0]
        if moves:
            assert (await ask(fallback)).content == "fine"
        else:
            with pytest.raises(LLMProviderContentFilterError):
                await ask(fallback)


async def test_a_function_goes_before_the_table() -> None:
    seen: list[LLMProviderError] = []

    def moves_on(error: LLMProviderError) -> bool | None:
        seen.append(error)
        return {LLMProviderBadRequestError: True, LLMProviderServerError: False}.get(type(error))

    assert (await ask(pair(LLMProviderBadRequestError("x"), moves_on=moves_on)[0])).content == "fine"
    with pytest.raises(LLMProviderServerError):
        await ask(pair(LLMProviderServerError("x"), moves_on=moves_on)[0])
    assert (await ask(pair(LLMProviderTimeoutError("x"), moves_on=moves_on)[0])).content == "fine"
    assert [type(error).__name__ for error in seen] == [
        "LLMProviderBadRequestError", "LLMProviderServerError", "LLMProviderTimeoutError"
    ]  # fmt: skip


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_bug_in_a_target_is_that_targets(streaming: bool) -> None:
    fallback, _, _ = pair(ZeroDivisionError("oops"))
    with pytest.warns(UserWarning, match="ZeroDivisionError: oops"):
        assert (await ask(fallback, streaming=streaming)).content == "fine"
    alone = FallbackProvider([ScriptedProvider([ZeroDivisionError("oops")])])
    with pytest.warns(UserWarning, match="oops"), pytest.raises(PluginError, match="oops") as caught:
        await ask(alone, streaming=streaming)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_what_open_raises_is_the_targets_whatever_it_is() -> None:
    class Broken(ScriptedProvider):
        def open(self) -> None:
            raise LLMProviderConfigurationError("there is no such file")

    second = ScriptedProvider(["fine", "fine"])
    fallback = FallbackProvider([Broken(["never"]), second])
    with pytest.warns(UserWarning, match="cannot be opened as it is set up.*no such file"):
        assert (await ask(fallback)).content == "fine"
    assert (await ask(fallback, streaming=True)).content == "fine"


async def test_warnings_that_are_errors_cost_no_answer() -> None:
    fallback, _, _ = pair(LLMProviderAuthenticationError("no"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (await ask(fallback)).content == "fine"
