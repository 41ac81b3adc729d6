"""The life of a provider's calls: opened once, counted while they run, closed once, whoever asks."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from providers import (
    LLMProvider,
    LLMProviderAuthenticationError,
    MissingDependencyError,
    PluginError,
    ProviderClosedError,
    Request,
    StreamEvent,
)
from providers.testing import ScriptedProvider

from .counting import Counting

pytestmark = pytest.mark.usefixtures("house")


class Slow(Counting):
    name = "slow"
    slow_open = True
    thread: int | None = None

    def open(self) -> None:
        self.thread = threading.get_ident()
        super().open()


async def test_it_is_opened_once_before_the_first_call_only() -> None:
    provider = Counting("m")
    assert provider.opened == 0
    await asyncio.gather(*(provider.execute("hi") for _ in range(20)))
    await provider.warm_cache()
    assert provider.opened == 1


@pytest.mark.parametrize("cls", [Counting, Slow])
def test_many_threads_open_it_once(cls: type[Counting]) -> None:
    """Bad input 57."""
    provider = cls("m")
    barrier = threading.Barrier(20)
    answers: list[Any] = []

    def work() -> None:
        barrier.wait()
        answers.append(asyncio.run(provider.execute("hi")))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.content for answer in answers] == ["ab"] * 20
    assert provider.opened == 1


async def test_a_slow_opening_does_not_hold_the_loop_up() -> None:
    provider = Slow("m")
    await provider.execute("hi")
    assert provider.thread != threading.get_ident()


async def test_an_opening_that_fails_is_tried_again_by_the_next_call() -> None:
    """Bad input 20: "install X", when asked for."""

    class Missing(Counting):
        def open(self) -> None:
            super().open()
            if self.opened == 1:
                raise MissingDependencyError("install x: pip install x", provider=self.name)

    provider = Missing("m")
    with pytest.raises(ImportError, match="pip install x"):
        await provider.execute("hi")
    assert provider.calls_under_way == 0
    assert (await provider.execute("hi")).content == "ab"
    assert provider.opened == 2


# --- closing


async def test_closing_twice_is_harmless_and_a_call_afterwards_says_so() -> None:
    """F-077, bad input 59."""
    async with Counting("m") as provider:
        await provider.execute("hi")
    await provider.close()
    assert provider.shuts == 1
    for call in (provider.execute("hi"), provider.complete("hi"), provider.warm_cache()):
        with pytest.raises(ProviderClosedError, match="closed"):
            await call
    with pytest.raises(ProviderClosedError):
        async for _ in provider.stream("hi"):
            pass
    assert provider.calls_under_way == 0


async def test_one_that_was_never_opened_has_nothing_to_shut() -> None:
    """`shut` gives back what `open` took, so it may rely on what `open` made."""
    provider = Counting("m")
    await provider.close()
    assert (provider.opened, provider.shuts) == (0, 0)
    with pytest.raises(ProviderClosedError):
        await provider.execute("hi")


async def test_closed_while_it_opens_it_is_shut_and_does_not_answer() -> None:
    """A slow `open` that ends after `close()` leaks nothing."""
    log = []

    class Slow(Counting):
        slow_open = True

        def open(self) -> None:
            time.sleep(0.1)
            log.append("opened")

        async def shut(self) -> None:
            log.append("shut")

    provider = Slow("m")
    call = asyncio.create_task(provider.execute("hi"))
    await asyncio.sleep(0.02)
    await provider.close()
    with pytest.raises(ProviderClosedError):
        await call
    assert log == ["opened", "shut"]


async def test_one_at_rest_is_opened_again() -> None:
    provider = Counting("m")
    async with aclosing(provider.stream("hi")) as stream:
        await anext(stream)
        await provider.rest_when_idle()
        assert provider.shuts == 0
    assert (provider.opened, provider.shuts) == (1, 1)
    assert (await provider.execute("hi")).content == "ab"
    assert (provider.opened, provider.shuts, provider.is_closed) == (2, 1, False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
async def test_a_forked_child_inherits_no_lock_and_no_call() -> None:
    """A fork while another thread counts its call, and while a stream is under way."""
    provider = Counting("m")
    async with aclosing(provider.stream("hi")) as stream:
        await anext(stream)
        held, goes_on = threading.Event(), threading.Event()

        def hold() -> None:
            with provider._life._lock:
                held.set()
                goes_on.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        assert await asyncio.to_thread(held.wait, 30)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if provider.calls_under_way == 0 and provider._life._lock.acquire(blocking=False) else 1)
        goes_on.set()
        thread.join()
        assert os.waitpid(pid, 0)[1] == 0  # noqa: ASYNC222
    await provider.close()


async def test_a_mistake_in_a_provider_is_one_clear_error() -> None:
    """What its code raises comes out as PluginError, with the original as cause; complete and stream report it."""

    class Wrong(LLMProvider):
        name = "wrong"

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            yield StreamEvent.token("a")
            raise KeyError("choices")

    provider = Wrong("m")
    with pytest.raises(PluginError, match="KeyError: 'choices'") as caught:
        await provider.execute("hi")
    assert isinstance(caught.value.__cause__, KeyError)
    response = await provider.complete("hi")
    assert (response.ok, response.status) == (False, 500)
    events = [event async for event in provider.stream("hi")]
    assert [event.type.value for event in events] == ["token", "error"]


async def test_a_provider_that_says_nothing_of_parameters_is_reported() -> None:
    """F-042: given parameters that `generate` never mentioned are left out, and said to be."""

    class Silent(LLMProvider):
        name = "silent"

        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            yield StreamEvent.token("a")

    provider = Silent("m")
    with pytest.warns(UserWarning, match="seed=7"):
        response = await provider.execute("hi", seed=7)
    assert list(response.metadata["params"]["left_out"]) == ["seed"]
    with pytest.raises(NotImplementedError, match="seed"):
        await provider.execute("hi", seed=7, on_unsupported="error")
    assert (await provider.execute("hi")).metadata == {}


async def test_closing_at_once_from_many_sides_shuts_once() -> None:
    provider = Counting("m")
    await provider.execute("hi")
    await asyncio.gather(*(provider.close() for _ in range(10)))
    assert provider.shuts == 1


async def test_close_when_idle_waits_for_the_last_stream() -> None:
    """C-21: what is evicted is closed after the last stream has ended."""
    provider = Counting("m")
    provider.gate = asyncio.Event()
    stream = provider.stream("hi")
    call = asyncio.create_task(provider.execute("hi"))
    assert (await anext(stream)).data == "a"
    await asyncio.sleep(0)
    assert provider.calls_under_way == 2
    await provider.close_when_idle()
    assert provider.shuts == 0
    provider.gate.set()
    assert (await call).content == "ab"
    assert provider.shuts == 0
    assert [event.type.value async for event in stream][-1] == "done"
    assert provider.shuts == 1


async def test_close_when_idle_is_at_once_where_nothing_runs_and_after_an_abandoned_stream() -> None:
    provider = Counting("m")
    await provider.execute("hi")
    await provider.close_when_idle()
    await provider.close_when_idle()
    assert provider.shuts == 1
    provider = Counting("m")
    async with aclosing(provider.stream("hi")) as stream:
        await anext(stream)
        await provider.close_when_idle()
        assert provider.shuts == 0
    assert provider.shuts == 1


async def test_a_failed_call_counts_as_ended() -> None:
    provider = ScriptedProvider([LLMProviderAuthenticationError("no")] * 3)
    with pytest.raises(LLMProviderAuthenticationError):
        await provider.execute("hi")
    await provider.complete("hi")
    async for _ in provider.stream("hi"):
        pass
    assert provider.calls_under_way == 0


async def test_closing_during_a_stream_leaves_the_stream_its_end() -> None:
    provider = Counting("m")
    provider.gate = asyncio.Event()
    stream = provider.stream("hi")
    await anext(stream)
    await provider.close()
    provider.gate.set()
    assert [event.type.value async for event in stream][-1] == "done"
    assert (provider.shuts, provider.calls_under_way) == (1, 0)


def test_it_serves_two_loops_one_after_the_other() -> None:
    """Bad input 55."""
    provider = Counting("m")
    for _ in range(2):
        assert asyncio.run(provider.execute("hi")).content == "ab"
    asyncio.run(provider.close())
    assert provider.opened == provider.shuts == 1
