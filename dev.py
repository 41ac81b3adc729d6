#!/usr/bin/env python3
"""Task runner of this checkout: sets up `.venv` where it is missing or old, then runs the task in it.

It needs Python 3.11 and a package index, nothing else. `uv` is taken from PATH, or fetched once into `.dev/uv`.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # everything above and below parses on older Pythons, so that this can be read
    sys.exit("dev.py needs Python 3.11 or newer, this is {}.{} ({})".format(*sys.version_info[:2], sys.executable))

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent
DEV = ROOT / ".dev"  # what this file keeps between runs: its uv, the lock, the mark of an unfinished set-up
VENV = ROOT / ".venv"
STAMP = VENV / "dev.stamp"
UNFINISHED = DEV / "unfinished"
CONSTRAINTS = ROOT / "constraints"
WINDOWS = os.name == "nt"
BIN = "Scripts" if WINDOWS else "bin"
EXE = ".exe" if WINDOWS else ""
PYTHON = VENV / BIN / ("python" + EXE)
OLDEST_UV = (0, 8)
# pip is told each time what to do and where: what a user's settings say about places must not count.
PIP_ALONE = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"}

TASKS = """
tasks:
  demo              a real model's answers, without a key
  test  [ARGS]      the tests; ARGS go to pytest, as in: test -k stream -x
  lint              ruff check, ruff format --check, mypy --strict
  format            let ruff put the code in order
  bench [--quick]   this project beside its peers; ARGS go to benchmarks/run.py
  build             wheels of the core and of every plugin, into dist/
  lock  [ARGS]      write constraints/*.txt anew; ARGS go to uv, as in: lock --upgrade
  setup             only set up .venv
  clean             remove .venv, .dev, dist and the tools' caches
"""


def say(text: str) -> None:
    """Tell the user something, on stderr, at once."""
    print("dev.py: " + text, file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    """End with a message and status 1."""
    say(text)
    raise SystemExit(1)


# --- the state of .venv --------------------------------------------------------------------------


class Stamp(NamedTuple):
    """What `.venv` was made from; it is written last, so a stamp means a whole environment."""

    base: str  # interpreter and place: another one needs a new environment
    digest: str  # pins and metadata: another one needs an update
    groups: frozenset[str]  # which of constraints/*.txt are installed


def projects() -> list[Path]:
    """The folders of the core and of every plugin."""
    return [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def wanted(groups: Iterable[str]) -> Stamp:
    """The stamp of an environment that suits this checkout, this interpreter and these groups."""
    base = "|".join((sys.implementation.cache_tag or "", sys.platform, sys.base_prefix, str(ROOT)))
    digest = hashlib.sha256()
    for path in [*sorted(CONSTRAINTS.glob("*.txt")), *(folder / "pyproject.toml" for folder in projects())]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return Stamp(base, digest.hexdigest(), frozenset(groups))


def found() -> Stamp | None:
    """The stamp of the environment that is there; None where it is missing, unfinished or broken."""
    try:
        base, digest, groups = STAMP.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return Stamp(base, digest, frozenset(groups.split())) if PYTHON.exists() else None


def suits(there: Stamp | None, need: Stamp) -> bool:
    """Whether the environment can be used as it is."""
    return there is not None and there[:2] == need[:2] and there.groups >= need.groups


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Let one set-up run at a time; the system frees the lock of a process that dies."""
    try:
        DEV.mkdir(exist_ok=True)
        handle = (DEV / "lock").open("a+b")
    except OSError as error:
        fail(f"this folder cannot be written to: {error}")
    with handle:
        if sys.platform == "win32":
            import msvcrt

            while True:  # LK_LOCK gives up after ten seconds
                with contextlib.suppress(OSError):
                    handle.seek(0)
                    msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl

            os.set_inheritable(handle.fileno(), True)  # a step that outlives this process keeps the lock until it ends
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another dev.py is setting up, waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:
                say("this file system knows no locks: do not run dev.py twice at once")
        yield


def ensure(*groups: str) -> None:
    """Make `.venv` hold these groups of pins and the editable workspace."""
    need = wanted(groups)
    if suits(found(), need):
        return
    with locked():
        there = found()
        if not suits(there, need):
            set_up(there, need)


def set_up(there: Stamp | None, need: Stamp) -> None:
    """Make the environment, or bring the one that is there up to date."""
    if VENV.exists() and there is None and not STAMP.exists() and not UNFINISHED.exists():
        fail("here is a .venv that dev.py did not make; move it away, or let `dev.py clean` remove it")
    uv = find_uv()
    environ = uv_environment()
    UNFINISHED.touch()
    STAMP.unlink(missing_ok=True)
    if there is None or there.base != need.base:
        say("setting up .venv (the first time it fetches about 170 MB, a small model among it)")
        there = None
        remove(VENV)
        command(uv, "venv", "--quiet", "--no-python-downloads", "--python", base_python(), VENV, env=environ)
    else:
        say("bringing .venv up to date")
    groups = need.groups | (there.groups if there else frozenset())
    install = (uv, "pip", "install", "--python", PYTHON, "--no-deps")
    pins = [part for group in sorted(groups) for part in ("-r", f"constraints/{group}.txt")]
    command(*install, "--require-hashes", *pins, env=environ)
    editable = [part for folder in projects() for part in ("-e", folder)]
    command(*install, "--quiet", "--no-build-isolation", *editable, env=environ)
    STAMP.write_text("\n".join((need.base, need.digest, " ".join(sorted(groups)))) + "\n", encoding="utf-8")
    UNFINISHED.unlink()


# --- uv ------------------------------------------------------------------------------------------


def find_uv() -> str:
    """A uv that is new enough: from PATH, or the pinned one in `.dev/uv`, which is fetched where it is missing."""
    uv = shutil.which("uv")
    if uv and uv_version(uv) >= OLDEST_UV:
        return uv
    folder = DEV / "uv"
    pin = hashlib.sha256((CONSTRAINTS / "uv.txt").read_bytes()).hexdigest()
    mark = folder / "pin"
    if not (mark.exists() and mark.read_text(encoding="utf-8") == pin):
        remove(folder)
        fetch_uv(folder)
        mark.write_text(pin, encoding="utf-8")
    for place in ("bin", "Scripts"):
        if (folder / place / ("uv" + EXE)).exists():
            return str(folder / place / ("uv" + EXE))
    fail(f"no uv in {folder}, though pip installed it; remove that folder and try again")


def uv_version(uv: str) -> tuple[int, ...]:
    """The version that `uv --version` tells; empty where it cannot be run or read."""
    try:
        text = subprocess.run([uv, "--version"], capture_output=True, text=True, check=True, encoding="utf-8").stdout
        return tuple(int(part) for part in text.split()[1].split(".")[:2])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return ()


def fetch_uv(folder: Path) -> None:
    """Install the pinned uv into a folder of its own, by this interpreter's pip or by that of a throw-away venv."""
    say("no uv {}.{} or newer on PATH, fetching one into .dev/uv".format(*OLDEST_UV))
    python = base_python()
    if not has_pip(python):
        helper = DEV / "pip"
        made = subprocess.run([python, "-m", "venv", "--clear", str(helper)], capture_output=True, check=False)
        python = str(helper / BIN / ("python" + EXE))
        if made.returncode or not has_pip(python):
            fail("this Python has neither pip nor a working venv: install python3-venv, python3-pip or uv")
    pip = (python, "-m", "pip", "install", "--quiet", "--target", folder, "--no-deps", "--only-binary", ":all:")
    command(*pip, "--require-hashes", "-r", "constraints/uv.txt", env={**os.environ, **PIP_ALONE})
    remove(DEV / "pip")


def has_pip(python: str) -> bool:
    """Whether an interpreter can run pip."""
    try:
        return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def uv_environment() -> dict[str, str]:
    """The environment for uv, which knows neither pip's settings nor, unasked, the system's certificates."""
    environ = dict(os.environ)
    environ.pop("UV_REQUIRE_HASHES", None)  # the pins are hashed, but this checkout's own folders cannot be
    ask = (base_python(), "-m", "pip", "config", "list")
    answer = subprocess.run(
        ask, capture_output=True, check=False, encoding="utf-8", errors="replace", env={**environ, **PIP_ALONE}
    )
    said = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
    for option, names in {"index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"), "cert": ("SSL_CERT_FILE",)}.items():
        for section in ("global", "install", ":env:"):
            value = said.get(f"{section}.{option}", "").strip("'\"")
            if value and not any(name in os.environ for name in names):
                environ[names[0]] = value
    if sys.platform in ("win32", "darwin") or any(map(os.path.isdir, ("/etc/ssl/certs", "/etc/pki/tls/certs"))):
        environ.setdefault("UV_SYSTEM_CERTS", "true")
        environ.setdefault("UV_NATIVE_TLS", "true")  # its name in older uvs
    return environ


def base_python() -> str:
    """The interpreter that runs this file, or the one behind it where that is a virtual environment's."""
    return getattr(sys, "_base_executable", None) or sys.executable


# --- running things ------------------------------------------------------------------------------


def command(*words: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> None:
    """Run a step that must succeed."""
    try:
        status = subprocess.run([*map(str, words)], env=env, cwd=cwd, check=False, close_fds=WINDOWS).returncode
    except OSError as error:
        fail(f"cannot run {words[0]}: {error}")
    if status:
        fail(f"this step failed with status {status}, what it says stands above: {' '.join(map(str, words))}")


def remove(path: Path) -> None:
    """Delete a folder or a file that may be missing."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        fail(f"cannot remove {path}, does a program still run from it? {error}")


def activated(**more: str) -> dict[str, str]:
    """The environment of a program inside `.venv`; what the user has set wins over `more`."""
    environ = {**more, **os.environ, "VIRTUAL_ENV": str(VENV)}
    environ["PATH"] = str(VENV / BIN) + os.pathsep + environ.get("PATH", os.defpath)
    environ.pop("PYTHONHOME", None)
    return environ


def become(*words: str, env: Mapping[str, str] | None = None) -> NoReturn:
    """Run `.venv`'s Python in the place of this process, so that its status and its signals are its own."""
    os.chdir(ROOT)
    argv = [str(PYTHON), *words]
    environ = dict(env or activated())
    sys.stdout.flush()
    if WINDOWS:  # exec there gives the prompt back before the program has ended
        raise SystemExit(subprocess.run(argv, env=environ, check=False).returncode)
    os.execve(argv[0], argv, environ)


def each(*steps: Sequence[str]) -> NoReturn:
    """Run every step in `.venv`, also after one has failed, and end with the worst status."""
    worst = 0
    for step in steps:
        say(" ".join(step))
        worst = max(
            worst, abs(subprocess.run([str(PYTHON), "-m", *step], env=activated(), cwd=ROOT, check=False).returncode)
        )
    raise SystemExit(worst)


# --- the tasks -----------------------------------------------------------------------------------


def lock(arguments: Sequence[str]) -> None:
    """Resolve the dependency groups of pyproject.toml into pins with hashes, for every platform."""
    groups = {
        "dev": ("--group", "dev"),
        "bench": ("--group", "bench", "-c", "constraints/dev.txt"),
        "uv": ("--group", "bootstrap"),
    }
    uv, environ = find_uv(), uv_environment()
    ours = [part for folder in projects() for part in ("--no-emit-package", name_of(folder))]
    shape = (
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-emit-index-url",
        "--no-emit-find-links",
    )
    for name, source in groups.items():
        target = f"constraints/{name}.txt"
        quiet = ("--quiet", "--custom-compile-command", "python3 dev.py lock")
        command(uv, "pip", "compile", *source, *shape, *ours, *quiet, "-o", target, *arguments, env=environ)
        text = (ROOT / target).read_text(encoding="utf-8")
        if "://" in text or " @ " in text:
            fail(f"{target} names a host or a path: only names, versions and hashes belong there")
        say(f"{target}: {sum('==' in line.split(' ')[0] for line in text.splitlines())} packages")


def name_of(folder: Path) -> str:
    """The distribution's name in a project's metadata."""
    import tomllib

    return str(tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"])


def build() -> None:
    """Build a wheel of every project with the pinned build tools."""
    remove(ROOT / "dist")
    for folder in projects():
        command(PYTHON, "-m", "hatchling", "build", "-t", "wheel", "-d", ROOT / "dist", env=activated(), cwd=folder)


def clean() -> None:
    """Remove everything that this file and the tools have made."""
    for name in (".venv", "dist", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".dev"):
        remove(ROOT / name)


def main(argv: Sequence[str]) -> None:
    """Read the task and do it."""
    parser = argparse.ArgumentParser(
        prog="dev.py", epilog=TASKS, formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__
    )
    names = ("demo", "test", "lint", "format", "bench", "build", "lock", "setup", "clean")
    parser.add_argument("task", choices=names, metavar="TASK")
    task = parser.parse_args(argv[:1]).task
    rest = list(argv[1:])
    if rest and task not in ("demo", "test", "bench", "lock"):
        parser.error(f"{task} takes no arguments")
    if task == "lock":
        with locked():
            return lock(rest)
    if task == "clean":
        return clean()
    ensure("dev", "bench") if task == "bench" else ensure("dev")
    if task == "demo":
        become("usage_examples.py", "--demo", *rest)
    if task == "test":  # more compute threads than cores make the small model slower, not faster
        become("-m", "pytest", "-q", *rest, env=activated(OMP_NUM_THREADS="1"))
    if task == "bench":
        become("benchmarks/run.py", *rest)
    if task == "lint":
        each(("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))
    if task == "format":
        each(("ruff", "check", "--fix", "."), ("ruff", "format", "."))
    if task == "build":
        build()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
