"""Where llama.cpp's own HTTP server listens: a place that only this process can use.

xllamacpp has no way to load a model without that server. Answers and embeddings go past it, by calls in this process;
it only serves what has no such call: counting tokens, and asking what the model's template knows.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from typing import Any, Final
from urllib.parse import urlsplit

from providers.exceptions import LLMProviderConnectionError, LLMProviderResponseError

from .settings import NAME

_LONGEST: Final = 100  # bytes; the system's limit for a socket's path is 104 to 108
_TIMEOUT: Final = 60.0  # seconds


class PrivateAddress:
    """A socket in a folder that only this user may enter; where the system has none, a port of 127.0.0.1. Both ask for
    a random key of 256 bits, which is known to this object alone.

    Args:
        on_disk: whether there may be such a folder; a process that ends without cleaning up would leave it behind.

    Attributes:
        host: the host name for llama.cpp.
        key: the key.
    """

    def __init__(self, *, on_disk: bool = True) -> None:
        self.key = os.urandom(32).hex()
        self.host = "127.0.0.1"
        self._path: str | None = None
        self._port = 0
        if on_disk and os.name == "posix":
            folder = tempfile.mkdtemp(prefix="llm-provider-")
            path = os.path.join(folder, "llama.sock")
            if len(os.fsencode(path)) <= _LONGEST:
                self.host = self._path = path
            else:
                os.rmdir(folder)

    def started(self, address: str) -> None:
        """Take in where the server listens, as it says itself."""
        if self._path is None:
            self._port = urlsplit(address).port or 0

    def remove(self) -> None:
        """Take the socket and its folder away; harmless when repeated."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(self._path))

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """One exchange with the server, past all proxies; it blocks.

        Returns:
            Status and JSON value of the reply.

        Raises:
            LLMProviderConnectionError: the server does not answer, for instance because it was shut meanwhile.
            LLMProviderResponseError: the reply is no JSON.
        """
        import http.client
        import json

        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
        try:
            if self._path is not None:
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(_TIMEOUT)
                connection.sock.connect(self._path)
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        except (OSError, http.client.HTTPException) as error:
            raise LLMProviderConnectionError(
                f"llama.cpp in this process does not answer: {type(error).__name__}: {error}", provider=NAME
            ) from error
        except ValueError as error:
            raise LLMProviderResponseError(f"llama.cpp's reply is no JSON: {error}", provider=NAME) from error
        finally:
            connection.close()
