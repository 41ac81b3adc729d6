"""Many calls at once: cancelled ones, threads, event loops one after the other, forks; and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from llm_provider_openai import OpenAIProvider
from providers import Client, LLMProvider, LLMProviderServerError, Request, StreamEvent
from providers.bridge import bridge
from providers.resilience import retries_owned
from providers.routing import FallbackProvider
from providers.routing.walk import Walk
from providers.testing import EchoProvider, Fault, LoopbackServer, ScriptedProvider

from .backend import OUTAGE, PATH, Clock, ask, either, streamed, throttled

Pair = Callable[..., FallbackProvider]
STREAMING = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])


class Held(LLMProvider):
    """Waits before its first piece, or after it, until it is let go."""

    name = "held"

    def __init__(self, *, late: bool = False, **options: Any) -> None:
        super().__init__("held", **options)
        self.late = late
        self.gate = asyncio.Event()
        self.waits = 0
        self.ended = 0

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        try:
            if self.late:
                yield StreamEvent.token("a")
            self.waits += 1
            await self.gate.wait()
            yield StreamEvent.token("b")
            yield StreamEvent.finish("stop")
        finally:
            self.ended += 1


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.001)


@STREAMING
async def test_a_cancelled_probe_makes_way_for_the_next_one(clock: Clock, streaming: bool) -> None:
    """And is never mistaken for an answer or a failure."""
    held = Held()
    other = ScriptedProvider(lambda request: "other")
    fallback = FallbackProvider([held, other], clock=clock, cooldown=10)
    health = fallback._targets[0].health
    health.rest(health.force())
    assert (await ask(fallback, streaming=streaming)).content == "other"
    clock.now += 10
    probe = asyncio.create_task(ask(fallback, streaming=streaming))
    await until(lambda: held.waits == 1)
    assert (await ask(fallback, streaming=streaming)).content == "other", "one probe at a time"
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert (health.state, held.ended, held.calls_under_way) == ("half-open", 1, 0)
    held.gate.set()
    assert (await ask(fallback, streaming=streaming)).content == "b"
    assert health.state == "closed"
    assert fallback.calls_under_way == 0


async def test_a_stream_that_is_left_ends_on_the_wire_and_in_every_account(
    one: LoopbackServer, two: LoopbackServer, pair: Pair
) -> None:
    one.script(PATH, OUTAGE)
    two.script(PATH, Fault.stall(streamed("Hello ", "there"), after_events=2))
    fallback = pair()
    stream = fallback.stream("Hi")
    async for event in stream:
        if event.data == "Hello ":
            break
    assert [target.calls_under_way for target in fallback.targets] == [0, 1]
    await stream.aclose()
    assert await two.eventually(lambda: two.disconnects, within=5)
    assert [target.calls_under_way for target in (fallback, *fallback.targets)] == [0, 0, 0]


async def test_a_target_has_ended_when_the_stream_is_closed() -> None:
    """At once, and not when the garbage is collected."""
    held = Held(late=True, layers=())
    stream = FallbackProvider([held]).stream("Hi")
    async for event in stream:
        if event.data == "a":
            break
    await stream.aclose()
    assert (held.ended, held.calls_under_way) == (1, 0)


async def test_retries_are_given_back_before_each_piece() -> None:
    """A consumer that makes calls of its own between two pieces has its retries."""
    late = Held(late=True)
    late.gate.set()
    down = ScriptedProvider(lambda request: LLMProviderServerError("down"))
    for layers in ({}, {"layers": ()}):
        owned = [retries_owned() async for _ in FallbackProvider([down, late], **layers).stream("Hi")]
        assert len(owned) == 5
        assert not any(owned)


@STREAMING
async def test_a_call_that_is_cancelled_while_it_opens_leaves_nothing(streaming: bool) -> None:
    opening, go = threading.Event(), threading.Event()

    class Slow(EchoProvider):
        slow_open = True

        def open(self) -> None:
            opening.set()
            go.wait(10)

    fallback = FallbackProvider([Slow()])
    call = asyncio.create_task(ask(fallback, streaming=streaming))
    await asyncio.to_thread(opening.wait, 10)
    call.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await ask(fallback, "Hi there", streaming=streaming)).content == "Hi there"


def test_threads_and_loops_share_one(one: LoopbackServer, two: LoopbackServer) -> None:
    """Eight threads, each with three event loops one after the other; the breaker stays consistent."""
    one.script(PATH, lambda request: OUTAGE if one.count(PATH) % 3 else either("one")(request), repeat=True)
    two.script(PATH, either("two"), repeat=True)
    targets = [OpenAIProvider("m", base_url=f"{server.url}/v1", api_key="k-loopback") for server in (one, two)]
    fallback = FallbackProvider(targets, own=True, cooldown=0.001, failures=2)
    seen: list[str] = []
    failed: list[BaseException] = []

    async def some() -> None:
        found = await asyncio.gather(*(ask(fallback, streaming=bool(n % 2)) for n in range(4)))
        seen.extend(response.content for response in found)

    def work() -> None:
        try:
            for _ in range(3):
                asyncio.run(some())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    asyncio.run(fallback.close())
    assert failed == []
    assert len(seen) == 96
    assert set(seen) == {"one", "two"}
    assert [target.calls_under_way for target in targets] == [0, 0]


def test_the_sync_client(one: LoopbackServer, two: LoopbackServer) -> None:
    one.script(PATH, throttled("30"))
    two.script(PATH, either("Hello"), repeat=True)
    targets = [OpenAIProvider("m", base_url=f"{server.url}/v1", api_key="k-loopback") for server in (one, two)]
    client = Client(FallbackProvider(targets, own=True))
    assert client.get_response("Hi") == "Hello"
    assert [event.data for event in client.stream("Hi")][-1].content == "Hello"
    batch = client.submit_batch(["Hi", "Ho"])
    assert list(batch.results()) == ["Hello", "Hello"]
    bridge.run(client.provider.close())
    assert all(target.is_closed for target in targets)


@STREAMING
async def test_failed_attempts_are_not_kept_alive_by_circles(streaming: bool) -> None:
    class Down(EchoProvider):
        async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
            raise LLMProviderServerError("down")
            yield

    fallback = FallbackProvider([Down(), ScriptedProvider(lambda request: "fine")], failures=1000)

    def there() -> list[Any]:
        return [thing for thing in gc.get_objects() if isinstance(thing, LLMProviderServerError | Walk)]

    await ask(fallback, streaming=streaming)
    gc.collect()
    gc.disable()
    others = there()  # of other tests' parameters
    try:
        await ask(fallback, streaming=streaming)
        assert [thing for thing in there() if not any(thing is other for other in others)] == []
    finally:
        gc.enable()
