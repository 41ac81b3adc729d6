"""Arguments: sent or reported, and refused where no backend could answer."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from ...base import LLMProvider
from ...exceptions import LLMProviderConfigurationError, LLMProviderUnsupportedOperationError, UnknownOptionError
from ...types.config import PARAMETERS
from .kit import Kit

_VALUES: dict[str, Any] = {
    "temperature": 0.0,
    "top_p": 0.5,
    "max_tokens": 8,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.5,
    "stop": ["\u2603"],
    "seed": 0,
    "reasoning_effort": "low",
}


_MISSPELT: dict[str, Any] = {"temprature": 1}


class ArgumentTests(Kit):
    """What becomes of arguments."""

    @pytest.mark.parametrize("name", PARAMETERS)
    def test_a_parameter_is_sent_or_reported(self, name: str) -> None:
        """F-042: metadata["params"] lists each parameter given, as sent or as left out; on_unsupported works."""
        value = _VALUES[name]

        async def work(provider: LLMProvider) -> None:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                response = await self._answer(provider, **{name: value})
            params = response.metadata["params"]
            if name in params["left_out"]:
                assert any(name in str(item.message) for item in caught), f"no warning tells that {name} was left out"
                with pytest.raises(LLMProviderUnsupportedOperationError, match=name):
                    await self._answer(provider, **{name: value}, on_unsupported="error")
            else:
                flat = json.dumps(params["sent"])
                assert json.dumps(value).strip('"[]') in flat, (
                    f"{name}={value!r} is neither sent nor left out: {params}"
                )

        self._run(work)

    def test_bad_arguments_are_refused_before_any_call(self) -> None:
        """One clear error of the right class for what no backend could answer."""

        async def work(provider: LLMProvider) -> None:
            for bad in ("", None, [], [{"role": "nobody", "content": "x"}], [{"role": "user", "content": 7}], 7):
                with pytest.raises(LLMProviderConfigurationError):
                    await provider.execute(bad)
            for options in ({"temperature": float("nan")}, {"temperature": "0.7"}, {"max_tokens": -5}, {"timeout": 0}):
                with pytest.raises(LLMProviderConfigurationError):
                    await provider.execute(self.prompt, **options)
            with pytest.raises(UnknownOptionError, match="temprature"):
                await provider.execute(self.prompt, **_MISSPELT)

        self._run(work)
        with pytest.raises(UnknownOptionError, match="temprature"):
            self.make_provider(temprature=1)
