"""A whole reply, and how the body of one that refuses is read."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from providers.exceptions import LLMProviderResponseError
from providers.headroom import Headroom

from .inflate import Inflater
from .redaction import redact

if TYPE_CHECKING:
    import aiohttp

_LONGEST_REFUSAL = 1 << 20  # bytes that are read of a reply that only says no


class Reply:
    """A whole reply.

    Attributes:
        status: HTTP status, 200 to 299.
        headers: the reply's headers; names in any case.
        body: the body, decompressed.

    Args:
        secrets: what must not appear in `request_id`.
    """

    __slots__ = ("_secrets", "body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes = b"", secrets: Iterable[str] = ()) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._secrets = secrets

    @property
    def request_id(self) -> str | None:
        """The backend's id of the request, from `x-request-id` or `request-id`."""
        return request_id_of(self.headers, self._secrets)

    def __repr__(self) -> str:
        return f"Reply(status={self.status}, body of {len(self.body)} bytes)"


def request_id_of(headers: Mapping[str, str], secrets: Iterable[str] = ()) -> str | None:
    """Find the backend's id of a request in its reply's headers, which know names in any case.

    Secrets that a server echoes there are masked.
    """
    found = headers.get("x-request-id") or headers.get("request-id") or None
    if found is not None:
        for secret in secrets:
            if secret in found:
                return redact(found, secrets)
    return found


def headroom_of(headers: Mapping[str, str]) -> Headroom:
    """What a reply's headers say is left, the least of each kind: `x-ratelimit-remaining-requests` and its many other
    spellings, as vendors document them."""
    left: dict[str, int] = {}
    for name, value in headers.items():
        word = name.lower()
        if "remaining" not in word or "ratelimit" not in word.replace("-limit", "limit"):
            continue
        kind = "requests" if "request" in word else "tokens" if "token" in word else None
        # One of thousands of digits, which Python refuses to read, is no figure.
        if kind is not None and len(value) < 20 and value.strip().isdecimal():
            left[kind] = min(int(value), left.get(kind, int(value)))
    return Headroom(left.get("requests"), left.get("tokens"))


async def read_refusal(response: aiohttp.ClientResponse) -> bytes:
    """Read the body of a reply whose status says no: at most 1 MiB of it, packed and unpacked.

    The status is the news: of a body that is cut off there is what came, and a badly compressed one counts as empty.
    """
    from aiohttp import ClientError

    pieces: list[bytes] = []
    size = 0
    try:
        while size < _LONGEST_REFUSAL:
            piece = await response.content.readany()
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
    except (ClientError, ConnectionError):
        pass
    body = b"".join(pieces)
    encoding = response.headers.get("Content-Encoding")
    if not encoding:
        return body
    try:
        return Inflater(encoding).feed(body, _LONGEST_REFUSAL)
    except (zlib.error, LLMProviderResponseError):
        return b""
