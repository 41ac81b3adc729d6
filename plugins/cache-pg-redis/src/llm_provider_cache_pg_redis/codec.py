"""The bytes that a text is stored as, and names that fit into any key."""

from __future__ import annotations

import hashlib
import zlib
from typing import Final
from urllib.parse import quote

from providers.caches import CacheEntry

SCHEMA: Final = 1
"""Version of the form below, of the table and of the keys; another one is a miss."""

_MARK: Final = b"llm%d" % SCHEMA
# Below this nothing is gained.
_SMALL: Final = 256
_LEVEL: Final = 3
_LONGEST: Final = 120


def pack(text: str, created: float, compress: bool) -> bytes:
    """A text as bytes: `llm1 FORM CREATED CRC`, a line end, and the text in UTF-8, as it is (`-`) or by zlib (`z`)."""
    body, form = text.encode("utf-8", "surrogatepass"), b"-"
    if compress and len(body) > _SMALL:
        packed = zlib.compress(body, _LEVEL)
        if len(packed) < 0.9 * len(body):
            body, form = packed, b"z"
    head = b"%b %b %b" % (_MARK, form, repr(float(created)).encode())
    return b"%b %08x\n%b" % (head, zlib.crc32(body, zlib.crc32(head)), body)


def unpack(blob: object) -> CacheEntry | None:
    """What was packed; `None` where it is damaged or of another version."""
    if not isinstance(blob, bytes) or not blob.startswith(_MARK):
        return None
    line, end, body = blob[:100].partition(b"\n")
    if not end:
        return None
    body = blob[len(line) + 1 :]
    try:
        mark, form, created, check = line.split(b" ")
        if mark != _MARK or int(check, 16) != zlib.crc32(body, zlib.crc32(line.rpartition(b" ")[0])):
            return None
        if form == b"z":
            body = zlib.decompress(body)
        elif form != b"-":
            return None
        return CacheEntry(body.decode("utf-8", "surrogatepass"), float(created))
    except (ValueError, zlib.error):
        return None


def safe(name: str) -> str:
    """A name in letters, digits and `_.-~%`; no two names become one. A long one ends with its fingerprint."""
    raw = name.encode("utf-8", "surrogatepass")
    text = quote(raw, safe="")
    if len(text) <= _LONGEST:
        return text
    return f"{text[:60]}~{hashlib.sha256(raw).hexdigest()}"
