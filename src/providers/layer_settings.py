"""What can be set about the layers around a provider's calls, for every provider alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from .settings import ProviderSettings, all_variables, setting, settings_fields, warn_unknown
from .sources import read_toml
from .types import Secret


@dataclass(kw_only=True, eq=False)
class LayerSettings(ProviderSettings):
    """What every provider takes beside its own settings: which layers stand around its calls.

    From arguments, from the environment and `.env`, from `[providers.NAME]` and `[settings.layers]` of the toml file.

    Attributes:
        cache_backend: where answers are kept for calls with `cache_response=True`: `"memory"`, `"sqlite"`, `"fs"`, the
            name of a plugin's cache (`"pg_redis"`, `"qdrant"`), or a `CacheStore`; `None` or `"off"` for no cache.
        cache_dir: folder of the caches that lie on this machine.
        cache_collection: which part of the cache, where a call does not say.
        cache_options: what else the store takes, such as `{"ttl": 3600}`. In the environment a JSON object.
        pg_dsn: address of PostgreSQL, for the caches that use it.
        redis_url: address of Redis, for the caches and limits that use it.
        redis_ttl_seconds: how long Redis keeps an answer.
        compress_pg: whether texts are compressed in PostgreSQL.
        qdrant_url: address of Qdrant; without it its engine runs inside this process, in `cache_dir`.
        qdrant_api_key: the key of that server.
        limits: who shares the limits of requests and tokens, and the pause after "too many requests": `"process"`
            (this one), `"machine"` (all that use one file), the name of a plugin's place (`"redis"`), a `LimitStore`;
            `"off"` for no limits and no pause.
        limits_file: the file of `"machine"`; one in the user's cache folder where left out.
        requests_per_minute: goes before the model's profile.
        tokens_per_minute: goes before the model's profile; prompt and answer together.
        max_concurrency: most calls under way at a time, halved after a refusal and raised again while all is well; or
            `"adaptive"`, for a bound that finds itself; or a `Concurrency`, which providers may share.
        budget: a `Budget`, or a dict of its arguments.
        telemetry: what is shown of calls: `True` or `"otel"` (OpenTelemetry's spans and metrics, and logs),
            `"prometheus"`, `"logs"`, several with commas between them; an `Observe` or a `Metrics`; `None` for nothing.
    """

    env_prefix: ClassVar[str] = "LLM_PROVIDERS_"

    cache_backend: Any = setting(help="Where answers are kept: 'memory', 'sqlite', 'fs', 'pg_redis', 'qdrant'.")
    cache_dir: str = setting("./cache", help="Folder of the caches that lie on this machine.")
    cache_collection: str | None = setting(help="Which part of the cache, where a call does not say.")
    cache_options: dict[str, Any] | None = setting(help="What else the store takes, as a JSON object.")
    pg_dsn: Secret | None = setting(env="PG_DSN", help="Address of PostgreSQL.")
    redis_url: Secret | None = setting(env="REDIS_URL", help="Address of Redis.")
    redis_ttl_seconds: int = setting(86400, help="How long Redis keeps an answer, in seconds.")
    compress_pg: bool = setting(True, help="Whether texts are compressed in PostgreSQL.")
    qdrant_url: str | None = setting(env="QDRANT_URL", help="Address of Qdrant.")
    qdrant_api_key: Secret | None = setting(env="QDRANT_API_KEY", help="The key of Qdrant.")
    limits: Any = setting("process", help="Who shares limits: 'process', 'machine', 'redis', or 'off'.")
    limits_file: str | None = setting(help="The file that the processes of this machine share.")
    requests_per_minute: int | float | None = setting(help="Most requests in a minute.")
    tokens_per_minute: int | float | None = setting(help="Most tokens in a minute.")
    max_concurrency: Any = setting(help="Most calls under way at a time; or 'adaptive'.")
    budget: Any = setting(help="Hard caps: a Budget, or a dict of its arguments.")
    telemetry: Any = setting(help="What is shown of calls: true, 'otel', 'prometheus', 'logs', or several.")

    @classmethod
    def resolve(cls, provider: str, arguments: Mapping[str, Any], also: frozenset[str] = frozenset()) -> Self:
        """Settings from all sources; those of a cache or a place for limits only where one is named.

        Args:
            provider: the provider's name.
            arguments: values that the caller gave.
            also: names of the same tables that are none of these.

        Raises:
            LLMProviderConfigurationError: as in `ProviderSettings.resolve`.
        """
        toml = read_toml()
        shared = toml.table("settings", "layers")
        if shared:
            warn_unknown(cls, "this table", shared)
        table = {
            **shared,
            **{name: found for name, found in toml.table("providers", provider).items() if name in NAMES},
        }
        items = settings_fields(cls)
        wanted = [item for item in items if item.name in _SWITCHES or arguments.get(item.name) is not None]
        found = cls._from(provider, wanted, arguments, table)
        found._tidy()
        if not found.is_plain:
            found = cls._from(provider, items, arguments, table)
            found._tidy()
        return found

    def _tidy(self) -> None:
        """Names in small letters; a cache that is off is none."""
        for name in ("cache_backend", "limits", "telemetry"):
            value = getattr(self, name)
            if isinstance(value, str):
                value = value.strip().lower()
                setattr(self, name, None if name != "limits" and value in ("off", "none", "") else value)

    @property
    def is_plain(self) -> bool:
        """Whether neither a cache nor a shared place for limits is named, so that their settings are of no use."""
        return self.cache_backend is None and isinstance(self.limits, str) and self.limits in ("process", "off")

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that these settings depend on."""
        return _SWITCH_VARIABLES if self.is_plain else all_variables(LayerSettings)


_SWITCHES: Final = frozenset(
    {
        *("cache_backend", "limits", "requests_per_minute", "tokens_per_minute", "max_concurrency"),
        *("budget", "telemetry"),
    }
)
NAMES: Final = frozenset(item.name for item in settings_fields(LayerSettings))
"""Names of options that every provider takes."""
_SWITCH_VARIABLES: Final = all_variables(LayerSettings, _SWITCHES)
