"""Live settings: what the next opening would refuse is refused by `reload`, and the model in use goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llm_provider_llamacpp import LlamaCppProvider
from providers import create_llm_provider
from providers.exceptions import LLMProviderConfigurationError, LLMProviderError
from providers.types import LLMResponse

from .conftest import COLORS, SHORT, Make, model_file


async def answered(provider: Any) -> str:
    response = await provider.execute(COLORS, max_tokens=8)
    assert isinstance(response, LLMResponse)
    return response.content


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_path": "missing.gguf"}, r"model_path \(argument\) names missing.gguf, which does not exist"),
        ({"model_path": "."}, r"model_path \(argument\) names \., which is a folder"),
        ({"model_path": "empty.gguf"}, r"names empty.gguf, which is empty"),
        ({"n_ctx": 2}, r"n_ctx \(argument\) must be at least 8"),
        ({"pooling": "most"}, r"pooling \(argument\) must be one of"),
        ({"chat_template": "missing.jinja"}, r"chat_template \(argument\) is neither Jinja text nor a file"),
        ({"model_name": "other"}, "has loaded '.*'; create another one for 'other'"),
    ],
    ids=str,
)
async def test_what_the_next_opening_would_refuse_is_refused(
    provider: LlamaCppProvider, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """Users: `reload` went well, and the next call failed."""
    (tmp_path / "empty.gguf").symlink_to(os.devnull)
    before = await answered(provider)
    kept = (provider.settings, provider.config, provider._engines[False])
    with pytest.raises(LLMProviderConfigurationError, match=said):
        await provider.reload(**changes)
    assert (provider.settings, provider.config, provider._engines[False]) == kept
    assert await answered(provider) == before


async def test_another_file_of_the_same_model_counts_from_the_next_call_on(make: Make, tmp_path: Path) -> None:
    (tmp_path / "copy.gguf").symlink_to(model_file())
    provider = make(model_path=str(model_file()))
    before = await answered(provider)
    await provider.reload(model_path="copy.gguf", n_ctx=512)
    assert provider._engines == {}
    assert await answered(provider) == before
    assert provider.token_limit == 512


async def test_before_the_first_call_the_file_may_come_later(make: Make, tmp_path: Path) -> None:
    """As when the provider is made: what stands in the settings is checked at once, the file when it is needed."""
    provider = make(model_path="late.gguf")
    await provider.reload(n_ctx=512)
    with pytest.raises(LLMProviderError, match=r"late\.gguf, which does not exist"):
        await provider.execute(COLORS)
    (tmp_path / "late.gguf").symlink_to(model_file())
    assert await answered(provider)


async def test_a_presets_file_is_read_anew(tmp_path: Path) -> None:
    toml = tmp_path / "providers.toml"
    table = "[presets.local]\nprovider = 'llamacpp'\nmodel_path = '{}'\n"
    toml.write_text(table.format(model_file()), encoding="utf-8")
    async with create_llm_provider(preset="local", **SHORT) as provider:
        before = await answered(provider)
        toml.write_text(table.format("missing.gguf"), encoding="utf-8")
        with pytest.raises(
            LLMProviderConfigurationError, match=r"model_path \(\[presets.local\] of .*, line 3\) names"
        ):
            await provider.reload()
        assert await answered(provider) == before
        (tmp_path / "copy.gguf").symlink_to(model_file())
        toml.write_text(table.format("copy.gguf"), encoding="utf-8")
        await provider.reload()
        assert await answered(provider) == before
