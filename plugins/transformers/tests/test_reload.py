"""Live settings: what the next opening would refuse is refused by `reload`, and the model in use goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from providers.exceptions import LLMProviderConfigurationError

from .conftest import Make, answer

COLORS = "Name three colors."


async def test_what_the_next_opening_would_refuse_is_refused(make: Make, tiny: Path, tmp_path: Path) -> None:
    """Users: `reload` went well, and the next call failed."""
    shutil.copytree(tiny, tmp_path / "copy")
    provider = make(model_path=str(tiny))
    before = await answer(provider, COLORS, temperature=0)
    kept = (provider.settings, provider.config)
    with pytest.raises(LLMProviderConfigurationError, match=r"has loaded '.*'; create another one for 'other'"):
        await provider.reload(model_name="other")
    with pytest.raises(LLMProviderConfigurationError, match=r"model_path \(argument\) is '.*nowhere', which does not"):
        await provider.reload(model_path=str(tmp_path / "nowhere"))
    assert (provider.settings, provider.config) == kept
    assert (await answer(provider, COLORS, temperature=0)).content == before.content
    await provider.reload(model_path=str(tmp_path / "copy"))
    assert (await answer(provider, COLORS, temperature=0)).content == before.content
