"""Where a cache keeps its entries: in memory, in a folder, or on a server."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from providers.exceptions import LLMProviderConfigurationError
from providers.notices import warn
from providers.types import Secret

from .engine import Engine

MEMORY = ":memory:"
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Place:
    """One of three.

    Attributes:
        path: a folder, or `None`.
        url: a server's address, or `None`.
        api_key: its key.
        timeout: whole seconds for one request.
    """

    path: Path | None = None
    url: str | None = None
    api_key: Secret | None = field(default=None, repr=False)
    timeout: int = 2

    @classmethod
    def of(
        cls,
        location: str | None,
        path: str | os.PathLike[str] | None,
        url: str | None,
        api_key: Secret | str | None,
        timeout: float,
    ) -> Place:
        """The place that the arguments name.

        Raises:
            LLMProviderConfigurationError: they name none or several, or no address.
        """
        if sum(value is not None for value in (location, path, url)) != 1:
            raise LLMProviderConfigurationError(
                'pass one of location=":memory:", path="FOLDER" and url="http://HOST:6333" to the Qdrant cache'
            )
        if location is not None and location != MEMORY:
            raise LLMProviderConfigurationError(
                f'location can only be ":memory:", not {location!r}; a folder is path, a server is url'
            )
        if url is None:
            if api_key:
                raise LLMProviderConfigurationError("an API key is for a server; pass url too")
            if path is not None and not str(path):
                raise LLMProviderConfigurationError("path is empty")
            return cls(None if path is None else Path(path))
        return cls(None, _checked(url), _secret(api_key, url), math.ceil(timeout))

    @property
    def local(self) -> bool:
        """Whether Qdrant's engine runs in this process."""
        return self.url is None

    @property
    def lasting(self) -> bool:
        """Whether entries outlive the process."""
        return self.path is not None or self.url is not None

    def __str__(self) -> str:
        if self.url is not None:
            parts = urlsplit(self.url)
            return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        return MEMORY if self.path is None else str(self.path)

    def engine(self) -> Engine:
        """Open it."""
        if self.path is not None:
            return Engine.of_folder(self.path)
        if self.url is None:
            return Engine({"location": MEMORY, "force_disable_check_same_thread": True}, None, True)
        # As a header of ours: with its own argument the client warns of http even on this machine, and in its thread.
        headers = {"api-key": self.api_key.get_secret_value()} if self.api_key else {}
        return Engine(
            {
                "url": self.url,
                "headers": headers,
                "timeout": self.timeout,
                "check_compatibility": False,
            },
            None,
            False,
        )


def _checked(url: str) -> str:
    wrong = "must be an address such as http://localhost:6333"
    if not isinstance(url, str):
        raise LLMProviderConfigurationError(f"url of the Qdrant cache {wrong}")
    try:
        parts = urlsplit(url.strip())
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise LLMProviderConfigurationError(f"url of the Qdrant cache {wrong}") from None
    if not named:
        raise LLMProviderConfigurationError(f"url of the Qdrant cache {wrong}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise LLMProviderConfigurationError(f"url of the Qdrant cache {wrong}; the key is api_key, no part of it")
    return url.strip().rstrip("/")


def _secret(api_key: Secret | str | None, url: str) -> Secret | None:
    if not api_key:
        return None
    try:
        secret = Secret(api_key)
    except (TypeError, ValueError) as error:
        raise LLMProviderConfigurationError(f"api_key of the Qdrant cache: {error}") from None
    parts = urlsplit(url.strip())
    if parts.scheme == "http" and parts.hostname not in _HERE:
        warn(f"the Qdrant cache sends its API key to {parts.hostname} without encryption; use https")
    return secret
