"""What the servers of these tests say, and how they are asked."""

from __future__ import annotations

from typing import Any

from providers import LLMProvider, LLMResponse, StreamEventType
from providers.testing import Fault, Reply

PATH = "/v1/chat/completions"
USAGE = {"prompt_tokens": 14, "completion_tokens": 5, "total_tokens": 19}
OUTAGE = Fault.status(503, {"error": {"message": "no capacity"}})
LOST_KEY = Fault.status(401, {"error": {"message": "bad key", "code": "invalid_api_key"}})
NO_MODEL = Fault.status(404, {"error": {"message": "no such model", "code": "model_not_found"}})
QUOTA = Fault.status(429, {"error": {"message": "nothing left", "code": "insufficient_quota"}})
TOO_LONG = Fault.status(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
WRONG = Fault.status(400, {"error": {"message": "no such field"}})
FILTERED = Fault.status(400, {"error": {"message": "filtered", "code": "content_filter"}})


def throttled(seconds: str | None = None) -> Reply:
    """Too many requests."""
    headers = {} if seconds is None else {"Retry-After": seconds}
    return Fault.status(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, headers)


def answer(text: str = "Hello there", model: str = "gpt-4") -> Reply:
    """A whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Reply.json(
        {"id": "chatcmpl-1", "object": "chat.completion", "model": model, "choices": [choice], "usage": USAGE}
    )


def chunk(finish: str | None = None, usage: Any = None, **delta: Any) -> dict[str, Any]:
    """One chunk of a streamed answer."""
    choices = [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c", "object": "chat.completion.chunk", "model": "gpt-4", "choices": choices, "usage": usage}


def streamed(*texts: str) -> Reply:
    """A streamed answer."""
    first = chunk(role="assistant", content="")
    return Reply.sse([first, *(chunk(content=text) for text in texts), chunk("stop"), chunk(usage=USAGE)])


def either(text: str = "Hello there") -> Any:
    """An answer as the request wants it, whole or streamed."""
    return lambda request: streamed(*text.split(" ")) if request.json.get("stream") else answer(text)


async def ask(provider: LLMProvider, prompt: Any = "Hi", *, streaming: bool = False, **options: Any) -> LLMResponse:
    """The answer, by either way."""
    if not streaming:
        response = await provider.execute(prompt, **options)
        assert isinstance(response, LLMResponse)
        return response
    text = await provider.execute(prompt, stream_mode="enabled", **options)
    async for _ in text:
        pass
    assert text.response is not None
    return text.response


async def last_event(provider: LLMProvider, prompt: Any = "Hi", **options: Any) -> Any:
    """The data of the last event of a stream."""
    events = [event async for event in provider.stream(prompt, **options)]
    assert events[-1].type in (StreamEventType.DONE, StreamEventType.ERROR)
    return events[-1].data


class Clock:
    """A monotonic clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
