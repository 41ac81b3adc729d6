"""Warnings that point at the line of the caller, however many of our own frames lie between."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from typing import Final

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
