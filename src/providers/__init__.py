"""The front door: every public name, loaded when it is first touched.

    from providers import create_llm_provider

    provider = create_llm_provider("acme", model_name="acme-1")
    response = await provider.execute("What is the capital of France?")

Importing this package costs about a millisecond; the room behind a name is entered when the name is used. Installed
plugins may lend names too (`from providers import AcmeProvider`): they are found through metadata, so that this package
knows none of them.
"""

from __future__ import annotations

# Not typing's constant: the import of typing alone costs more than this whole file. Type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .app_settings import Settings as Settings
    from .base import BaseProvider as BaseProvider
    from .base import LLMProvider as LLMProvider
    from .base import Provider as Provider
    from .caches import CacheEntry as CacheEntry
    from .caches import CacheKey as CacheKey
    from .caches import CacheStore as CacheStore
    from .caches import FSCache as FSCache
    from .caches import MemoryCache as MemoryCache
    from .caches import SQLiteCache as SQLiteCache
    from .caches import StoreSize as StoreSize
    from .capabilities import EmbeddingRequest as EmbeddingRequest
    from .capabilities import Embeddings as Embeddings
    from .capabilities import TokenCounting as TokenCounting
    from .clients import Batch as Batch
    from .clients import Client as Client
    from .clients import client as client
    from .clients import create_batch as create_batch
    from .clients import fetch_batch_results as fetch_batch_results
    from .clients import get_batch_status as get_batch_status
    from .clients import get_response as get_response
    from .costs import total_usage as total_usage
    from .exceptions import BatchFailedError as BatchFailedError
    from .exceptions import BudgetExceededError as BudgetExceededError
    from .exceptions import LLMProviderAPIError as LLMProviderAPIError
    from .exceptions import LLMProviderAuthenticationError as LLMProviderAuthenticationError
    from .exceptions import LLMProviderBadRequestError as LLMProviderBadRequestError
    from .exceptions import LLMProviderConfigurationError as LLMProviderConfigurationError
    from .exceptions import LLMProviderConnectionError as LLMProviderConnectionError
    from .exceptions import LLMProviderContentFilterError as LLMProviderContentFilterError
    from .exceptions import LLMProviderError as LLMProviderError
    from .exceptions import LLMProviderNotFoundError as LLMProviderNotFoundError
    from .exceptions import LLMProviderOverloadedError as LLMProviderOverloadedError
    from .exceptions import LLMProviderPermissionError as LLMProviderPermissionError
    from .exceptions import LLMProviderQuotaError as LLMProviderQuotaError
    from .exceptions import LLMProviderRateLimitError as LLMProviderRateLimitError
    from .exceptions import LLMProviderResponseError as LLMProviderResponseError
    from .exceptions import LLMProviderServerError as LLMProviderServerError
    from .exceptions import LLMProviderStreamError as LLMProviderStreamError
    from .exceptions import LLMProviderTimeoutError as LLMProviderTimeoutError
    from .exceptions import LLMProviderTokenLimitError as LLMProviderTokenLimitError
    from .exceptions import LLMProviderUnsupportedOperationError as LLMProviderUnsupportedOperationError
    from .exceptions import MissingCredentialsError as MissingCredentialsError
    from .exceptions import MissingDependencyError as MissingDependencyError
    from .exceptions import OutputTruncatedError as OutputTruncatedError
    from .exceptions import PluginError as PluginError
    from .exceptions import ProviderClosedError as ProviderClosedError
    from .exceptions import ResponseTimeoutError as ResponseTimeoutError
    from .exceptions import StructuredOutputError as StructuredOutputError
    from .exceptions import UnknownOptionError as UnknownOptionError
    from .exceptions import UnknownProviderError as UnknownProviderError
    from .exceptions import UnsupportedParameterError as UnsupportedParameterError
    from .factory import clear_provider_cache as clear_provider_cache
    from .factory import create_llm_provider as create_llm_provider
    from .factory import get_cached_provider as get_cached_provider
    from .layer_settings import LayerSettings as LayerSettings
    from .layers.budget import Budget as Budget
    from .layers.budget import BudgetAmounts as BudgetAmounts
    from .layers.cache import ResponseCache as ResponseCache
    from .layers.limit import LimitLayer as LimitLayer
    from .layers.observe import Observe as Observe
    from .layers.pricing import Priced as Priced
    from .layers.pricing import priced as priced
    from .parameters import UnsupportedParameterWarning as UnsupportedParameterWarning
    from .plugins import ProviderInfo as ProviderInfo
    from .plugins import hookimpl as hookimpl
    from .registry import ModelProfile as ModelProfile
    from .registry import available_providers as available_providers
    from .registry import register_provider as register_provider
    from .registry import unregister_provider as unregister_provider
    from .remote import RemoteProvider as RemoteProvider
    from .remote import RemoteSettings as RemoteSettings
    from .resilience.buckets import TokenBucket as TokenBucket
    from .resilience.concurrency import Concurrency as Concurrency
    from .resilience.levels import UNLIMITED as UNLIMITED
    from .resilience.levels import Rate as Rate
    from .resilience.limiter import Limiter as Limiter
    from .resilience.limiter import LimitStore as LimitStore
    from .resilience.limiter import LocalLimits as LocalLimits
    from .resilience.shared_limits import SQLiteLimits as SQLiteLimits
    from .routing import FallbackProvider as FallbackProvider
    from .settings import ProviderSettings as ProviderSettings
    from .settings import setting as setting
    from .sight import Metrics as Metrics
    from .sight import prometheus_text as prometheus_text
    from .sources import ConfigurationWarning as ConfigurationWarning
    from .text_stream import TextStream as TextStream
    from .types import APIType as APIType
    from .types import CallOptions as CallOptions
    from .types import CompletionResult as CompletionResult
    from .types import EmbeddingResult as EmbeddingResult
    from .types import GenerationConfig as GenerationConfig
    from .types import LLMConfig as LLMConfig
    from .types import LLMResponse as LLMResponse
    from .types import Message as Message
    from .types import MessageInput as MessageInput
    from .types import Messages as Messages
    from .types import Part as Part
    from .types import Request as Request
    from .types import RetryPolicy as RetryPolicy
    from .types import Role as Role
    from .types import Secret as Secret
    from .types import StreamEvent as StreamEvent
    from .types import StreamEventType as StreamEventType
    from .types import StreamMode as StreamMode
    from .types import StructuredOutput as StructuredOutput
    from .types import ToolCall as ToolCall
    from .types import ToolCallDelta as ToolCallDelta
    from .types import ToolChoice as ToolChoice
    from .types import ToolSpec as ToolSpec
    from .types import Usage as Usage
    from .types import document_part as document_part
    from .types import format_sse_event as format_sse_event
    from .types import image_part as image_part
    from .types import normalize_messages as normalize_messages
    from .types import read_parts as read_parts

_ROOMS: dict[str, str] = {
    "app_settings": "Settings",
    "base": "BaseProvider LLMProvider Provider",
    "caches": "CacheEntry CacheKey CacheStore FSCache MemoryCache SQLiteCache StoreSize",
    "capabilities": "EmbeddingRequest Embeddings TokenCounting",
    "clients": "Batch Client client create_batch fetch_batch_results get_batch_status get_response",
    "costs": "total_usage",
    "exceptions": (
        "BatchFailedError BudgetExceededError LLMProviderAPIError LLMProviderAuthenticationError "
        "LLMProviderBadRequestError "
        "LLMProviderConfigurationError LLMProviderConnectionError LLMProviderContentFilterError LLMProviderError "
        "LLMProviderNotFoundError LLMProviderOverloadedError LLMProviderPermissionError LLMProviderQuotaError "
        "LLMProviderRateLimitError LLMProviderResponseError LLMProviderServerError LLMProviderStreamError "
        "LLMProviderTimeoutError LLMProviderTokenLimitError LLMProviderUnsupportedOperationError "
        "MissingCredentialsError MissingDependencyError OutputTruncatedError PluginError ProviderClosedError "
        "ResponseTimeoutError StructuredOutputError UnknownOptionError UnknownProviderError UnsupportedParameterError"
    ),
    "factory": "clear_provider_cache create_llm_provider get_cached_provider",
    "layer_settings": "LayerSettings",
    "layers.budget": "Budget BudgetAmounts",
    "layers.cache": "ResponseCache",
    "layers.limit": "LimitLayer",
    "layers.observe": "Observe",
    "layers.pricing": "Priced priced",
    "parameters": "UnsupportedParameterWarning",
    "plugins": "ProviderInfo hookimpl",
    "registry": "ModelProfile available_providers register_provider unregister_provider",
    "remote": "RemoteProvider RemoteSettings",
    "resilience.buckets": "TokenBucket",
    "resilience.concurrency": "Concurrency",
    "resilience.levels": "Rate UNLIMITED",
    "resilience.limiter": "LimitStore Limiter LocalLimits",
    "resilience.shared_limits": "SQLiteLimits",
    "routing": "FallbackProvider",
    "settings": "ProviderSettings setting",
    "sight": "Metrics prometheus_text",
    "sources": "ConfigurationWarning",
    "text_stream": "TextStream",
    "types": (
        "APIType CallOptions CompletionResult EmbeddingResult GenerationConfig LLMConfig LLMResponse Message "
        "MessageInput Messages Part Request RetryPolicy Role Secret StreamEvent StreamEventType StreamMode "
        "StructuredOutput ToolCall ToolCallDelta ToolChoice ToolSpec Usage document_part format_sse_event image_part "
        "normalize_messages read_parts"
    ),
}
_ROOM_OF: dict[str, str] = {name: room for room, names in _ROOMS.items() for name in names.split()}

__all__ = sorted(_ROOM_OF)  # noqa: PLE0605 - a list; derived, so that it cannot disagree with what loads
__version__ = "0.1.0"


if not TYPE_CHECKING:
    # Hidden from type checkers, which would take every misspelt name for one that exists. A name that a plugin lends is
    # imported from the plugin's own package where it shall be checked.

    def __getattr__(name: str) -> Any:
        room = _ROOM_OF.get(name)
        if room is not None:
            from importlib import import_module

            value = getattr(import_module(f"{__name__}.{room}"), name)
        elif name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        else:
            value = _lent(name)
        globals()[name] = value
        return value


def _lent(name: str) -> Any:
    from .plugins import manager

    return manager.lent(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
