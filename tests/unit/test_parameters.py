"""Parameters on their way to the wire: sent, mapped or reported, never dropped silently."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from providers import (
    LLMConfig,
    LLMProvider,
    LLMProviderUnsupportedOperationError,
    Messages,
    Request,
    StreamEvent,
    UnsupportedParameterError,
    UnsupportedParameterWarning,
)
from providers.parameters import map_params, report_left_out
from providers.types.config import PARAMETERS

TABLE = {
    "temperature": "temperature",
    "max_tokens": "max_out",
    "stop": lambda body, value: body.update(nested={"stop": value}),
}


def request(params: dict[str, Any], given: set[str] | None = None, **fields: Any) -> Request:
    return Request("m", Messages.of("hi"), params=params, given=frozenset(params if given is None else given), **fields)


def test_each_is_sent_under_its_name_on_the_wire() -> None:
    """F-042."""
    body: dict[str, Any] = {"model": "m"}
    found = map_params(request({"temperature": 0.0, "max_tokens": 1, "stop": []}), TABLE, body)
    assert body == {"model": "m", "temperature": 0.0, "max_out": 1, "nested": {"stop": []}}
    assert found == {"sent": {"temperature": 0.0, "max_out": 1, "nested": {"stop": []}}, "left_out": {}}


def test_extras_come_last_and_win() -> None:
    """F-007."""
    body: dict[str, Any] = {}
    found = map_params(request({"max_tokens": 1}, extras={"top_k": 0, "max_out": 9}), TABLE, body)
    assert body == {"max_out": 9, "top_k": 0}
    assert found["sent"] == body


def test_an_extra_may_replace_what_the_body_had() -> None:
    body = {"model": "m"}
    map_params(request({}, extras={"model": "other"}), TABLE, body)
    assert body == {"model": "other"}


def test_what_is_left_out_is_told() -> None:
    """F-042; users: unsupported parameters dropped at random."""
    body: dict[str, Any] = {}
    with pytest.warns(UnsupportedParameterWarning, match=r"m: seed=0 was not sent: .*no such parameter") as caught:
        found = map_params(request({"seed": 0, "temperature": 0.5}), TABLE, body)
    assert len(caught) == 1
    assert found == {"sent": {"temperature": 0.5}, "left_out": {"seed": "this interface has no such parameter"}}


def test_what_a_model_refuses_is_told_with_the_reason() -> None:
    with pytest.warns(UnsupportedParameterWarning, match=r"temperature=0\.5 was not sent: it thinks"):
        found = map_params(request({"temperature": 0.5}), TABLE, {}, {"temperature": "it thinks"})
    assert found == {"sent": {}, "left_out": {"temperature": "it thinks"}}


def test_a_default_that_is_refused_goes_quietly_and_is_listed() -> None:
    """C-04."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = map_params(request({"temperature": 0.7}, given=set()), TABLE, {}, {"temperature": "it thinks"})
    assert found["left_out"] == {"temperature": "it thinks"}


def test_error_raises_before_anything_is_sent_and_drop_is_quiet() -> None:
    with pytest.raises(UnsupportedParameterError, match="seed=5") as caught:
        map_params(request({"seed": 5}, on_unsupported="error"), TABLE, {})
    assert isinstance(caught.value, LLMProviderUnsupportedOperationError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.model == "m"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = map_params(request({"seed": 5}, on_unsupported="drop"), TABLE, {})
    assert found["left_out"]


def test_a_default_never_raises() -> None:
    report_left_out(request({"temperature": 0.7}, given=set(), on_unsupported="error"), {"temperature": "no"})


VALUES = {
    "temperature": [0, 0.0, 1.5],
    "top_p": [0, 0.0, 0.5],
    "max_tokens": [1, 10**9],
    "frequency_penalty": [0, 0.0, -1],
    "presence_penalty": [0, 0.0, 2],
    "stop": [[], "", ["a"], "x"],
    "seed": [0, -5],
    "reasoning_effort": ["low"],
}


class Knows(LLMProvider):
    name = "knows"
    table: dict[str, Any] = {}  # noqa: RUF012

    async def generate(self, request: Request) -> Any:
        body: dict[str, Any] = {}
        facts = map_params(request, self.table, body)
        yield StreamEvent.finish("stop", params=facts, body=body)


class KnowsAll(Knows):
    table = {name: f"wire_{name}" for name in PARAMETERS}  # noqa: RUF012


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("way", ["config", "option", "call", "call config", "extra", "extra_params"])
async def test_every_field_in_every_way_is_in_the_body_or_in_a_warning(name: str, way: str) -> None:
    """F-006, F-042, F-133: with 0, 0.0 and [] too."""
    for value in VALUES[name]:
        made: dict[str, Any] = {"model_name": "m"}
        call: dict[str, Any] = {}
        if way == "config":
            made = {"config": LLMConfig("m", **{name: value})}
        elif way == "option":
            made[name] = value
        elif way == "call":
            call[name] = value
        elif way == "call config":
            call["config"] = (
                {name: value} if name in ("temperature", "top_p", "max_tokens", "seed") else {"extra": {name: value}}
            )
        elif way == "extra":
            call["extra"] = {name: value}
        else:
            made["extra_params"] = {name: value}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            response = await KnowsAll(**made).execute("hi", **call)
        sent = response.metadata["body"][f"wire_{name}"]
        assert sent == value
        assert type(sent) is type(value)
        assert response.metadata["params"]["sent"] == response.metadata["body"]
        with pytest.warns(UnsupportedParameterWarning, match=rf"{name}="):
            response = await Knows(**made).execute("hi", **call)
        assert name in response.metadata["params"]["left_out"]
        assert response.metadata["body"] == {}


async def test_none_is_not_given_and_never_sent() -> None:
    """F-006."""
    nothing = dict.fromkeys(PARAMETERS)
    provider = KnowsAll("m", **{name: None for name in PARAMETERS if name != "temperature"}, temperature=None)
    response = await provider.execute(
        "hi", **nothing, config={"temperature": None, "extra": {"seed": None}}, extra={"top_p": None}
    )
    assert set(response.metadata["body"]) <= {"wire_temperature"}
    response = await KnowsAll(LLMConfig("m", temperature=None)).execute("hi")
    assert response.metadata["body"] == {}


def test_an_extra_that_replaces_something_is_listed_as_sent() -> None:
    """F-007, F-042: what was sent can be read afterwards, also where the body had another value."""
    body = {"model": "m", "messages": []}
    found = map_params(request({"max_tokens": 1}, extras={"model": "other", "max_out": 9, "top_k": None}), TABLE, body)
    assert body == {"model": "other", "messages": [], "max_out": 9, "top_k": None}
    assert found["sent"] == {"model": "other", "max_out": 9, "top_k": None}


async def test_none_in_a_configuration_and_none_as_an_option() -> None:
    """F-133: `LLMConfig(temperature=None)` sends none, `timeout=None` has no limit; as options neither is given."""
    quiet = KnowsAll(LLMConfig("m", temperature=None, timeout=None))
    assert quiet.config.timeout is None
    assert (await quiet.execute("hi")).metadata["body"] == {}
    usual = KnowsAll("m", temperature=None, timeout=None)
    assert (usual.config.temperature, usual.config.timeout) == (0.7, 60)
    assert (await usual.execute("hi", temperature=None, timeout=None)).metadata["body"] == {"wire_temperature": 0.7}
    over = KnowsAll(LLMConfig("m", temperature=0.1, timeout=5), temperature=None, timeout=None)
    assert (over.config.temperature, over.config.timeout) == (0.1, 5)
