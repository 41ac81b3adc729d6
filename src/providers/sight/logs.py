"""One log record for each call that has ended, with its facts as fields."""

from __future__ import annotations

import logging
from typing import Any, Final

from . import content
from .record import CallRecord

logger: Final = logging.getLogger("providers.calls")
"""Level INFO for all calls, failed ones too: who made the call has the exception."""


def wanted() -> bool:
    """Whether somebody listens."""
    return logger.isEnabledFor(logging.INFO)


def write(record: CallRecord) -> None:
    """Write a call's record.

    Its fields, for formatters that show them: `provider`, `model`, `operation`, `outcome`, `duration` and `first_piece`
    (seconds), `input_tokens`, `output_tokens`, `cost` (US dollars), `attempts`, `finish_reason`, `cache_hit`,
    `streamed`, `response_id`, `request_id`, `status_code`, `error_text`, `trace_id`, `span_id`; `None` where unknown.
    With `content` also `input_messages` and `output_messages`, as JSON.
    """
    usage = record.usage
    read = None if usage is None else usage.input_tokens
    written = None if usage is None else usage.output_tokens
    cost = None if usage is None else usage.total_cost
    fields: dict[str, Any] = {
        "provider": record.provider,
        "model": record.model,
        "operation": record.operation,
        "outcome": record.outcome,
        "duration": record.seconds,
        "first_piece": record.first if record.stream else None,
        "input_tokens": read,
        "output_tokens": written,
        "cost": cost,
        "attempts": record.tries,
        "finish_reason": record.finish_reason,
        "cache_hit": record.cache_hit,
        "streamed": record.stream,
        "response_id": record.response_id,
        "request_id": record.request_id,
        "status_code": record.status,
        "error_text": record.trouble or None,
        "trace_id": None,
        "span_id": None,
    }
    if record.context is not None:
        span = record.span.get_span_context()
        fields["trace_id"], fields["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    if record.content and record.operation == "chat":
        fields["input_messages"] = content.of_request(record.request)["gen_ai.input.messages"]
        fields["output_messages"] = content.of_response(record.response) if record.response is not None else None
    told = [f"{record.operation}, {record.outcome} after {record.seconds:.3f} s"]
    if record.cache_hit:
        told.append("from the cache")
    elif usage is not None:
        told.append(f"{'?' if read is None else read} + {'?' if written is None else written} tokens")
    if cost:
        told.append(f"${cost:.6g}")
    if record.failed:
        told.append(f"{record.tries} attempts")
    if record.error is not None:
        told.append(record.trouble)
    logger.info("%s/%s: %s", record.provider, record.model, ", ".join(told), extra=fields)
