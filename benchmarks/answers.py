"""The bytes that the server sends, made once; and what a client must read out of them."""

from __future__ import annotations

import base64
import json
import struct
import tomllib
from pathlib import Path
from typing import Any

BENCH: dict[str, Any] = tomllib.loads(Path(__file__).with_name("bench.toml").read_text(encoding="utf-8"))
MODEL: str = BENCH["model"]
PROMPT: str = BENCH["prompt"]
ANSWER: str = BENCH["answer"]
CAPITAL = {"city": "Paris", "country": "France", "population": 2102650, "tags": ["capital", "seine"]}
"""The typed answer."""

_USAGE = {
    "prompt_tokens": 14,
    "completion_tokens": 12,
    "total_tokens": 26,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
_VECTOR = [round(0.01 * n - 0.08, 4) for n in range(16)]


def talk() -> list[dict[str, str]]:
    """The messages of a long talk, user and assistant in turn, each about sixty characters."""
    roles = ("user", "assistant")
    return [
        {"role": roles[n % 2], "content": f"This is message {n} of a talk that goes on for quite a while."}
        for n in range(BENCH["messages_in_talk"])
    ]


def tokens(count: int) -> list[str]:
    """The pieces of a streamed answer."""
    return [f" word{n % 100}" for n in range(count)]


def http(status: str, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """One whole HTTP answer."""
    lines = (f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", *headers)
    return "\r\n".join((*lines, "x-request-id: req_bench", "", "")).encode() + body


def chat(content: str) -> bytes:
    """A Chat Completions answer."""
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    return http(
        "200 OK",
        _dumps(
            {
                "id": "chatcmpl-bench",
                "object": "chat.completion",
                "created": 1767225600,
                "model": MODEL,
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
                "usage": _USAGE,
                "service_tier": "default",
                "system_fingerprint": "fp_bench",
            }
        ),
    )


def chat_stream(count: int, usage: bool) -> tuple[bytes, list[bytes]]:
    """A streamed Chat Completions answer: the head, then one HTTP chunk for each server-sent event.

    Args:
        count: how many pieces of text it has.
        usage: whether a last chunk tells the usage, as `stream_options.include_usage` asks.
    """
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"content": token} for token in tokens(count)]
    events = [_stream_event([_choice(delta, None)], usage) for delta in deltas]
    events.append(_stream_event([_choice({}, "stop")], usage))
    if usage:
        events.append(_stream_event([], usage, _USAGE))
    events.append(b"[DONE]")
    return _STREAM_HEAD, [*(_framed(b"data: " + event + b"\n\n") for event in events), _END]


def responses(content: str) -> bytes:
    """A Responses answer."""
    return http("200 OK", _dumps(_response(content)))


def responses_stream(count: int) -> tuple[bytes, list[bytes]]:
    """A streamed Responses answer, framed as `chat_stream` does."""
    place = {"item_id": "msg_bench", "output_index": 0, "content_index": 0}
    begun = {**_response(""), "status": "in_progress"}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    events += [{"type": "response.output_text.delta", **place, "delta": token} for token in tokens(count)]
    events.append({"type": "response.completed", "response": _response("".join(tokens(count)))})
    frames = [
        _framed(f"event: {event['type']}\ndata: ".encode() + _dumps({**event, "sequence_number": n}) + b"\n\n")
        for n, event in enumerate(events)
    ]
    return _STREAM_HEAD, [*frames, _END]


def embedding(packed: bool) -> bytes:
    """An embeddings answer for one text; `packed` as base64 of little-endian floats, as SDKs ask by default."""
    plain: Any = base64.b64encode(struct.pack(f"<{len(_VECTOR)}f", *_VECTOR)).decode() if packed else _VECTOR
    data = [{"object": "embedding", "index": 0, "embedding": plain}]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return http("200 OK", _dumps({"object": "list", "data": data, "model": MODEL, "usage": usage}))


def error(status: str, code: str, *headers: str) -> bytes:
    """An error answer as the vendor writes it."""
    return http(status, _dumps({"error": {"message": code, "type": code, "param": None, "code": code}}), *headers)


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    b"x-request-id: req_bench\r\n\r\n"
)
_END = b"0\r\n\r\n"


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _stream_event(choices: list[dict[str, Any]], usage: bool, totals: dict[str, Any] | None = None) -> bytes:
    event = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_bench",
        "choices": choices,
    }
    return _dumps(event | {"usage": totals} if usage else event)


def _response(content: str) -> dict[str, Any]:
    text = {"type": "output_text", "text": content, "annotations": []}
    output = {"type": "message", "id": "msg_bench", "status": "completed", "role": "assistant", "content": [text]}
    return {
        "id": "resp_bench",
        "object": "response",
        "created_at": 1767225600,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": MODEL,
        "output": [output] if content else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 14,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 12,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 26,
        },
    }
