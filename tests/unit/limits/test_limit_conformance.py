"""The stores of the core against the suite that every store of limits must pass."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from providers.resilience.limiter import LimitStore, LocalLimits
from providers.resilience.shared_limits import SQLiteLimits
from providers.testing import (
    CacheConformance,
    LimitConformance,
    LiveSettingsConformance,
    SharedCacheConformance,
    SharedLimitConformance,
)


class TestLocal(LimitConformance):
    def make_store(self) -> LimitStore:
        return LocalLimits()

    def source(self) -> str:
        return "from providers.resilience.limiter import LocalLimits\nstore = LocalLimits()"


class TestSQLite(SharedLimitConformance):
    threads = ("llm-limits",)

    @property
    def file(self) -> Path:
        return self.room / "folder" / "limits.sqlite"

    def make_store(self) -> LimitStore:
        return SQLiteLimits(self.file)

    def source(self) -> str:
        return f"from providers.resilience.shared_limits import SQLiteLimits\nstore = SQLiteLimits({str(self.file)!r})"

    def check_place(self) -> None:
        check = sqlite3.connect(self.file)
        assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        check.close()


@pytest.mark.parametrize(
    ("kit", "test"),
    [
        (LimitConformance, "test_keys_are_apart"),
        (SharedLimitConformance, "test_a_forked_child_goes_on"),
        (SharedLimitConformance, "test_four_processes_share_a_cap"),
        (CacheConformance, "test_the_flags"),
        (SharedCacheConformance, "test_killed_writers_leave_whole_entries"),
        (LiveSettingsConformance, "test_settings_that_change_at_rest"),
    ],
)
def test_no_test_of_the_kit_can_be_dropped(kit: type, test: str) -> None:
    with pytest.raises(TypeError, match=f"Mine changes .*{test}.*cannot be changed"):
        type("Mine", (kit,), {test: None})
