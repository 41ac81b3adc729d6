"""The bridge: coroutines for sync callers, from any thread, inside a loop, after a fork, until the very end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers.bridge import Bridge, bridge

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


async def value(what: Any = 1) -> Any:
    await asyncio.sleep(0)
    return what


def test_it_runs_a_coroutine_and_gives_its_value() -> None:
    assert bridge.run(value("x")) == "x"


def test_an_exception_arrives_as_it_is() -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        bridge.run(fail())


async def test_inside_a_running_loop() -> None:
    """Bad input 58: a notebook."""
    assert bridge.run(value("x")) == "x"
    assert asyncio.get_running_loop().is_running()


def test_from_eight_threads_on_one_loop() -> None:
    """Bad input 57."""
    loops: list[Any] = []

    async def where() -> Any:
        await asyncio.sleep(0.01)
        return asyncio.get_running_loop()

    threads = [threading.Thread(target=lambda: loops.append(bridge.run(where()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loops) == 8
    assert len(set(map(id, loops))) == 1


def test_from_its_own_thread_it_says_so_instead_of_waiting_for_ever() -> None:
    """Bad input 58."""

    async def inside() -> None:
        bridge.run(value())

    with pytest.raises(RuntimeError, match="await the async one"):
        bridge.run(inside())


def test_the_callers_context_is_seen_and_not_changed() -> None:
    async def look() -> str:
        seen = variable.get()
        variable.set("changed inside")
        return seen

    variable.set("outside")
    assert bridge.run(look()) == "outside"
    assert variable.get() == "outside"


def test_ctrl_c_cancels_the_call(python: Any) -> None:
    """Bad input 54."""
    code = """
        import asyncio, os, signal, threading, time
        from providers.bridge import bridge
        ended = threading.Event()
        async def long():
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        try:
            bridge.run(long())
        except KeyboardInterrupt:
            print("interrupted", ended.wait(5), time.monotonic() - started < 5)
    """
    assert python(code).stdout == "interrupted True True\n"


def test_cancelling_inside_arrives_as_a_cancellation() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises((asyncio.CancelledError, concurrent.futures.CancelledError)):
        bridge.run(cancelled())


# --- iterating


class Source:
    def __init__(self, count: int = 3, error: BaseException | None = None) -> None:
        self.count, self.error, self.closed = count, error, threading.Event()

    async def __call__(self) -> AsyncIterator[int]:
        try:
            for number in range(self.count):
                await asyncio.sleep(0)
                yield number
            if self.error is not None:
                raise self.error
        finally:
            await asyncio.sleep(0)
            self.closed.set()


def test_it_goes_through_an_async_iterator() -> None:
    source = Source()
    assert list(bridge.iterate(source())) == [0, 1, 2]
    assert source.closed.is_set()
    assert list(bridge.iterate(Source(0)())) == []


def test_an_iterator_without_a_close() -> None:
    class Plain:
        count = 0

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> int:
            self.count += 1
            if self.count > 2:
                raise StopAsyncIteration
            return self.count

    assert list(bridge.iterate(Plain())) == [1, 2]


def test_an_error_in_the_middle() -> None:
    source = Source(2, KeyError("x"))
    seen: list[int] = []
    with pytest.raises(KeyError):
        seen.extend(bridge.iterate(source()))
    assert seen == [0, 1]
    assert source.closed.is_set()


def test_leaving_early_closes_at_once() -> None:
    """Bad input 50."""
    source = Source(1000)
    for _ in bridge.iterate(source()):
        break
    assert source.closed.wait(1)
    source = Source(1000)
    iterator = bridge.iterate(source())
    next(iterator)
    iterator.close()
    assert source.closed.is_set()


def test_an_error_of_the_consumer_closes_too() -> None:
    source = Source(1000)

    def consume() -> None:
        for _ in bridge.iterate(source()):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert source.closed.wait(1)


async def test_iterating_inside_a_running_loop() -> None:
    assert list(bridge.iterate(Source()())) == [0, 1, 2]


def test_an_iterator_that_the_collector_finds_on_the_loops_own_thread() -> None:
    """A cycle is collected wherever the collector happens to run."""
    source = Source(1000)
    holder: list[Any] = [bridge.iterate(source())]
    holder.append(holder)
    next(holder[0])
    gc.disable()
    try:
        del holder

        async def collect() -> None:
            gc.collect()

        bridge.run(collect())
    finally:
        gc.enable()
    assert source.closed.wait(2)


# --- its life


def test_a_loop_that_was_stopped_starts_anew() -> None:
    own = Bridge()
    first = own.run(value(1))
    loop = own._loop
    own.stop()
    assert loop is not None
    assert loop.is_closed()
    assert own.run(value(2)) == first + 1
    own.stop()
    own.stop()


def test_stopping_ends_what_is_under_way_and_releases_who_waits() -> None:
    own = Bridge()
    ended = threading.Event()

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            own.run(long())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    own.stop()
    thread.join(5)
    assert ended.is_set()
    assert not thread.is_alive()
    assert isinstance(outcome[0], concurrent.futures.CancelledError)


def test_many_threads_start_one_loop() -> None:
    own = Bridge()
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        own.run(value())

    before = {thread.ident for thread in threading.enumerate()}
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    started = [thread for thread in threading.enumerate() if thread.ident not in before]
    assert len(started) == 1
    own.stop()


def test_a_forked_child_has_a_loop_of_its_own(python: Any) -> None:
    """Bad input 56: and ends without noise, as its parent does."""
    code = """
        import asyncio, os, sys
        from providers.bridge import bridge
        async def loop(): return id(asyncio.get_running_loop())
        before = bridge.run(loop())
        child = os.fork()
        if child == 0:
            inside = bridge.run(loop())
            print("child", inside is not None, flush=True)
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        print("parent", status, bridge.run(loop()) == before, flush=True)
        child = os.fork()
        if child == 0:
            sys.exit(0)
        print("unused", os.waitpid(child, 0)[1])
    """
    assert python(code).stdout == "child True\nparent 0 True\nunused 0\n"


def test_a_fork_while_the_bridge_is_busy(python: Any) -> None:
    """Bad input 56: a lock that another thread holds at that moment must not hang the child."""
    code = """
        import asyncio, os, sys, threading
        from providers.bridge import bridge
        async def tick(): await asyncio.sleep(0)
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                bridge.run(tick())
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads: thread.start()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                bridge.run(tick())
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for thread in threads: thread.join()
        print("done")
    """
    assert python(code).stdout == "done\n"


@pytest.mark.parametrize(
    "code",
    [
        "bridge.run(asyncio.sleep(0))",
        "iterator = bridge.iterate(forever()); next(iterator)",
        "iterator = bridge.iterate(forever()); next(iterator); cycle = [iterator]; cycle.append(cycle); del iterator",
        "threading.Thread(target=run, args=(asyncio.sleep(60),), daemon=True).start(); time.sleep(0.2)",
        "import atexit; atexit.register(lambda: bridge.run(asyncio.sleep(0)))",
    ],
    ids=["used", "half read", "half read in a cycle", "a call under way", "used at exit"],
)
def test_the_interpreter_ends_without_hanging_and_without_noise(python: Any, code: str) -> None:
    """Bad input 59."""
    program = f"""
        import asyncio, concurrent.futures, sys, threading, time
        from providers.bridge import bridge
        async def forever():
            try:
                while True:
                    yield 1
                    await asyncio.sleep(0)
            finally:
                await asyncio.sleep(0)
        def run(coroutine):
            try: bridge.run(coroutine)
            except concurrent.futures.CancelledError: pass
        {code}
        print("end")
    """
    started = time.monotonic()
    assert python(program).stdout == "end\n"
    assert time.monotonic() - started < 10
