"""Live settings of a fallback: a target that rests is asked again after a reload."""

from __future__ import annotations

from typing import Any

import pytest

from providers import create_llm_provider, register_provider
from providers.testing import EchoProvider, LoopbackServer, RecordedRequest, Reply


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_rotated_key_brings_the_first_target_back_at_once(
    house: Any, monkeypatch: pytest.MonkeyPatch, one: LoopbackServer, streaming: bool
) -> None:
    """Issue: live settings. It rests since its key was refused; the key is another one, and so it is asked first."""
    register_provider("echo", EchoProvider)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{one.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-old")

    def answer(request: RecordedRequest) -> Reply:
        if request.headers["authorization"] == "Bearer sk-old":
            return Reply.json({"error": {"message": "no", "code": "invalid_api_key"}}, status=401)
        if request.json.get("stream"):
            return Reply.sse([{"choices": [{"delta": {"content": "from m"}, "finish_reason": "stop"}]}])
        return Reply.json({"choices": [{"message": {"content": "from m"}, "finish_reason": "stop"}]})

    async def ask() -> str:
        if not streaming:
            return str((await provider.execute("from the echo")).content)
        return "".join([piece async for piece in await provider.execute("from the echo", stream_mode="enabled")])

    one.script("*", answer, repeat=True)
    async with create_llm_provider("fallback", targets=["openai/m", "echo/e"], max_retries=0) as provider:
        with pytest.warns(UserWarning, match="openai/m"):
            assert await ask() == "from the echo"
        assert await ask() == "from the echo"
        assert one.count() == 1  # it rests
        monkeypatch.setenv("OPENAI_API_KEY", "sk-new")
        assert await ask() == "from the echo"
        await provider.reload()
        assert await ask() == "from m"
    assert one.requests[-1].headers["authorization"] == "Bearer sk-new"
