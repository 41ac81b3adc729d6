"""Limits in Redis where callers know different ones of a key: nobody takes a limit away from somebody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_provider_cache_pg_redis.address import Address
from llm_provider_cache_pg_redis.shared import SharedState
from providers.resilience.asked import Ask, Reply, Spare
from providers.resilience.levels import UNLIMITED, Rate

from .servers import RedisServer

# So slow that the moments between two words change nothing.
REQUESTS, TOKENS = Rate(10, 1e-4), Rate(1000, 1e-3)
BOTH = (REQUESTS, TOKENS)


class Said:
    """Redis and its stand-in, which must say the same."""

    def __init__(self, shared: SharedState) -> None:
        self.shared, self.spare = shared, Spare(BOTH, 0)

    def __call__(self, rates: tuple[Rate, ...], *queue: list[float]) -> Reply:
        ask = Ask(rates, [], None, False, list(queue))
        one, other = self.shared.say("k", ask), self.spare.say(ask)
        assert one is not None
        assert (one.granted, one.waits) == (other.granted, other.waits)
        assert one.left == pytest.approx(other.left, rel=1e-3, abs=2)
        return one


@pytest.fixture
def said(redis_server: RedisServer) -> Iterator[Said]:
    redis_server.say("FLUSHALL")
    shared = SharedState(Address("redis_url", redis_server.url, "redis"), "partly", 20)
    yield Said(shared)
    shared.close()


@pytest.mark.parametrize(
    "partly", [(REQUESTS, UNLIMITED), (UNLIMITED, TOKENS), (UNLIMITED, UNLIMITED)], ids=["requests", "tokens", "none"]
)
def test_who_knows_some_limits_leaves_the_others_as_they_are(partly: tuple[Rate, Rate], said: Said) -> None:
    """C-15. One process has used up requests and tokens; another one, which knows one of the limits or none, calls on
    the same key and changes nothing about what it does not know."""
    assert said(BOTH, [10.0, 1000.0]).granted == 1
    for _ in range(3):
        said(partly, [0.0, 0.0])
    assert said(BOTH, [1.0, 0.0]).left == pytest.approx(1 / REQUESTS.per_second, rel=0.05)
    assert said(BOTH, [0.0, 100.0]).left == pytest.approx(100 / TOKENS.per_second, rel=0.05)


def test_what_was_put_aside_refills_all_the_same(said: Said, redis_server: RedisServer) -> None:
    """C-15. The time that passed while only others called counts for whoever knows the limit, once."""
    said(BOTH, [0.0, 1000.0])
    for _ in range(2):
        said.shared.say("k", Ask((REQUESTS, UNLIMITED), [], None, False, [[0.0, 0.0]]))
    _, _, state = redis_server.say("GET", "partly:1:k").decode().partition("\r\n")
    figures = state.split()
    figures[9] = str(float(figures[9]) - 100_000)  # as if the tokens had been taken so long ago
    redis_server.say("SET", "partly:1:k", " ".join(figures))
    told = said.shared.say("k", Ask(BOTH, [], None, False, [[0.0, 100.0], [0.0, 10.0]]))
    assert told is not None
    assert (told.granted, told.waits) == (1, True)
    assert told.left == pytest.approx(10 / TOKENS.per_second, rel=0.05)


def test_what_was_put_aside_is_kept_as_long_as_it_says_something(said: Said, redis_server: RedisServer) -> None:
    """C-15. A bucket in debt needs a day; calls of those who do not know its limit must not let it expire sooner."""
    said(BOTH, [0.0, 1000.0])
    said(BOTH, [0.0, 86_400 * TOKENS.per_second])
    before = int(redis_server.say("TTL", "partly:1:k")[1:])
    assert before > 86_400
    for _ in range(3):
        said((REQUESTS, UNLIMITED), [0.0, 0.0])
    assert int(redis_server.say("TTL", "partly:1:k")[1:]) >= before - 5
