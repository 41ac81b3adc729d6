"""A Pusher that is played on loopback and checks each signature, and the search for the secrets in all texts."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llm_provider_pusher import PusherStreamer
from providers import RetryPolicy
from providers.sources import forget_files
from providers.testing import LoopbackServer, RecordedRequest, Reply

APP, KEY, SECRET = "1234", "key-canary-7f3a91", "secret-canary-51b2c8"
FAST = RetryPolicy(max_attempts=3, initial_wait=0.01, max_wait=0.02)


class Pusher:
    """Takes signed events; `failing` answers go first."""

    def __init__(self, server: LoopbackServer) -> None:
        self.server = server
        self.batches: list[list[dict[str, Any]]] = []
        self.failing: list[Reply] = []
        self.always: Reply | None = None
        self.under_way = self.most_under_way = 0
        server.script("*", self._answer, repeat=True)

    def _answer(self, request: RecordedRequest) -> Reply:
        check_signature(request)
        if self.always is not None:
            return self.always
        if self.failing:
            return self.failing.pop(0)
        body = request.json
        if request.path == f"/apps/{APP}/events":
            assert body["channels"] == ["private-chat-1"]
            batch = [body]
        else:
            assert request.path == f"/apps/{APP}/batch_events"
            batch = body["batch"]
            assert 2 <= len(batch) <= 10
            assert {one["channel"] for one in batch} == {"private-chat-1"}
        for one in batch:
            assert len(one["data"].encode()) <= 10_000
            assert one["name"] == "llm." + json.loads(one["data"])["type"]
        self.batches.append(batch)
        return Reply.json({})

    @property
    def events(self) -> list[dict[str, Any]]:
        """The data of all events, in the order of their coming."""
        return [json.loads(one["data"]) for batch in self.batches for one in batch]

    def data(self, kind: str) -> list[Any]:
        return [one["data"] for one in self.events if one["type"] == kind]


def check_signature(request: RecordedRequest) -> None:
    """As the server does it: all parameters but the signature, sorted by name."""
    query = request.query
    signature = query.pop("auth_signature")
    assert set(query) == {"auth_key", "auth_timestamp", "auth_version", "body_md5"}
    assert (query["auth_key"], query["auth_version"]) == (KEY, "1.0")
    assert query["body_md5"] == hashlib.md5(request.body).hexdigest()
    text = "\n".join([request.method, request.path, "&".join(f"{name}={query[name]}" for name in sorted(query))])
    assert signature == hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as found:
        yield found


@pytest.fixture
def pusher(server: LoopbackServer) -> Pusher:
    return Pusher(server)


@pytest.fixture
def make(pusher: Pusher) -> Callable[..., PusherStreamer]:
    def build(**options: Any) -> PusherStreamer:
        words: dict[str, Any] = {"app_id": APP, "key": KEY, "secret": SECRET, "host": pusher.server.url, "retry": FAST}
        return PusherStreamer("private-chat-1", **{**words, **options})

    return build


@pytest.fixture(autouse=True)
def no_secret_in_any_text(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    """Logs down to DEBUG, of the HTTP library too, warnings, and what is printed."""
    caplog.set_level(logging.DEBUG)
    yield
    printed = capfd.readouterr()
    texts = [caplog.text, printed.out, printed.err, *(str(one.message) for one in recwarn.list)]
    assert not any(word in text for text in texts for word in (SECRET, KEY))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No variable or file of this machine may decide a test."""
    for name in list(os.environ):
        if name.startswith(("PUSHER_", "DEFAULT_", "LLM_PROVIDERS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    forget_files()
