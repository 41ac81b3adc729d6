"""The cache from settings: `cache_backend="qdrant"`."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from providers.exceptions import LLMProviderConfigurationError

from .store import QdrantCache

FOLDER: Final = "qdrant"
"""Within `cache_dir`, beside what other caches keep there."""

_OPTIONS: Final = frozenset(inspect.signature(QdrantCache).parameters) - {"url", "api_key", "clock"}


def cache_from_settings(settings: Any) -> QdrantCache:
    """The store that settings ask for.

    Args:
        settings: `qdrant_url` and `qdrant_api_key` name a server; without an address Qdrant's local engine works in
            `qdrant` within `cache_dir`. `cache_options` are arguments of `QdrantCache`.

    Raises:
        LLMProviderConfigurationError: an option is unknown or wrong, or nobody is named who makes vectors.
        MissingDependencyError: the package qdrant-client is not installed.
    """
    options = dict(settings.cache_options or {})
    for name in options:
        if name not in _OPTIONS:
            near = get_close_matches(str(name), sorted(_OPTIONS), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(_OPTIONS))}"
            raise LLMProviderConfigurationError(
                f"cache_options has {name!r}, which the Qdrant cache does not know; {hint}"
            )
    if settings.qdrant_url and not options.keys() & {"location", "path"}:
        return QdrantCache(url=settings.qdrant_url, api_key=settings.qdrant_api_key, **options)
    if not options.keys() & {"location", "path"}:
        options["path"] = Path(settings.cache_dir) / FOLDER
    return QdrantCache(**options)
