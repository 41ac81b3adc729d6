"""The blocks of the founding document that are more than a program: settings, classes, a provider, tests, a tree."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from providers import register_provider, unregister_provider
from providers.testing import LoopbackServer

from ..scenarios.vendor import prompt_of
from .blocks import Block
from .conftest import IMPORTS, Founding, Runner

ROOT = Path(__file__).resolve().parents[2]


def test_every_block_is_accounted_for(founding: Founding) -> None:
    """A block that is new in the document, or whose test is gone, fails here: each heading stands in a test."""
    named: set[Any] = set()
    for path in Path(__file__).parent.glob("test_founding*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name != "test_every_block_is_accounted_for":
                named |= {node.value for node in ast.walk(function) if isinstance(node, ast.Constant)}
    assert {heading for _, heading in founding} <= named
    assert {language for language, _ in founding} == {"python", "bash", ""}


def test_application_settings(founding: Any, vendor: LoopbackServer) -> None:
    """F-142: the class of the document reads the document's `.env`, which drives the factory too."""
    Path(".env").write_text(founding["bash", "Environment Variables"].code, encoding="utf-8")
    with warnings.catch_warnings():
        # The document writes `class Config`, which pydantic 2 reads and calls old.
        warnings.filterwarnings("ignore", message=".*class-based `config`.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*class-based `config`.*")
        names = founding["python", "Application Settings (config.py)"].run({"__name__": "config"})
    settings = names["Settings"]()
    assert settings.openai_api_key == "your_api_key_here"
    assert (settings.default_llm_provider, settings.default_model_name) == ("openai", "gpt-4")
    from src.providers import create_llm_provider

    provider = create_llm_provider()
    assert (provider.name, provider.config.model_name) == ("openai", "gpt-4")
    assert asyncio.run(provider.execute("it works")).content == "You said: it works"  # type: ignore[union-attr]
    assert "OPENAI_API_KEY" not in os.environ


@pytest.fixture
def custom_provider(founding: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The document's provider as a file of the package, and its registration as another."""
    import providers

    folder = tmp_path / "package"
    folder.mkdir()
    code = founding["python", "1. Create Provider Implementation"].code
    assert code.startswith("# src/providers/custom_provider.py\n")
    (folder / "custom_provider.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(folder)])
    registration = {"__name__": "src.providers.registration", "__package__": "src.providers"}
    founding["python", "2. Register Provider"].run(registration)
    yield registration["CustomProvider"]
    unregister_provider("custom")
    for name in ("providers.custom_provider", "src.providers.custom_provider"):
        sys.modules.pop(name, None)
    vars(providers).pop("custom_provider", None)


def test_custom_provider(custom_provider: Any, run: Runner) -> None:
    """F-136, F-137, F-138: the document's class is registered, made by name, and its own verbs are used."""
    done = run("3. Use New Provider")
    provider = done.names["provider"]
    assert type(provider) is custom_provider
    assert provider.config.model_name == "custom-model-v1"
    assert provider.api_key is None
    assert asyncio.run(provider.execute("Hello")) is None  # as the document leaves it
    from src.providers import LLMProviderUnsupportedOperationError

    # The document's file uses this name without importing it.
    vars(sys.modules["src.providers.custom_provider"])["LLMProviderUnsupportedOperationError"] = (
        LLMProviderUnsupportedOperationError
    )
    with pytest.raises(LLMProviderUnsupportedOperationError, match="Responses API not supported"):
        asyncio.run(provider.execute_responses_api("Hello"))
    register_provider("custom", custom_provider)  # a second time is harmless


def test_response_object(founding: Any) -> None:
    """F-134: every field of the document's class is a field of ours, in its order, and `to_dict` has it."""
    from src.providers import LLMResponse

    names = _dataclass_of(founding["python", "Response Object"])
    fields = [field.name for field in dataclasses.fields(names["LLMResponse"])]
    values = [f"value of {name}" for name in fields]
    values[fields.index("api_type")] = names["APIType"].RESPONSES
    ours = LLMResponse(*values)  # type: ignore[arg-type]
    assert [getattr(ours, name) for name in fields] == values
    assert set(fields) <= set(ours.to_dict())


def test_llm_config_parameters(founding: Any) -> None:
    """F-133: every field of the document's class is a field of ours with the document's default, in its order."""
    from src.providers import LLMConfig

    document = _dataclass_of(founding["python", "LLMConfig Parameters"])["LLMConfig"]
    fields = dataclasses.fields(document)
    assert [field.name for field in dataclasses.fields(LLMConfig)][: len(fields)] == [field.name for field in fields]
    ours = LLMConfig("gpt-4")
    for field in fields:
        if field.default is not dataclasses.MISSING:
            assert getattr(ours, field.name) == field.default, field.name
            assert type(getattr(ours, field.name)) is type(field.default), field.name
        elif field.default_factory is not dataclasses.MISSING:
            assert getattr(ours, field.name) == field.default_factory(), field.name


def _dataclass_of(block: Block) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "document"}
    exec("from dataclasses import dataclass, field\nfrom typing import *\n" + IMPORTS.replace("LLMConfig, ", ""), names)
    exec("from src.providers import StreamMode, APIType", names)
    return block.run(names)


def test_unit_test_example(founding: Any, vendor: LoopbackServer, application: Path) -> None:
    """F-145: the document's tests pass under a pytest of their own, from a checkout."""
    (application / "test_document.py").write_text(founding["python", "Unit Test Example"].code, encoding="utf-8")
    (application / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n", encoding="utf-8"
    )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::ResourceWarning",
            "-m",
            "pytest",
            "-q",
            "test_document.py",
        ],
        cwd=application,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert [prompt_of(request) for request in vendor.requests] == ["Say 'test successful'", "Count to 5"]


def test_project_structure(founding: Any, vendor: LoopbackServer) -> None:
    """F-146: every file of the document's tree is there: as a file, or as a module of that name from a plugin."""
    lines = founding["", "Project Structure"].code.splitlines()
    required = [line.split("── ")[1].split()[0] for line in lines[: lines.index("Optional:")] if "── " in line]
    assert len(required) == 6
    for name in required:
        if not (ROOT / "src" / "providers" / name).exists():
            module = importlib.import_module(f"src.providers.{name.removesuffix('.py')}")
            assert hasattr(module, "OpenAIProvider")
    assert (ROOT / "usage_examples.py").exists()


def test_installation(founding: Any) -> None:
    """F-142: what the document tells to install is what the core and its first plugin ask for by themselves."""
    words = founding["bash", "Installation"].code.splitlines()[-1].split()
    assert words[:2] == ["pip", "install"]
    declared = "".join(
        (ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "plugins/openai/pyproject.toml")
    )
    for package in words[2:]:
        assert f'"{package}>=' in declared
