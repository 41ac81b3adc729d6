"""OpenAI, and every server that speaks its dialect, as a provider of llm-provider-system."""

from __future__ import annotations

from .provider import OpenAIProvider
from .settings import OpenAISettings

__all__ = ["OpenAIProvider", "OpenAISettings"]
