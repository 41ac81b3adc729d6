"""The error tree: what each error is besides ours, what it carries, how it travels and reads."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from providers import LLMResponse, Usage, exceptions
from providers.exceptions import (
    LLMProviderConnectionError,
    LLMProviderError,
    LLMProviderRateLimitError,
    LLMProviderTimeoutError,
    translating,
)

ALL = [cls for _, cls in inspect.getmembers(exceptions, inspect.isclass) if issubclass(cls, Exception)]


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("MissingDependencyError", ImportError),
        ("UnknownProviderError", ValueError),
        ("LLMProviderConfigurationError", ValueError),
        ("UnknownOptionError", TypeError),
        ("UnsupportedParameterError", ValueError),
        ("BatchFailedError", RuntimeError),
        ("ProviderClosedError", RuntimeError),
        ("LLMProviderTimeoutError", TimeoutError),
        ("LLMProviderTimeoutError", asyncio.TimeoutError),
        ("LLMProviderConnectionError", ConnectionError),
        ("LLMProviderConnectionError", OSError),
        ("LLMProviderUnsupportedOperationError", NotImplementedError),
        ("StructuredOutputError", ValueError),
    ],
)
def test_promised_builtins(name: str, builtin: type[Exception]) -> None:
    """F-004, F-018, F-028, F-031, F-076, F-123, F-135, F-138, C-06."""
    with pytest.raises(builtin):
        raise getattr(exceptions, name)("x")


def test_the_documented_names() -> None:
    """F-123, F-135."""
    assert exceptions.ResponseTimeoutError is LLMProviderTimeoutError
    for name in ("TokenLimit", "RateLimit", "UnsupportedOperation"):
        assert issubclass(getattr(exceptions, f"LLMProvider{name}Error"), LLMProviderError)


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_each_is_ours_and_stands_in_the_tree_of_the_docstring(cls: type[Exception]) -> None:
    assert issubclass(cls, LLMProviderError)
    assert re.search(rf"\b{cls.__name__}\b", exceptions.__doc__ or "")
    assert cls.__doc__


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = (exceptions.__doc__ or "").split("\n\n")[1].splitlines()
    above: dict[int, type[Exception]] = {}
    seen = set()
    for line in drawn:
        found = re.match(r"    ([|+\- ]*)(\w+)(?: \((\w+)\))?", line)
        assert found, line
        depth, cls = len(found[1]) // 4, getattr(exceptions, found[2])
        above[depth] = cls
        seen.add(cls)
        if depth:
            assert above[depth - 1] in cls.__bases__, line
        if found[3]:
            assert found[3] in [base.__name__ for base in cls.__bases__], line
    assert seen == set(ALL)


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_each_survives_a_journey(cls: type[LLMProviderError]) -> None:
    """Errors cross processes in bulk runs."""
    facts: dict[str, Any] = {
        "provider": "p", "model": "m", "status_code": 429, "code": "c", "request_id": "r", "retryable": True,
        "retry_after": 1.5, "response": LLMResponse("text so far", usage=Usage(1, 2)),
    }  # fmt: skip
    error = cls("what happened", **facts)
    error.attempts, error.usage = 3, Usage(1)
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(back) is cls
        assert {name: getattr(back, name) for name in facts} == facts
        assert (back.message, back.args, str(back)) == ("what happened", ("what happened",), str(error))
        assert (back.attempts, back.usage) == (3, Usage(1))
    empty = pickle.loads(pickle.dumps(cls()))
    assert str(empty) == ""


def test_a_journey_keeps_what_a_subclass_and_a_user_added() -> None:
    error = LLMProviderError("x")
    error.add_note("seen on Tuesday")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["seen on Tuesday"]


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "no"),
        ({"provider": "p"}, "p: no"),
        ({"model": "m"}, "m: no"),
        ({"provider": "p", "model": "m"}, "p/m: no"),
        ({"status_code": 500}, "no (status 500)"),
        ({"provider": "p", "status_code": 500, "request_id": "r1"}, "p: no (status 500, request id r1)"),
    ],
    ids=str,
)
def test_how_it_reads(facts: dict[str, Any], text: str) -> None:
    assert str(LLMProviderError("no", **facts)) == text


def test_an_os_error_reads_like_the_others() -> None:
    """`OSError.__new__` must not take the arguments away."""
    error = LLMProviderConnectionError("refused", provider="p")
    assert str(error) == "p: refused"
    assert error.errno is None
    assert str(LLMProviderTimeoutError("late", provider="p")) == "p: late"
    assert str(exceptions.MissingDependencyError("install x", provider="p")) == "p: install x"


@pytest.mark.parametrize(
    ("name", "retryable"),
    [
        ("LLMProviderError", False),
        ("LLMProviderBadRequestError", False),
        ("LLMProviderTokenLimitError", False),
        ("LLMProviderAuthenticationError", False),
        ("LLMProviderPermissionError", False),
        ("LLMProviderNotFoundError", False),
        ("LLMProviderRateLimitError", True),
        ("LLMProviderQuotaError", False),
        ("LLMProviderServerError", True),
        ("LLMProviderOverloadedError", True),
        ("LLMProviderConnectionError", True),
        ("LLMProviderTimeoutError", True),
        ("LLMProviderResponseError", False),
        ("LLMProviderStreamError", True),
        ("StructuredOutputError", False),
        ("OutputTruncatedError", False),
        ("ProviderClosedError", False),
    ],
)
def test_which_may_pass(name: str, retryable: bool) -> None:
    """F-070: transient errors only; bad input 37, 38."""
    cls = getattr(exceptions, name)
    assert cls("x").retryable is retryable
    assert cls("x", retryable=not retryable).retryable is not retryable


def test_translating_keeps_the_cause_and_names_the_first_match() -> None:
    table = {TimeoutError: LLMProviderTimeoutError, OSError: LLMProviderConnectionError}
    with pytest.raises(LLMProviderTimeoutError) as caught, translating(table, provider="p", model="m"):
        raise TimeoutError("too late")
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert (caught.value.provider, caught.value.model) == ("p", "m")
    assert "too late" in str(caught.value)
    with pytest.raises(LLMProviderConnectionError, match="ConnectionResetError"), translating(table):
        raise ConnectionResetError


def test_translating_lets_the_rest_and_our_own_through() -> None:
    with pytest.raises(KeyError), translating({OSError: LLMProviderConnectionError}):
        raise KeyError("x")
    ours = LLMProviderRateLimitError("x")
    with pytest.raises(LLMProviderRateLimitError) as caught, translating({Exception: LLMProviderConnectionError}):
        raise ours
    assert caught.value is ours
    with pytest.raises(asyncio.CancelledError), translating({Exception: LLMProviderConnectionError}):
        raise asyncio.CancelledError
    with pytest.raises(KeyboardInterrupt), translating({Exception: LLMProviderConnectionError}):
        raise KeyboardInterrupt
    with translating({Exception: LLMProviderConnectionError}):
        pass
