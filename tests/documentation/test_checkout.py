"""The checkout as the founding document writes it: `from src.providers import ...`, and its layout (F-146)."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

from providers import create_llm_provider

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("vendor")


def test_from_a_checkout(application: Path) -> None:
    """F-146: `from src.providers import ...` works where nothing is installed, and gives the same objects."""
    program = f"""
        import sys
        # Third-party packages are there, editable installations are not: their .pth files are not read.
        sys.path[:0] = [{str(ROOT)!r}]
        sys.path.append({sysconfig.get_path("purelib")!r})
        from src.providers import LLMProvider, LLMProviderError, StreamEvent, create_llm_provider, register_provider
        import src.providers, src.providers.exceptions, src.providers.types.config, providers
        from src.providers.base import LLMProvider as Base
        assert src.providers is providers and providers.__file__.startswith({str(ROOT)!r}), providers.__file__
        assert Base is LLMProvider is providers.LLMProvider
        assert src.providers.exceptions.LLMProviderError is LLMProviderError is providers.LLMProviderError
        assert src.providers.types.config is sys.modules["providers.types.config"]
        assert src.providers.base.__spec__.name == "providers.base"
        from src.providers.testing import EchoProvider
        register_provider("mine", EchoProvider)
        import asyncio
        print(asyncio.run(create_llm_provider("mine", "m").execute("hello from a checkout")).content)
        try:
            create_llm_provider("nobody", "m")
        except providers.exceptions.UnknownProviderError as error:
            print(isinstance(error, LLMProviderError))
    """
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", textwrap.dedent(program)],
        cwd=application,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello from a checkout\nTrue\n"
    assert done.stderr == ""


def test_every_public_name_is_the_same() -> None:
    """F-146: each name of the front door, and each module that is loaded, is one object under both names."""
    import providers
    import src.providers

    for name in providers.__all__:
        assert getattr(src.providers, name) is getattr(providers, name), name
    loaded = [name for name in sys.modules if name.startswith("providers.")]
    assert len(loaded) > 10
    for name in loaded:
        __import__(f"src.{name}")
        assert sys.modules[f"src.{name}"] is sys.modules[name], name


def test_the_layout() -> None:
    """F-146: the files of the document, and `openai_provider` under the name that the document gives it."""
    folder = ROOT / "src" / "providers"
    for name in ("__init__.py", "base.py", "factory.py", "exceptions.py", "README.md"):
        assert (folder / name).exists(), name
    from providers import OpenAIProvider as Lent  # type: ignore[attr-defined]
    from src.providers.openai_provider import OpenAIProvider  # type: ignore[import-not-found]

    assert OpenAIProvider is Lent is type(create_llm_provider("openai", "m"))
