"""Keeping keys out of every text that leaves this room."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from providers.notices import SHORTEST_SECRET as SHORTEST_SECRET
from providers.notices import without_secrets

# Patterns stay texts, because compiling them would cost more than importing this whole room.
# A word that follows "Basic" or "key:" is a secret if it holds a digit; otherwise it is English.
_WORD = r"(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,}"
_SIGN_IN = rf"(?i)\b(bearer|basic)\s+{_WORD}"
_QUERY = r"(?i)([?&](?:[\w-]*key|[\w-]*token|[\w-]*secret|sig|signature|code)=)[^&\s\"'<>]+"
_FIELD = rf"(?i)(\b(?:api[-_ ]?key|access[-_ ]?token|client[-_ ]?secret)[\"']?\s*[=:]\s*[\"']?){_WORD}"
_PASSWORD = r"(://[^/\s:@]*:)[^/\s]+@"  # up to the last @: not everybody writes one in a password as %40
_CONTROL = r"[\x00-\x1f\x7f-\x9f]+"


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask secrets in a text.

    Args:
        text: any text, such as an error message of a server that quotes our request.
        secrets: keys and passwords as they are sent; those of fewer than 6 characters are left alone.

    Returns:
        The text with each secret, what follows `Bearer` or `Basic`, the values of query parameters such as `key=` and
        of fields such as `"api_key":`, and the passwords of addresses replaced by `***`.
    """
    text = re.sub(_SIGN_IN, r"\1 ***", without_secrets(text, secrets))
    text = re.sub(_QUERY, r"\1***", text)
    text = re.sub(_PASSWORD, r"\1***@", text)
    return re.sub(_FIELD, r"\1***", text)


def signs_in(name: str) -> bool:
    """Whether a header, or a field, of that name holds what must never be shown."""
    return any(word in name.lower() for word in ("auth", "key", "token", "secret", "cookie", "password"))


def sign_in_secrets(headers: Mapping[str, str]) -> list[str]:
    """Find the values that must never be shown: of all headers that sign in, by their names, whole and without the
    word that they may begin with (`Bearer`)."""
    values = [value for name, value in headers.items() if signs_in(name)]
    return [part for value in values for part in (value, value.partition(" ")[2]) if part]


def shorten(text: str, limit: int) -> str:
    """Make one line of a text: control characters and runs of blanks become one blank, the end is cut off.

    Args:
        text: any text; mask its secrets first, so that none is cut in half.
        limit: most characters to keep, a closing `...` included.

    Returns:
        At most `limit` characters without a line end or an escape sequence.
    """
    line = " ".join(re.sub(_CONTROL, " ", text[: limit * 20]).split())
    if len(line) <= limit and len(text) <= limit * 20:
        return line
    return line[: limit - 3].rstrip() + "..."
