"""What each store of limits must do; to be subclassed by whoever writes one.

class TestAcme(SharedLimitConformance):
    threads = ("acme-limits",)

    def make_store(self):
        return AcmeLimits(self.room / "limits")

    def source(self):
        return f"from acme import AcmeLimits; store = AcmeLimits({str(self.room / 'limits')!r})"
"""

from __future__ import annotations

from typing import Any, ClassVar

from .kit import keep_tests
from .limit_processes import LimitForkTests, LimitProcessTests
from .limit_threads import LimitThreadTests
from .limit_words import LimitWordTests

__all__ = ["LimitConformance", "SharedLimitConformance"]


class LimitConformance(LimitWordTests, LimitThreadTests, LimitForkTests):
    """What each store of limits must do, for callers of one process.

    Subclass it, write `make_store` and `source`, and set the attributes where the defaults do not fit. Tests cannot be
    dropped or changed. A store may have `close`, plain or `async`, which does what is left to do; one that was closed
    begins again at its next use. Clocks are the machine's, so some tests take seconds.

    Attributes:
        slack: seconds that a caller may be let in too late on a machine with other work to do.
        threads: names of the threads that a store has from its first use until it is closed.
        room: an empty folder for each test.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_tests(cls, LimitConformance)


class SharedLimitConformance(LimitProcessTests, LimitConformance):
    """What a store of limits must do besides that several processes share: stores over one place are one, in this
    process and in others."""

    shared: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_tests(cls, SharedLimitConformance)
