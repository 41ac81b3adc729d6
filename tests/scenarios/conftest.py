"""Wheels of this checkout, wheels of broken plugins, clean environments to install them in, and programs to run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import venv
from collections.abc import Callable, Iterable
from email.parser import HeaderParser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]
_BIN, _EXE = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
# What must not reach a program under test: this machine's settings, and how this pytest itself was started.
_NOT_OURS = ("LLM_PROVIDERS_", "DEFAULT_", "PYTEST_", "COV_", "PIP_", "UV_", "TEMPLATE_", "OPENAI_", "LLAMACPP_")
_BUILD = """
import json, os, sys, traceback
from hatchling.build import build_wheel
done = {}
for folder, target in json.load(sys.stdin):
    os.chdir(folder)
    try:
        done[folder] = os.path.join(target, build_wheel(target))
    except Exception:
        done[folder] = None
        traceback.print_exc()
print(json.dumps(done))
"""


def environment(**more: str) -> dict[str, str]:
    """The environment of a program under test: nothing in it says where this project or a key is."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_NOT_OURS) and not key.upper().endswith(("_API_KEY", "_PROXY")) and key != "PYTHONPATH"
    }
    return {**inherited, "PYTHONUTF8": "1", **more}


@pytest.fixture(scope="session")
def build_wheels() -> Callable[[dict[Path, Path]], dict[Path, Path]]:
    """Builds wheels of source folders into target folders with the build backend that the projects name, offline."""

    def build(folders: dict[Path, Path]) -> dict[Path, Path]:
        for target in folders.values():
            target.mkdir(parents=True, exist_ok=True)
        asked = json.dumps([[str(folder), str(target)] for folder, target in folders.items()])
        done = subprocess.run(
            [sys.executable, "-c", _BUILD], input=asked, capture_output=True, encoding="utf-8", timeout=120, check=False
        )
        if done.returncode:
            pytest.fail(f"no wheels can be built; `python3 dev.py test` brings hatchling\n{done.stderr}")
        built = json.loads(done.stdout.splitlines()[-1])
        failed = [folder for folder, wheel in built.items() if wheel is None]
        assert not failed, f"the wheels of {failed} cannot be built:\n{done.stderr}"
        return {Path(folder): Path(wheel) for folder, wheel in built.items()}

    return build


@pytest.fixture(scope="session")
def core_wheel(build_wheels: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core's wheel."""
    return build_wheels({ROOT: tmp_path_factory.mktemp("core")})[ROOT]  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def template_wheel(build_wheels: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template plugin's wheel."""
    folder = ROOT / "plugins" / "template"
    return build_wheels({folder: tmp_path_factory.mktemp("template")})[folder]  # type: ignore[no-any-return]


def requirements_of(wheel: Path) -> list[str]:
    """What a wheel's metadata asks for, extras left out."""
    with ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    return list(metadata.get_all("Requires-Dist") or [])


def third_party(requirements: Iterable[str], core: Path | None = None) -> dict[str, Distribution]:
    """Installed distributions that satisfy these requirements, with all that they need in turn.

    Args:
        requirements: as metadata has them.
        core: the core's wheel, whose metadata says what its extras bring.
    """
    from packaging.requirements import Requirement

    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name == "llm-provider-system":
            assert core is not None
            own = map(Requirement, requirements_of(core))
            waiting += [one for one in own if one.marker is not None and _applies(one, wanted.extras)]
        elif name not in found:
            try:
                dist = found[name] = distribution(wanted.name)
            except PackageNotFoundError:
                pytest.fail(f"{wanted} is not here, so no clean environment can be made; run `python3 dev.py test`")
            assert wanted.specifier.contains(dist.version, prereleases=True), f"{wanted} is wanted, not {dist.version}"
            needed = map(Requirement, dist.requires or [])
            waiting += [one for one in needed if _applies(one, wanted.extras)]
    return found


def _applies(wanted: Any, extras: Iterable[str] = ()) -> bool:
    return wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def copy_distributions(dists: Iterable[Distribution], target: Path) -> None:
    """Copies installed distributions, file by file as their records tell, to another folder."""
    for dist in dists:
        files = [file for file in dist.files or [] if ".." not in file.parts and file.suffix != ".pyc"]
        assert any(file.suffix == ".py" for file in files), f"{dist.name} has no record of its files (is it editable?)"
        for file in files:
            place = target / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(dist.locate_file(file)), place)


@pytest.fixture(scope="session")
def third_party_folder(core_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the core's wheel declares that it needs, and nothing else, copied from this environment."""
    folder = tmp_path_factory.mktemp("third-party")
    plain = [text for text in requirements_of(core_wheel) if "extra ==" not in text]
    copy_distributions(third_party(plain).values(), folder)
    return folder


@pytest.fixture(scope="session")
def kit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pytest and what it needs, copied from this environment."""
    folder = tmp_path_factory.mktemp("pytest")
    copy_distributions(third_party(["pytest", "pytest-asyncio"]).values(), folder)
    return folder


def installer(python: Path) -> list[str]:
    """The command that installs wheels into an environment: uv, else a pip, without any index."""
    for uv in (shutil.which("uv"), *(str(ROOT / ".dev" / "uv" / place / f"uv{_EXE}") for place in ("bin", "Scripts"))):
        if uv is not None and Path(uv).exists():
            return [uv, "pip", "install", "--quiet", "--no-config", "--offline", "--no-deps", "--python", str(python)]
    for pip in (sys.executable, getattr(sys, "_base_executable", sys.executable)):
        if subprocess.run([pip, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
            return [pip, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    return pytest.fail("neither uv nor pip is here, so no wheel can be installed; run `python3 dev.py test`")


class CleanEnvironment:
    """An environment in which nothing of this checkout can be imported but what is installed from wheels."""

    def __init__(self, folder: Path, *third_party: Path) -> None:
        self.folder = folder
        self.marks = folder / "marks"
        self.work = folder / "work"
        venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(folder / "env")
        self.interpreter = folder / "env" / _BIN / f"python{_EXE}"
        self.marks.mkdir()
        self.work.mkdir()
        places = self.python("import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
        self.site = Path(places)
        (self.site / "third-party.pth").write_text("".join(f"{path}\n" for path in third_party), encoding="utf-8")

    def install(self, *wheels: Path) -> None:
        """Installs wheels, as a user's installer does."""
        words = [*installer(self.interpreter), *map(str, wheels)]
        done = subprocess.run(
            words, cwd=self.work, env=environment(), capture_output=True, encoding="utf-8", timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr

    def run(self, *words: str, timeout: float = 60, cwd: Path | None = None, **env: str) -> Any:
        """Runs this environment's Python; the caller looks at what became of it."""
        return subprocess.run(
            [str(self.interpreter), "-W", "error", *words],
            env=environment(MARKS=str(self.marks), **env),
            cwd=cwd or self.work,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )

    def python(self, code: str, *, timeout: float = 60, **env: str) -> Any:
        """Runs a program that must succeed and say nothing on stderr, log lines left out."""
        done = self.run("-c", textwrap.dedent(code), timeout=timeout, **env)
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.stderr == "", done.stderr
        return done

    def imported(self) -> set[str]:
        """Which of the marked plugins were imported since the last question."""
        names = {path.name for path in self.marks.iterdir()}
        for path in self.marks.iterdir():
            path.unlink()
        return names


@pytest.fixture(scope="session")
def clean_environment(
    core_wheel: Path, third_party_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., CleanEnvironment]:
    """Makes clean environments: third-party packages, the core's wheel, and the wheels that are asked for."""

    def make(*wheels: Path, more: tuple[Path, ...] = ()) -> CleanEnvironment:
        made = CleanEnvironment(tmp_path_factory.mktemp("clean"), third_party_folder, *more)
        made.install(core_wheel, *wheels)
        return made

    return make
