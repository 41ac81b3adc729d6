#!/usr/bin/env python3
"""Task runner of this checkout: sets up a task's environment where it is missing or old, then runs the task in it.

It needs Python 3.11 and a package index, nothing else. `uv` is taken from PATH, or fetched once into `.dev/uv`.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # everything above and below parses on older Pythons, so that this can be read
    sys.exit("dev.py needs Python 3.11 or newer, this is {}.{} ({})".format(*sys.version_info[:2], sys.executable))

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.environments import (
    CONSTRAINTS,
    LOCAL,
    MAIN,
    PLACES,
    ROOT,
    SERVICES,
    activated,
    become,
    command,
    each,
    ensure,
    fail,
    find_uv,
    locked,
    projects,
    remove,
    say,
    uv_environment,
)

TASKS = """
tasks:
  demo              a real model's answers, without a key
  test  [ARGS]      the tests; ARGS go to pytest, as in: test -k stream -x
  test-local [ARGS] the tests of backends with heavy engines: transformers, vLLM, MLX (3 GB, x86-64 Linux, Python 3.11)
  test-services [ARGS] the tests of stores that run as servers: PostgreSQL, Redis, Qdrant
  lint              ruff check, ruff format --check, mypy --strict
  format            let ruff put the code in order
  bench [--quick]   this project beside its peers; ARGS go to benchmarks/run.py
  build             wheels of the core and of every plugin, into dist/
  lock  [ARGS]      write constraints/*.txt anew; ARGS go to uv, as in: lock --upgrade
  setup [WHICH]     only set up: main (.venv, the default), local (.venv-local), services (.venv-services),
                    gateways (.venv-gateways) or all
  clean             remove the environments, .dev, dist and the tools' caches
"""

ENGINES = ("transformers", "vllm", "mlx")
STORES = ("cache-pg-redis", "cache-qdrant")
# More compute threads than cores make a small model slower, not faster.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# A missing engine fails its tests instead of skipping them.
ALL = {"LLM_PROVIDER_REQUIRE_ENGINES": "1"}

# --- the tasks -----------------------------------------------------------------------------------


def lock(arguments: Sequence[str]) -> None:
    """Resolve the dependency groups of pyproject.toml into pins with hashes, for every platform."""
    groups = {
        "dev": ("--group", "dev"),
        "bench": ("--group", "bench", "-c", "constraints/dev.txt"),
        "uv": ("--group", "bootstrap"),
        # Engines are pinned for the machines that test them, not for every platform.
        "local": ("--group", "local", "-c", "constraints/dev.txt"),
        "services": ("--group", "services", "-c", "constraints/dev.txt"),
        "gateways": ("--group", "gateways"),
    }
    uv, environ = find_uv(), uv_environment()
    ours = [part for folder in projects() for part in ("--no-emit-package", name_of(folder))]
    shape: tuple[str, ...] = (
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-emit-index-url",
        "--no-emit-find-links",
    )
    for name, source in groups.items():
        target = f"constraints/{name}.txt"
        quiet = ("--quiet", "--custom-compile-command", "python3 dev.py lock")
        reach = () if name in ("local", "gateways") else ("--universal",)
        command(uv, "pip", "compile", *source, *shape, *reach, *ours, *quiet, "-o", target, *arguments, env=environ)
        text = (ROOT / target).read_text(encoding="utf-8")
        if name == "local":
            text = take_torch(text)
            (ROOT / target).write_text(text, encoding="utf-8")
        if "://" in text or " @ " in text:
            fail(f"{target} names a host or a path: only names, versions and hashes belong there")
        say(f"{target}: {sum('==' in line.split(' ')[0] for line in text.splitlines())} packages")


def take_torch(pins: str) -> str:
    """Move torch's pin, without its hashes, into a file of its own; see `install_torch`."""
    lines = pins.splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if line.startswith("torch=="))
    end = next(number for number in range(start + 1, len(lines)) if not lines[number].startswith(" "))
    pin = lines[start].split()[0]
    (CONSTRAINTS / "torch.txt").write_text(f"# made with local.txt; dev.py tells why it stands alone\n{pin}\n", "utf-8")
    return "".join(lines[:start] + lines[end:])


def name_of(folder: Path) -> str:
    """The distribution's name in a project's metadata."""
    import tomllib

    return str(tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"])


def build() -> None:
    """Build a wheel of every project with the pinned build tools."""
    remove(ROOT / "dist")
    for folder in projects():
        command(
            MAIN.python, "-m", "hatchling", "build", "-t", "wheel", "-d", ROOT / "dist", env=activated(), cwd=folder
        )


def clean() -> None:
    """Remove everything that this file and the tools have made."""
    for name in (
        *(place.folder.name for place, _ in PLACES.values()),
        "dist",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
        ".dev",
    ):
        remove(ROOT / name)


def tests_of(plugins: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Arguments for pytest that run the tests of these plugins: all of them, unless a file or a folder is named."""
    words = (word.partition("::")[0] for word in arguments if not word.startswith("-"))
    named = any(word and (ROOT / word).exists() for word in words)
    return [*arguments, *(() if named else (f"plugins/{name}/tests" for name in plugins))]


def main(argv: Sequence[str]) -> None:
    """Read the task and do it."""
    parser = argparse.ArgumentParser(
        prog="dev.py", epilog=TASKS, formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__
    )
    names = (
        "demo",
        "test",
        "test-local",
        "test-services",
        "lint",
        "format",
        "bench",
        "build",
        "lock",
        "setup",
        "clean",
    )
    parser.add_argument("task", choices=names, metavar="TASK")
    if not argv:
        return parser.print_help()
    task = parser.parse_args(argv[:1]).task
    rest = list(argv[1:])
    if rest and task not in ("demo", "test", "test-local", "test-services", "bench", "lock", "setup"):
        parser.error(f"{task} takes no arguments")
    if task == "lock":
        with locked():
            return lock(rest)
    if task == "clean":
        return clean()
    if task == "setup":
        which = list(PLACES) if rest == ["all"] else rest or ["main"]
        if not set(which) <= set(PLACES):
            parser.error(f"setup takes {', '.join(PLACES)} or all")
        for name in which:
            ensure(*PLACES[name])
        return None
    if task == "test-local":
        ensure(LOCAL, "local")
        become("-m", "pytest", "-q", *tests_of(ENGINES, rest), place=LOCAL, more={**ONE_THREAD, **ALL})
    if task == "test-services":
        ensure(SERVICES, "services")
        become("-m", "pytest", "-q", *tests_of(STORES, rest), place=SERVICES, more={**ONE_THREAD, **ALL})
    ensure(MAIN, "dev", "bench") if task == "bench" else ensure(MAIN, "dev")
    if task == "demo":
        become("usage_examples.py", "--demo", *rest)
    if task == "test":
        become("-m", "pytest", "-q", *rest, more=ONE_THREAD)
    if task == "bench":
        become("benchmarks/run.py", *rest)
    if task == "lint":
        each(("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))
    if task == "format":
        each(("ruff", "check", "--fix", "."), ("ruff", "format", "."))
    if task == "build":
        build()
    return None


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
