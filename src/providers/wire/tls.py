"""TLS contexts for certificates of one's own: built once each, since one costs milliseconds and half a megabyte."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from providers.exceptions import LLMProviderConfigurationError

if TYPE_CHECKING:
    from ssl import SSLContext

_contexts: dict[tuple[str, int], SSLContext] = {}


def tls_context(ca_file: str, *, provider: str) -> SSLContext:
    """Give the context that trusts a file (or folder) of certificates, and nothing else.

    Args:
        ca_file: path of a PEM file, or of a folder that `openssl rehash` prepared.
        provider: name of the provider, for the error.

    Returns:
        The same context for the same unchanged file, in the whole process.

    Raises:
        LLMProviderConfigurationError: the file is missing or holds no certificate.
    """
    import ssl

    try:
        key = (os.path.abspath(ca_file), os.stat(ca_file).st_mtime_ns)
        context = _contexts.get(key)
        if context is None:
            folder = os.path.isdir(ca_file)
            context = ssl.create_default_context(cafile=None if folder else ca_file, capath=ca_file if folder else None)
            context.set_alpn_protocols(["http/1.1"])
            _contexts[key] = context
        return context
    except OSError as error:  # ssl.SSLError is one, too
        raise LLMProviderConfigurationError(
            f"ca_file {ca_file!r} cannot be used: {error.strerror or error}", provider=provider
        ) from error
