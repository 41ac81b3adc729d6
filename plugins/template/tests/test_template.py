"""The template's own tests: the conformance kit, and what is special about it."""

from __future__ import annotations

from typing import Any

import pytest

from llm_provider_template import TemplateProvider
from providers import LLMProvider, LLMResponse, MissingCredentialsError, create_llm_provider
from providers.testing import ProviderConformance


class TestConformance(ProviderConformance):
    secret = "canary-template-key"

    def make_provider(self, **options: Any) -> LLMProvider:
        return TemplateProvider("template-1", api_key=self.secret, **options)


async def test_it_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-171, F-173: installing the distribution is all that it takes; settings come from the environment."""
    monkeypatch.setenv("TEMPLATE_API_KEY", "from-the-environment")
    monkeypatch.setenv("TEMPLATE_VOICE", "loud")
    async with create_llm_provider("template", "template-1") as provider:
        response = await provider.execute("hello there")
        assert isinstance(response, LLMResponse)
        assert response.content == "HELLO THERE"
        assert provider.settings.sources["voice"] == "environment variable TEMPLATE_VOICE"


def test_without_a_key_it_names_the_variable(clean_provider_settings: object) -> None:
    """A missing key names the variable to set."""
    with pytest.raises(MissingCredentialsError, match="TEMPLATE_API_KEY"):
        TemplateProvider("template-1")
