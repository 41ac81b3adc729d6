"""What the founding documents show of `.env`, of providers of one's own and of testing, in words of our own: F-059,
F-078, F-145. No founding document is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import providers
from providers import (
    LLMProviderUnsupportedOperationError,
    StreamEventType,
    StreamMode,
    create_llm_provider,
    get_response,
    register_provider,
    unregister_provider,
)

from providers import BaseProvider, CompletionResult, Provider, StreamEvent  # isort: skip
from providers.testing import LoopbackServer

from .conftest import KEY

ROOT = Path(__file__).resolve().parents[2]


# --- the file `.env`


def test_a_dotenv_is_used_at_the_first_use(vendor: LoopbackServer) -> None:
    """F-059: nothing is called to load it, its key goes out with the call, and `os.environ` stays as it was."""
    before = dict(os.environ)
    assert "OPENAI_API_KEY" not in before
    assert get_response("openai", "m", "Hi") == "You said: Hi"
    assert create_llm_provider().config.model_name == "gpt-4"
    assert vendor.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert dict(os.environ) == before


def test_it_may_be_written_after_the_import(application: Path) -> None:
    """F-059: read when it is needed, not when this package is imported; in a fresh interpreter."""
    program = """
        import os, pathlib
        import providers
        before = dict(os.environ)
        lines = "TEMPLATE_API_KEY=from-the-file", "DEFAULT_LLM_PROVIDER=template"
        pathlib.Path(".env").write_text("\\n".join(lines), encoding="utf-8")
        provider = providers.create_llm_provider(model_name="m")
        print(provider.name, provider.require("api_key"), dict(os.environ) == before)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        cwd=application, capture_output=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("template from-the-file True\n", "")


# --- a provider of one's own, with the two verbs of the second document


class MyProvider(BaseProvider):
    """As the document writes it: two verbs, everything else in `**kwargs`, no `generate`."""

    async def complete(self, messages: Any, **kwargs: Any) -> CompletionResult:
        return CompletionResult(content=f"heard {messages[-1]['content']}", model="mine", finish_reason="stop")

    async def stream(self, messages: Any, **kwargs: Any) -> AsyncIterator[StreamEvent]:  # type: ignore[override]
        yield StreamEvent(type=StreamEventType.TOKEN, data="Hello")
        yield StreamEvent(StreamEventType.DONE, await self.complete(messages, **kwargs))


async def test_a_provider_with_two_verbs() -> None:
    """F-078: registered, made by name, used; `embed` is optional and says so."""
    assert Provider is BaseProvider is providers.LLMProvider
    assert issubclass(MyProvider, Provider)
    register_provider("mine", MyProvider)
    try:
        messages = [{"role": "user", "content": "Hi"}]
        async with create_llm_provider("mine", "model-a", temperature=0.1) as provider:
            assert (type(provider), provider.name, provider.config.temperature) == (MyProvider, "mine", 0.1)
            answer = await provider.complete(messages, tools=None, temperature=0.5, whatever="it takes")
            assert isinstance(answer, CompletionResult)
            assert (answer.content, answer.ok) == ("heard Hi", True)
            events = [event async for event in provider.stream(messages, anything=1)]
            assert [event.type for event in events] == [StreamEventType.TOKEN, StreamEventType.DONE]
            assert events[-1].data.content == "heard Hi"
            with pytest.raises(NotImplementedError):
                await provider.embed("Hi")
            with pytest.raises(LLMProviderUnsupportedOperationError, match=r"MyProvider has no generate\(\)"):
                await provider.execute("Hi")
    finally:
        unregister_provider("mine")


# --- the tests that the third document tells its users to write


@pytest.mark.usefixtures("vendor")
class TestAsAnApplicationWouldWriteThem:
    """F-145: they pass with nothing but a server on loopback."""

    @pytest.mark.asyncio
    async def test_one_answer(self) -> None:
        """A text, the model that was asked for, and tokens that were counted."""
        async with create_llm_provider(provider_type="openai", model_name="gpt-4") as provider:
            response = await provider.execute(prompt="Say yes")
        assert response.content is not None
        assert response.model == "gpt-4"
        assert response.total_tokens > 0

    @pytest.mark.asyncio
    async def test_a_stream(self) -> None:
        """No model is named: the default of `.env` serves. The pieces joined are a text."""
        async with create_llm_provider(provider_type="openai", stream_mode=StreamMode.ENABLED) as provider:
            chunks = []
            async for chunk in await provider.execute(prompt="One two three"):
                chunks.append(chunk)
        assert len(chunks) > 0
        assert "".join(chunks) == "You said: One two three"
