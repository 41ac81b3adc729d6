"""A slow opening belongs to nobody: who is cancelled, closes, rests or forks meanwhile leaves nothing open behind."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from providers import LLMResponse, ProviderClosedError

from .counting import Counting

pytestmark = pytest.mark.usefixtures("house")


class Gated(Counting):
    """Opens when it is let, and writes down what is done to it."""

    name = "gated"
    slow_open = True
    wrong: Exception | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        self.log: list[str] = []
        self.opens, self.may_open, self.may_shut = threading.Event(), threading.Event(), threading.Event()
        self.may_shut.set()
        super().__init__(*args, **options)

    def open(self) -> None:
        self.opens.set()
        assert self.may_open.wait(60)
        self.log.append("open")
        if self.wrong is not None:
            raise self.wrong

    async def shut(self) -> None:
        assert await asyncio.to_thread(self.may_shut.wait, 60)
        self.log.append("shut")

    async def begun(self, count: int = 1) -> list[asyncio.Task[Any]]:
        """Calls that wait for the opening."""
        calls = [asyncio.create_task(self.execute("hi")) for _ in range(count)]
        await until(lambda: self.opens.is_set() and self.calls_under_way >= count)
        return calls

    async def abandoned(self, count: int = 1) -> None:
        """An opening whose callers were cancelled."""
        for call in await self.begun(count):
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert self.calls_under_way == 0


def opening() -> bool:
    return any(thread.name == "opening gated" for thread in threading.enumerate())


async def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


@pytest.fixture
def provider() -> Any:
    made = Gated("m")
    yield made
    made.may_open.set()
    made.may_shut.set()


@pytest.mark.parametrize("callers", [1, 3])
async def test_cancelled_while_it_opens_and_closed_it_is_shut_all_the_same(provider: Gated, callers: int) -> None:
    """Nobody waits any more for what it opens; the loaded model must not stay."""
    await provider.abandoned(callers)
    await provider.close()
    assert provider.log == []
    provider.may_open.set()
    await until(lambda: len(provider.log) == 2)
    await provider.close()
    assert provider.log == ["open", "shut"]
    with pytest.raises(ProviderClosedError):
        await provider.execute("hi")


async def test_cancelled_while_it_opens_and_closed_afterwards_it_is_shut_once(provider: Gated) -> None:
    await provider.abandoned()
    provider.may_open.set()
    await until(lambda: provider.log == ["open"])
    await provider.close()
    await provider.close()
    await until(lambda: provider.log == ["open", "shut"])


async def test_who_is_cancelled_leaves_the_opening_to_the_others(provider: Gated) -> None:
    first, second, third = await provider.begun(3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    provider.may_open.set()
    assert [(await call).content for call in (second, third)] == ["ab", "ab"]
    assert provider.log == ["open"]
    await provider.close()


async def test_what_it_opened_for_callers_that_are_gone_serves_the_next(provider: Gated) -> None:
    await provider.abandoned()
    provider.may_open.set()
    response = await provider.execute("hi")
    assert isinstance(response, LLMResponse)
    assert (response.content, provider.log) == ("ab", ["open"])
    await provider.close()
    assert provider.log == ["open", "shut"]


async def test_closed_while_several_wait_all_are_told_and_it_is_shut_once(provider: Gated) -> None:
    """One of them is cancelled in the same moment."""
    gone, *calls = await provider.begun(5)
    gone.cancel()
    await asyncio.gather(*(provider.close() for _ in range(3)))
    provider.may_open.set()
    for call in calls:
        with pytest.raises(ProviderClosedError):
            await call
    await until(lambda: len(provider.log) == 2)
    assert provider.log == ["open", "shut"]
    assert provider.calls_under_way == 0


async def test_put_to_rest_while_it_opens_for_nobody_it_is_shut_and_opens_again(provider: Gated) -> None:
    """C-21: what a cache drops gives its model back."""
    await provider.abandoned(2)
    await provider.rest_when_idle()
    await provider.rest_when_idle()
    provider.may_open.set()
    await until(lambda: len(provider.log) == 2)
    assert provider.log == ["open", "shut"]
    await provider.execute("hi")
    await provider.execute("hi")
    assert provider.log == ["open", "shut", "open"]  # one rest is one rest
    await provider.close()


@pytest.mark.parametrize("close", [False, True])
async def test_who_waits_for_the_opening_is_answered_before_it_rests_or_closes(provider: Gated, close: bool) -> None:
    [call] = await provider.begun()
    warm = asyncio.create_task(provider.warm_cache())
    await (provider.close_when_idle() if close else provider.rest_when_idle())
    assert not provider.is_closed
    provider.may_open.set()
    assert (await call).content == "ab"
    await warm
    await until(lambda: len(provider.log) == 2)
    assert provider.log == ["open", "shut"]
    assert provider.is_closed is close


async def test_it_does_not_open_while_it_is_still_being_shut(provider: Gated) -> None:
    """A call in the moment of a rest gets neither an error nor a model that is taken away from it."""
    provider.may_open.set()
    await provider.execute("hi")
    provider.may_shut.clear()
    resting = [asyncio.create_task(provider.rest_when_idle()) for _ in range(2)]
    await asyncio.sleep(0)
    calls = [asyncio.create_task(provider.execute("hi")) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert provider.log == ["open"]
    provider.may_shut.set()
    assert [(await call).content for call in calls] == ["ab", "ab"]
    await asyncio.gather(*resting)
    assert provider.log == ["open", "shut", "open"]
    await provider.close()


@pytest.mark.parametrize("how", ["close", "rest_when_idle", "close_when_idle"])
async def test_who_is_cancelled_while_it_is_shut_leaves_no_half(provider: Gated, how: str) -> None:
    """As where a caller's time is over in the moment in which its call, the last one, has ended."""
    provider.may_open.set()
    await provider.execute("hi")
    provider.may_shut.clear()
    task = asyncio.create_task(getattr(provider, how)())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    provider.may_shut.set()
    await until(lambda: provider.log == ["open", "shut"])


@pytest.mark.parametrize("how", ["close", "rest_when_idle"])
def test_a_loop_that_ends_while_it_is_shut_leaves_the_rest_to_the_next_close(provider: Gated, how: str) -> None:
    async def leave() -> None:
        await provider.execute("hi")
        provider.may_shut.clear()
        task = asyncio.create_task(getattr(provider, how)())
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.05, provider.may_shut.set)  # the loop waits for its workers
        task.cancel()

    provider.may_open.set()
    asyncio.run(leave())
    assert provider.log == ["open"]
    for _ in range(2):
        asyncio.run(provider.close())
    assert provider.log == ["open", "shut"]


async def test_an_opening_that_fails_fails_for_all_who_wait_and_is_made_once(provider: Gated) -> None:
    """Twenty callers of a model that is not there wait for one attempt, not for twenty one after the other."""
    provider.wrong = ValueError("no such model")
    calls = await provider.begun(20)
    provider.may_open.set()
    for call in calls:
        with pytest.raises(ValueError, match="no such model"):
            await call
    assert (provider.log, provider.calls_under_way) == (["open"], 0)
    provider.opens.clear()
    provider.may_open.clear()
    await provider.abandoned()
    await provider.rest_when_idle()
    provider.may_open.set()
    await until(lambda: provider.log == ["open", "open"] and not opening())
    provider.wrong = None
    await provider.execute("hi")
    await provider.execute("hi")
    assert provider.log == ["open", "open", "open"]  # there was nothing to put to rest
    await provider.close()


async def test_who_waits_holds_none_of_the_loops_workers(provider: Gated) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    calls = await provider.begun(50)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 60) == 7
    provider.may_open.set()
    assert {(await call).content for call in calls} == {"ab"}
    await provider.close()


@pytest.mark.parametrize("opened", ["before the next loop", "within it"])
def test_the_loop_that_asked_has_ended_before_it_is_open(provider: Gated, opened: str) -> None:
    """A cancelled call does not hold `asyncio.run` up; another loop closes, and the model goes."""
    asyncio.run(provider.abandoned())

    async def close() -> None:
        await provider.close()
        provider.may_open.set()

    if opened == "before the next loop":
        provider.may_open.set()
        asyncio.run(until(lambda: provider.log == ["open"]))
        asyncio.run(provider.close())
    else:
        asyncio.run(close())
    asyncio.run(until(lambda: len(provider.log) == 2))
    assert provider.log == ["open", "shut"]


async def test_what_cannot_be_shut_when_nobody_waits_is_logged(
    provider: Gated, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise OSError("stuck")

    monkeypatch.setattr(provider._life, "_shut", fail)
    [call] = await provider.begun()
    await provider.close()
    with caplog.at_level(logging.WARNING, "providers"):
        provider.may_open.set()
        with pytest.raises(ProviderClosedError):
            await call
        await until(lambda: caplog.records)
    assert "gated could not be shut: OSError: stuck" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_forked_while_it_opens_opens_its_own(provider: Gated) -> None:
    """The thread that opens is not there in the child, nor are those who wait; the parent goes on undisturbed."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(provider.execute("hi"))))
    thread.start()
    assert provider.opens.wait(60)
    pid = os.fork()
    if pid == 0:
        good = False
        with suppress(BaseException):
            provider.may_open.set()
            good = provider.calls_under_way == 0 and asyncio.run(asyncio.wait_for(provider.execute("hi"), 30)).ok
            asyncio.run(provider.close())
            good = good and provider.log == ["open", "shut"]
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert (provider.log, provider.calls_under_way) == ([], 1)
    provider.may_open.set()
    thread.join(60)
    assert [answer.content for answer in answers] == ["ab"]
    asyncio.run(provider.close())


_LEAVING = """
import asyncio, threading
from contextlib import suppress
from providers import LLMProvider

class Late(LLMProvider):
    name, slow_open = "late", True
    def open(self):
        opens.set()
        threading.main_thread().join()
        print("opened")
    async def shut(self):
        await asyncio.to_thread(print, "shut")

async def main():
    call = asyncio.create_task(provider.execute("hi"))
    while not opens.is_set():
        await asyncio.sleep(0.005)
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    await provider.close()

opens, provider = threading.Event(), Late("m")
asyncio.run(main())
"""


def test_a_process_that_ends_while_it_opens_ends_in_good_order() -> None:
    """It waits for the native code that loads, and complains of nothing."""
    done = subprocess.run([sys.executable, "-c", _LEAVING], capture_output=True, encoding="utf-8", timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "opened\n", "")
