"""Configuration: what is a value, what is refused, what was given and what is a default."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from providers import (
    APIType,
    GenerationConfig,
    LLMConfig,
    LLMProviderConfigurationError,
    StreamMode,
    UnknownOptionError,
)
from providers.types.config import CONFIG_FIELDS, PARAMETERS

DOCUMENTED = {
    "model_name": None,
    "api_type": APIType.CHAT_COMPLETION,
    "token_limit": 8192,
    "temperature": 0.7,
    "max_tokens": None,
    "top_p": None,
    "frequency_penalty": None,
    "presence_penalty": None,
    "stop": None,
    "stream_mode": StreamMode.DISABLED,
    "timeout": 60,
    "max_retries": 3,
    "retry_delay": 1.0,
    "extra_params": {},
}


def test_the_documented_fields_and_defaults() -> None:
    """F-133."""
    assert is_dataclass(LLMConfig)
    config = LLMConfig("m")
    assert {name: getattr(config, name) for name in DOCUMENTED} == {**DOCUMENTED, "model_name": "m"}
    assert list(DOCUMENTED) == list(LLMConfig.__dataclass_fields__)[: len(DOCUMENTED)]


def test_enums_are_read_from_their_words() -> None:
    """F-130."""
    config = LLMConfig(api_type="responses", stream_mode="ENABLED")  # type: ignore[arg-type]
    assert config.api_type is APIType.RESPONSES
    assert config.stream_mode is StreamMode.ENABLED
    assert LLMConfig(api_type=" Chat_Completion ").api_type is APIType.CHAT_COMPLETION  # type: ignore[arg-type]
    assert {mode.value for mode in StreamMode} == {"disabled", "enabled", "auto"}
    assert str(APIType.RESPONSES) == f"{APIType.RESPONSES}" == "responses"


@pytest.mark.parametrize(("field", "value"), [("api_type", "chat"), ("stream_mode", True), ("api_type", None)])
def test_an_unknown_word_lists_those_that_exist(field: str, value: Any) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=rf"{field} \(LLMConfig\).*(responses|enabled)"):
        LLMConfig(**{field: value})


BAD: list[tuple[str, Any]] = [
    *(
        ("temperature", value)
        for value in (math.nan, math.inf, -math.inf, "0.7", True, -1, 3, -0.01, 2.01, [], 10**400)
    ),
    *(("top_p", value) for value in (math.nan, "0.5", True, -0.1, 1.1)),
    *(("frequency_penalty", value) for value in (math.nan, "0", False, -2.1, 2.1)),
    *(("presence_penalty", value) for value in (math.inf, "0", True, -3, 3)),
    *(("max_tokens", value) for value in (-5, 0, 2.5, True, "10", 10.0, math.nan)),
    *(("seed", value) for value in (1.5, "1", True, 2**64, -(2**63) - 1)),
    *(("stop", value) for value in (5, [1], {"a": 1}, b"x", ["a", None])),
    *(("timeout", value) for value in (0, -1, "60", math.nan, math.inf, True, 10**400)),
    *(("max_retries", value) for value in (-1, 1.5, "3", True, None)),
    *(("retry_delay", value) for value in (-1, math.nan, math.inf, "1", None, True, 10**400)),
    *(("token_limit", value) for value in (0, -1, 1.5, None, "8192", True)),
    *(("model_name", value) for value in ("", "  ", 5, True, b"m")),
    *(("system", value) for value in ("", " ", 5)),
    *(("reasoning_effort", value) for value in ("", 5)),
    *(("on_unsupported", value) for value in ("never", None, 5)),
    *(("extra_params", value) for value in (None, [], "x", {1: 2})),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{name}={str(value)[:12]}" for name, value in BAD])
def test_a_bad_value_is_refused_everywhere_and_named_with_its_source(field: str, value: Any) -> None:
    """Bad input 3 to 6."""
    for make, source in (
        (lambda: LLMConfig(**{field: value}), "LLMConfig"),
        (lambda: LLMConfig("m").updated({field: value}, "here"), "here"),
    ):
        if field == "model_name" and value is None:
            continue
        with pytest.raises(LLMProviderConfigurationError, match=rf"^{field} \({source}\) must") as caught:
            make()
        assert isinstance(caught.value, ValueError)


GOOD: list[tuple[str, Any]] = [
    *(("temperature", value) for value in (0, 0.0, 2, 0.7, None)),
    *(("top_p", value) for value in (0, 0.0, 1, None)),
    *(("frequency_penalty", value) for value in (0, 0.0, -2, 2)),
    *(("presence_penalty", value) for value in (0, 0.0)),
    *(("max_tokens", value) for value in (1, 10**12)),
    *(("seed", value) for value in (0, -1, 2**64 - 1)),
    *(("stop", value) for value in ([], "", "x", ["a"], ("a",))),
    *(("timeout", value) for value in (None, 0.001, 10**9)),
    *(("max_retries", value) for value in (0, 10**6)),
    *(("retry_delay", value) for value in (0, 0.0)),
]


@pytest.mark.parametrize(("field", "value"), GOOD, ids=[f"{name}={value!r}" for name, value in GOOD])
def test_zero_false_and_empty_are_values(field: str, value: Any) -> None:
    """`0`, `0.0`, `False` and `[]` are values; `None` is "not set"."""
    config = LLMConfig(**{field: value})
    found = getattr(config, field)
    assert found == value
    assert type(found) is type(value)
    if field in PARAMETERS:
        assert (field in config.parameters()) is (value is not None)
        assert (field in config.given()) is (value is not None)
    assert getattr(LLMConfig().updated({field: value}), field) == value


def test_a_default_is_told_from_an_equal_value_that_was_given() -> None:
    """C-04."""
    assert LLMConfig().given() == frozenset()
    assert LLMConfig().parameters() == {"temperature": 0.7}
    assert LLMConfig(temperature=0.7).given() == {"temperature"}
    assert LLMConfig(temperature=float("0.7")).given() == {"temperature"}
    assert LLMConfig().updated({"temperature": 0.7}).given() == {"temperature"}
    assert LLMConfig(temperature=None).parameters() == {}


@pytest.mark.parametrize(
    "travel",
    [
        copy.copy,
        copy.deepcopy,
        lambda config: pickle.loads(pickle.dumps(config)),
        lambda config: replace(config, top_p=0.5),
        lambda config: config.updated({"top_p": 0.5}),
        lambda config: LLMConfig(**config.__dict__),
    ],
    ids=["copy", "deepcopy", "pickle", "replace", "updated", "rebuild"],
)
def test_the_difference_survives_copies(travel: Callable[[LLMConfig], LLMConfig]) -> None:
    """C-04: a configuration that went to another process still knows what its user gave."""
    assert "temperature" not in travel(LLMConfig("m")).given()
    assert "temperature" in travel(LLMConfig("m", temperature=0.7)).given()
    travelled = travel(LLMConfig("m", seed=0, stop=[], extra_params={"a": 1}))
    assert (travelled.seed, travelled.stop, travelled.extra_params) == (0, [], {"a": 1})
    assert travel(LLMConfig("m")).token_limit == 8192


def test_updating_is_all_or_nothing_and_makes_a_copy() -> None:
    """F-139, bad input 12."""
    config = LLMConfig("m", temperature=0.5, extra_params={"a": 1})
    before = copy.deepcopy(config)
    for changes in ({"temperature": 0.9, "max_tokens": -5}, {"top_p": 0.5, "tempreture": 1}, {"model_name": None}):
        with pytest.raises(LLMProviderConfigurationError):
            config.updated(changes)
    assert config == before
    new = config.updated({"temperature": 0.9})
    new.extra_params["b"] = 2
    assert config == before
    assert new is not config.updated({})


def test_an_unknown_field_is_named_with_the_nearest() -> None:
    """Bad input 7."""
    with pytest.raises(UnknownOptionError, match=r"temprature.*did you mean 'temperature'") as caught:
        LLMConfig().updated({"temprature": 1})
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_a_list_of_stops_is_not_shared_with_its_giver() -> None:
    stops = ["a"]
    config = LLMConfig("m", stop=stops)
    copied = config.updated({})
    stops.append("b")
    assert copied.stop == ["a"]


def test_each_configuration_has_extras_of_its_own() -> None:
    assert LLMConfig().extra_params is not LLMConfig().extra_params
    assert GenerationConfig().extra is not GenerationConfig().extra


def test_every_field_is_checked_and_documented() -> None:
    from providers.types.config import CHECKS

    assert CONFIG_FIELDS - {"api_type", "stream_mode"} <= set(CHECKS)
    for name in CONFIG_FIELDS:
        assert f"        {name}: " in (LLMConfig.__doc__ or ""), name
    for name in GenerationConfig.__dataclass_fields__:
        assert f"        {name}: " in (GenerationConfig.__doc__ or ""), name


# --- GenerationConfig


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ({}, GenerationConfig()),
        ({"temperature": 0.0}, GenerationConfig(temperature=0.0)),
        ({"top_k": 5}, GenerationConfig(extra={"top_k": 5})),
        ({"top_k": 5, "extra": {"top_k": 6, "a": 1}}, GenerationConfig(extra={"top_k": 6, "a": 1})),
        ({"extra": None}, GenerationConfig()),
        (GenerationConfig(seed=1), GenerationConfig(seed=1)),
    ],
    ids=str,
)
def test_a_dict_or_the_class_and_unknown_keys_fold_into_extra(value: Any, expected: Any) -> None:
    """F-006."""
    before = copy.deepcopy(value)
    assert GenerationConfig.coerce(value) == expected
    assert value == before


@pytest.mark.parametrize("value", [5, "x", [("temperature", 1)], object(), LLMConfig()], ids=lambda v: type(v).__name__)
def test_anything_else_is_a_type_error(value: Any) -> None:
    """F-006."""
    with pytest.raises(TypeError, match="GenerationConfig or a dict"):
        GenerationConfig.coerce(value)


@pytest.mark.parametrize(
    "value",
    [{"temperature": "hot"}, {"max_tokens": 0}, {"seed": True}, {"top_p": math.nan}, {"extra": 5}, {"extra": {1: 2}}],
    ids=str,
)
def test_its_values_are_checked(value: dict[str, Any]) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=next(iter(value))):
        GenerationConfig.coerce(value)


def test_other_numbers_are_told_from_numbers() -> None:
    with pytest.raises(LLMProviderConfigurationError, match="Decimal"):
        LLMConfig(temperature=Decimal("0.5"))  # type: ignore[arg-type]
