"""Where the account comes from, in which order, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from llm_provider_pusher import PusherSettings, PusherStreamer
from providers import ConfigurationWarning, LLMProviderConfigurationError, MissingCredentialsError, Secret

from .conftest import APP, KEY, SECRET

GIVEN: dict[str, Any] = {"app_id": APP, "key": KEY, "secret": SECRET, "cluster": "eu"}


def resolve(**words: Any) -> PusherSettings:
    return PusherSettings.resolve("pusher", words)


def test_the_promised_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-060, F-105."""
    for name, value in (("APP_ID", APP), ("KEY", KEY), ("SECRET", SECRET), ("CLUSTER", "eu")):
        monkeypatch.setenv(f"PUSHER_{name}", value)
    found = resolve()
    assert (found.app_id, *found.signer, found.address) == (APP, KEY, SECRET, "https://api-eu.pusher.com")
    assert isinstance(found.key, Secret)
    assert isinstance(found.secret, Secret)
    shown = f"{found!r} {PusherStreamer('a')!r} {found.sources}"
    assert SECRET not in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("key", "secret", "cluster"),
    [
        ("PUSHER_APP_KEY", "PUSHER_APP_SECRET", "PUSHER_APP_CLUSTER"),
        ("PUSHER_AUTH_KEY", "PUSHER_AUTH_SECRET", "PUSHER_CLUSTER"),
    ],
)
def test_the_names_of_others(monkeypatch: pytest.MonkeyPatch, key: str, secret: str, cluster: str) -> None:
    """C-22: both spellings; the promised one goes first, and a contradiction is told."""
    for name, value in (("PUSHER_APP_ID", APP), (key, KEY), (secret, SECRET), (cluster, "us2")):
        monkeypatch.setenv(name, value)
    assert (*resolve().signer, resolve().cluster) == (KEY, SECRET, "us2")
    monkeypatch.setenv("PUSHER_KEY", "another")
    with pytest.warns(ConfigurationWarning, match=rf"PUSHER_KEY and {key} hold different values; key is taken from"):
        assert resolve().signer == ("another", SECRET)


def test_the_order_of_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """C-22: argument, environment, `.env`, toml."""
    Path("providers.toml").write_text(
        f'[providers.pusher]\napp_id = 7\nkey = "{KEY}"\nsecret = "{SECRET}"\ncluster = "toml"\n', encoding="utf-8"
    )
    assert (resolve().app_id, resolve().cluster) == ("7", "toml")
    Path(".env").write_text("PUSHER_CLUSTER=file\n", encoding="utf-8")
    assert resolve().cluster == "file"
    monkeypatch.setenv("PUSHER_CLUSTER", "env")
    assert resolve().cluster == "env"
    assert resolve(cluster="arg").cluster == "arg"
    assert resolve(cluster="arg").sources["cluster"] == "argument"


@pytest.mark.parametrize(
    ("missing", "names"),
    [
        ("app_id", "PUSHER_APP_ID"),
        ("key", "PUSHER_KEY or PUSHER_APP_KEY or PUSHER_AUTH_KEY"),
        ("secret", "PUSHER_SECRET or PUSHER_APP_SECRET or PUSHER_AUTH_SECRET"),
        ("cluster", "PUSHER_CLUSTER or PUSHER_APP_CLUSTER"),
    ],
)
def test_what_is_missing_is_named(missing: str, names: str) -> None:
    """F-105."""
    with pytest.raises(MissingCredentialsError, match=f"no {missing}: set {names}") as caught:
        PusherStreamer("a", **{**GIVEN, missing: None})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_another_host_needs_no_cluster() -> None:
    words = {**GIVEN, "cluster": None}
    for host, address in (
        ("soketi.example:6001/", "https://soketi.example:6001"),
        ("http://127.0.0.1:6001", "http://127.0.0.1:6001"),
        ("http://[::1]:6001", "http://[::1]:6001"),
        ("http://localhost", "http://localhost"),
    ):
        assert resolve(**words, host=host).address == address


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("host", host) for host in ("http://example.org", "http://127.0.0.1.example.org", "ftp://localhost")),
        *(("host", host) for host in ("https://u:p@h", "https://h/path", "https://h?q", "https://", "https://[x")),
        ("cluster", "eu.evil.example/"),
        ("app_id", "1/../2"),
        ("key", "a&b=c"),
        ("channel", "a b"),
        ("channel", ""),
        ("channel", "a" * 201),
        ("channel", "ä"),
        ("channel", None),
        ("channel", "private-encrypted-a"),
        ("event", " "),
        ("event", "a\n"),
        ("event", "e" * 190),
        ("event", "pusher:x"),
        ("event", 3),
        ("batch_seconds", -1),
        ("batch_seconds", float("nan")),
        ("batch_seconds", True),
        ("timeout", 0),
        ("timeout", "3"),
        ("timeout", None),
        ("on_failure", "ignore"),
        ("retry", 3),
    ],
)
def test_a_wrong_value_is_refused(name: str, value: Any) -> None:
    with pytest.raises(LLMProviderConfigurationError, match=name):
        PusherStreamer(**{"channel": "a", **GIVEN, name: value})


def test_channels_that_are_some() -> None:
    for channel in ("private-chat-1", "presence-a_b=@,.;", "a" * 200, "#server-to-user-7"):
        assert PusherStreamer(channel, **GIVEN).channel == channel


def test_nothing_heavy_is_imported() -> None:
    """Not by the import, and not by making a streamer."""
    code = """
import sys
import llm_provider_pusher
llm_provider_pusher.PusherStreamer("a", app_id="1", key="k", secret="s", host="http://localhost:1")
print([name for name in ("aiohttp", "orjson", "pydantic", "yarl") if name in sys.modules])
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environ)
    assert (done.stdout, done.stderr) == ("[]\n", "")
