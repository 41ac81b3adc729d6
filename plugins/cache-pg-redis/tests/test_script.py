"""The script in Redis and its stand-in in this process say the same, whatever they are asked."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llm_provider_cache_pg_redis.address import Address
from llm_provider_cache_pg_redis.shared import SharedState
from providers.resilience.asked import Ask, Chore, Spare
from providers.resilience.levels import UNLIMITED, Rate

from .servers import RedisServer

# So slow that the moments between two words change nothing.
RATES = (Rate(10, 1e-4), Rate(1000.5, 1e-3), UNLIMITED)
AMOUNTS = st.tuples(st.sampled_from([0, 1, 3, 11]), st.sampled_from([0, 0.25, 600]), st.sampled_from([0, 7])).map(list)
CHORES: st.SearchStrategy[Chore] = st.one_of(
    AMOUNTS.map(lambda amounts: ["t", amounts]),
    AMOUNTS.map(lambda amounts: ["t", [-amount for amount in amounts]]),
    st.tuples(st.just("c"), st.integers(0, 4), st.sampled_from([0, 0.5, 20, 60])).map(list),
    st.tuples(st.just("p"), st.integers(0, 4)).map(list),
)
ASKS = st.builds(
    Ask,
    rates=st.sampled_from([RATES, RATES[:2], (UNLIMITED, *RATES[1:]), ()]),
    chores=st.lists(CHORES, max_size=3),
    held=st.none() | AMOUNTS,
    ripe=st.booleans(),
    queue=st.lists(AMOUNTS, max_size=4),
)


@pytest.fixture
def shared(redis_server: RedisServer) -> Iterator[SharedState]:
    found = SharedState(Address("redis_url", redis_server.url, "redis"), "parity", 20)
    yield found
    found.close()


def fitting(ask: Ask) -> Ask:
    """The same with as many amounts as there are rates."""
    most = len(ask.rates)
    chores = [[chore[0], chore[1][:most]] if chore[0] == "t" else chore for chore in ask.chores]
    held = None if ask.held is None else list(ask.held)[:most]
    return Ask(ask.rates, chores, held, ask.ripe, [amounts[:most] for amounts in ask.queue])


def test_no_state_makes_anybody_wait_for_longer_than_a_cooldown(shared: SharedState, redis_server: RedisServer) -> None:
    """C-15: one that cannot be left set, whoever wrote it there."""
    now = time.time()
    redis_server.say("SET", "parity:1:k", f"1 {now} 3 2 {now + 1e6} {now - 5} 10")
    reply = shared.say("k", Ask((Rate(10, 1),), [], None, False, [[1.0]]))
    assert reply is not None
    assert 0 < reply.pause <= 60


TELLS_LATE = [
    Ask(RATES, [["c", 0, 0]], None, False, []),
    Ask((), [], None, False, []),  # a model whose limits were not known meanwhile
    Ask(RATES, [["c", 0, 0]], None, False, [[0, 600, 0]]),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(asks=TELLS_LATE)
@given(asks=st.lists(ASKS.map(fitting), min_size=1, max_size=6))
def test_they_say_the_same(asks: list[Ask], shared: SharedState, redis_server: RedisServer) -> None:
    redis_server.say("FLUSHALL")
    spare = Spare(asks[0].rates, 0)
    generation = 0
    for ask in asks:
        for chore in ask.chores:
            if chore[0] != "t":
                # One that it cannot know is for Redis a sign that it has forgotten some; that is not compared here.
                chore[1] = min(chore[1], generation)
        one, other = shared.say("k", ask), spare.say(ask)
        assert one is not None
        generation = other.generation
        for name in ("freed", "granted", "waits", "generation", "streak"):
            assert getattr(one, name) == getattr(other, name), (name, ask, one, other)
        assert one.pause == pytest.approx(other.pause, abs=2)
        if one.waits:
            assert one.left == pytest.approx(other.left, rel=1e-3, abs=2)


def test_who_knows_no_limit_takes_none_away(shared: SharedState, redis_server: RedisServer) -> None:
    """C-15: one provider without limits, beside one with, for the same key."""
    redis_server.say("FLUSHALL")
    limited, free = (Rate(10, 1e-4), UNLIMITED), (UNLIMITED, UNLIMITED)
    first = shared.say("k", Ask(limited, [["t", [9, 0]]], None, False, []))
    assert first is not None
    for _ in range(3):
        reply = shared.say("k", Ask(free, [], None, False, [[1, 5]] * 4))
        assert reply is not None
        assert (reply.granted, reply.waits) == (4, 0)
    last = shared.say("k", Ask(limited, [], None, False, [[1, 0]] * 3))
    assert last is not None
    assert (last.granted, last.waits) == (1, 1)
