"""What every conformance test stands on: what the author says of the provider, and how a test talks to one."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from ...base import LLMProvider
from ...types import LLMResponse, StreamEvent


def changed_tests(cls: type, base: type) -> list[str]:
    """The tests of a base that a subclass changes or drops."""
    tests = [name for name in dir(base) if name.startswith("test_")]
    return [name for name in tests if getattr(cls, name, None) is not getattr(base, name)]


def keep_tests(cls: type, base: type) -> None:
    """Refuse a subclass that changes or drops tests of its base.

    Raises:
        TypeError: it does.
    """
    if changed := changed_tests(cls, base):
        raise TypeError(f"{cls.__qualname__} changes {changed}: conformance tests cannot be changed")


class Kit:
    """What a provider must do, whatever stands behind it.

    Attributes:
        prompt: a question that is answered with more than one token.
        options: options of each call, for short and repeatable answers.
        deterministic: whether the same call gives the same answer.
        reports_usage: whether token counts are known.
        honours_max_tokens: whether an answer can be cut short, with the finish reason `"length"`.
        supports_structured_output: whether answers can be made to fit a schema.
        structured_prompt: a question whose answer fits `{"answer": text}`.
        supports_responses_api: whether `execute_responses_api` works.
        supports_tool_calls: whether `tool_prompt` makes the backend call the tool `get_weather`.
        tool_prompt: a question that needs that tool.
        secret: the key that `make_provider` uses; it must be seen nowhere.
        expected_failures: name of a test to the reason why it cannot hold.
    """

    prompt: ClassVar[str] = "Name three colors."
    options: ClassVar[Mapping[str, Any]] = {"max_tokens": 16, "temperature": 0.0}
    deterministic: ClassVar[bool] = True
    reports_usage: ClassVar[bool] = True
    honours_max_tokens: ClassVar[bool] = True
    supports_structured_output: ClassVar[bool] = False
    structured_prompt: ClassVar[str] = "What is the opposite of hot?"
    supports_responses_api: ClassVar[bool] = False
    supports_tool_calls: ClassVar[bool] = False
    tool_prompt: ClassVar[str] = "What is the weather in Paris? Use the tool."
    secret: ClassVar[str | None] = None
    expected_failures: ClassVar[Mapping[str, str]] = {}

    # --- what an author writes

    @abstractmethod
    def make_provider(self, **options: Any) -> LLMProvider:
        """A new provider with these options on top of its own."""
        raise NotImplementedError(f"{type(self).__qualname__} needs make_provider()")

    # --- tools of the tests

    @pytest.fixture(autouse=True)
    def _expected_failure(self, request: pytest.FixtureRequest) -> None:
        reason = self.expected_failures.get(request.node.originalname)
        if reason is not None:
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    def _run(self, work: Any, **options: Any) -> Any:
        """Give a provider to a coroutine function, in a new event loop, and close it afterwards."""

        async def main() -> Any:
            async with self.make_provider(**options) as provider:
                return await work(provider)

        return asyncio.run(main())

    async def _answer(self, provider: LLMProvider, prompt: Any = None, **options: Any) -> LLMResponse:
        response = await provider.execute(prompt or self.prompt, **{**self.options, **options})
        assert isinstance(response, LLMResponse)
        return response

    async def _events(self, provider: LLMProvider, prompt: Any = None, **options: Any) -> list[StreamEvent]:
        return [event async for event in provider.stream(prompt or self.prompt, **{**self.options, **options})]
