"""A provider behind a network: several event loops, threads, sync code, a forked child, no connection left over."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import pytest

from ...base import LLMProvider
from ...clients import Client
from ...exceptions import ProviderClosedError
from ...types import LLMResponse
from ..server import Fault, LoopbackServer, RecordedRequest, Reply
from .kit import keep_tests


class RemoteConformance:
    """What holds for every backend that is reached over HTTP; to be subclassed beside `ProviderConformance`.

    Each test has a `LoopbackServer` of its own in `self.server`. Tests cannot be dropped or changed.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_tests(cls, RemoteConformance)

    @abstractmethod
    def make_provider(self) -> LLMProvider:
        """A new provider that talks to `self.server.url`."""
        raise NotImplementedError(f"{type(self).__qualname__} needs make_provider()")

    @abstractmethod
    def hi(self) -> Reply:
        """The backend's whole answer with the text "Hi"."""
        raise NotImplementedError(f"{type(self).__qualname__} needs hi()")

    @abstractmethod
    def stalled(self) -> Reply:
        """A stream of the backend that stops, open, behind its first piece of text: `Fault.stall(Reply.sse(...))`."""
        raise NotImplementedError(f"{type(self).__qualname__} needs stalled()")

    # --- tools of the tests

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with LoopbackServer() as server:
            server.script("*", self.hi(), repeat=True)
            self.server = server
            yield

    async def _ask(self, provider: LLMProvider, times: int = 3) -> list[str]:
        answers = await asyncio.gather(*(provider.execute("Hi") for _ in range(times)))
        return [answer.content for answer in answers if isinstance(answer, LLMResponse)]

    async def _is_free(self) -> bool:
        return await self.server.eventually(lambda: self.server.open_connections == 0)

    # --- the tests

    def test_two_runs_one_after_another(self) -> None:
        """One provider in two `asyncio.run`; the first one's end closes its connections."""
        provider = self.make_provider()
        for _ in range(2):
            assert asyncio.run(self._ask(provider)) == ["Hi"] * 3
            assert self.server.wait_until(lambda: self.server.open_connections == 0)
        asyncio.run(provider.close())
        with pytest.raises(ProviderClosedError):
            asyncio.run(self._ask(provider))

    def test_eight_threads(self) -> None:
        """F-143: a loop in each thread, one provider for all."""
        provider = self.make_provider()
        answers: list[str] = []
        threads = [threading.Thread(target=lambda: answers.extend(asyncio.run(self._ask(provider)))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == ["Hi"] * 24
        asyncio.run(provider.close())
        assert self.server.wait_until(lambda: self.server.open_connections == 0)

    def test_the_sync_face_inside_a_running_loop(self) -> None:
        """F-001, F-003: closing here closes the connections of the sync face's loop too."""

        async def main() -> None:
            provider = self.make_provider()
            assert Client(provider).get_response("Hi") == "Hi"
            assert await self._ask(provider, 1) == ["Hi"]
            await provider.close()
            assert await self._is_free()

        asyncio.run(main())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_forked_child(self) -> None:
        """Child and parent both go on, each with connections of its own."""
        provider = self.make_provider()
        assert asyncio.run(self._ask(provider, 1)) == ["Hi"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # this process has the server's thread
            child = os.fork()
        if child == 0:
            good = False
            try:
                good = asyncio.run(self._ask(provider)) == ["Hi"] * 3
            finally:
                os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert asyncio.run(self._ask(provider)) == ["Hi"] * 3
        asyncio.run(provider.close())

    def test_one_that_is_forgotten_leaves_no_warning(self) -> None:
        """Nobody closes it: its loop's end does."""

        async def ask_and_forget() -> list[str]:
            return await self._ask(self.make_provider(), 1)

        asyncio.run(ask_and_forget())  # what a backend's own modules warn of at import is not what is asked here
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert asyncio.run(ask_and_forget()) == ["Hi"]
            gc.collect()
        assert self.server.wait_until(lambda: self.server.open_connections == 0)

    @pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
    def test_closing_ends_what_is_under_way(self, streaming: bool) -> None:
        """Who waits is told that the provider was closed, at once, and no connection is left."""

        async def main() -> None:
            self.server.clear()
            self.server.script("*", self.stalled() if streaming else Fault.silence())
            provider = self.make_provider()
            await provider.warm_cache()
            reached = asyncio.Event()

            async def call() -> None:
                if not streaming:
                    await provider.execute("Hi")
                async for _ in provider.stream("Hi"):
                    reached.set()

            task = asyncio.create_task(call())
            assert await self.server.eventually(lambda: self.server.count() == 1, within=3)
            if streaming:
                await reached.wait()
            async with asyncio.timeout(2):
                await provider.close()
                with pytest.raises(ProviderClosedError):
                    await task
            assert await self._is_free()

        asyncio.run(main())

    def test_one_at_rest_answers_again(self) -> None:
        """What falls out of the provider cache gives its connections back, and still answers whoever holds it."""

        async def main() -> None:
            provider = self.make_provider()
            assert await self._ask(provider) == ["Hi"] * 3
            await provider.rest_when_idle()
            assert await self._is_free()
            assert await self._ask(provider) == ["Hi"] * 3
            await provider.close()

        asyncio.run(main())

    def test_connections_are_kept(self) -> None:
        """Five calls, one connection."""

        async def main() -> None:
            async with self.make_provider() as provider:
                for _ in range(5):
                    assert await self._ask(provider, 1) == ["Hi"]

        asyncio.run(main())
        assert self.server.connections == 1

    def test_a_reload_drops_no_call(self) -> None:
        """What is under way goes on over its connection, the next call has another, and the old one is closed."""

        async def main() -> None:
            goes_on, begun = threading.Event(), threading.Event()
            hi: Any = self.hi()

            async def held(request: RecordedRequest) -> Any:
                if not begun.is_set():
                    begun.set()
                    await asyncio.to_thread(goes_on.wait, 30)
                return hi(request) if callable(hi) else hi

            self.server.clear()
            self.server.script("*", held, repeat=True)
            provider = self.make_provider()
            task = asyncio.create_task(self._ask(provider, 1))
            # Not `eventually`: that asks at what the server notes, and the handler begins a moment later.
            assert await asyncio.to_thread(begun.wait, 30)
            await provider.reload()
            assert await self._ask(provider) == ["Hi"] * 3
            assert provider.calls_under_way == 1
            goes_on.set()
            assert await task == ["Hi"]
            assert provider.calls_under_way == 0
            await provider.close()
            assert await self._is_free()

        asyncio.run(main())
