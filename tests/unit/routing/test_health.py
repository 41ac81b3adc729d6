"""The circuit breaker: a model of it that hypothesis walks through, threads, and probes that never come back."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from providers.routing import Health

from .backend import Clock

MOST, COOLDOWN = 3, 30.0


class Breaker(RuleBasedStateMachine):
    """Calls that begin, end in every way and in any order, while time goes by; and what must hold in between."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.health = Health(MOST, COOLDOWN, self.clock)
        self.state = "closed"
        self.failures = 0
        self.due = 0.0
        self.age = 0  # of the state: calls of an older one count no more
        self.probe: float | None = None  # until when it is waited for
        self.holders = 0  # calls under way with its ticket
        self.calls: list[tuple[int, int]] = []  # ticket, age of the state that it began in

    @initialize()
    def begin(self) -> None:
        assert self.health.enter() == 0

    def admitted(self) -> bool:
        if self.state == "closed":
            return True
        free = self.probe is None or self.clock.now >= self.probe
        return self.clock.now >= self.due and free

    def starts_probe(self) -> None:
        self.age += 1
        self.probe, self.holders = self.clock.now + COOLDOWN, 1

    def opens(self, wait: float | None) -> None:
        self.state, self.failures, self.probe = "open", 0, None
        self.age += 1
        self.due = self.clock.now + (wait if wait is not None and wait > 0 else COOLDOWN)

    @rule()
    def enter(self) -> None:
        expected = self.admitted()
        ticket = self.health.enter()
        assert (ticket is not None) is expected
        if ticket is not None:
            if self.state == "open":
                self.starts_probe()
            self.calls.append((ticket, self.age))

    @rule()
    def force(self) -> None:
        if self.state == "open" and self.probe is None:
            self.starts_probe()
        elif self.state == "open":
            self.holders += 1
        self.calls.append((self.health.force(), self.age))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), wait=st.sampled_from([None, 0.0, -1.0, 7.0, float("nan")]))
    def end(self, data: Any, wait: float | None) -> None:
        ticket, age = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        how = data.draw(st.sampled_from(["up", "begun", "down", "rest", "left"]))
        if how in ("down", "rest"):
            getattr(self.health, how)(ticket, wait)
        else:
            getattr(self.health, how)(ticket)
        if age != self.age:
            return
        if how == "up":
            self.state, self.failures, self.probe = "closed", 0, None
        elif how == "begun" and self.state == "open":
            self.state, self.failures, self.probe = "closed", MOST - 1, None
        elif how == "left" and self.state == "open":
            self.holders -= 1
            self.probe = self.probe if self.holders else None
        elif how == "rest":
            self.opens(wait)
        elif how == "down":
            self.failures += 1
            if self.state == "open" or self.failures >= MOST:
                self.opens(wait)

    @rule(seconds=st.sampled_from([0.5, 6.9, 7.0, 29.9, 30.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def it_says_how_it_stands(self) -> None:
        expected = self.state if self.state == "closed" or self.clock.now < self.due else "half-open"
        assert self.health.state == expected
        assert (self.health.wait > 0) is not self.admitted()

    def teardown(self) -> None:
        """Whatever has happened, and although no call under way ever ends: it comes back by itself."""
        self.clock.now += 2 * COOLDOWN
        ticket = self.health.enter()
        assert ticket is not None
        self.health.up(ticket)
        assert self.health.state == "closed"


Breaker.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestBreaker = Breaker.TestCase


@pytest.mark.parametrize("named", [86_400.0, float("inf")])
def test_an_absurd_wait_is_cut_to_an_hour(named: float) -> None:
    clock = Clock()
    health = Health(clock=clock)
    health.rest(health.force(), named)
    clock.now += 3599
    assert health.enter() is None
    clock.now += 1
    assert health.enter() is not None


def test_of_many_threads_one_has_the_probe() -> None:
    for _ in range(50):
        clock = Clock()
        health = Health(1, 1.0, clock)
        health.down(health.force())
        clock.now += 1
        tickets: list[int | None] = []
        barrier = threading.Barrier(8)

        def enter(
            barrier: threading.Barrier = barrier, health: Health = health, tickets: list[int | None] = tickets
        ) -> None:
            barrier.wait()
            tickets.append(health.enter())

        threads = [threading.Thread(target=enter) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ticket is not None for ticket in tickets) == [False] * 7 + [True]


def test_calls_that_fail_together_are_one_outage_of_the_state_that_they_began_in() -> None:
    clock = Clock()
    health = Health(2, 10.0, clock)
    tickets = [health.force() for _ in range(50)]
    for ticket in tickets:
        health.down(ticket)
    assert health.wait == 10
    clock.now += 10
    probe = health.force()
    for ticket in tickets:
        health.up(ticket)
        health.down(ticket)
    assert health.state == "half-open"
    health.up(probe)
    assert health.state == "closed"


def test_a_call_made_beside_the_probe_does_not_make_way_for_another_one() -> None:
    """Where nobody else could answer it has the probe's ticket; when it is cancelled the probe is still under way."""
    clock = Clock()
    health = Health(1, 10.0, clock)
    health.down(health.force())
    clock.now += 10
    probe = health.enter()
    assert probe is not None
    beside = health.force()
    assert beside == probe
    health.left(beside)
    assert health.enter() is None
    health.left(probe)
    assert health.enter() is not None
