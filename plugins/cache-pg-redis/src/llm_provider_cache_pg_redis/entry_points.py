"""What the core finds by name: the cache `pg_redis` and the limits `redis`, made from a provider's settings."""

from __future__ import annotations

import threading
from typing import Any, Final
from weakref import WeakValueDictionary

from providers import LLMProviderConfigurationError, UnknownOptionError

from .cache import HybridRedisPostgreSQLCache
from .limits import RedisLimits

_OPTIONS: Final = ("ttl", "table", "prefix", "timeout", "pool_size", "clock")


def cache_from_settings(settings: Any) -> HybridRedisPostgreSQLCache:
    """The store for `cache_backend="pg_redis"`.

    Args:
        settings: has `pg_dsn` and `redis_url` (one of them may be `None`), and where they differ from the defaults
            `redis_ttl_seconds`, `compress_pg` and `cache_options`, a dict of more arguments of the store.

    Raises:
        LLMProviderConfigurationError: neither address is there, or a value is wrong.
        MissingDependencyError: `redis` or `psycopg` is needed and not installed.
    """
    more = dict(getattr(settings, "cache_options", None) or {})
    unknown = sorted(set(map(str, more)) - set(_OPTIONS))
    if unknown:
        raise UnknownOptionError(f"the cache pg_redis knows no option {unknown[0]!r}; it has {', '.join(_OPTIONS)}")
    for name in ("redis_ttl_seconds", "compress_pg"):
        value = getattr(settings, name, None)
        if value is not None:
            more[name] = value
    return HybridRedisPostgreSQLCache(getattr(settings, "pg_dsn", None), getattr(settings, "redis_url", None), **more)


def limits_from_settings(settings: Any) -> RedisLimits:
    """The store for `limits="redis"`; one object for all providers of this process with one address.

    Args:
        settings: has `redis_url`.

    Raises:
        LLMProviderConfigurationError: it is missing or wrong.
        MissingDependencyError: `redis` is not installed.
    """
    url = getattr(settings, "redis_url", None)
    if not url:
        raise LLMProviderConfigurationError('limits="redis" needs an address: give redis_url (REDIS_URL)')
    made = RedisLimits(url)
    with _lock:
        return _made.setdefault(made.fingerprint, made)


_lock: Final = threading.Lock()
_made: Final[WeakValueDictionary[str, RedisLimits]] = WeakValueDictionary()
