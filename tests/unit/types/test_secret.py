"""Secrets: nothing shows them."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import traceback
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from providers import ProviderSettings, Secret, setting

CANARY = "sk-canary-1234"


def shown(secret: Any) -> list[str]:
    texts = [repr(secret), str(secret), f"{secret}", f"{secret!r}", f"{secret!s}", "%s %r" % (secret, secret)]  # noqa: UP031
    texts += [pprint.pformat({"key": secret}), repr([secret]), repr({"a": secret})]
    texts.append(json.dumps({"key": secret}, default=str))
    return texts


def test_nothing_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    """Users: keys in exceptions and logs."""
    secret = Secret(CANARY)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("x").debug("key %s %r", secret, secret)
    for text in [*shown(secret), caplog.text]:
        assert CANARY not in text
    with pytest.raises(TypeError) as caught:
        json.dumps(secret)
    assert CANARY not in str(caught.value)
    with pytest.raises(TypeError):
        f"{secret:>40}"


def test_settings_that_hold_it_do_not_show_it() -> None:
    @dataclass(kw_only=True, eq=False)
    class Settings(ProviderSettings):
        env_prefix = "ACME_"
        api_key: Secret | None = setting()

    settings = Settings(api_key=Secret(CANARY))
    for text in [repr(settings), str(asdict(settings)), repr(vars(settings)), pprint.pformat(settings)]:
        assert CANARY not in text
    assert settings.secrets() == [CANARY]


def test_a_traceback_does_not_show_it() -> None:
    try:
        Secret(CANARY + "\n" + "x")
    except ValueError:
        last = traceback.format_exc().splitlines()[-1]
        assert "control characters" in last
        assert CANARY not in last
    else:
        pytest.fail("accepted")


@pytest.mark.parametrize("text", [f"{CANARY}\n", f" {CANARY} ", f"{CANARY}\r\n", f"\t{CANARY}"])
def test_white_space_around_it_is_stripped(text: str) -> None:
    """Bad input 2: `export KEY=$(cat file)`."""
    assert Secret(text).get_secret_value() == CANARY


@pytest.mark.parametrize("text", ["a\nb", "a\x00b", "a\rb", "a\x7fb", "a\tb"])
def test_control_characters_inside_are_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match="control characters") as caught:
        Secret(text)
    assert text not in str(caught.value)


def test_only_text_is_a_secret() -> None:
    for value in (5, None, b"x", ["x"]):
        with pytest.raises(TypeError):
            Secret(value)


def test_it_is_a_value() -> None:
    """It stands for itself in sets and comparisons, survives copies, and takes pydantic's secrets."""

    class Foreign:
        def get_secret_value(self) -> str:
            return CANARY

    secret = Secret(CANARY)
    assert secret == Secret(CANARY) == Secret(secret) == Secret(Foreign())
    assert secret != CANARY
    assert len({secret, Secret(CANARY)}) == 1
    assert copy.deepcopy(secret) == pickle.loads(pickle.dumps(secret)) == secret
    assert bool(secret)
    assert not Secret("")
    assert not Secret("  ")
    assert (len(secret), str(Secret("")), repr(Secret(""))) == (len(CANARY), "", "Secret('')")
