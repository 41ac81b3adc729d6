"""The conformance kit, with real answers of the small model."""

from __future__ import annotations

from typing import Any

from llm_provider_llamacpp import LlamaCppProvider
from providers import LLMProvider
from providers.testing import ProviderConformance

from .conftest import SHORT, model_file


class TestLlamaCpp(ProviderConformance):
    supports_structured_output = True

    def make_provider(self, **options: Any) -> LLMProvider:
        return LlamaCppProvider(model_path=str(model_file()), n_threads=1, n_ctx=SHORT["n_ctx"], **options)
