"""Warnings point at the caller's line."""

from __future__ import annotations

import warnings
from typing import Any

from providers.notices import warn
from providers.testing import EchoProvider


async def test_a_warning_names_the_line_that_called() -> None:
    provider = EchoProvider("m")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("straight")
        await provider.execute("Hi", rewrite_cache=True)
        await provider.complete("Hi", regen_cache=True)
    seen: list[Any] = [(item.filename, str(item.message).partition(":")[0]) for item in caught]
    assert seen == [(__file__, "straight"), (__file__, "rewrite_cache"), (__file__, "regen_cache")]
    lines = [item.lineno for item in caught]
    assert lines == [lines[0], lines[0] + 1, lines[0] + 2]
