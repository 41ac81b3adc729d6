"""The words of the house: values that every room speaks in, without behaviour of their own."""

from .config import APIType, GenerationConfig, LLMConfig, OnUnsupported, StreamMode
from .content import Part, document_part, image_part, read_part, read_parts
from .events import StreamEvent, StreamEventType, format_sse_event
from .messages import Content, Message, MessageInput, Messages, Role, normalize_messages
from .options import CallOptions, NotStreaming, Streaming
from .policy import RetryPolicy
from .request import Request
from .response import CompletionResult, EmbeddingResult, LLMResponse, usage_of_error
from .secret import Secret
from .structured import StructuredOutput
from .tools import ToolCall, ToolCallDelta, ToolChoice, ToolSpec, coerce_tools
from .usage import Usage, token_count

__all__ = [
    "APIType",
    "CallOptions",
    "CompletionResult",
    "Content",
    "EmbeddingResult",
    "GenerationConfig",
    "LLMConfig",
    "LLMResponse",
    "Message",
    "MessageInput",
    "Messages",
    "NotStreaming",
    "OnUnsupported",
    "Part",
    "Request",
    "RetryPolicy",
    "Role",
    "Secret",
    "StreamEvent",
    "StreamEventType",
    "StreamMode",
    "Streaming",
    "StructuredOutput",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolSpec",
    "Usage",
    "coerce_tools",
    "document_part",
    "format_sse_event",
    "image_part",
    "normalize_messages",
    "read_part",
    "read_parts",
    "token_count",
    "usage_of_error",
]
