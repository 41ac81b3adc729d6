"""The kit catches what it is for: each broken provider here fails the test that it should."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from providers import LLMProvider, Request, StreamEvent, Usage
from providers.testing import EchoProvider, ProviderConformance


class _Broken(EchoProvider):
    """An echo that does one thing wrong."""

    fault = ""

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        async for event in super().generate(request):
            data = event.data
            if self.fault == "no finish" and isinstance(data, dict):
                data.pop("finish_reason")
            if self.fault == "no params" and isinstance(data, dict):
                data["params"] = {"sent": {}, "left_out": {}}
            if self.fault == "zero usage" and isinstance(data, Usage):
                event = StreamEvent.usage(Usage(0, 0))
            if self.fault == "no history" and isinstance(data, Usage):
                event = StreamEvent.usage(Usage(len(request.messages.last_text.split()), 1))
            if self.fault == "stream differs" and request.stream and isinstance(data, str):
                event = StreamEvent.token(data.upper())
            yield event


def _kit(fault: str, **attributes: Any) -> Any:
    broken = type("Broken", (_Broken,), {"fault": fault})

    def make_provider(self: Any, **options: Any) -> LLMProvider:
        return broken(**options)

    return type("Kit", (ProviderConformance,), {"make_provider": make_provider, **attributes})()


CASES: list[tuple[str, Callable[[Any], None]]] = [
    ("no finish", lambda kit: kit.test_a_prompt_gets_a_whole_answer()),
    ("no params", lambda kit: kit.test_a_parameter_is_sent_or_reported("seed")),
    ("zero usage", lambda kit: kit.test_usage_is_known_or_none()),
    ("no history", lambda kit: kit.test_the_whole_conversation_reaches_the_backend()),
    ("stream differs", lambda kit: kit.test_streamed_and_whole_answers_agree()),
]


@pytest.mark.parametrize(("fault", "run"), CASES, ids=[fault for fault, _ in CASES])
def test_a_fault_is_caught(fault: str, run: Callable[[Any], None]) -> None:
    """The same test passes without the fault and fails with it."""
    run(_kit(""))
    with pytest.raises(AssertionError):
        run(_kit(fault))


def test_claims_are_checked() -> None:
    """A capability that is claimed and not there fails."""
    for claim, test in [
        ("supports_structured_output", "test_structured_output_or_a_clear_refusal"),
        ("supports_responses_api", "test_responses_api_or_a_clear_refusal"),
        ("supports_tool_calls", "test_tool_calls_arrive_whole"),
    ]:
        getattr(_kit(""), test)()
        with pytest.raises((AssertionError, NotImplementedError)):
            getattr(_kit("", **{claim: True}), test)()


def test_no_test_can_be_dropped() -> None:
    """Overriding, removing or misnaming a test is refused when the class is defined."""
    with pytest.raises(TypeError, match="test_many_at_once"):
        type("Silent", (ProviderConformance,), {"test_many_at_once": lambda self: None})
    with pytest.raises(TypeError, match="test_many_at_once"):
        type("Gone", (ProviderConformance,), {"test_many_at_once": None})
    with pytest.raises(TypeError, match="test_of_nothing"):
        type("Misnamed", (ProviderConformance,), {"expected_failures": {"test_of_nothing": "why"}})


def test_an_expected_failure_that_passes_is_an_error(pytester: pytest.Pytester) -> None:
    """expected_failures is strict, so that a list of excuses does not outlive its reasons."""
    pytester.makepyfile(
        """
        from providers.testing import EchoProvider, ProviderConformance

        class TestEcho(ProviderConformance):
            expected_failures = {"test_many_at_once": "made up"}

            def make_provider(self, **options):
                return EchoProvider(**options)
        """
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*FAILED*test_many_at_once*", "*1 failed, * passed*"])
