"""Addresses of servers with passwords in them, that no text shows, and whether a driver is installed."""

from __future__ import annotations

import importlib.util
import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from providers import LLMProviderConfigurationError, MissingDependencyError
from providers.types import Secret

_REDIS: Final = ("redis://", "rediss://", "unix://")
_POSTGRES: Final = ("postgresql://", "postgres://")
_PAIR: Final = re.compile(r"(?:ssl)?password\s*=\s*('(?:[^'\\]|\\.)*'|\S+)")
_INSTALL: Final = 'pip install "llm-provider-system[cache-pg-redis]"'


class Address:
    """The address of a server. Its `repr` shows nothing of it.

    Args:
        option: name of the option that it came from, for messages.
        value: the address, or None where there is none.
        driver: the package that is needed to reach the server.

    Raises:
        LLMProviderConfigurationError: it cannot be an address; the message does not quote it.
        MissingDependencyError: the driver is not installed.
    """

    __slots__ = ("_secrets", "_value")

    def __init__(self, option: str, value: Any, driver: str) -> None:
        try:
            self._value = Secret(value)
        except (TypeError, ValueError) as error:
            raise LLMProviderConfigurationError(f"{option}: {error}") from None
        text = self._value.get_secret_value()
        problem = _problem(text, _REDIS if driver == "redis" else _POSTGRES)
        if problem is not None:
            # Said without quoting: what is wrong with it may well be the password.
            raise LLMProviderConfigurationError(f"{option} {problem}")
        self._secrets = _secrets(text)
        need(driver)

    @property
    def value(self) -> str:
        """The address itself."""
        return self._value.get_secret_value()

    def describe(self, error: BaseException) -> str:
        """What an error says, in one line; only its class where it would tell a secret."""
        text = " ".join(str(error).split())
        if not text or any(secret in text for secret in self._secrets):
            return type(error).__name__
        return f"{type(error).__name__}: {text[:300]}"

    def __repr__(self) -> str:
        return "Address('**********')"


def need(driver: str) -> None:
    """See that a package is installed, without importing it.

    Raises:
        MissingDependencyError: it is not; the message says what to install.
    """
    if importlib.util.find_spec(driver) is None:
        raise MissingDependencyError(f"the package {driver} is not installed: {_INSTALL}")


def _problem(text: str, schemes: tuple[str, ...]) -> str | None:
    if not text.startswith(schemes):
        if schemes is _POSTGRES and "=" in text and "://" not in text:
            return None
        pairs = ', or be pairs such as "host=... dbname=..."' if schemes is _POSTGRES else ""
        return f"must begin with {', '.join(schemes[:-1])} or {schemes[-1]}{pairs}"
    if text.startswith("unix://"):
        return None
    encode = "is no address; characters such as @ : / ? # in a password have to be percent-encoded"
    try:
        parts = urlsplit(text)
        # Where a password is not encoded, its rest stands in the path, the query or the fragment.
        rest = parts.path + parts.query.partition("=")[0]
        if parts.netloc.count("@") > 1 or "@" in rest or parts.fragment:
            return encode
        if schemes is _REDIS:
            _ = parts.port
        elif any(not re.fullmatch(r"(?:\[[^\]]*\]|[^:]*)(?::\d*)?", host) for host in _hosts(parts.netloc)):
            return encode
    except ValueError:
        return encode
    return None


def _hosts(netloc: str) -> list[str]:
    # PostgreSQL takes several hosts, with commas between.
    return netloc.rpartition("@")[2].split(",")


def _secrets(text: str) -> set[str]:
    found = {text}
    if "://" in text:
        before, _, _ = text.partition("://")[2].rpartition("@")
        found.add(before.partition(":")[2])
        found.update(value for name, value in parse_qsl(urlsplit(text).query) if name.endswith("password"))
    else:
        found.update(re.sub(r"\\(.)", r"\1", value.strip("'")) for value in _PAIR.findall(text))
    return {secret for value in found for secret in (value, unquote(value)) if secret}
