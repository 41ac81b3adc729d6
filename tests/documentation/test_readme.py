"""What the READMEs say is so: their snippets run, their links lead somewhere, their variables and commands exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llm_provider_pusher import PusherSettings
from providers import LLMProvider, ProviderSettings, register_provider, unregister_provider
from providers.layer_settings import LayerSettings
from providers.settings import all_variables, facts_of
from providers.testing import EchoProvider, LoopbackServer, ProviderConformance

from ..scenarios.vendor import Vendor
from .blocks import Block, blocks_of
from .conftest import KEY
from .dialects import play_others
from .test_capabilities import provider_of

ROOT = Path(__file__).resolve().parents[2]
_OURS = [path for path in ROOT.iterdir() if not path.name.startswith(".") and path.name not in ("dist", "build")]
MARKDOWN = sorted(
    file
    for path in _OURS
    for file in ([path] if path.suffix == ".md" else path.rglob("*.md") if path.is_dir() else [])
    if not any(part.startswith(".") or part == "node_modules" for part in file.relative_to(ROOT).parts)
)
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
# Their snippets run where the engines and servers are, in the tests of each.
ELSEWHERE = {"transformers", "vllm", "mlx", "cache-pg-redis", "cache-qdrant", "pusher"}
LIGHT = [plugin for plugin in PLUGINS if plugin.name not in ELSEWHERE]
READMES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "src" / "providers" / "README.md",
    *(plugin / "README.md" for plugin in LIGHT),
]


def name_of(path: Path) -> str:
    """A file's name in the checkout."""
    return path.relative_to(ROOT).as_posix()


def say(heard: str) -> str:
    """What the vendor answers where a snippet looks at the answer."""
    return '{"name": "Paris", "country": "France"}' if "Eiffel" in heard else f"You said: {heard}"


# --- snippets -----------------------------------------------------------------------------------------------------


def test_every_plugin_has_a_readme() -> None:
    """Each distribution's metadata names a README, which is there; `READMES` runs what stands in it."""
    assert [name_of(plugin) for plugin in PLUGINS if not (plugin / "README.md").exists()] == []


@pytest.mark.parametrize("path", [path for path in READMES if path.exists()], ids=name_of)
def test_the_snippets_of_a_readme_run(
    path: Path, application: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """F-126, F-146, F-173: every python block runs as it stands, those of one file one after another."""
    from llm_provider_template import TemplateProvider

    names: dict[str, Any] = {"__name__": "__main__", "AcmeProvider": TemplateProvider, "long_document": "Once upon."}
    with LoopbackServer() as server:
        Vendor(say=say, key=KEY).play(server)
        play_others(server, say)
        for variable, value in {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": f"{server.url}/v1",
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": server.url,
            "GOOGLE_API_KEY": KEY,
            "GOOGLE_GEMINI_BASE_URL": server.url,
            "TEMPLATE_API_KEY": KEY,
        }.items():
            monkeypatch.setenv(variable, value)
        ran = [block.run(names) for block in blocks_of(path) if block.language == "python"]
    printed = capsys.readouterr().out
    if path.parent.name == "llamacpp":
        assert printed == "The capital of France is Paris.\n"
    if path.parent.name == "openai":
        assert printed == "You said: What is the capital of France? 14\n"
    if path.parent.name == "anthropic":
        assert printed == "You said: What is the capital of France? 14\n"
    if path.parent.name == "gemini":
        assert printed.startswith("You said: Name three colors. ")
        assert (names["answer"].content, names["output"]) == ("You said: What is it about?", "You said: Question 1")
    if path == ROOT / "docs" / "layers.md":
        first, second = printed.splitlines()[:2]
        assert (first.partition(" ")[0], second.partition(" ")[0]) == ("False", "True")
        assert first.partition(" ")[2] == second.partition(" ")[2]
    if path == ROOT / "README.md":
        assert len(ran) == 5
        assert printed.startswith("You said: What is the capital of France? 14\n"), printed
        assert "You said: Tell me a story" in printed
        assert "You said: Name three colors.France\n" in printed
    if path == ROOT / "plugins" / "template" / "README.md":
        assert issubclass(names["TestConformance"], ProviderConformance)
        assert isinstance(names["TestConformance"]().make_provider(), TemplateProvider)


def _example_of(module: str) -> Block:
    path = ROOT / "src" / "providers" / f"{module}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    lines = [line for line in docstring.splitlines() if line.startswith("    ") or not line]
    return Block(path, 1, "python", module, textwrap.dedent("\n".join(lines)))


def test_the_front_doors_example_runs(application: Path) -> None:
    """F-126, F-128: the example in the docstring of `providers`, with a provider of its name."""
    register_provider("acme", EchoProvider)
    try:
        names = _example_of("__init__").run({"__name__": "__main__"})
    finally:
        unregister_provider("acme")
    assert names["response"].content == "What is the capital of France?"
    assert names["response"].model == "acme-1"


async def test_the_bases_example_runs(application: Path) -> None:
    """F-136, F-170: the provider in the docstring of `base` is whole: one method, and every verb works."""
    from providers import StreamEvent, Usage

    names = {"LLMProvider": LLMProvider, "AcmeSettings": ProviderSettings, "StreamEvent": StreamEvent, "Usage": Usage}
    cls = _example_of("base").run({"__name__": "__main__", **names})["AcmeProvider"]
    async with cls("acme-1") as provider:
        response = await provider.execute("Hi")
        assert (response.content, response.total_tokens, response.finish_reason) == ("Hello", 4, "stop")
        assert [piece async for piece in await provider.execute("Hi", stream_mode="enabled")] == ["Hello"]


# --- links, commands, names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    """Every link to a file of this checkout has a target, and every anchor a heading."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]:\s+(\S+)", text, re.MULTILINE)
    lost = []
    for target in targets:
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        place = path.parent / file if file else path
        if not place.exists() or (anchor and anchor not in _anchors(place)):
            lost.append(target)
    assert lost == []


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_commands_exist() -> None:
    """Each `dev.py TASK` of any document is a task, each task stands in `dev.py --help`, and each file is there."""
    refused = subprocess.run(
        [sys.executable, str(ROOT / "dev.py"), "no-such-task"], capture_output=True, encoding="utf-8", check=False
    )
    assert refused.returncode == 2
    tasks = set(re.findall(r"[a-z]+(?:-[a-z]+)*", refused.stderr.rpartition("choose from")[2]))
    helped = subprocess.run(
        [sys.executable, str(ROOT / "dev.py"), "--help"], capture_output=True, encoding="utf-8", check=True
    ).stdout
    assert set(re.findall(r"^  ([a-z-]+)\b", helped.partition("tasks:")[2], re.MULTILINE)) == tasks
    for path in MARKDOWN:
        text = path.read_text(encoding="utf-8")
        named = set(re.findall(r"\bdev\.py ([a-z][a-z-]*)\b(?! makes)", text))
        assert named <= tasks, (name_of(path), named - tasks)
        shell = "".join(block.code for block in blocks_of(path) if block.language == "bash")
        for word in re.findall(r"(?<![\w/.-])(?:\./)?[\w/]+\.py\b|(?<=\s)\./[\w/-]+", shell):
            assert (ROOT / word).exists() or (path.parent / word).exists(), (name_of(path), word)


def test_distributions_are_listed() -> None:
    """The README's table of distributions is the workspace: every one, by its name, and no other."""
    names = {
        str(tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"])
        for folder in (ROOT, *PLUGINS)
    }
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[?`(llm-provider-[\w-]+)`", text, re.MULTILINE)) == names


# --- variables ----------------------------------------------------------------------------------------------------

_NAME = re.compile(r"(?:LLM_PROVIDERS|DEFAULT)_[A-Z_]+")


def house_variables() -> set[str]:
    """Every variable of the house that the core's source names."""
    found: set[str] = set()
    for path in (ROOT / "src" / "providers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
                found.add(node.value)
    return found - {"LLM_PROVIDERS_"}


def variables_of(folder: Path) -> set[str]:
    """Every variable that the settings of a plugin's providers read, or of what else it brings."""
    if folder.name == "pusher":
        return set(all_variables(PusherSettings))
    return {variable for name in entries_of(folder) for variable in all_variables(provider_of(name).Settings)}


def entries_of(folder: Path) -> list[str]:
    """Names of the providers that a plugin brings."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["entry-points"].get("llm_providers", ()))


def test_the_readmes_variables_are_read() -> None:
    """F-142, F-172: the README's table names every variable of the house, and none that nothing reads."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("| variable |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", text))
    assert house_variables() <= named
    assert named <= house_variables().union(all_variables(LayerSettings), *map(variables_of, PLUGINS))


def test_the_examples_variables_are_read() -> None:
    """F-142, F-172: `config/.env.example` names every variable of the house, and none that nothing reads."""
    text = (ROOT / "config" / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?([A-Z][A-Z_]+)=", text, re.MULTILINE))
    assert house_variables() <= named
    assert named <= house_variables().union(all_variables(LayerSettings), *map(variables_of, PLUGINS))
    for folder in PLUGINS:
        assert named & variables_of(folder) or folder.name == "template" or not entries_of(folder), folder.name


def test_the_settings_of_layers_are_listed() -> None:
    """F-060, F-172: the table of docs/layers.md has every setting, the variable that is read for it, and no other."""
    text = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| `([A-Z_]+)`", text, re.MULTILINE))
    assert listed == {field: names[0] for field, names in facts_of(LayerSettings).variables.items()}


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugins_settings_are_listed(folder: Path) -> None:
    """F-172: the table of a plugin's README has every setting with the variable that is read for it, and no other."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| `([A-Z_]+)`", text, re.MULTILINE))
    for name in entries_of(folder):
        variables = facts_of(provider_of(name).Settings).variables
        assert listed == {field: names[0] for field, names in variables.items()}


def test_variables_are_really_read(application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-142: what the tests above call "read" is read: a value in the environment reaches the settings."""
    from providers import create_llm_provider

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-7")
    sources = create_llm_provider("openai", "m").get_model_info()["sources"]
    assert sources == {
        "api_key": "environment variable OPENAI_API_KEY",
        "organization": "environment variable OPENAI_ORG_ID",
    }


# --- the examples -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--demo"], []], ids=["demo", "all"])
def test_usage_examples_run(words: list[str], application: Path) -> None:
    """F-146: `usage_examples.py` runs without a key, on the embedded model, to its end and without a complaint."""
    program = ROOT / "usage_examples.py"
    assert program.exists(), "usage_examples.py is promised"
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(program), *words],
        cwd=application,
        capture_output=True,
        encoding="utf-8",
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "ResourceWarning" not in done.stderr
    assert len(done.stdout.split()) > 20, done.stdout
