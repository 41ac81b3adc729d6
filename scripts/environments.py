"""The virtual environments of this checkout: what they are made from, by which uv, and how programs run in them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent.parent
DEV = ROOT / ".dev"  # what this file keeps between runs: its uv, the lock, the mark of an unfinished set-up
CONSTRAINTS = ROOT / "constraints"
WINDOWS = os.name == "nt"
BIN = "Scripts" if WINDOWS else "bin"
EXE = ".exe" if WINDOWS else ""
OLDEST_UV = (0, 8)
# pip is told each time what to do and where: what a user's settings say about places must not count.
PIP_ALONE = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"}


class Place(NamedTuple):
    """A virtual environment of this checkout."""

    folder: Path
    ours: bool  # whether the workspace is installed in it
    about: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / BIN / ("python" + EXE)

    @property
    def stamp(self) -> Path:
        """Written last, so that a stamp means a whole environment."""
        return self.folder / "dev.stamp"

    @property
    def unfinished(self) -> Path:
        """There while it is being made."""
        return DEV / ("unfinished" + self.folder.name.removeprefix(".venv"))


MAIN = Place(ROOT / ".venv", True, "about 240 MB, a small model among it")
LOCAL = Place(ROOT / ".venv-local", True, "engines for local models, about 1 GB")
SERVICES = Place(ROOT / ".venv-services", True, "stores that run as servers, about 450 MB")
GATEWAYS = Place(ROOT / ".venv-gateways", False, "servers that tests talk to, about 300 MB")
PLACES = {
    "main": (MAIN, "dev"),
    "local": (LOCAL, "local"),
    "services": (SERVICES, "services"),
    "gateways": (GATEWAYS, "gateways"),
}


def say(text: str) -> None:
    """Tell the user something, on stderr, at once."""
    print("dev.py: " + text, file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    """End with a message and status 1."""
    say(text)
    raise SystemExit(1)


# --- the state of .venv --------------------------------------------------------------------------


class Stamp(NamedTuple):
    """What an environment was made from."""

    base: str  # interpreter and place: another one needs a new environment
    digest: str  # pins and metadata: another one needs an update
    groups: frozenset[str]  # which of constraints/*.txt are installed


def projects() -> list[Path]:
    """The folders of the core and of every plugin."""
    return [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def wanted(place: Place, groups: Iterable[str]) -> Stamp:
    """The stamp of an environment that suits this checkout, this interpreter and these groups."""
    base = "|".join((sys.implementation.cache_tag or "", sys.platform, sys.base_prefix, str(ROOT)))
    digest = hashlib.sha256()
    names = sorted(group + ".txt" for group in groups)
    ours = [folder / "pyproject.toml" for folder in projects()] if place.ours else []
    for path in [*(CONSTRAINTS / name for name in names), *ours]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return Stamp(base, digest.hexdigest(), frozenset(groups))


def found(place: Place) -> Stamp | None:
    """The stamp of the environment that is there; None where it is missing, unfinished or broken."""
    try:
        base, digest, groups = place.stamp.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return Stamp(base, digest, frozenset(groups.split())) if place.python.exists() else None


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


def ensure(place: Place, *groups: str) -> None:
    """Make an environment hold these groups of pins and the editable workspace; groups that it holds already stay."""
    there = found(place)
    groups = tuple(sorted({*groups, *(there.groups if there else ())}))
    groups = tuple(group for group in groups if (CONSTRAINTS / f"{group}.txt").exists())
    need = wanted(place, groups)
    if there == need:
        return
    with locked():
        there = found(place)
        if there != need:
            set_up(place, there, need)


def set_up(place: Place, there: Stamp | None, need: Stamp) -> None:
    """Make the environment, or bring the one that is there up to date."""
    name = place.folder.name
    if place.folder.exists() and there is None and not place.stamp.exists() and not place.unfinished.exists():
        fail(f"here is a {name} that dev.py did not make; move it away, or let `dev.py clean` remove it")
    uv = find_uv()
    environ = uv_environment()
    place.unfinished.touch()
    place.stamp.unlink(missing_ok=True)
    if "local" in need.groups and not pinned_for_here():
        say("the engines are pinned for x86-64 Linux and Python 3.11: elsewhere some of their packages may be missing")
    if there is None or there.base != need.base:
        say(f"setting up {name} (the first time it fetches {place.about})")
        remove(place.folder)
        command(uv, "venv", "--quiet", "--no-python-downloads", "--python", base_python(), place.folder, env=environ)
    else:
        say(f"bringing {name} up to date")
    install = (uv, "pip", "install", "--python", place.python, "--no-deps")
    if "local" in need.groups:
        install_torch(uv, place, environ)
    pins = [part for group in sorted(need.groups) for part in ("-r", f"constraints/{group}.txt")]
    command(*install, "--require-hashes", *pins, env=environ)
    if place.ours:
        editable = [part for folder in projects() for part in ("-e", folder)]
        command(*install, "--quiet", "--no-build-isolation", *editable, env=environ)
    place.stamp.write_text("\n".join((need.base, need.digest, " ".join(sorted(need.groups)))) + "\n", encoding="utf-8")
    place.unfinished.unlink()


def pinned_for_here() -> bool:
    """Whether this is the machine and the Python that constraints/local.txt was made for."""
    return (sys.platform, platform.machine(), sys.version_info[:2]) == ("linux", "x86_64", (3, 11))


def install_torch(uv: str, place: Place, environ: Mapping[str, str]) -> None:
    """Install the torch for processors that the engines were pinned with.

    It is no part of the hashed pins: it stands on an index of its own, and its builds differ. uv knows that index.
    """
    pin = ("-r", "constraints/torch.txt")
    install = (uv, "pip", "install", "--python", str(place.python), "--no-deps", "--quiet", *pin)
    done = subprocess.run(
        install, env=environ, cwd=ROOT, check=False, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        say(f"torch for processors is not where uv looks, so its own index is asked; uv said:\n{done.stderr}")
        command(*install, "--torch-backend=cpu", env=environ)


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
    places = {
        "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
        "cert": ("SSL_CERT_FILE",),
        "find-links": ("UV_FIND_LINKS",),
    }
    for option, names in places.items():
        for section in ("global", "install", ":env:"):
            value = said.get(f"{section}.{option}", "").strip("'\"")
            if option == "find-links":
                value = ",".join(value.replace("\\n", " ").split())
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


def activated(place: Place = MAIN, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a program inside a virtual one; what the user has set wins over `more`."""
    environ = {**(more or {}), **os.environ, "VIRTUAL_ENV": str(place.folder)}
    environ["PATH"] = str(place.folder / BIN) + os.pathsep + environ.get("PATH", os.defpath)
    environ.pop("PYTHONHOME", None)
    return environ


def become(*words: str, place: Place = MAIN, more: Mapping[str, str] | None = None) -> NoReturn:
    """Run an environment's Python in the place of this process, so that its status and its signals are its own."""
    os.chdir(ROOT)
    argv = [str(place.python), *words]
    environ = activated(place, more)
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
            worst,
            abs(subprocess.run([str(MAIN.python), "-m", *step], env=activated(), cwd=ROOT, check=False).returncode),
        )
    raise SystemExit(worst)
