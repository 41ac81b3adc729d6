"""A server's side, as a loopback server plays it: the key's way, refusals, silence, and what a client leaves behind."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from llm_provider_cache_qdrant import QdrantCache
from llm_provider_cache_qdrant.store import _LANES
from providers.caches import CacheKey
from providers.exceptions import (
    LLMProviderAPIError,
    LLMProviderAuthenticationError,
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    LLMProviderRateLimitError,
    LLMProviderResponseError,
    LLMProviderTimeoutError,
)
from providers.testing import Fault, LoopbackServer, RecordedRequest, Reply
from providers.testing.conformance.stores import key_at
from providers.types import Secret

from .conftest import Asker, Words, ask, told
from .scripted import Qdrant
from .test_similar import EGG, OTHER_EGG

CANARY = "canary-qdrant-key-4711"


def make(server: LoopbackServer, **options: Any) -> QdrantCache:
    return QdrantCache(Words(), url=server.url, embedder_name="words", embedding_timeout=60, **options)


async def test_the_bound_is_kept_whichever_threads_are_at_work() -> None:
    """Each key has its thread; the first of them may never have had anything to do."""
    keys = [CacheKey(f"{number:064x}") for number in range(40)]
    keys = [key for key in keys if hash(key.digest) % _LANES][:8]
    with LoopbackServer() as server:
        server.script("*", Qdrant().answer, repeat=True)
        store = make(server, max_bytes=100, timeout=30)
        for key in keys:
            await store.put(key, "x" * 60)

        async def kept() -> int:
            return sum([await store.get(key) is not None for key in keys])

        for _ in range(200):
            if await kept() == 1:
                break
            await asyncio.sleep(0.05)
        assert await kept() == 1
        assert store._lanes[0]._executor is None
        await store.close()


async def test_a_server_gets_the_key(recwarn: pytest.WarningsRecorder) -> None:
    """F-107: stores, finds, finds similar ones, counts, clears; the key goes in each request's header and no text."""
    with LoopbackServer() as server:
        server.script("*", Qdrant().answer, repeat=True)
        store = make(server, api_key=Secret(CANARY), timeout=30)
        asker = Asker(store)
        await store.warm()
        assert (await asker(EGG)).content == "answer 1"
        assert (await asker(EGG)).content == "answer 1"
        hit = await asker(OTHER_EGG)
        assert (hit.content, told(hit)["similarity"]) == ("answer 1", 0.97)
        assert (await store.size()).entries == 1
        key = asker.layer._key(ask(EGG), ask(EGG).cache)  # type: ignore[arg-type]
        assert key is not None
        assert await store.delete(key)
        assert not await store.delete(key)
        assert not told(await asker(OTHER_EGG))["hit"]
        await store.clear()
        assert (await store.size()).entries == 0
        await store.close()
        assert server.errors == []
        assert {request.headers["api-key"] for request in server.requests} == {CANARY}
        made = {request.path for request in server.requests if request.method == "PUT" and "points" not in request.path}
        assert any(path.endswith("/index") for path in made)
        sent = b"".join(request.body for request in server.requests).decode()
        assert "how do i" not in sent
        assert CANARY not in sent + str(vars(store)) + "".join(str(warning.message) for warning in recwarn)
        assert await server.eventually(lambda: server.open_connections == 0, 30)


async def test_many_at_once_do_not_queue() -> None:
    """A server gets several requests at a time."""
    under_way, most = 0, 0

    async def slow(request: RecordedRequest) -> Reply:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)
        under_way -= 1
        return Reply.json({"status": {"error": "Not found"}}, 404)

    with LoopbackServer() as server:
        server.script("*", slow, repeat=True)
        store = make(server, timeout=30)
        assert await asyncio.gather(*(store.get(key_at(number)) for number in range(32))) == [None] * 32
        assert 4 <= most <= 8
        await store.close()


async def test_the_bound() -> None:
    """Kept in the background; whoever asks for the size finds it kept."""
    now = [1e9]
    with LoopbackServer() as server:
        server.script("*", Qdrant().answer, repeat=True)
        store = make(server, timeout=60, max_bytes=10_000, clock=lambda: now[0])
        for number in range(30):
            now[0] += 100
            await store.put(key_at(number), f'"{"x" * 1000}"')
        size = await store.size()
        assert size.bytes <= 10_000
        assert size.entries >= 5
        assert await store.get(key_at(29)) is not None
        assert await store.get(key_at(1)) is None
        await store.close()
        assert server.errors == []


async def test_a_dead_server_costs_hits(recwarn: pytest.WarningsRecorder) -> None:
    """Nobody there, silence, refusals: answers go on, in bounded time, after one warning."""
    with LoopbackServer() as server:
        dead = server.url
    with LoopbackServer() as server:
        server.script("*", Fault.silence(), repeat=True)
        for url, patience in ((dead, 60.0), (server.url, 0.3)):
            store = QdrantCache(Words(), url=url, api_key=CANARY, embedder_name="words", timeout=1)
            asker = Asker(store, patience=patience)
            began = time.monotonic()
            for number in range(20):
                assert (await asker(f"{EGG} {number}")).content == f"answer {number + 1}"
            assert time.monotonic() - began < 20
            await store.close()
    assert len(recwarn) == 2
    assert CANARY not in "".join(str(warning.message) for warning in recwarn)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply.json({"status": {"error": f"wrong api-key: {CANARY}"}}, 401), LLMProviderAuthenticationError),
        (Reply.json({"status": {"error": "forbidden"}}, 403), LLMProviderAuthenticationError),
        (Reply.text(f"api-key: {CANARY}", 500), LLMProviderAPIError),
        (Reply.json({}, 429), LLMProviderRateLimitError),
        (Reply.json({}, 429, {"Retry-After": "7"}), LLMProviderRateLimitError),
        (Reply.text("<html>no JSON</html>"), LLMProviderResponseError),
        (Reply.json({"result": {"points": "?"}}), LLMProviderResponseError),
        (Fault.hang_up("reset"), LLMProviderConnectionError),
        (Fault.silence(), LLMProviderTimeoutError),
    ],
)
async def test_errors(reply: Reply, kind: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    """One of ours each, that names the server and no key, nor do its causes."""
    with LoopbackServer() as server:
        server.script("*", reply, repeat=True)
        store = make(server, api_key=CANARY, timeout=1)
        with pytest.raises(kind, match=r"Qdrant at http://127\.0\.0\.1:\d+ ") as caught:
            await store.get(key_at())
        with caplog.at_level(logging.DEBUG):
            logging.getLogger("test").debug("x", exc_info=caught.value)
        assert CANARY not in caplog.text
        await store.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "pass one of"),
        ({"location": ":memory:", "path": "x"}, "pass one of"),
        ({"location": "somewhere"}, "only be"),
        ({"path": ""}, "empty"),
        ({"path": "x", "api_key": CANARY}, "pass url too"),
        ({"url": "localhost:6333"}, "must be an address"),
        ({"url": "ftp://x"}, "must be an address"),
        ({"url": "http://[x"}, "must be an address"),
        ({"url": 7}, "must be an address"),
        ({"url": f"http://u:{CANARY}@x"}, "the key is api_key"),
        ({"url": f"http://x?api_key={CANARY}"}, "the key is api_key"),
        ({"url": "http://x", "api_key": "a\nb"}, "control characters"),
    ],
)
def test_places(options: dict[str, Any], words: str) -> None:
    """What is wrong is told, and no key in it."""
    with pytest.raises(LLMProviderConfigurationError, match=words) as caught:
        QdrantCache(Words(), embedder_name="words", **options)
    assert CANARY not in str(caught.value)


def test_a_key_over_http() -> None:
    """To another machine: a warning."""
    with pytest.warns(UserWarning, match=r"sends its API key to qdrant\.example\.org without encryption"):
        QdrantCache(Words(), url="http://qdrant.example.org:6333", api_key=CANARY, embedder_name="words")
