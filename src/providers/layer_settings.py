"""What can be set about the layers around a provider's calls, for every provider alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from .notices import shown_name, warn
from .settings import ProviderSettings, all_variables, known_variables, setting, settings_fields, warn_unknown
from .sources import CONFIG_FILE, ENV_FILE, NO_DOTENV, ConfigurationWarning, DotEnv, last_dotenv, read_toml
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
            `"adaptive"`, for a bound that finds itself; or a `Concurrency`, which providers may share; `"off"` for no
            bound.
        budget: a `Budget`, or a dict of its arguments; `"off"` for none.
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
        _tell_strangers()
        return found

    def _tidy(self) -> None:
        """Names in small letters; a cache, a bound and a budget that are off are none."""
        for name in ("cache_backend", "limits", "telemetry", "max_concurrency", "budget"):
            value = getattr(self, name)
            if isinstance(value, str):
                word = value.strip().lower()
                off = name != "limits" and word in ("off", "none", "")
                # A budget is JSON, whose letters count.
                setattr(self, name, None if off else value if name == "budget" else word)

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

# The houses of these variables: the first is ours alone; plugins may have their own below the second.
_OURS, _LIKE_OURS = LayerSettings.env_prefix, "LLM_PROVIDER_"
_HOUSE: Final = (CONFIG_FILE, ENV_FILE, NO_DOTENV, f"{_OURS}MODELS")

_told: Final[set[str]] = set()
_looked_at_environment = False
_looked_at: DotEnv | None = None


def _tell_strangers() -> None:
    """Warn, once of each name, of variables that are spelt like ours and that nothing reads.

    Looks once at the environment, and once at each state of `.env`.
    """
    global _looked_at_environment, _looked_at
    dotenv = last_dotenv()
    if _looked_at_environment and dotenv is _looked_at:
        return
    places = {} if _looked_at_environment else dict.fromkeys(os.environ, "the environment")
    places |= {name: found.source.partition(" in ")[2] for name, found in dotenv.items() if name not in places}
    _looked_at_environment, _looked_at = True, dotenv
    strange = [name for name in places if name.startswith((_OURS, _LIKE_OURS)) and name not in _told]
    if not strange:
        return
    known = {*_HOUSE, *known_variables()}
    for name in sorted(set(strange) - known):
        near = _nearest(name, known)
        if near or name.startswith(_OURS):
            _told.add(name)
            hint = f"; did you mean {near}?" if near else ""
            warn(f"nothing reads {shown_name(name)} of {places[name]}{hint}", ConfigurationWarning)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    # Without the prefix, which is the better part of each name.
    mine = {other.removeprefix(_OURS): other for other in known if other.startswith(_OURS)}
    near = get_close_matches(name.removeprefix(_OURS).removeprefix(_LIKE_OURS), sorted(mine), n=1, cutoff=0.75)
    return mine[near[0]] if near else None
