"""One log record for each call, with fields; and no work where nobody listens."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from providers import LLMProviderConnectionError, LLMProviderError, LLMProviderServerError, StreamEvent, Usage
from providers.caches.memory import MemoryCache
from providers.layers import retry
from providers.layers.cache import ResponseCache
from providers.layers.observe import Observe, attempt
from providers.layers.pricing import priced
from providers.sight import logs
from providers.testing import ScriptedProvider

pytestmark = pytest.mark.asyncio

ANSWER = [
    StreamEvent.meta(response_id="resp-1", request_id="req-7"),
    StreamEvent.token("Paris"),
    StreamEvent.usage(Usage(12, 5, total_cost=0.25)),
    StreamEvent.finish("stop"),
]


async def test_a_call_is_one_record_with_fields(sight: Any, calls_log: Any) -> None:
    """F-144: useful, and without secrets and texts."""
    failure = LLMProviderServerError("the server said: capital of France", status_code=503, retry_after=0.001)
    await sight.provider(failure, ANSWER).execute("Capital of France?")
    [record] = calls_log.records
    assert record.levelno == logging.INFO
    assert record.name == "providers.calls"
    assert record.getMessage() == (
        f"scripted/acme-1: chat, ok after {record.duration:.3f} s, 12 + 5 tokens, $0.25, 2 attempts"
    )
    fields = {name: getattr(record, name) for name in ("provider", "model", "operation", "outcome", "finish_reason")}
    assert fields == {
        "provider": "scripted", "model": "acme-1", "operation": "chat", "outcome": "ok", "finish_reason": "stop",
    }  # fmt: skip
    assert (record.input_tokens, record.output_tokens, record.cost, record.attempts) == (12, 5, 0.25, 2)
    assert (record.response_id, record.request_id, record.streamed, record.cache_hit) == (
        "resp-1",
        "req-7",
        False,
        None,
    )
    assert (record.status_code, record.error_text, record.first_piece) == (None, None, None)
    assert 0.001 <= record.duration < 60
    call = sight.spans()[-1]
    assert record.trace_id == f"{call.context.trace_id:032x}"
    assert record.span_id == f"{call.context.span_id:016x}"
    assert "Capital" not in json.dumps(record.__dict__, default=str)
    assert "capital" not in json.dumps(record.__dict__, default=str)


async def test_a_failed_call_says_what_with(sight: Any, calls_log: Any) -> None:
    failure = LLMProviderServerError("you asked: my diary", status_code=500, code="oops", request_id="req-1")
    with pytest.raises(LLMProviderServerError):
        await sight.provider(failure).execute("my diary", attempts=1)
    [record] = calls_log.records
    assert (record.outcome, record.status_code, record.request_id) == ("LLMProviderServerError", 500, "req-1")
    assert record.error_text == "LLMProviderServerError, status 500, code oops, request id req-1"
    assert "diary" not in json.dumps(record.__dict__, default=str)
    assert "LLMProviderServerError, status 500" in record.getMessage()


async def test_streams_caches_and_texts_that_are_asked_for(sight: Any, calls_log: Any) -> None:
    cache = ResponseCache(MemoryCache(), "scripted")
    layers = (sight.observe(otel=False, content=True), cache, priced, retry, attempt)
    provider = sight.provider(ANSWER, layers=layers)
    async for _ in provider.stream("Capital?", cache_response=True):
        pass
    await provider.execute("Capital?", cache_response=True)
    streamed, hit = calls_log.records
    assert (streamed.streamed, streamed.cache_hit, hit.cache_hit, hit.attempts) == (True, False, True, 0)
    assert streamed.first_piece > 0
    assert "from the cache" in hit.getMessage()
    assert (streamed.trace_id, streamed.span_id) == (None, None)
    assert json.loads(hit.input_messages) == [{"role": "user", "parts": [{"type": "text", "content": "Capital?"}]}]
    assert json.loads(hit.output_messages)[0]["parts"] == [{"type": "text", "content": "Paris"}]


async def test_logs_alone_need_neither_library_and_cost_nothing_when_nobody_listens(
    sight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []
    monkeypatch.setattr(logs, "write", written.append)
    monkeypatch.setattr(logs.logger, "level", logging.WARNING)
    logs.logger.manager._clear_cache()  # type: ignore[attr-defined]
    layer = Observe(otel=False)
    provider = sight.provider(ANSWER, layers=())
    request = provider._request("x", None, {}, False)
    inner = provider.respond(request)
    assert layer.whole(request, lambda _: inner) is inner  # the layer hands on, and is out of the way
    await inner
    assert written == []


async def test_no_field_hides_one_of_the_logs_own(sight: Any, calls_log: Any) -> None:
    """`extra` with such a name raises KeyError; the formatter of the standard library then shows all others."""
    await sight.provider(ANSWER).execute("x")
    [record] = calls_log.records
    text = logging.Formatter("%(levelname)s %(provider)s %(duration).1f %(outcome)s").format(record)
    assert text == f"INFO scripted {record.duration:.1f} ok"


async def test_no_backend_writes_a_line_of_its_own(sight: Any, calls_log: Any) -> None:
    forged = "x\nERROR root: all is lost\x1b[2J"
    for error in (
        LLMProviderServerError("down", code=forged, request_id=forged),
        LLMProviderConnectionError(forged),
    ):
        with pytest.raises(LLMProviderError):
            await ScriptedProvider([error], forged, layers=sight.layers(), max_retries=0).execute("x")
    assert len(calls_log.records) == 2
    for record in calls_log.records:
        assert record.getMessage().isprintable()
        assert record.error_text.isprintable()
        assert record.model == "x ERROR root: all is lost [2J"
