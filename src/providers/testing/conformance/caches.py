"""What each store of a response cache must do; to be subclassed by whoever writes one."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from ...caches import CacheStore, decode, encode
from ...exceptions import LLMProviderConnectionError
from ...layers.cache import ResponseCache
from ...pipeline import compose, compose_whole, fold
from ...types import LLMResponse, Messages, Request, StreamEvent, StreamEventType, StructuredOutput, ToolCall, Usage
from ...types.policy import CachePolicy
from .kit import keep_tests
from .stores import StoreTests, key_at


def _ask(text: str = "Hello", **changes: Any) -> Request:
    return Request("m", Messages.of(text), cache=CachePolicy(), **changes)


class _Backend:
    """Answers with a number that grows, and counts."""

    def __init__(self, *events: StreamEvent, wait: float = 0.0) -> None:
        self.calls = 0
        self._events = events
        self._wait = wait

    async def generate(self, request: Request) -> Any:
        self.calls += 1
        await asyncio.sleep(self._wait)
        for event in self._events or (StreamEvent.token(f"answer {self.calls}"),):
            yield event
        if not self._events:
            yield StreamEvent.usage(Usage(3, 2))
            yield StreamEvent.finish("stop")

    async def respond(self, request: Request) -> list[StreamEvent]:
        return [event async for event in self.generate(request)]


class CacheConformance(StoreTests):
    """What each store of a response cache must do, alone and behind the layer.

    Subclass it and write `make_store`. Tests cannot be dropped or changed. Stores that find similar requests too keep
    exact ones apart like all others.

    Attributes:
        bounded: whether `make_store(max_bytes=...)` bounds the size.
        persistent: whether an entry outlives its store.
        room: an empty folder for each test.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_tests(cls, CacheConformance)

    def test_a_hit_is_the_answer_again(self) -> None:
        """Whole and streamed: text, reasoning, calls, provider data, metadata; parsed is made anew; usage is 0."""
        structure = StructuredOutput(parser=lambda value: (value, "parsed"))
        for output, content, calls in (
            (
                None,
                "Grüße, 🌍\n\n \ud800 end ",
                [ToolCall("c1", "f", '{"a": 1}', {"sig": b"\x00\xff"}), ToolCall("c2", "g")],
            ),
            (structure, '{"a": [1, 2.5, null]}', []),
        ):
            answer = LLMResponse(
                content,
                "model-2",
                "acme",
                finish_reason="tool_calls" if calls else "stop",
                response_id="r-1",
                metadata={"params": {"sent": {"t": 1}, "left_out": {}}, "odd": {"\0bytes": "x", "\0": [True, 1, 1.0]}},
                usage=Usage(7, 5, input_tokens_cached=3, total_cost=0.25),
                tool_calls=calls or None,
                reasoning="because",
                provider_data={"thinking": [{"signature": b"\x01"}]},
            )

            async def work(
                store: CacheStore,
                answer: LLMResponse = answer,
                calls: list[ToolCall] = calls,
                output: StructuredOutput | None = output,
            ) -> None:
                request = _ask(output=output)
                layer = ResponseCache(store, "acme")
                key = layer._key(request, CachePolicy())
                assert key is not None
                await store.put(key, encode(answer))
                for stream in (False, True):
                    backend = _Backend()
                    asked = request.replace(stream=stream)
                    events = [event async for event in compose([layer], backend.generate)(asked)]
                    hit = fold(events, asked, "acme")
                    assert backend.calls == 0
                    told = hit.metadata.pop("cache")
                    assert (told["hit"], told["key"]) == (True, key.digest)
                    assert 0 <= told["age"] < 60
                    assert Usage.from_dict(told["usage"]) == answer.usage
                    assert set(hit.usage.to_dict().values()) == {0}
                    hit.usage = answer.usage
                    if output is not None:
                        assert hit.parsed == ({"a": [1, 2.5, None]}, "parsed")
                        hit.parsed = None
                    assert hit == answer
                    tokens = sum(event.type is StreamEventType.TOKEN for event in events)
                    assert tokens > 1 if stream else tokens == 1

            self._run(work)

    def test_the_flags(self) -> None:
        """F-064, F-106, F-108: no flag, no cache; rewrite replaces; regen passes by."""

        async def work(store: CacheStore) -> None:
            backend = _Backend()
            layer = ResponseCache(store, "acme")
            whole = compose_whole([layer], backend.generate, backend.respond)

            async def ask(policy: CachePolicy | None) -> str:
                request = _ask().replace(cache=policy)
                return fold(await whole(request), request).content

            assert [await ask(None), await ask(None)] == ["answer 1", "answer 2"]
            assert (await store.size()).entries == 0
            assert [await ask(CachePolicy()), await ask(CachePolicy())] == ["answer 3", "answer 3"]
            assert [await ask(CachePolicy(regen=True)), await ask(CachePolicy())] == ["answer 4", "answer 3"]
            assert [await ask(CachePolicy(rewrite=True)), await ask(CachePolicy())] == ["answer 5", "answer 5"]
            assert (await store.size()).entries == 1
            other = CachePolicy("other", regen=True)
            assert [await ask(other), await ask(CachePolicy("other"))] == ["answer 6", "answer 6"]
            assert (await store.size()).entries == 2

        self._run(work)

    def test_a_hundred_identical_calls_are_one_request(self) -> None:
        """Single flight, streamed and whole mixed; afterwards hits."""

        async def work(store: CacheStore) -> None:
            backend = _Backend(wait=0.02)
            layer = ResponseCache(store, "acme", patience=30)
            whole = compose_whole([layer], backend.generate, backend.respond)
            stream = compose([layer], backend.generate)

            async def ask(number: int) -> LLMResponse:
                request = _ask(stream=bool(number % 2))
                events = [e async for e in stream(request)] if number % 2 else await whole(request)
                return fold(events, request)

            answers = await asyncio.gather(*map(ask, range(100)))
            assert {answer.content for answer in answers} == {"answer 1"}
            assert sum(answer.metadata["cache"]["hit"] for answer in answers) == 99
            assert sum(answer.usage.total_tokens or 0 for answer in answers) == 5
            assert (await ask(0)).metadata["cache"]["hit"]
            assert backend.calls == 1

        self._run(work)

    def test_only_whole_answers_are_stored(self) -> None:
        """Cut off, filtered, refused, empty, broken: not stored; a failure is raised and not stored."""
        token = StreamEvent.token("x")
        schema = StructuredOutput()
        rows: list[tuple[tuple[StreamEvent, ...], StructuredOutput | None]] = [
            ((token, StreamEvent.finish("length")), None),
            ((token, StreamEvent.finish("content_filter")), None),
            ((token, StreamEvent.finish("some word")), None),
            ((token, StreamEvent.meta(model="m")), None),
            ((token, StreamEvent.finish("stop", refusal="no")), None),
            ((StreamEvent.reasoning("hm"), StreamEvent.finish("stop")), None),
            ((StreamEvent.tool_call(ToolCall("1", "f", "{")), StreamEvent.finish("tool_calls")), None),
            ((token, StreamEvent.finish("stop")), schema),
        ]

        async def work(store: CacheStore) -> None:
            layer = ResponseCache(store, "acme")
            for events, output in rows:
                backend = _Backend(*events)
                for _ in range(2):
                    got = await compose_whole([layer], backend.generate, backend.respond)(_ask(output=output))
                    assert got[-1].data["cache"]["stored"] is False
                assert backend.calls == 2, events

            async def broken(request: Request) -> Any:
                yield token
                raise LLMProviderConnectionError("gone")

            for _ in range(2):
                with pytest.raises(LLMProviderConnectionError):
                    [event async for event in compose([layer], broken)(_ask())]
            assert (await store.size()).entries == 0

        self._run(work)

    def test_any_text_comes_back(self) -> None:
        """Whatever a model says reads back as it was: every plane of Unicode, halves of pairs, controls."""
        rng = random.Random(7)
        spans = ((0, 0x20), (0x20, 0x7F), (0x7F, 0x2FF), (0x2000, 0x2070), (0xD800, 0xE000), (0x1F300, 0x10FFFF))

        async def work(store: CacheStore) -> None:
            for _ in range(60):
                content = "".join(chr(rng.randrange(*rng.choice(spans))) for _ in range(rng.randrange(40)))
                text = encode(LLMResponse(content, finish_reason="stop"))
                await store.put(key_at(), text)
                assert (entry := await store.get(key_at())) is not None
                assert entry.text == text
                # Two halves that stand side by side are one character for JSON.
                assert decode(entry.text).content == content.encode("utf-16", "surrogatepass").decode(
                    "utf-16", "surrogatepass"
                )

        self._run(work)
