"""The lean HTTP layer that all remote plugins share: pooled sessions, server-sent events, status to error.

A plugin makes one `HttpClient` and calls `post` or `stream` with bytes of `encode_json`. Nothing heavy is imported
until the first request.
"""

from __future__ import annotations

from .errors import Classifier, error_from_event, error_from_reply
from .http import HttpClient
from .jsonbody import Checked, decode_json, decode_object, encode_json
from .reading import Decoder, Events, Failed
from .redaction import redact
from .reply import Reply
from .retry_after import parse_retry_after
from .sdk import SdkTransport, Sent
from .sse import Event, SSEParser
from .transport import Answer, Headers, Hidden, HttpTransport, Transport, hidden, merged_headers

__all__ = [
    "Answer",
    "Checked",
    "Classifier",
    "Decoder",
    "Event",
    "Events",
    "Failed",
    "Headers",
    "Hidden",
    "HttpClient",
    "HttpTransport",
    "Reply",
    "SSEParser",
    "SdkTransport",
    "Sent",
    "Transport",
    "decode_json",
    "decode_object",
    "encode_json",
    "error_from_event",
    "error_from_reply",
    "hidden",
    "merged_headers",
    "parse_retry_after",
    "redact",
]
