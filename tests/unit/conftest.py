"""What the core's tests share: a clean house, fresh interpreters, distributions on a path."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from providers import clear_provider_cache, register_provider
from providers.registry import _registered, _resolved
from providers.sources import forget_files
from providers.testing import EchoProvider

ROOT = Path(__file__).resolve().parents[2]
_HOUSE = ("LLM_PROVIDERS_", "DEFAULT_LLM_PROVIDER", "DEFAULT_MODEL_NAME", "ACME_")


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty working directory, no variable of the house, no registered provider, an empty cache."""
    for name in list(os.environ):
        if name.startswith(_HOUSE):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    registered = dict(_registered)
    forget_files()
    clear_provider_cache()
    yield tmp_path
    clear_provider_cache()
    forget_files()
    _registered.clear()
    _registered.update(registered)
    _resolved.clear()


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment's packages without our own, so that no plugin is installed but those that a test installs."""
    folder = tmp_path_factory.mktemp("third-party")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("llm_provider", "_llm_provider", "__editable__")) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def python(tmp_path: Path, third_party: Path) -> Run:
    """Runs a program in a fresh interpreter that warns of everything, and gives what it said."""

    def run(code: str, *args: str, path: list[Path] | None = None, cwd: Path | None = None, **env: str) -> Any:
        folders = [ROOT / "src"] if path is None else path
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith((*_HOUSE, "PYTEST_", "COV_")) and not key.endswith("_API_KEY")
        }
        found = subprocess.run(
            # -S: the environment's own packages are not looked for; `third_party` stands in their place.
            [sys.executable, "-S", "-W", "error", "-X", "utf8", *args, "-c", textwrap.dedent(code)],
            env={**inherited, "PYTHONPATH": os.pathsep.join(map(str, [*folders, third_party])), **env},
            cwd=cwd or tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            encoding="utf-8",
        )
        assert found.returncode == 0, f"exit status {found.returncode}\n{found.stdout}\n{found.stderr}"
        assert found.stderr == "", found.stderr
        return found

    return run


Install = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder that stands for site-packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def install(site: Path) -> Install:
    """Puts a distribution into `site`, as an installer leaves it: metadata, entry points, modules."""

    def put(
        name: str,
        entry_points: dict[str, dict[str, str]] | str,
        modules: dict[str, str] | None = None,
        *,
        metadata: bool = True,
    ) -> None:
        info = site / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        if metadata:
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n"
            (info / "METADATA").write_text(text, encoding="utf-8")
        if not isinstance(entry_points, str):
            groups = entry_points.items()
            entry_points = "\n".join(
                f"[{group}]\n" + "\n".join(f"{key} = {value}" for key, value in entries.items()) + "\n"
                for group, entries in groups
            )
        (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
        for module, source in (modules or {}).items():
            (site / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")

    return put


@pytest.fixture
def acme(house: Path) -> None:
    """Registers the providers of `acme.py`, without memory."""
    from .acme import Acme, Other

    Acme.made = []
    register_provider("acme", Acme)
    register_provider("other", Other)


@pytest.fixture
def keyed(house: Path) -> None:
    """Registers the provider of `keyed.py`, without memory, and an echo."""
    from .keyed import Keyed

    Keyed.seen = []
    Keyed.running = Keyed.most = 0
    register_provider("echo", EchoProvider)
    register_provider("keyed", Keyed)
