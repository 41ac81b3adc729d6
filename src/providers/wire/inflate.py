"""Undoing a body's compression, so that a body that was cut short is noticed (aiohttp itself lets cut gzip pass)."""

from __future__ import annotations

import zlib

from providers.exceptions import LLMProviderResponseError

ACCEPTED = "gzip, deflate"
"""What requests offer; a server that sends anything else was not asked to."""


class Inflater:
    """Decompress one body, in one piece or in many.

    Args:
        encoding: the reply's `Content-Encoding`.
        provider: name of the provider, for the error.

    Raises:
        LLMProviderResponseError: an encoding that no request offers.
    """

    def __init__(self, encoding: str, provider: str | None = None) -> None:
        name = encoding.strip().lower()
        if name not in ("gzip", "x-gzip", "deflate", "identity", ""):
            raise LLMProviderResponseError(f"the reply is compressed with {name[:40]!r}, unasked", provider=provider)
        self._identity = name in ("identity", "")
        self._window = 15 if name == "deflate" else 31
        self._engine = zlib.decompressobj(self._window)
        self._begun = False

    def feed(self, data: bytes, limit: int = 0) -> bytes:
        """Take compressed bytes, give the bytes that they make up so far.

        Args:
            data: the next piece of the body.
            limit: most bytes to give, 0 for all; what lies beyond is lost, so nothing may follow.

        Raises:
            zlib.error: they are damaged.
        """
        if self._identity or not data:
            return data
        if not self._begun:
            self._begun = True
            # "deflate" means zlib's format, but some servers send the bare one, which lacks this first half-byte.
            if self._window == 15 and data[0] & 15 != 8:
                self._engine = zlib.decompressobj(-15)
        pieces = [self._engine.decompress(data, limit)]
        while self._engine.eof and self._window == 31:
            following = self._engine.unused_data.lstrip(b"\0")
            room = limit - sum(map(len, pieces)) if limit else 0
            if not following or (limit and room <= 0):
                break
            self._engine = zlib.decompressobj(self._window)  # gzip files may stand one behind another
            pieces.append(self._engine.decompress(following, room))
        return b"".join(pieces)

    def end(self) -> bytes:
        """Take the end of the body, give the last bytes.

        Raises:
            zlib.error: the body was cut short.
        """
        if self._identity or not self._begun:
            return b""
        rest = self._engine.flush()
        if not self._engine.eof:
            raise zlib.error("the compressed body ends too early")
        return rest

    def whole(self, data: bytes) -> bytes:
        """Decompress a body that is there at once.

        Raises:
            zlib.error: it is damaged or cut short.
        """
        return self.feed(data) + self.end()
