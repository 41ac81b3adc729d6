"""The tests that every provider passes: subclass, say how to make one, run pytest.

    class TestAcme(ProviderConformance):
        def make_provider(self, **options):
            return AcmeProvider("acme-1", api_key="test", base_url=..., **options)

        supports_tool_calls = False

Tests cannot be dropped: a subclass that overrides or removes one is refused when it is defined. One that cannot hold is
named in `expected_failures` with its reason; it is then expected to fail, and passing is an error.
"""

from __future__ import annotations

from typing import Any

from .answers import AnswerTests
from .arguments import ArgumentTests
from .kit import changed_tests
from .life import LifeTests
from .powers import PowerTests
from .streams import StreamTests

__all__ = ["ProviderConformance"]


class ProviderConformance(AnswerTests, StreamTests, ArgumentTests, PowerTests, LifeTests):
    """What a provider must do, whatever stands behind it.

    Subclass it, write `make_provider`, and set the attributes of `Kit` where the defaults do not fit.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        changed = changed_tests(cls, ProviderConformance)
        unknown = [
            name for name in cls.expected_failures if name[:5] != "test_" or name not in dir(ProviderConformance)
        ]
        if changed or unknown:
            raise TypeError(
                f"{cls.__qualname__} changes {changed or 'nothing'}, expects unknown failures {unknown or 'nowhere'}: "
                "conformance tests cannot be changed; name one that cannot hold in expected_failures with its reason"
            )
