"""Warnings that point at the line of the caller, and refused values as messages may show them."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

_OURS: Final = (
    "providers",
    "src.providers",
    "llm_provider_",
    "asyncio",
    "concurrent.futures",
    "contextlib",
    "threading",
)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the nearest frame that is neither ours nor the event loop's; at our own where there is no other.

    Args:
        message: one sentence that says what was passed over, and why.
        category: class of the warning.
    """
    level, frame = 2, sys._getframe(1)
    depth = level
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(_OURS):
            level = depth
            break
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, category, stacklevel=level)


def warn_only(message: str) -> None:
    """`warn` in the middle of a call: where warnings are errors, one must still not cost an answer that is paid for."""
    with suppress(Warning):
        warn(message)


_LONGEST: Final = 40
SHORTEST_SECRET: Final = 6
"""Characters. Placeholders for local servers ("none", "EMPTY") are no secrets, and masking them garbles messages."""

# What keys of well-known services begin with, and a long run of letters and digits. A text, since most programs never
# need it compiled.
_KEY: Final = (
    r"(?<![A-Za-z0-9])(?:[sprgw]k[-_]|AIza|AQ\.|ya29\.|AKIA|eyJ|hf_|gh[opsu]_|github_pat_|xox[a-z]-|(?i:bearer|basic)\s)"
    r"|(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{20}"
)


def shown(value: Any, secrets: Iterable[str] = ()) -> str:
    """A refused value, as it may stand in a message: quoted, or described where it might be a secret.

    Args:
        value: what somebody gave. Short words and numbers are quoted; an address, a text of more than 40 characters
            and what looks like a key are described.
        secrets: what must not be quoted either, alone or within a longer text.
    """
    return _description(value, secrets) or repr(value)


def shown_name(name: str) -> str:
    """The same for a name that stands in a message without quotation marks."""
    described = _description(name)
    return f"({described})" if described else name


def _description(value: Any, secrets: Iterable[str] = ()) -> str:
    text = value if isinstance(value, str) else repr(value)
    if "://" in text or "@" in text:
        kind = "an address"
    elif (
        len(text) > _LONGEST
        or re.search(_KEY, text)
        or any(secret in text for secret in secrets if len(secret) >= SHORTEST_SECRET)
    ):
        kind = f"a text of {len(text)} characters"
    else:
        return ""
    return kind if isinstance(value, str) else f"a value of type {type(value).__name__}"


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """A message with each of these secrets replaced by `***`."""
    for secret in sorted({secret.strip() for secret in secrets}, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            for form in (secret, repr(secret)[1:-1]):
                text = text.replace(form, "***")
    return text
