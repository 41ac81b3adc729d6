"""llama.cpp inside this process, as a provider of llm-provider-system: models in GGUF files, no key, no network."""

from __future__ import annotations

from .provider import LlamaCppProvider
from .settings import LlamaCppSettings

__all__ = ["LlamaCppProvider", "LlamaCppSettings"]
