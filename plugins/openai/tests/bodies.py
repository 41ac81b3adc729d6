"""What a server of this dialect says, for the tests: whole replies and the chunks of streams."""

from __future__ import annotations

from typing import Any

USAGE = {
    "prompt_tokens": 14,
    "completion_tokens": 5,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
HEAD = {"id": "chatcmpl-1", "created": 1767225600, "model": "gpt-4", "system_fingerprint": "fp_1"}
QUOTA = {"error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"}}


def chat(content: str | None = "Hello there", *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A whole chat completion."""
    said = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish}
    return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """One chunk of a chat stream."""
    choice = {"index": 0, "delta": fields, "logprobs": None, "finish_reason": finish}
    return {**HEAD, "object": "chat.completion.chunk", "choices": [choice]}


def piece(
    index: int | None = None, id: str | None = None, name: str | None = None, arguments: str | None = None
) -> Any:
    """A piece of a tool call inside a delta; what is `None` is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    found = {"index": index, "id": id, "function": function}
    return {key: value for key, value in found.items() if value is not None}


def chat_stream(*texts: str, finish: str = "stop") -> list[dict[str, Any]]:
    """The chunks of a streamed text, with the usage-only last one."""
    return [
        delta(role="assistant", content=""),
        *(delta(content=text) for text in texts),
        delta(finish),
        {**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE},
    ]


def response(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A whole response."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1767225600,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-4",
        "output": list(items),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 14,
            "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 19,
        },
        **fields,
    }


def said(text: str, **fields: Any) -> dict[str, Any]:
    """A message item."""
    part = {"type": "output_text", "text": text, "annotations": [], **fields}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def called(name: str, arguments: str, *, call_id: str = "call_1", id: str = "fc_1") -> dict[str, Any]:
    """A function_call item."""
    return {
        "type": "function_call",
        "id": id,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


def reasoned(*summaries: str, **fields: Any) -> dict[str, Any]:
    """A reasoning item."""
    return {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": text} for text in summaries],
        **fields,
    }


def response_stream(*items: dict[str, Any], **fields: Any) -> list[tuple[str, dict[str, Any]]]:
    """The named events of a streamed response, texts and arguments in pieces of four characters."""
    begun = {**response(), "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for at, item in enumerate(items):
        place = {"item_id": item["id"], "output_index": at}
        empty = {key: "" if key == "arguments" else value for key, value in item.items() if key != "content"}
        events.append({"type": "response.output_item.added", "output_index": at, "item": empty})
        if item["type"] == "function_call":
            for part in cut(item["arguments"]):
                events.append({"type": "response.function_call_arguments.delta", **place, "delta": part})
            events.append({"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"]})
        for number, part in enumerate(item.get("summary", ())):
            for text in cut(part["text"]):
                name = "response.reasoning_summary_text.delta"
                events.append({"type": name, **place, "summary_index": number, "delta": text})
        for part in item.get("content", ()) if item["type"] == "message" else ():
            for text in cut(part.get("text", "")):
                events.append({"type": "response.output_text.delta", **place, "content_index": 0, "delta": text})
        events.append({"type": "response.output_item.done", "output_index": at, "item": item})
    whole = response(*items, **fields)
    status = whole["status"]
    events.append({"type": f"response.{status}", "response": whole})
    return [(event["type"], {**event, "sequence_number": number}) for number, event in enumerate(events)]


def cut(text: str, size: int = 4) -> list[str]:
    """A text in pieces."""
    return [text[at : at + size] for at in range(0, len(text), size)]
