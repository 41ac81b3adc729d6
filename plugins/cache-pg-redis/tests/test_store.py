"""What lies in the two servers: forms, times, damage, tables that are gone, rights that are missing."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from llm_provider_cache_pg_redis.codec import pack, unpack
from providers import LLMProviderConnectionError
from providers.caches import CacheKey

from .conftest import Make
from .servers import CANARY, PostgresServer, RedisServer

KEY = CacheKey("ab" * 32)
NAME = f"llm-cache:1:default:{KEY.digest}"
TEXT = '{"schema":1,"content":"' + "word " * 400 + '"}'


async def test_a_write_goes_to_both_and_a_read_fills_redis(
    make: Make, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    """F-107: PostgreSQL behind Redis, a day in Redis, compressed."""
    store = make(timeout=20)
    await store.put(KEY, TEXT)
    assert redis_server.say("GET", NAME).partition(b"\r\n")[2].startswith(b"llm1 z ")
    assert 86_390 <= int(redis_server.say("TTL", NAME)[1:]) <= 86_400
    [(body, created)] = postgres_server.run("SELECT body, created FROM llm_answers_1")
    assert isinstance(body, bytes)
    assert len(body) < len(TEXT) / 10
    assert unpack(body) == await store.get(KEY)
    redis_server.say("FLUSHALL")
    assert (entry := await store.get(KEY)) is not None
    assert (entry.text, entry.created) == (TEXT, created)
    assert redis_server.say("EXISTS", NAME) == b":1\r\n"
    postgres_server.run("DELETE FROM llm_answers_1")
    assert (entry := await store.get(KEY)) is not None
    assert entry.text == TEXT


async def test_without_compression_sql_can_read_the_text(make: Make, postgres_server: PostgresServer) -> None:
    """F-061: `compress_pg=False`."""
    store = make(timeout=20, compress_pg=False, table="plain")
    await store.put(KEY, TEXT)
    [(text,)] = postgres_server.run("SELECT convert_from(body, 'UTF8') FROM plain_1")
    assert str(text).endswith(TEXT)
    await store.clear()


async def test_redis_forgets_after_its_time_and_postgres_does_not(make: Make, redis_server: RedisServer) -> None:
    store = make(timeout=20, redis_ttl_seconds=0.2)
    await store.put(KEY, TEXT)
    assert redis_server.say("EXISTS", NAME) == b":1\r\n"
    await asyncio.sleep(0.3)
    assert redis_server.say("EXISTS", NAME) == b":0\r\n"
    assert await store.get(KEY) is not None


async def test_old_answers_leave_the_table(make: Make, postgres_server: PostgresServer) -> None:
    """With a TTL they are swept out, those that nobody asks for too."""
    now = [1e9]
    store = make(timeout=20, ttl=10, clock=lambda: now[0], redis_url=None)
    for number in range(30):
        await store.put(CacheKey(str(number)), TEXT)
    now[0] += 11
    store._puts = 1000
    await store.put(KEY, TEXT)
    assert postgres_server.run("SELECT count(*) FROM llm_answers_1") == [(1,)]


@pytest.mark.parametrize("damage", ["SET", "LPUSH", "empty"])
async def test_what_is_damaged_in_redis_is_a_miss_and_is_replaced(
    damage: str, make: Make, redis_server: RedisServer
) -> None:
    """62, 71: no answer of ours, a value of another type. PostgreSQL has it still."""
    store, alone = make(timeout=20), make(timeout=20, pg_dsn=None)
    await store.put(KEY, TEXT)
    redis_server.say("DEL", NAME)
    redis_server.say(*(("SET", NAME, "") if damage == "empty" else (damage, NAME, "llm1 z garbage")))
    assert await alone.get(KEY) is None
    assert (entry := await store.get(KEY)) is not None
    assert entry.text == TEXT
    assert await alone.get(KEY) == entry


async def test_what_is_damaged_in_postgres_is_a_miss(make: Make, postgres_server: PostgresServer) -> None:
    store = make(timeout=20, redis_url=None)
    for body in (b"", b"llm1", b"llm2 - 1.0 00000000\n{}", pack(TEXT, 1.0, True)[:-1], pack(TEXT, 1.0, False) + b"x"):
        await store.put(KEY, TEXT)
        postgres_server.run("UPDATE llm_answers_1 SET body = %s", body)
        assert await store.get(KEY) is None
    await store.put(KEY, TEXT)
    assert await store.get(KEY) is not None


async def test_a_table_that_was_dropped_is_made_again(make: Make, postgres_server: PostgresServer) -> None:
    """72: by whatever word comes first."""
    store = make(timeout=20, redis_url=None)
    for word in (store.warm, lambda: store.get(KEY), lambda: store.delete(KEY), store.clear, store.size):
        postgres_server.run("DROP TABLE llm_answers_1")
        assert not getattr(await word(), "entries", None)
        assert postgres_server.run("SELECT count(*) FROM llm_answers_1") == [(0,)]
    postgres_server.run("DROP TABLE llm_answers_1")
    await store.put(KEY, TEXT)
    assert await store.get(KEY) is not None


@pytest.fixture
def guest(postgres_server: PostgresServer) -> str:
    """The address of a role that may create nothing."""
    if not postgres_server.run("SELECT 1 FROM pg_roles WHERE rolname = 'guest'"):
        postgres_server.run(f"CREATE ROLE guest LOGIN PASSWORD '{CANARY}'")
        postgres_server.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    postgres_server.run("DROP TABLE IF EXISTS guests_1")
    return postgres_server.url_for("guest", "postgres")


async def test_no_right_to_make_the_table(make: Make, postgres_server: PostgresServer, guest: str) -> None:
    """72: said clearly, once; Redis serves; and once somebody has made the table and given the rights, it is used."""
    alone = make(timeout=20, pg_dsn=guest, redis_url=None, table="guests")
    with pytest.raises(
        LLMProviderConnectionError, match=r"no table guests_1, and it cannot be made .*permission denied"
    ):
        await alone.get(KEY)
    both = make(timeout=20, pg_dsn=guest, table="guests")

    async def use() -> None:
        await both.put(KEY, TEXT)
        for _ in range(5):
            assert await both.get(KEY) is not None
            assert await both.get(CacheKey("0")) is None

    with pytest.warns(UserWarning, match="permission denied") as record:
        await use()
    assert len(record) == 1
    owner = make(timeout=20, redis_url=None, table="guests")
    await owner.warm()
    postgres_server.run("GRANT SELECT, INSERT, UPDATE, DELETE ON guests_1 TO guest")
    for _ in range(400):
        await both.put(KEY, TEXT)
        if (await owner.size()).entries:
            break
        await asyncio.sleep(0.05)
    assert await owner.get(KEY) is not None


async def test_rights_to_read_alone_still_give_hits(make: Make, postgres_server: PostgresServer, guest: str) -> None:
    owner = make(timeout=20, redis_url=None, table="guests")
    await owner.put(KEY, TEXT)
    postgres_server.run("GRANT SELECT ON guests_1 TO guest")
    reader = make(timeout=20, pg_dsn=guest, redis_url=None, table="guests")
    assert await reader.get(KEY) is not None
    with pytest.raises(LLMProviderConnectionError, match=r"refused .*permission denied"):
        await reader.put(KEY, "[2]")
    assert (entry := await reader.get(KEY)) is not None
    assert entry.text == TEXT


async def test_a_table_of_somebody_else_is_left_as_it_is(make: Make, postgres_server: PostgresServer) -> None:
    postgres_server.run("CREATE TABLE IF NOT EXISTS taken_1 (precious int)")
    store = make(timeout=20, redis_url=None, table="taken")
    for word in (store.warm(), store.get(KEY), store.put(KEY, TEXT)):
        with pytest.raises(LLMProviderConnectionError, match="column"):
            await word
    postgres_server.run("DROP TABLE taken_1")


async def test_no_connection_is_left_for_us(make: Make, postgres_server: PostgresServer) -> None:
    """72: the server has room for few; words wait for one another instead of failing."""
    url = postgres_server.url_for("few", "postgres")
    if not postgres_server.run("SELECT 1 FROM pg_roles WHERE rolname = 'few'"):
        postgres_server.run(f"CREATE ROLE few LOGIN CONNECTION LIMIT 2 PASSWORD '{CANARY}'")
    await make(timeout=20, redis_url=None, table="few").warm()
    postgres_server.run("GRANT ALL ON few_1 TO few")
    store = make(timeout=20, pg_dsn=url, redis_url=None, table="few")
    await store.get(KEY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await asyncio.gather(*(store.put(CacheKey(str(number)), TEXT) for number in range(100)))
    assert (await store.size()).entries == 100
    # And where others have taken them all, a word fails, and a later one does not.
    late = make(timeout=20, pg_dsn=url, redis_url=None, table="few")
    with pytest.raises(LLMProviderConnectionError, match="too many connections"):
        await asyncio.gather(*(late.get(KEY) for _ in range(8)))
    await store.close()
    for _ in range(400):
        try:
            await late.get(KEY)
            break
        except LLMProviderConnectionError:
            await asyncio.sleep(0.05)
    assert await late.get(CacheKey("1")) is not None


async def test_redis_is_full(make: Make, redis_server: RedisServer) -> None:
    """A word that is refused is no outage: PostgreSQL has it, and what Redis had before is out of date."""
    store = make(timeout=20)
    await store.put(KEY, "[1]")
    redis_server.say("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.warns(UserWarning, match="refused"):
            await store.put(KEY, "[2]")
        assert (entry := await store.get(KEY)) is not None
        assert entry.text == "[2]"
    finally:
        redis_server.say("CONFIG", "SET", "maxmemory", "0")
    assert await store.get(KEY) == entry
    assert redis_server.say("EXISTS", NAME) == b":1\r\n"


async def test_clear_and_size_leave_other_peoples_keys_alone(make: Make, redis_server: RedisServer) -> None:
    redis_server.say("SET", "llm-cache", "mine")
    redis_server.say("SET", "llm-cache:2:default:x", "mine")
    store = make(timeout=20, pg_dsn=None)
    for number in range(1200):
        await store.put(CacheKey(str(number), "a*" if number % 2 else "a?"), "[]")
    size = await store.size()
    assert (size.entries, size.bytes > 1200 * 20) == (1200, True)
    await store.clear("a*")
    assert (await store.size()).entries == 600
    await store.clear()
    assert redis_server.say("DBSIZE") == b":2\r\n"
    redis_server.say("FLUSHALL")


async def test_five_megabytes(make: Make, redis_server: RedisServer) -> None:
    """Of any kind, within the time that a word has by default."""
    store = make(timeout=5)
    for number, text in enumerate(("x" * 5_000_000, "".join(chr(33 + at * at % 90) for at in range(5_000_000)))):
        key = CacheKey(str(number))
        await store.put(key, text)
        assert (entry := await store.get(key)) is not None
        assert entry.text == text
        redis_server.say("FLUSHALL")
        assert (entry := await store.get(key)) is not None
        assert entry.text == text


async def test_names_and_texts_of_every_kind(make: Make) -> None:
    """NUL, halves of pairs, line ends, patterns of Redis, names as long as they like."""
    names = [
        "",
        "\0",
        "a\0b",
        "\ud800",
        "\n",
        "*",
        "[a]",
        "a:b",
        "a%3Ab",
        "x" * 100_000,
        "x" * 99_999,
        "ü" * 5000,
        "🌍",
    ]
    for words in ({"redis_url": None}, {"pg_dsn": None}):
        options: dict[str, Any] = {"timeout": 20, **words}
        store = make(**options)
        keys = [CacheKey(digest, name) for name in names for digest in ("d", name)]
        for number, key in enumerate(keys):
            await store.put(key, f"{number} \0 \ud800 \U0001f30d {key.collection[:9]}")
        for number, key in enumerate(keys):
            assert (entry := await store.get(key)) is not None
            assert entry.text == f"{number} \0 \ud800 \U0001f30d {key.collection[:9]}"
        for name in names:
            await store.clear(name)
        assert (await store.size()).entries == 0
