"""Fixtures for authors of providers and of applications; pytest finds this module by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .fakes import EchoProvider, ScriptedProvider
    from .server import LoopbackServer

pytest.register_assert_rewrite("providers.testing.conformance")


@pytest.fixture
def loopback_server() -> Iterator[LoopbackServer]:
    """A scripted HTTP server on 127.0.0.1, closed after the test."""
    from .server import LoopbackServer

    with LoopbackServer() as server:
        yield server


@pytest.fixture
def echo_provider() -> EchoProvider:
    """A provider that repeats the last message."""
    from .fakes import EchoProvider

    return EchoProvider()


@pytest.fixture
def scripted_provider() -> ScriptedProvider:
    """A provider that answers what the test pushes: `scripted_provider.push("Hello")`."""
    from .fakes import ScriptedProvider

    return ScriptedProvider()


@pytest.fixture
def clean_provider_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory and no variable that any installed provider reads; gives the directory."""
    from ..factory import clear_provider_cache
    from ..registry import available_providers, provider_class
    from ..settings import all_variables
    from ..sources import forget_files

    names = {"DEFAULT_LLM_PROVIDER", "DEFAULT_MODEL_NAME"}
    for name, info in available_providers().items():
        if info.state != "quarantined":
            names.update(all_variables(provider_class(name).Settings))
    names.update(name for name in os.environ if name.startswith("LLM_PROVIDERS_"))
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    forget_files()
    clear_provider_cache()
    return tmp_path
