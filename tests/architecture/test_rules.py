"""The rules of the house that are tests: sizes, names, docstrings, what the front door shows, what is documented."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from providers.layer_settings import LayerSettings
from providers.settings import all_variables

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
HOUSE = SRC / "providers"
MODULES = sorted(HOUSE.rglob("*.py"))
FOLDERS = ("src", "plugins", "tests", "benchmarks")
VENDORS = (
    "openai", "anthropic", "claude", "gemini", "google", "vllm", "transformers", "hugging", "mlx", "llama", "ollama",
    "mistral", "azure", "bedrock", "gpt-", "vertex", "deepseek", "cohere",
)  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_of(folder: Path) -> list[Path]:
    """What belongs to the project: what git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", str(folder)],
        cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # an unpacked archive
        found = [path for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return sorted(path for path in found if path.is_file())


# --- names and sizes


def test_the_core_names_no_vendor() -> None:
    """F-170."""
    files = files_of(SRC)
    assert len(files) > 40
    found = []
    for path in files:
        words = [word for word in VENDORS if word in str(path.relative_to(SRC)).lower()]
        for number, line in enumerate(path.read_text(encoding="utf-8").lower().splitlines(), 1):
            words += [f"{number}: {word}" for word in VENDORS if word in line]
        found += [f"{path.relative_to(ROOT)}: {word}" for word in words]
    assert found == []


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != "tests"])
def test_no_source_file_is_longer_than_a_sitting(folder: str) -> None:
    files = [path for path in files_of(ROOT / folder) if path.suffix == ".py"]
    assert files
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: size for name, size in sizes.items() if size > 400} == {}


def test_no_module_bears_a_public_name() -> None:
    import providers

    names = {name_of(path).rpartition(".")[2] for path in MODULES}
    assert names & set(providers.__all__) == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_text_is_opened_as_utf8(folder: str) -> None:
    """Users: Windows codecs."""
    found = []
    for path in files_of(ROOT / folder):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name == "open" and not isinstance(node.func, ast.Name):
                continue
            binary = any(
                isinstance(a, ast.Constant) and isinstance(a.value, str) and "b" in a.value for a in node.args[1:2]
            )
            if (
                name in ("open", "read_text", "write_text")
                and not binary
                and "encoding" not in {k.arg for k in node.keywords}
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


# --- docstrings


def public_nodes(tree: ast.Module, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if any(
            getattr(item, "id", getattr(item, "attr", "")) == "overload" for item in getattr(node, "decorator_list", [])
        ):
            continue
        yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public_nodes(node, f"{prefix}{node.name}.")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_module_says_what_lives_there_and_public_things_are_described(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    first = (ast.get_docstring(tree) or "").splitlines()[:1]
    assert first
    assert first[0][:1].isupper()
    assert len(first[0]) > 10
    assert [name for name, node in public_nodes(tree) if not ast.get_docstring(node)] == []  # type: ignore[arg-type]


# --- what is shown


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=name_of)
def test_all_is_what_loads(path: Path) -> None:
    """`__all__` of every package equals what a reader finds in it."""
    module = import_module(name_of(path))
    assert list(module.__all__) == sorted(set(module.__all__), key=module.__all__.index)
    for name in module.__all__:
        assert getattr(module, name) is not None or name == "None"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    shown = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level and node.module and node not in _inside_functions(tree)
        for alias in node.names
    }
    # A name that the file itself works with is a tool of its own, not something that it shows.
    shown -= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    shown |= {node.name for _, node in public_nodes(tree)}  # type: ignore[attr-defined]
    assert set(module.__all__) == shown


def _inside_functions(tree: ast.Module) -> set[ast.AST]:
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {inner for function in functions for inner in ast.walk(function)}


def test_what_type_checkers_see_is_what_loads() -> None:
    """The TYPE_CHECKING block of the front door equals its table of rooms."""
    import providers

    tree = ast.parse((HOUSE / "__init__.py").read_text(encoding="utf-8"))
    [block] = [
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    seen: dict[str, set[str]] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        if node.level:
            assert all(alias.asname == alias.name for alias in node.names), node.lineno
            seen.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
    assert seen == {room: set(names.split()) for room, names in providers._ROOMS.items()}
    assert sum(map(len, seen.values())) == len(providers.__all__)


def test_the_front_door_names_a_thing_once_and_in_order() -> None:
    import providers

    listed = [name for names in providers._ROOMS.values() for name in names.split()]
    assert len(listed) == len(set(listed))
    for room, names in providers._ROOMS.items():
        assert names.split() == sorted(names.split()), room
    assert list(providers._ROOMS) == sorted(providers._ROOMS)


# --- what is documented


def documents() -> str:
    paths = [ROOT / "README.md", HOUSE / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    paths += [path for path in (ROOT / "config").iterdir() if path.is_file()]
    paths += sorted((ROOT / "plugins" / "template").glob("*.md"))
    return "\n".join(path.read_text(encoding="utf-8") for path in paths if path.exists())


def constants() -> Iterator[str]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_variable_of_the_core_is_documented() -> None:
    variables = {value for value in constants() if re.fullmatch(r"(LLM_PROVIDERS|DEFAULT)_[A-Z_]+", value)}
    variables |= set(all_variables(LayerSettings))
    assert len(variables) >= 20
    text = documents()
    assert sorted(name for name in variables if name not in text) == []


def test_every_variable_that_is_documented_is_read() -> None:
    documented = set(re.findall(r"\bLLM_PROVIDERS_[A-Z_]+\b", documents()))
    assert documented
    assert documented - set(constants()) - set(all_variables(LayerSettings)) == set()


def test_every_hook_is_documented() -> None:
    from providers.plugins import GROUP, Hooks

    hooks = [name for name in vars(Hooks) if not name.startswith("_")]
    assert hooks
    text = documents()
    for name in hooks:
        doc = (getattr(Hooks, name).__doc__ or "").strip()
        assert doc.endswith("."), name
        assert name in text, name
    for group in (GROUP, f"{GROUP}.names", f"{GROUP}.default"):
        assert group in text, group


def test_every_table_of_the_toml_file_is_documented() -> None:
    text = documents()
    for table in ("[settings]", "[presets.", "[providers.", "[models"):
        assert table in text, table
    for name in ("default_llm_provider", "default_model_name"):
        assert name in text
