"""A response cache in Qdrant that finds answers to similar questions, for llm-provider-system."""

from .configured import cache_from_settings
from .questions import literals_of
from .store import QdrantCache

__all__ = ["QdrantCache", "cache_from_settings", "literals_of"]
