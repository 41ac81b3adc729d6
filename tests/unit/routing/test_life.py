"""What a fallback is as a provider: the house's own conformance tests, facts, life, caches and embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from providers import (
    EmbeddingRequest,
    EmbeddingResult,
    Embeddings,
    LLMProvider,
    LLMProviderAuthenticationError,
    LLMProviderServerError,
    LLMProviderUnsupportedOperationError,
    LLMResponse,
    MemoryCache,
    ProviderClosedError,
    ResponseCache,
    Usage,
    create_llm_provider,
)
from providers.layers import retry
from providers.routing import FallbackProvider
from providers.routing.targets import OWN_TIMEOUT
from providers.testing import EchoProvider, LoopbackServer, ProviderConformance, Reply, ScriptedProvider
from providers.testing.server import RecordedRequest

from .backend import OUTAGE, PATH, ask, either
from .conftest import Make

Pair = Callable[..., FallbackProvider]


class Down(EchoProvider):
    name = "down"

    async def generate(self, request: Any) -> Any:
        raise LLMProviderServerError("down")
        yield


class Vectors(Embeddings, EchoProvider):
    """Gives the length of each text, or fails."""

    name = "vectors"

    def __init__(self, model: str, error: type[Exception] | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.error = error
        self.calls: list[EmbeddingRequest] = []

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        self.calls.append(request)
        if self.error is not None:
            raise self.error("it failed")
        return EmbeddingResult([[float(len(text))] for text in request.inputs], Usage(3, 0), request.model)


class TestFallbackConforms(ProviderConformance):
    """The first target is down, the second one rests, the third one is a fallback: it does what a provider owes."""

    expected_failures: ClassVar[dict[str, str]] = {}

    def make_provider(self, **options: Any) -> LLMProvider:
        resting = EchoProvider()
        fallback = FallbackProvider(
            [Down(), resting, FallbackProvider([EchoProvider("echo-1")])], own=True, cooldown=1000, **options
        )
        health = fallback._targets[1].health
        health.rest(health.force())
        return fallback


class TestEmbeddingFallbackConforms(TestFallbackConforms):
    """With a target that makes embeddings it has that power."""

    def make_provider(self, **options: Any) -> LLMProvider:
        return FallbackProvider([super().make_provider(), Vectors("e-1")], own=True, **options)


async def test_targets_are_closed_where_they_belong_to_it_and_left_alone_else() -> None:
    for own in (True, False):
        targets = [EchoProvider(), EchoProvider()]
        async with FallbackProvider(targets, own=own) as fallback:
            await ask(fallback)
        assert [target.is_closed for target in targets] == [own, own]
        with pytest.raises(ProviderClosedError, match="fallback"):
            await ask(fallback)
    mine, theirs = EchoProvider(), EchoProvider()
    unused = FallbackProvider([mine, theirs], own=[mine])
    await unused.close_when_idle()
    assert [mine.is_closed, theirs.is_closed] == [True, False]
    await unused.close()


async def test_a_target_that_cannot_be_closed_keeps_no_other_one_open() -> None:
    class Stuck(EchoProvider):
        async def shut(self) -> None:
            raise LLMProviderServerError("stuck")

    targets = [Stuck(), EchoProvider()]
    fallback = FallbackProvider(targets, own=True)
    await ask(targets[0])
    with pytest.raises(LLMProviderServerError, match="stuck"):
        await fallback.close()
    assert [target.is_closed for target in targets] == [True, True]


@pytest.mark.parametrize("streaming", [False, True])
async def test_at_rest_the_targets_rest_too_and_work_again(streaming: bool) -> None:
    class Counting(EchoProvider):
        opened = shuts = 0

        def open(self) -> None:
            self.opened += 1

        async def shut(self) -> None:
            self.shuts += 1

    target = Counting()
    fallback = FallbackProvider([target], own=True)
    await ask(fallback, streaming=streaming)
    await fallback.rest_when_idle()
    assert (target.opened, target.shuts, target.is_closed) == (1, 1, False)
    await ask(fallback, streaming=streaming)
    stream = fallback.stream("Hi there")
    await anext(stream)
    await fallback.close_when_idle()
    assert (target.opened, target.shuts, target.is_closed) == (2, 1, False)
    await stream.aclose()
    assert (target.opened, target.shuts, target.is_closed) == (2, 2, True)


async def test_a_target_that_somebody_has_closed_is_passed_over_with_a_warning() -> None:
    gone = EchoProvider()
    await gone.close()
    with pytest.warns(UserWarning, match="somebody has closed this target"):
        assert (await ask(FallbackProvider([gone, EchoProvider("b")]))).model == "b"


async def test_warming_up_warms_all_and_fails_where_none_is_ready() -> None:
    class Lost(EchoProvider):
        def open(self) -> None:
            raise LLMProviderAuthenticationError("no key")

    class Opened(EchoProvider):
        warm = False

        def open(self) -> None:
            self.warm = True

    good = Opened()
    with pytest.warns(UserWarning, match="echo/echo could not be got ready: .*no key"):
        await FallbackProvider([Lost(), good]).warm_cache()
    assert good.warm
    with pytest.raises(LLMProviderAuthenticationError, match="no key"):
        await FallbackProvider([Lost(), Lost()]).warm_cache()


def test_facts() -> None:
    able = ScriptedProvider([], "a", token_limit=1000)
    fallback = FallbackProvider([able, EchoProvider(token_limit=5000)], temperature=0.1)
    assert fallback.capabilities == able.capabilities
    assert fallback.token_limit == 5000
    assert fallback.validate_token_limit("word " * 3000)
    assert not fallback.validate_token_limit("word " * 9000)
    assert FallbackProvider([able], token_limit=10).token_limit == 10
    info = fallback.get_model_info()
    assert (info["provider_type"], info["choice"], info["model_name"]) == (
        "fallback",
        "ordered",
        "scripted/a | echo/echo",
    )
    assert [
        (item["target"], item["provider_type"], item["token_limit"], item["state"]) for item in info["targets"]
    ] == [
        ("scripted/a", "scripted", 1000, "closed"),
        ("echo/echo", "echo", 5000, "closed"),
    ]
    assert fallback.targets[0] is able


@pytest.mark.parametrize("streaming", [False, True])
async def test_reload_counts_from_the_next_call_on(
    one: LoopbackServer, two: LoopbackServer, make: Make, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    """Of the fallback, whose requests stay open to the targets, and of a target, whose key has changed."""
    for server in (one, two):
        server.script(PATH, either(), repeat=True)
    target = make(one, "m", timeout=7, temperature=0.5)
    fallback = FallbackProvider([target])
    await fallback.reload(max_tokens=5)
    await target.reload(api_key="sk-rotated-key", base_url=f"{two.url}/v1")
    await ask(fallback, streaming=streaming)
    [request] = two.requests
    assert one.requests == []
    assert request.headers["authorization"] == "Bearer sk-rotated-key"
    assert (request.json["temperature"], request.json["max_tokens"]) == (0.5, 5)
    assert fallback._builder.build("Hi", None, {}, False).timeout is OWN_TIMEOUT
    assert "OPENAI_API_KEY" in fallback.variables


# --- caches


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_cache_around_it_or_around_a_target_is_heard(
    inside: bool, streaming: bool, recwarn: pytest.WarningsRecorder
) -> None:
    store = MemoryCache()
    cached = (ResponseCache(store, "scripted"), retry)
    target = ScriptedProvider(["once"], "m", **({"layers": cached} if inside else {}))
    fallback = FallbackProvider([Down(), target], max_retries=0, **({} if inside else {"layers": cached}))
    for hit in (False, True):
        response = await ask(fallback, streaming=streaming, cache_response=True)
        assert (response.content, response.metadata["cache"]["hit"]) == ("once", hit)
    assert len(target.requests) == 1
    assert [str(warning.message) for warning in recwarn] == []


async def test_the_flags_of_a_call_are_heard_where_a_cache_stands_further_in_or_came_later(recwarn: Any) -> None:
    further_in = ScriptedProvider(["once"], cache_backend="memory")
    later = ScriptedProvider(["once"])
    for fallback in (FallbackProvider([FallbackProvider([further_in])]), FallbackProvider([later])):
        if fallback.targets[0] is later:
            await later.reload(cache_backend="memory")
        for hit in (False, True):
            response = await ask(fallback, cache_response=True)
            assert response.metadata["cache"]["hit"] is hit
        await fallback.close()
    for target in (further_in, later):
        await target.close()
    assert [str(warning.message) for warning in recwarn] == []
    with pytest.warns(UserWarning, match="no response cache"):
        await ask(FallbackProvider([EchoProvider()]), cache_response=True)


# --- embeddings


async def test_vectors_come_from_the_next_target_of_the_same_model() -> None:
    down, other, gateway = (
        Vectors("e-1", LLMProviderServerError, max_retries=9),
        Vectors("e-2"),
        Vectors("vendor/e-1", timeout=7, extra_params={"a": 1}),
    )
    fallback = FallbackProvider([EchoProvider(), down, other, gateway], max_retries=2, retry_delay=0.0005)
    assert "embeddings" in fallback.capabilities
    result = await fallback.embed(["a", "bcd"], dimensions=4, extra={"b": 2})
    assert (result.embeddings, result.model, result.ok) == ([[1.0], [3.0]], "vendor/e-1", True)
    assert (len(down.calls), len(other.calls), len(gateway.calls)) == (1, 0, 1)
    seen = gateway.calls[0]
    assert (seen.dimensions, seen.timeout, seen.extras) == (4, 7, {"a": 1, "b": 2})
    gateway.error = LLMProviderServerError
    result = await fallback.embed("a")
    assert (result.ok, result.status) == (False, 500)
    assert (len(down.calls), len(gateway.calls)) == (4, 4), "three walks along two targets"
    mixed = FallbackProvider([down, other], any_vectors=True, max_retries=0)
    assert (await mixed.embed("a", timeout=3)).model == "e-2"
    assert other.calls[-1].timeout == 3


async def test_without_a_target_that_embeds_it_is_refused() -> None:
    with pytest.raises(LLMProviderUnsupportedOperationError, match="makes no embeddings"):
        await FallbackProvider([EchoProvider()]).embed("a")
    assert not isinstance(FallbackProvider([EchoProvider()]), Embeddings)
    assert isinstance(FallbackProvider([EchoProvider(), FallbackProvider([Vectors("e")])]), Embeddings)
    with pytest.raises(ValueError, match="inputs"):
        await FallbackProvider([Vectors("e")]).embed([])


async def test_vectors_over_real_connections(one: LoopbackServer, two: LoopbackServer, pair: Pair, make: Make) -> None:
    body = {"object": "list", "model": "e", "data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 2}}
    one.script("/v1/embeddings", OUTAGE, repeat=True)
    two.script("/v1/embeddings", Reply.json(body))
    fallback = FallbackProvider([make(one, "e"), make(two, "e")])
    result = await fallback.embed("text")
    assert (result.embedding, result.usage.input_tokens) == ([0.5], 2)
    assert (one.count(), two.count()) == (1, 1)


async def test_a_reload_reaches_the_targets_that_belong_to_it(
    house: Any, monkeypatch: pytest.MonkeyPatch, one: LoopbackServer
) -> None:
    """Issue: live settings. A rotated key counts for the next call, also where the old one made the target rest."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{one.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-old")

    def answer(request: RecordedRequest) -> Reply:
        if request.headers["authorization"] == "Bearer sk-old":
            return Reply.json({"error": {"message": "no", "code": "invalid_api_key"}}, status=401)
        return Reply.json({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]})

    one.script("*", answer, repeat=True)
    async with create_llm_provider("fallback", targets=["openai/m"], max_retries=0) as provider:
        with pytest.warns(UserWarning, match="openai/m"), pytest.raises(LLMProviderAuthenticationError):
            await provider.execute("Hi")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-new")
        await provider.reload()
        response = await provider.execute("Hi")
    assert isinstance(response, LLMResponse)
    assert response.content == "Hello"
    assert one.requests[-1].headers["authorization"] == "Bearer sk-new"
    own = ScriptedProvider("a", model_name="m")
    before = own.settings
    async with FallbackProvider([own]) as provider:
        await provider.reload()
    assert own.settings is before, "what was handed in is its owner's to reload"
