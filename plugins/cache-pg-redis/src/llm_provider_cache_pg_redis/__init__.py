"""A response cache in PostgreSQL behind Redis, and limits shared through Redis, for llm-provider-system."""

from __future__ import annotations

from .cache import HybridRedisPostgreSQLCache
from .entry_points import cache_from_settings, limits_from_settings
from .limits import RedisLimits

__all__ = ["HybridRedisPostgreSQLCache", "RedisLimits", "cache_from_settings", "limits_from_settings"]
