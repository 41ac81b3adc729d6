"""Spans of calls: names, attributes, trees; read back through OpenTelemetry's in-memory exporter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel

from providers import LLMProvider, LLMProviderAuthenticationError, LLMProviderServerError, StreamEvent, Usage
from providers.caches.memory import MemoryCache
from providers.layers import retry
from providers.layers.cache import ResponseCache
from providers.layers.observe import CONTENT_VARIABLE, attempt
from providers.layers.pricing import priced
from providers.profiles import ProfileTable
from providers.testing import ScriptedProvider
from providers.types import ToolCall

pytestmark = pytest.mark.asyncio

ANSWER = [
    StreamEvent.meta(response_id="resp-1", model="acme-1-2026", request_id="req-7"),
    StreamEvent.token("Paris"),
    StreamEvent.usage(Usage(12, 5, input_tokens_cached=4, input_tokens_cache_write=2, output_tokens_reasoning=3)),
    StreamEvent.finish("stop"),
]


async def test_a_call_has_a_client_span_with_the_conventional_names(sight: Any) -> None:
    provider = sight.provider(ANSWER, layers=sight.layers(address="https://models.example:8443/v1"))
    await provider.execute(
        "Capital of France?", temperature=0.2, top_p=0.9, max_tokens=20, seed=7, stop=["X"], reasoning_effort="low",
        on_unsupported="drop", frequency_penalty=0.5, presence_penalty=0.25, extra={"top_k": 40, "n": 2},
    )  # fmt: skip
    span = sight.span()
    assert (span.name, span.kind, span.parent) == ("chat acme-1", SpanKind.CLIENT, None)
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope.name == "llm_providers"
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "acme-1",
        "server.address": "models.example",
        "server.port": 8443,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 40,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.frequency_penalty": 0.5,
        "gen_ai.request.presence_penalty": 0.25,
        "gen_ai.request.seed": 7,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.request.stop_sequences": ("X",),
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.model": "acme-1-2026",
        "gen_ai.response.id": "resp-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.cache_creation.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "llm_provider.request.id": "req-7",
    }


async def test_what_decides_on_sampling_is_there_when_the_span_begins(sight: Any) -> None:
    begun: list[dict[str, Any]] = []

    class Listener:
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            begun.append(dict(span.attributes))

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **options: True

    sight.tracers.add_span_processor(Listener())
    await sight.provider("Hi", layers=sight.layers(address="http://h/v1")).execute("x")
    wanted = {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "server.address", "server.port"}
    assert [set(item) for item in begun] == [wanted]


async def test_a_provider_may_have_another_name_in_the_conventions(sight: Any, tmp_path: Path) -> None:
    """It stands in the provider's data, since the core knows no vendor."""
    file = tmp_path / "models.json"
    file.write_text('{"models": {}, "gen_ai_provider": "acme.cloud"}', encoding="utf-8")

    class Renamed(ScriptedProvider):
        profiles = ProfileTable(file)

    await Renamed(["Hi"], model_name="m", layers=sight.layers()).execute("x")
    assert sight.span().attributes["gen_ai.provider.name"] == "acme.cloud"
    assert sight.samples("calls_total", provider="acme.cloud") == 1


async def test_structured_output_and_a_kept_conversation_are_told(sight: Any) -> None:
    class City(BaseModel):
        name: str

    provider = sight.provider('{"name": "Paris"}', "more")
    await provider.execute("x", schema=City)
    await provider.execute_responses_api("x", previous_response_id="resp-0")
    first, second = sight.spans()
    assert first.attributes["gen_ai.output.type"] == "json"
    assert "gen_ai.output.type" not in second.attributes
    assert second.attributes["gen_ai.request.previous_response.id"] == "resp-0"


async def test_an_error_ends_the_span_without_the_backends_words(sight: Any) -> None:
    """What a backend says in an error may quote the conversation; its class, status and code do not."""
    said = LLMProviderAuthenticationError(
        "invalid input: 'my secret diary'", provider="scripted", status_code=401, code="bad_key", request_id="req-9"
    )
    with pytest.raises(LLMProviderAuthenticationError):
        await sight.provider(said).execute("my secret diary")
    span = sight.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "LLMProviderAuthenticationError, status 401, code bad_key, request id req-9"
    assert span.attributes["error.type"] == "LLMProviderAuthenticationError"
    assert span.attributes["http.response.status_code"] == 401
    assert span.attributes["llm_provider.error.code"] == "bad_key"
    assert "diary" not in span.to_json()
    assert span.events == ()


async def test_failed_attempts_are_child_spans_with_their_times_waits_and_usage(sight: Any) -> None:
    failure = LLMProviderServerError("down", status_code=503, retry_after=0.02)
    failure.usage = Usage(7, 1)
    await sight.provider(failure, ANSWER).execute("x")
    one, two, call = sight.spans()
    assert [span.name for span in (one, two, call)] == ["attempt 1", "attempt 2", "chat acme-1"]
    assert {one.parent.span_id, two.parent.span_id} == {call.context.span_id}
    assert one.status.status_code is StatusCode.ERROR
    assert one.attributes["error.type"] == "LLMProviderServerError"
    assert one.attributes["http.response.status_code"] == 503
    assert one.attributes["gen_ai.usage.input_tokens"] == 7
    assert one.attributes["llm_provider.attempt.wait"] >= 0.02
    assert two.status.status_code is StatusCode.UNSET
    assert call.start_time <= one.start_time <= one.end_time < two.start_time
    assert two.start_time - one.end_time >= 15_000_000  # the wait lies between them
    assert call.status.status_code is StatusCode.UNSET
    assert call.attributes["llm_provider.attempts"] == 2
    # The span of a call covers all its attempts, and so does its usage.
    assert call.attributes["gen_ai.usage.input_tokens"] == 12 + 7
    assert call.attributes["gen_ai.usage.output_tokens"] == 5 + 1


async def test_attempts_that_all_fail_are_all_there(sight: Any) -> None:
    errors = [LLMProviderServerError("down", status_code=500) for _ in range(3)]
    with pytest.raises(LLMProviderServerError):
        await sight.provider(*errors).execute("x", attempts=3, backoff=0)
    *attempts, call = sight.spans()
    assert [span.attributes.get("error.type") for span in attempts] == ["LLMProviderServerError"] * 3
    assert call.attributes["llm_provider.attempts"] == 3
    assert call.status.status_code is StatusCode.ERROR


async def test_a_call_is_a_child_of_what_is_around_it_and_parent_of_what_it_does(sight: Any) -> None:
    """So an instrumented HTTP client's spans are the call's children."""
    tracer = sight.tracers.get_tracer("test")

    class Asking(LLMProvider):
        name = "asking"

        async def generate(self, request: Any) -> Any:
            with tracer.start_as_current_span("POST"):
                yield StreamEvent.token("a")
            yield StreamEvent.finish("stop")

        async def respond(self, request: Any) -> Any:
            with tracer.start_as_current_span("POST"):
                return [StreamEvent.token("a"), StreamEvent.finish("stop")]

    provider = Asking("m", layers=sight.layers())
    with tracer.start_as_current_span("request") as around:
        await provider.execute("x")
        assert trace.get_current_span() is around
    inner, call, outer = sight.spans()
    assert (inner.name, call.name, outer.name) == ("POST", "chat m", "request")
    assert inner.parent.span_id == call.context.span_id
    assert call.parent.span_id == outer.context.span_id


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_runs_under_its_span_from_its_very_first_step(sight: Any, stream: bool) -> None:
    """A layer may do something when it is called, before anybody waits for it."""
    seen: list[Any] = []

    class Early:
        def __call__(self, request: Any, inner: Any) -> Any:
            seen.append(trace.get_current_span().get_span_context().span_id)
            return inner(request)

        whole = __call__

    provider = sight.provider(ANSWER, layers=(sight.observe(), Early()))
    if stream:
        async for _ in provider.stream("x"):
            pass
    else:
        await provider.execute("x")
    assert seen == [sight.span().context.span_id]


async def test_attempts_without_times_are_events(sight: Any) -> None:
    """Where the layer `attempt` is not there; and targets of a fallback, of which some were only passed over."""
    failure = LLMProviderServerError("down", status_code=503, retry_after=0.001)
    await sight.provider(failure, ANSWER, layers=(sight.observe(), retry)).execute("x")
    walked = [
        {"error": None, "status": None, "usage": None, "wait": None, "target": "a", "reason": "it does no tools"},
        {"error": "LLMProviderServerError", "status": 500, "usage": Usage(3, 1), "wait": None, "target": "b"},
    ]
    told = StreamEvent.meta(target="c", attempts=walked)
    await sight.provider([told, *ANSWER]).execute("x")
    retried, fallback = sight.spans()
    [event] = retried.events
    assert event.name == "llm_provider.attempt.failed"
    assert event.attributes["error.type"] == "LLMProviderServerError"
    assert event.attributes["http.response.status_code"] == 503
    assert event.attributes["llm_provider.attempt.wait"] >= 0.001
    [event] = fallback.events
    assert dict(event.attributes) == {
        "error.type": "LLMProviderServerError",
        "http.response.status_code": 500,
        "llm_provider.target": "b",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 1,
    }
    assert fallback.attributes["llm_provider.target"] == "c"
    assert fallback.attributes["llm_provider.attempts"] == 2
    assert fallback.attributes["gen_ai.usage.input_tokens"] == 12 + 3
    assert sight.samples("failed_attempts_total") == 2


async def test_an_answer_from_a_cache_is_marked(sight: Any) -> None:
    cache = ResponseCache(MemoryCache(), "scripted")
    provider = sight.provider(ANSWER, layers=(sight.observe(), cache, priced, retry, attempt))
    await provider.execute("x", cache_response=True)
    await provider.execute("x", cache_response=True)
    fresh, hit = sight.spans()
    assert fresh.attributes["llm_provider.cache.hit"] is False
    assert hit.attributes["llm_provider.cache.hit"] is True
    assert hit.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert hit.attributes["gen_ai.usage.input_tokens"] == 0


async def test_a_target_that_observes_too_makes_a_tree(sight: Any) -> None:
    """Each call has its span; `test_metrics` shows that tokens are counted once."""
    target = sight.provider(ANSWER)

    class Fallback(LLMProvider):
        name = "fallback"

        async def generate(self, request: Any) -> Any:
            async for event in target._calls.events(request):
                if event.type.value != "done":
                    yield event

    await Fallback("any", layers=(sight.observe(),)).execute("x")
    inner, outer = sight.spans()
    assert (inner.name, outer.name) == ("chat any", "chat any")
    assert inner.parent.span_id == outer.context.span_id
    names = [span.attributes["gen_ai.provider.name"] for span in (inner, outer)]
    assert names == ["scripted", "fallback"]


async def test_texts_are_shown_only_where_that_is_asked_for(sight: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    call = StreamEvent.tool_call(ToolCall("call-1", "weather", '{"city": "Paris"}'))
    talk = [
        {"role": "user", "content": "Rain in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c0", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "c0", "content": "no idea"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0"}}]},
    ]

    async def once(**options: Any) -> dict[str, Any]:
        sight.exporter.clear()
        answer = [StreamEvent.reasoning("hm"), StreamEvent.token("Let me look"), call, StreamEvent.finish("tool_calls")]
        provider = sight.provider(answer, layers=sight.layers(**options))
        await provider.execute(talk, "Be brief", tools=[{"name": "weather", "description": "d", "parameters": {}}])
        return dict(sight.span().attributes)

    assert not {name for name in await once() if "message" in name or "system" in name or "definitions" in name}
    monkeypatch.setenv(CONTENT_VARIABLE, "no_content")
    assert "gen_ai.input.messages" not in await once()
    monkeypatch.setenv(CONTENT_VARIABLE, "true")
    assert "gen_ai.input.messages" not in await once(content=False)
    for shown in (await once(), await once(content=True)):
        assert json.loads(shown["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief"}]
        assert json.loads(shown["gen_ai.tool.definitions"]) == [{"type": "function", "name": "weather"}]
        assert json.loads(shown["gen_ai.input.messages"]) == [
            {"role": "user", "parts": [{"type": "text", "content": "Rain in Paris?"}]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "c0", "name": "f", "arguments": {}}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c0", "response": "no idea"}]},
            {"role": "user", "parts": [{"type": "image_url"}]},
        ]
        [said] = json.loads(shown["gen_ai.output.messages"])
        assert said == {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                {"type": "text", "content": "Let me look"},
                {"type": "tool_call", "id": "call-1", "name": "weather", "arguments": {"city": "Paris"}},
            ],
            "finish_reason": "tool_calls",
        }
