"""The life of a provider: many calls, loops and threads, new settings, the end."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from ...base import LLMProvider
from ...clients import Client
from ...exceptions import LLMProviderConfigurationError, ProviderClosedError
from ...types import LLMResponse, StreamEventType
from .kit import Kit


class LifeTests(Kit):
    """How a provider lives."""

    def test_many_at_once(self) -> None:
        """F-143: asyncio.gather on one provider."""

        async def work(provider: LLMProvider) -> list[LLMResponse]:
            return list(await asyncio.gather(*(self._answer(provider) for _ in range(6))))

        responses = self._run(work)
        assert all(response.ok for response in responses)
        if self.deterministic:
            assert len({response.content for response in responses}) == 1

    def test_one_provider_in_many_loops_and_threads(self) -> None:
        """Two event loops one after the other, and several at once in threads."""
        provider = self.make_provider()
        answers: list[LLMResponse] = []

        def ask() -> None:
            answers.append(asyncio.run(self._answer(provider)))

        ask()
        ask()
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        asyncio.run(provider.close())
        assert len(answers) == 6
        assert all(answer.ok for answer in answers)

    def test_the_sync_face(self) -> None:
        """F-001, F-003, F-025: plain functions, also inside a running loop; batches in order."""
        with Client(self.make_provider()) as client:
            config = dict(self.options)
            assert client.get_response(self.prompt, config)

            async def inside() -> Any:
                return client.get_response(self.prompt, config)

            assert asyncio.run(inside())
            batch = client.submit_batch([self.prompt, self.prompt], config)
            assert batch.wait().status() == "completed"
            assert all(isinstance(text, str) and text for text in batch.results())
            assert list(client.stream(self.prompt, config))[-1].type is StreamEventType.DONE

    def test_update_config_reaches_the_next_call(self) -> None:
        """F-139: calls from now on, all changes or none."""

        async def work(provider: LLMProvider) -> None:
            provider.update_config(temperature=0.5, max_tokens=8)
            with pytest.raises(LLMProviderConfigurationError):
                provider.update_config(temperature=0.1, max_tokens=-1)
            assert (provider.config.temperature, provider.config.max_tokens) == (0.5, 8)
            response = await provider.complete(self.prompt)
            assert response.ok, response.error
            params = response.metadata["params"]
            assert 8 in params["sent"].values() or "max_tokens" in params["left_out"]

        self._run(work)

    def test_a_closed_provider_says_so(self) -> None:
        """F-077: close() may be repeated; a call afterwards is refused."""

        async def work() -> None:
            provider = self.make_provider()
            await self._answer(provider)
            await provider.close()
            await provider.close()
            with pytest.raises(ProviderClosedError):
                await provider.execute(self.prompt)

        asyncio.run(work())

    def test_facts_without_secrets(self) -> None:
        """F-141: get_model_info, estimates; the key is in no repr."""
        provider = self.make_provider()
        info = provider.get_model_info()
        assert {"provider_type", "model_name", "api_type", "token_limit"} <= info.keys()
        assert json.dumps(info)
        assert provider.estimate_tokens("Hello, world!") > 0
        assert provider.validate_token_limit("Hello", max_tokens=1)
        assert not provider.validate_token_limit("Hello", max_tokens=10**9)
        if self.secret is not None:
            shown = f"{provider!r} {provider.settings!r} {provider.config!r} {info!r} {vars(provider)!r}"
            assert self.secret not in shown
        asyncio.run(provider.close())
