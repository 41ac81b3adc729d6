"""The floors of the house: imports run down, type-only imports and those inside functions counted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2] / "src" / "providers"

# The plan of src/providers/README.md as data. A room may import from every lower floor, and not from its own.
# To move a room is to move its name.
FLOORS: list[set[str]] = [
    {"exceptions", "notices", "headroom"},
    {"types"},
    {"pipeline", "parameters", "sources", "profiles", "resilience", "caches", "wire", "failures", "unwrap", "costs"},
    {"sight"},
    {"settings", "local", "layers", "request_builder", "text_stream", "life"},
    {"calls", "lives", "layer_settings", "presets"},
    {"makers", "configuring"},
    {"stack"},
    {"verbs"},
    {"base"},
    {"capabilities", "remote"},
    {"routing"},
    {"plugins"},
    {"registry"},
    {"creation"},
    {"factory"},
    {"bridge"},
    {"clients"},
    {"testing"},
    {"__init__"},
]
# Rooms that know less than their floor would let them: room to all that it may know.
ONLY: dict[str, set[str]] = {
    "sources": {"exceptions", "notices"},
    "profiles": {"exceptions"},
    "costs": {"exceptions", "types"},
    "settings": {"exceptions", "notices", "types", "sources"},
    "wire": {"exceptions", "headroom", "notices"},
    "sight": {"exceptions", "types", "pipeline", "costs", "wire"},
    "local": {"exceptions", "notices", "types", "parameters"},
    "routing": {
        *("base", "capabilities", "costs", "exceptions", "layers", "notices", "pipeline", "profiles"),
        *("request_builder", "resilience", "sources", "types", "wire"),
    },
    "text_stream": {"types"},
    "unwrap": {"types"},
    "caches": {"exceptions", "types"},
    "bridge": set(),
    "app_settings": set(),
}
# Rooms that nobody but the front door may enter.
TOP = {"clients", "testing", "app_settings"}

FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FLOOR_OF["app_settings"] = len(FLOORS) - 2


def modules() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).with_suffix("").parts[0]


def package_of(path: Path) -> list[str]:
    """The dotted name of the package that relative imports of a module start from."""
    return ["providers", *path.relative_to(HOUSE).parent.parts]


def imports(path: Path, source: str | None = None) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import, wherever in the file it stands, and of each `import_module("...")`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8") if source is None else source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package_of(path)[: len(package_of(path)) - node.level + 1] if node.level else []
            for alias in node.names:
                yield node.lineno, ".".join([*base, *([node.module] if node.module else []), alias.name])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            for argument in node.args[:1]:
                yield node.lineno, argument.value if isinstance(argument, ast.Constant) else "?"


def known_rooms(path: Path, source: str | None = None) -> Iterator[tuple[int, str]]:
    """Line and room of each import of ours."""
    for line, name in imports(path, source):
        parts = name.split(".")
        if parts[0] == "src":
            parts = parts[1:]
        if parts[0] == "providers":
            yield line, parts[1] if len(parts) > 1 and parts[1] in FLOOR_OF else "__init__"


def wrong(path: Path, source: str | None = None) -> list[str]:
    """What a module may not import."""
    room = room_of(path)
    found = []
    for line, other in known_rooms(path, source):
        if other == room:
            continue
        allowed = ONLY.get(room)
        if allowed is not None and other not in allowed:
            found.append(f"{path.name}:{line}: {room} may know {sorted(allowed)}, not {other}")
        elif FLOOR_OF[other] >= FLOOR_OF[room]:
            found.append(
                f"{path.name}:{line}: {room} (floor {FLOOR_OF[room]}) imports {other} (floor {FLOOR_OF[other]})"
            )
        elif other in TOP and room not in ("__init__", "testing"):
            found.append(f"{path.name}:{line}: nobody enters {other}")
    return found


def test_every_room_has_a_floor_and_every_floor_its_rooms() -> None:
    rooms = {room_of(path) for path in modules()}
    assert rooms == set(FLOOR_OF)
    assert sum(map(len, FLOORS)) + 1 == len(FLOOR_OF)
    assert set(ONLY) | TOP <= rooms


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_run_down(path: Path) -> None:
    assert wrong(path) == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(HOUSE)))
def test_modules_are_not_imported_by_computed_names(path: Path) -> None:
    """Such an import could go anywhere; only front doors, which hand names through, and their likes may."""
    computed = [line for line, name in imports(path) if name == "?"]
    assert not computed or path.name == "__init__.py", computed


@pytest.mark.parametrize("path", sorted((HOUSE / "types").glob("*.py")), ids=lambda path: path.name)
def test_the_words_stand_in_a_row_without_a_circle(path: Path) -> None:
    seen: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in seen:
            return
        seen.add(name)
        file = HOUSE / "types" / f"{name}.py"
        for _, dotted in imports(file):
            parts = dotted.split(".")
            if parts[:2] == ["providers", "types"] and len(parts) > 2 and (HOUSE / "types" / f"{parts[2]}.py").exists():
                visit(parts[2], (*trail, name))

    visit(path.stem, ())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("exceptions.py", "from .types import Usage"),
        ("pipeline.py", "from .settings import setting"),
        ("pipeline.py", "def f():\n    from .factory import create_llm_provider"),
        ("base.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .registry import provider_class"),
        ("base.py", "from . import registry"),
        ("base.py", "import providers.registry as r"),
        ("base.py", "from providers import create_llm_provider"),
        ("base.py", "from importlib import import_module\nimport_module('providers.factory')"),
        ("types/usage.py", "from ..pipeline import fold"),
        ("layers/retrying.py", "from ..base import LLMProvider"),
        ("resilience/retry.py", "from ..pipeline import fold"),
        ("wire/http.py", "from ..types import Usage"),
        ("factory.py", "from .clients import Client"),
        ("routing/walk.py", "from ..factory import create_llm_provider"),
        ("routing/walk.py", "from ..registry import provider_class"),
        ("app_settings.py", "from .exceptions import LLMProviderError"),
        ("bridge.py", "from .exceptions import LLMProviderError"),
    ],
)
def test_the_rule_sees_each_way_to_break_it(module: str, source: str) -> None:
    assert wrong(HOUSE / module, source)


def test_the_core_imports_no_plugin_and_nobody_imports_the_tests() -> None:
    for path in modules():
        for line, name in imports(path):
            assert not name.startswith(("llm_provider_", "tests", "benchmarks")), f"{path}:{line}"
