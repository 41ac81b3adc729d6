"""A canary: a secret that must be in none of spans, metrics, logs, cache files, error texts and tracebacks."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from providers import (
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    LLMProviderError,
    ProviderSettings,
    Secret,
    StreamEvent,
    setting,
)
from providers.caches.fs import FSCache
from providers.caches.sqlite import SQLiteCache
from providers.layers import retry
from providers.layers.cache import ResponseCache
from providers.layers.observe import attempt
from providers.layers.pricing import priced
from providers.sight import masked, protect, redacted, secrets_of
from providers.testing import Fault, LoopbackServer, Reply

llm_provider_openai = pytest.importorskip("llm_provider_openai")

KEY = "sk-canary-7f3a91c04e"
HEADER = "header-canary-55d1e2"
PASSWORD = "password-canary-80aa"


def chat(text: str, **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {
        "id": "c-1",
        "object": "chat.completion",
        "model": "gpt-x",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
        **fields,
    }


ECHO = {"x-request-id": f"req-{KEY}", "x-seen": f"{KEY} {HEADER}", "set-cookie": f"k={KEY}", "retry-after": "0.001"}
REFUSAL = {"error": {"message": f"Incorrect API key provided: {KEY}; x-api-token {HEADER}", "code": KEY, "type": KEY}}


def shown(record: logging.LogRecord) -> str:
    """All that any formatter could show of a record."""
    text = logging.Formatter("%(message)s").format(record)
    return f"{text} {json.dumps(record.__dict__, default=str)}"


def stored(folder: Path) -> list[str]:
    """All files below a folder."""
    return [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]


@pytest.mark.asyncio
async def test_the_canary_is_nowhere(sight: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """F-144."""
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    for name, store in (("fs", FSCache(tmp_path / "fs")), ("sqlite", SQLiteCache(tmp_path / "a.sqlite"))):
        with LoopbackServer() as server:
            server.script(
                "/v1/chat/completions",
                Fault.status(503, REFUSAL, headers=ECHO),
                Reply.json(chat("Paris"), headers=ECHO),
                Fault.status(401, REFUSAL, headers=ECHO),
                # A server that answers with the key as if it were a name.
                Reply.json(chat("Rome", id=f"c-{KEY}", model=f"gpt-{KEY}"), headers=ECHO),
                Reply.json(chat(f"your key is {KEY}"), headers=ECHO),
            )
            settings: dict[str, Any] = {
                "api_key": KEY,
                "base_url": f"{server.url}/v1",
                "default_headers": {"x-api-token": HEADER, "proxy-authorization": f"Basic {PASSWORD}"},
            }
            cache = ResponseCache(store, "openai", scope={"base_url": server.url})
            observe = sight.observe(content=True)
            provider = llm_provider_openai.OpenAIProvider(
                "gpt-x", layers=(observe, cache, priced, retry, attempt), **settings
            )
            # What the house does by itself where telemetry is set.
            observe.for_settings(provider.settings)
            async with provider:
                for _ in range(2):  # from the server, after a failure; from the cache
                    assert (await provider.execute("Capital?", cache_response=True)).content == "Paris"
                with pytest.raises(LLMProviderError) as caught:
                    await provider.execute("x", cache_response=True)
                assert (await provider.complete("y")).content == "Rome"
                await provider.execute(f"I once had the key {KEY}, what is it?")
                told += [str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)]
                told += [repr(provider), repr(provider.settings), str(provider.get_model_info())]
            assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
            assert {request.headers["x-api-token"] for request in server.requests} == {HEADER}
        await store.close()
        assert stored(tmp_path), name
    with pytest.raises(LLMProviderConfigurationError) as refused:
        llm_provider_openai.OpenAIProvider("m", api_key=KEY, base_url=f"http://user:{PASSWORD}@127.0.0.1:1/v1")
    told += [str(refused.value), repr(refused.value), *traceback.format_exception(refused.value)]

    spans = [span.to_json() for span in sight.spans()]
    data = sight.reader.get_metrics_data()
    files = stored(tmp_path)
    logs = [shown(record) for record in caplog.records]
    assert len(spans) == 2 * 7  # five calls each, and two attempts of the first
    assert any("your key is ***" in text for text in spans)
    assert any("***" in text for text in logs)
    assert len([record for record in caplog.records if record.name == "providers.calls"]) == 10
    assert any(record.name == "providers.wire" for record in caplog.records)
    assert len(files) >= 2
    places = {
        "spans": spans, "metrics": [data.to_json(), sight.metrics.text()], "logs": logs, "files": files, "errors": told,
    }  # fmt: skip
    for place, texts in places.items():
        for secret in (KEY, HEADER, PASSWORD):
            assert [text for text in texts if secret in text] == [], (place, secret)


@dataclass(kw_only=True, eq=False)
class Some(ProviderSettings):
    key: Secret | None = setting()
    url: str | None = setting()
    headers: dict[str, str] | None = setting()
    options: dict[str, Any] | None = setting()
    name: str | None = setting()


def test_what_of_settings_is_a_secret() -> None:
    settings = Some(
        key=Secret("the-key-itself"),
        url="postgres://bob:p%40ssword@host/db",
        headers={"X-Api-Key": "headerkey1", "Authorization": "Bearer headerkey2", "Accept": "text/plain"},
        options={"dsn": "redis://:otherpass@host", "nested": {"client_secret": "deepsecret"}},
        name="not-a-secret",
    )
    assert set(secrets_of(settings)) == {
        "the-key-itself", "p%40ssword", "headerkey1", "", "Bearer headerkey2", "headerkey2", "otherpass", "deepsecret",
    }  # fmt: skip


class Owner:
    """Something that uses secrets."""


def test_secrets_are_masked_as_long_as_their_owner_lives() -> None:
    owner, other = Owner(), Owner()
    protect(owner, ["first-secret", "tiny", "pass/word&more", 'quo"ted\u00e9-secret'])
    assert masked("first-secret second-secret") == "*** second-secret"
    protect(owner, ["second-secret"])  # a rotated key: answers under the old one may still come
    assert masked("first-secret second-secret") == "*** ***"
    protect(other, ["second-secret-and-more"])
    text = 'first-secret second-secret tiny pass%2Fword%26more quo\\"ted\\u00e9-secret second-secret-and-more'
    assert masked(text) == "*** *** tiny *** *** ***"
    del other
    gc.collect()
    assert masked("second-secret-and-more") == "***-and-more"
    del owner
    gc.collect()
    assert masked(text) == text


def test_what_looks_like_a_secret_is_masked_too() -> None:
    text = "https://user:hunter22@host/p?api_key=abc&x=1 Authorization: Bearer abc12345 client_secret='a1b2c3d4e5'"
    assert redacted(text) == "https://user:***@host/p?api_key=***&x=1 Authorization: Bearer *** client_secret='***'"


def test_an_observed_provider_protects_its_settings_and_lets_go(sight: Any) -> None:
    observe = sight.observe()
    bound = observe.for_settings(Some(key=Secret("settings-canary-1")))
    assert masked("settings-canary-1") == "***"
    del observe
    gc.collect()
    assert masked("settings-canary-1") == "***"
    del bound
    gc.collect()
    assert masked("settings-canary-1") == "settings-canary-1"


@pytest.mark.asyncio
async def test_our_own_words_are_shown_but_no_secret_in_them(sight: Any, calls_log: Any) -> None:
    """An error that quotes no backend says what is wrong; what looks like a key is masked all the same."""
    owner = Owner()
    protect(owner, ["model-canary-1"])
    said = LLMProviderConnectionError(
        "nobody answers at http://bob:hunter22@host/v1?api_key=abc", code="no model-canary-1"
    )
    provider = sight.provider(said)
    provider.update_config(model_name="acme-model-canary-1")
    with pytest.raises(LLMProviderConnectionError):
        await provider.execute("x", attempts=1)
    span = sight.span()
    assert span.status.description == "nobody answers at http://bob:***@host/v1?api_key=***"
    assert (span.name, span.attributes["llm_provider.error.code"]) == ("chat acme-***", "no ***")
    [record] = calls_log.records
    assert (record.model, record.error_text) == ("acme-***", span.status.description)
    assert "canary" not in sight.metrics.text() + json.dumps(record.__dict__, default=str) + span.to_json()


def test_the_address_of_the_settings_is_told_without_its_user(sight: Any) -> None:
    @dataclass(kw_only=True, eq=False)
    class Remote(ProviderSettings):
        base_url: str | None = setting()

    observe = sight.observe().for_settings(Remote(base_url="https://bob:hidden-pass@models.example/v1"))
    provider = sight.provider([StreamEvent.token("a")], layers=(observe,))
    asyncio.run(provider.execute("x"))
    span = sight.span()
    assert (span.attributes["server.address"], span.attributes["server.port"]) == ("models.example", 443)
