"""OpenAI, and every server that speaks its dialect, as a provider of llm-provider-system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .legacy import OpenAIClient
from .profiles import OpenAIModelProfile, named_profile
from .provider import OpenAIProvider
from .settings import OpenAISettings

if TYPE_CHECKING:
    from providers.profiles import ModelProfile

    GPT5: ModelProfile
    GPT5Mini: ModelProfile
    GPT5Nano: ModelProfile
    GPT5Point1: ModelProfile
    GPT5Point2: ModelProfile
    TextEmbedding3Large: ModelProfile
    TextEmbedding3Small: ModelProfile

__all__ = [
    "GPT5",
    "GPT5Mini",
    "GPT5Nano",
    "GPT5Point1",
    "GPT5Point2",
    "OpenAIClient",
    "OpenAIModelProfile",
    "OpenAIProvider",
    "OpenAISettings",
    "TextEmbedding3Large",
    "TextEmbedding3Small",
]


def __getattr__(name: str) -> ModelProfile:
    # Made when asked for: the user's file may be broken, and must not break the import of the provider.
    return named_profile(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
