"""Live settings: what the next opening would refuse is refused by `reload`, and the model in use goes on."""

from __future__ import annotations

import pytest

from providers.exceptions import LLMProviderConfigurationError

from .conftest import COLORS, Make, answer


async def test_another_model_is_refused(make: Make) -> None:
    """Users: `reload` went well, and the next call failed."""
    provider = make()
    before = await answer(provider, COLORS, temperature=0)
    kept = (provider.settings, provider.config)
    with pytest.raises(LLMProviderConfigurationError, match=r"has loaded '.*'; create another one for 'other'"):
        await provider.reload(model_name="other")
    assert (provider.settings, provider.config) == kept
    assert (await answer(provider, COLORS, temperature=0)).content == before.content
    await provider.reload()
    assert (await answer(provider, COLORS, temperature=0)).content == before.content
