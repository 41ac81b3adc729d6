"""What holds for a model in this process: loops that never wait, threads, an end at any time, memory given back."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import abstractmethod
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from ...base import LLMProvider
from ...exceptions import LLMProviderConfigurationError, ProviderClosedError
from ...types import LLMResponse, StreamEventType
from ..loops import leave_while_opening, loop_delays
from .kit import keep_tests

_SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}


class LocalConformance:
    """What holds for every provider that loads a model itself; to be subclassed beside `ProviderConformance`.

    Tests cannot be dropped or changed. Override the fixture `loaded` where one that is loaded already may be used.

    Attributes:
        prompts: questions with short answers that are the same each time, and not the same as one another.
        story: a question whose answer with `long` takes seconds.
        long: options of such a call.
        busy: options of a call that takes some tenths of a second.
        read: a question that takes long to be read.
        counted: a text whose tokens take long to be counted.
        embeds: whether there are embeddings.
        calls: how many calls are under way when a provider is closed: some are answered, some wait.
        closes_within: seconds that closing may take then.
    """

    prompts: ClassVar[Sequence[str]] = ("Tell me about red.", "Tell me about the fox.")
    story: ClassVar[str] = "Tell me a long story."
    long: ClassVar[Mapping[str, Any]] = {"max_tokens": 1500}
    busy: ClassVar[Mapping[str, Any]] = {"max_tokens": 200}
    read: ClassVar[str] = "word " * 300
    counted: ClassVar[str] = "word " * 5000
    embeds: ClassVar[bool] = True
    calls: ClassVar[int] = 4
    closes_within: ClassVar[float] = 1.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_tests(cls, LocalConformance)

    @abstractmethod
    def make_provider(self) -> LLMProvider:
        """A new provider, whose model is not loaded yet; short answers without chance by default."""
        raise NotImplementedError(f"{type(self).__qualname__} needs make_provider()")

    @abstractmethod
    def holds(self, provider: Any) -> bool:
        """Whether a provider holds a model."""
        raise NotImplementedError(f"{type(self).__qualname__} needs holds()")

    def work(self, provider: Any) -> list[Awaitable[Any]]:
        """More that must hold no loop up: by default nothing."""
        return []

    async def until_free(self, provider: Any) -> None:
        """Wait until the model works on nothing; by default the next answer tells."""

    # --- tools of the tests

    @pytest.fixture
    def loaded(self) -> Iterator[LLMProvider]:
        """A provider that answers."""
        provider = self.make_provider()
        yield provider
        asyncio.run(provider.close())

    async def _answer(self, provider: LLMProvider, prompt: str, **options: Any) -> str:
        response = await provider.execute(prompt, **options)
        assert isinstance(response, LLMResponse)
        return response.content

    # --- the tests

    def test_the_loop_never_waits_for_the_model(self, loaded: Any) -> None:
        """F-143: less than 50 ms, while answers are made, prompts read, structure enforced and tokens counted."""

        async def stream() -> None:
            async for _ in loaded.stream(self.story, **self.busy):
                pass

        async def main() -> list[float]:
            # The first use of a schema imports what enforces it.
            await self._answer(loaded, "Pick.", schema=_SCHEMA)
            # The machine itself may stop this process for a moment, but not each time; the model would.
            longest: list[float] = []
            for _ in range(4):
                async with loop_delays() as gaps:
                    work: list[Awaitable[Any]] = [
                        stream(),
                        stream(),
                        self._answer(loaded, self.read, max_tokens=2),
                        self._answer(loaded, "Pick.", schema=_SCHEMA),
                        self._answer(loaded, self.story, **{**self.busy, "temperature": 1.0}),
                        loaded.count_tokens(self.counted),
                        *self.work(loaded),
                    ]
                    await asyncio.gather(*work)
                assert len(gaps) > 20
                longest.append(max(gaps))
                if longest[-1] < 0.05:
                    break
            return longest

        longest = asyncio.run(main())
        assert longest[-1] < 0.05, longest

    def test_threads_with_loops_of_their_own(self, loaded: LLMProvider) -> None:
        """F-143: several at once, several calls each, on one provider: each gets its own answers."""
        wanted = {prompt: asyncio.run(self._answer(loaded, prompt)) for prompt in self.prompts}
        assert len(set(wanted.values())) == len(self.prompts)
        found: dict[str, list[str]] = {}

        def work(prompt: str) -> None:
            async def main() -> list[str]:
                return [await self._answer(loaded, prompt) for _ in range(3)]

            found[prompt] = asyncio.run(main())

        threads = [threading.Thread(target=work, args=(prompt,)) for prompt in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == {prompt: [text] * 3 for prompt, text in wanted.items()}

    def test_one_loop_after_another(self, loaded: LLMProvider) -> None:
        """F-143: what the first loop left half-read does not disturb the second."""

        async def leave() -> None:
            async for event in loaded.stream(self.story, **self.long):
                if event.type is StreamEventType.TOKEN:
                    return

        wanted = asyncio.run(self._answer(loaded, self.prompts[0]))
        asyncio.run(leave())
        start = time.perf_counter()
        assert asyncio.run(self._answer(loaded, self.prompts[0])) == wanted
        asyncio.run(self.until_free(loaded))
        assert time.perf_counter() - start < 2

    def test_closing_ends_what_runs_and_what_waits(self) -> None:
        """F-077: at once, with a clear error; the second close is harmless, and another can be loaded then."""

        async def main() -> None:
            provider = self.make_provider()
            await provider.warm_cache()
            begun = asyncio.Event()

            async def stream() -> None:
                async for event in provider.stream(self.story, **self.long):
                    if event.type is StreamEventType.TOKEN:
                        begun.set()

            under_way = [asyncio.create_task(stream())]
            under_way += [asyncio.create_task(provider.execute(self.story, **self.long)) for _ in range(self.calls - 1)]
            await asyncio.wait_for(begun.wait(), 60)
            start = time.perf_counter()
            await provider.close()
            assert time.perf_counter() - start < self.closes_within
            errors = await asyncio.gather(*under_way, return_exceptions=True)
            assert [type(error) for error in errors] == [ProviderClosedError] * self.calls
            assert not self.holds(provider)
            await provider.close()
            for name, kind in (
                ("execute", ProviderClosedError),
                ("count_tokens", ProviderClosedError),
                ("embed", ProviderClosedError if self.embeds else NotImplementedError),
            ):
                with pytest.raises(kind):
                    await getattr(provider, name)("Hi")
            async with self.make_provider() as other:
                assert await self._answer(other, self.prompts[0])

        asyncio.run(main())

    def test_a_model_that_loads_for_nobody_is_freed(self) -> None:
        """F-077: the call was cancelled while it loaded, and the provider then closed, or put to rest."""

        async def main() -> None:
            provider = self.make_provider()
            await leave_while_opening(provider, "rest_when_idle")
            assert not self.holds(provider)
            await leave_while_opening(provider, "close")
            assert not self.holds(provider)
            with pytest.raises(ProviderClosedError):
                await provider.execute("Hi")

        asyncio.run(main())

    def test_one_at_rest_loads_its_model_again(self) -> None:
        """F-077: what falls out of the provider cache frees its model, and still answers whoever holds it."""

        async def main() -> None:
            async with self.make_provider() as provider:
                first = await self._answer(provider, self.prompts[0])
                assert self.holds(provider)
                await provider.rest_when_idle()
                assert not self.holds(provider)
                assert await self._answer(provider, self.prompts[0]) == first

        asyncio.run(main())

    def test_another_model_is_refused_by_reload(self, loaded: LLMProvider) -> None:
        """What the next call would refuse is refused at once, and the model in use goes on."""

        async def work() -> None:
            kept = (loaded.settings, loaded.config)
            with pytest.raises(LLMProviderConfigurationError, match=r"has loaded '.*'; create another one for 'other'"):
                await loaded.reload(model_name="other")
            assert (loaded.settings, loaded.config) == kept
            assert (await loaded.complete(self.prompts[0])).ok

        asyncio.run(work())
