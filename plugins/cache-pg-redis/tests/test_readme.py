"""The README's python runs as it stands, against real servers and a vendor that is played on loopback."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from llm_provider_cache_pg_redis import HybridRedisPostgreSQLCache
from providers.sources import forget_files
from providers.testing import LoopbackServer
from tests.documentation.blocks import blocks_of
from tests.scenarios.vendor import Vendor

from .servers import PostgresServer, RedisServer

README = Path(__file__).parents[1] / "README.md"


def test_the_snippets_run(
    redis_server: RedisServer,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """F-061, F-107."""
    pytest.importorskip("llm_provider_openai")
    redis_server.say("FLUSHALL")
    postgres_server.run("DROP TABLE IF EXISTS llm_answers_1")
    monkeypatch.setenv("PG_DSN", postgres_server.url)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("DEFAULT_MODEL_NAME", "gpt-4o-mini")
    forget_files()
    blocks = [block for block in blocks_of(README) if block.language == "python"]
    with LoopbackServer() as server:
        Vendor(say=lambda heard: "Paris", key="sk-1").play(server)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        for block in blocks:
            names: dict[str, Any] = {"__name__": "__main__"}
            block.run(names)
    printed = capfd.readouterr().out.splitlines()
    assert printed[:2] == ["Paris False", "Paris True"]
    assert re.fullmatch(r"1 answers, \d+ bytes", printed[2])
    assert printed[3:] == ["Paris"]
    assert b"llm-limits:1:openai%2F" in redis_server.say("KEYS", "llm-limits*")


def test_the_table_by_hand_is_the_table_that_makes_itself(postgres_server: PostgresServer) -> None:
    asked = (
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_name = 'llm_answers_1' ORDER BY ordinal_position"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'llm_answers_1' ORDER BY 1"
    [sql] = [block.code for block in blocks_of(README) if block.language == "sql"]
    postgres_server.run("DROP TABLE IF EXISTS llm_answers_1")
    postgres_server.run(sql)
    by_hand = postgres_server.run(asked), postgres_server.run(indexes)
    postgres_server.run("DROP TABLE llm_answers_1")

    async def work() -> None:
        store = HybridRedisPostgreSQLCache(postgres_server.url, timeout=20)
        await store.warm()
        await store.close()

    asyncio.run(work())
    assert (postgres_server.run(asked), postgres_server.run(indexes)) == by_hand
    assert len(by_hand[0]) == 4
    assert len(by_hand[1]) == 2
