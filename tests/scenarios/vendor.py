"""Plays the vendor: Chat Completions, Responses and embeddings, whole and streamed, strict about what it is sent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

from providers.testing import Fault, LoopbackServer, RecordedRequest, Reply

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
KEY = "sk-canary-0123456789"

_COMMON = {"model", "temperature", "top_p", "stream", "tools", "tool_choice", "parallel_tool_calls", "metadata", "user"}
_FIELDS = {
    CHAT: _COMMON
    | {"messages", "max_tokens", "max_completion_tokens", "frequency_penalty", "presence_penalty", "stop", "seed"}
    | {"stream_options", "response_format", "reasoning_effort", "n", "store"},
    RESPONSES: _COMMON
    | {"input", "instructions", "previous_response_id", "max_output_tokens", "text", "reasoning"}
    | {"store", "include", "truncation"},
}


class Refusal(Exception):
    """An error status in place of an answer."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.reply = Fault.status(status, {"error": {"message": message, "type": code, "code": code, "param": None}})


class Vendor:
    """A server's script: `vendor.play(server)`.

    Args:
        say: makes the answer's text out of the last text that was sent; without it the text itself.
        key: what the `Authorization` header must hold.
        pause: seconds between two words of a stream.

    A text that begins with "slow" is answered after a tenth of a second; one with "silence" never, or, streamed, not
    beyond its second word.
    """

    def __init__(self, say: Callable[[str], str] = str, key: str = KEY, pause: float = 0.0) -> None:
        self._say = say
        self._key = key
        self._pause = pause
        self._numbers = itertools.count(1)
        self._known: set[str] = set()

    def play(self, server: LoopbackServer) -> None:
        """Answers every request to the three addresses from now on."""
        for route, answer in ((CHAT, self._chat), (RESPONSES, self._responses), (EMBEDDINGS, self._embeddings)):
            server.script(f"POST {route}", answer, repeat=True)

    def _chat(self, request: RecordedRequest) -> Reply:
        try:
            body = self._check(request, CHAT)
            messages = body["messages"]
            if not messages or any(
                set(message) - {"role", "content", "tool_calls", "tool_call_id", "name"} for message in messages
            ):
                raise Refusal(400, "messages are malformed", "invalid_request_error")
            for tool in body.get("tools") or ():
                if "name" not in tool.get("function", {}):
                    raise Refusal(400, "tools[0].function.name is missing", "invalid_request_error")
        except Refusal as refusal:
            return refusal.reply
        heard = messages[-1]["content"]
        text = self._say(heard)
        facts = {"id": f"chatcmpl-{next(self._numbers)}", "created": 1700000000, "model": body["model"]}
        usage = _usage(heard, text, "prompt_tokens", "completion_tokens")
        if not body.get("stream"):
            message = {"role": "assistant", "content": text, "refusal": None}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            return _timed(
                heard, Reply.json({**facts, "object": "chat.completion", "choices": [choice], "usage": usage})
            )

        async def chunks() -> AsyncIterator[Any]:
            def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
                choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
                return {**facts, "object": "chat.completion.chunk", "choices": choices}

            yield chunk({"role": "assistant", "content": ""})
            async for word in self._words(heard, text):
                yield chunk({"content": word})
            yield chunk({}, "stop")
            if (body.get("stream_options") or {}).get("include_usage"):
                yield {**facts, "object": "chat.completion.chunk", "choices": [], "usage": usage}

        return Reply.sse(chunks)

    def _responses(self, request: RecordedRequest) -> Reply:
        try:
            body = self._check(request, RESPONSES)
            before = body.get("previous_response_id")
            if before is not None and before not in self._known:
                raise Refusal(404, f"Previous response with id {before!r} not found.", "previous_response_not_found")
            for tool in body.get("tools") or ():
                if tool.get("type") != "function" or "name" not in tool or "function" in tool:
                    raise Refusal(400, "Missing required parameter: 'tools[0].name'.", "missing_required_parameter")
        except Refusal as refusal:
            return refusal.reply
        given = body["input"]
        heard = given if isinstance(given, str) else _text_of(given[-1]["content"])
        text = self._say(heard)
        number = next(self._numbers)
        response_id = f"resp-{number}"
        self._known.add(response_id)
        part = {"type": "output_text", "text": text, "annotations": []}
        item = {"type": "message", "id": f"msg-{number}", "role": "assistant", "status": "completed", "content": [part]}
        facts = {"id": response_id, "object": "response", "created_at": 1700000000, "model": body["model"]}
        whole = {
            **facts,
            "status": "completed",
            "error": None,
            "incomplete_details": None,
            "previous_response_id": before,
            "output": [item],
            "usage": _usage(heard, text, "input_tokens", "output_tokens"),
        }
        if not body.get("stream"):
            return _timed(heard, Reply.json(whole))

        async def events() -> AsyncIterator[Any]:
            def event(kind: str, **more: Any) -> tuple[str, dict[str, Any]]:
                return kind, {"type": kind, "sequence_number": next(numbers), **more}

            numbers = itertools.count()
            place: dict[str, Any] = {"item_id": item["id"], "output_index": 0, "content_index": 0}
            begun = {**facts, "status": "in_progress", "output": []}
            yield event("response.created", response=begun)
            opened = {**item, "content": [], "status": "in_progress"}
            yield event("response.output_item.added", output_index=0, item=opened)
            yield event("response.content_part.added", **place, part={**part, "text": ""})
            async for word in self._words(heard, text):
                yield event("response.output_text.delta", **place, delta=word)
            yield event("response.output_text.done", **place, text=text)
            yield event("response.content_part.done", **place, part=part)
            yield event("response.output_item.done", output_index=0, item=item)
            yield event("response.completed", response=whole)

        return Reply.sse(events, done=None)

    def _embeddings(self, request: RecordedRequest) -> Reply:
        body = request.json
        inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = [
            {"object": "embedding", "index": n, "embedding": [float(len(text)), 0.5]} for n, text in enumerate(inputs)
        ]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        return Reply.json({"object": "list", "data": data, "model": body["model"], "usage": usage})

    def _check(self, request: RecordedRequest, route: str) -> dict[str, Any]:
        if request.headers.get("authorization") != f"Bearer {self._key}":
            raise Refusal(401, "Incorrect API key provided", "invalid_api_key")
        body = request.json
        unknown = sorted(set(body) - _FIELDS[route])
        if unknown:
            raise Refusal(400, f"Unknown parameter: {unknown[0]!r}.", "unknown_parameter")
        if not isinstance(body.get("model"), str):
            raise Refusal(400, "you must provide a model parameter", "invalid_request_error")
        return dict(body)

    async def _words(self, heard: str, text: str) -> AsyncIterator[str]:
        for place, word in enumerate(text.split(" ")):
            yield word if place == 0 else f" {word}"
            await asyncio.sleep(self._pause)
            if heard.startswith("silence") and place == 1:
                await asyncio.sleep(3600)


def prompt_of(request: RecordedRequest) -> str:
    """The last text of a request to any of the addresses."""
    body = request.json
    given = body.get("input", body.get("messages"))
    return (
        given if isinstance(given, str) else _text_of(given[-1] if isinstance(given[-1], str) else given[-1]["content"])
    )


def _text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _timed(heard: str, reply: Reply) -> Reply:
    if heard.startswith("silence"):
        return Fault.silence()
    return Fault.delay(0.1, reply) if heard.startswith("slow") else reply


def _usage(heard: str, text: str, read: str, written: str) -> dict[str, Any]:
    counts = (max(1, len(heard.split())), max(1, len(text.split())))
    return {read: counts[0], written: counts[1], "total_tokens": sum(counts)}
