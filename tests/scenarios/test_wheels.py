"""Installed from wheels in a clean environment: strangers' plugins work by name, and broken ones harm nobody."""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from providers.testing import LoopbackServer

from .conftest import copy_distributions, requirements_of, third_party
from .strangers import PLUGINS, QUARANTINED
from .vendor import KEY, Vendor

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


@pytest.fixture(scope="module")
def quiet(clean_environment: Any, template_wheel: Path, kit_folder: Path) -> Any:
    """The core and the template plugin, with pytest beside them."""
    return clean_environment(template_wheel, more=(kit_folder,))


@pytest.fixture(scope="module")
def crowded(clean_environment: Any, template_wheel: Path, build_wheels: Any, tmp_path_factory: Any) -> Any:
    """The core, the template plugin, and every plugin above."""
    folder = tmp_path_factory.mktemp("plugins")
    wheels = build_wheels({plugin.write(folder / "source"): folder / "dist" for plugin in PLUGINS})
    return clean_environment(template_wheel, *wheels.values())


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name if path != ROOT else "core")
def test_a_wheel_holds_the_package_and_nothing_else(
    project: Path, build_wheels: Callable[..., dict[Path, Path]], tmp_path: Path
) -> None:
    """F-171, F-173: each wheel has its whole package, `py.typed` and the licence, no tests, and its entry points."""
    with ZipFile(build_wheels({project: tmp_path})[project]) as wheel:
        names = wheel.namelist()
        metadata = {name.partition(".dist-info/")[2]: name for name in names if ".dist-info/" in name}
        entry_points = wheel.read(metadata["entry_points.txt"]).decode()
    toml = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    source = project / toml["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"][0]
    files = {
        f"{source.name}/{path.relative_to(source).as_posix()}"
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(names) - set(metadata.values()) == files
    assert f"{source.name}/py.typed" in files
    assert "licenses/LICENSE" in metadata
    assert not [name for name in names if "tests/" in name or name.startswith(("test_", "config/", "benchmarks/"))]
    for group, entries in toml["project"]["entry-points"].items():
        assert f"[{group}]" in entry_points
        for name, value in entries.items():
            assert f"{name} = {value}" in entry_points


def test_installing_a_plugin_is_all_it_takes(clean_environment: Any, template_wheel: Path) -> None:
    """F-171, F-173, F-126: before the wheel is installed its name is unknown, afterwards the same program works."""
    program = """
        import asyncio, providers
        assert providers.__file__.startswith({site!r}), providers.__file__
        try:
            provider = providers.create_llm_provider("template", "template-1", api_key="k")
        except providers.UnknownProviderError as error:
            print("unknown:", error, isinstance(error, ValueError))
        else:
            print(asyncio.run(provider.execute("hello there")).content)
    """
    clean = clean_environment()
    program = program.format(site=str(clean.site))
    before = clean.python(program).stdout
    assert "unknown:" in before
    assert "no provider is named 'template'; no provider is installed" in before
    assert before.endswith("True\n")
    clean.install(template_wheel)
    assert clean.python(program).stdout == "hello there\n"


def test_the_verbs_work_from_wheels(quiet: Any) -> None:
    """F-126, F-128, F-129, F-172: execute, a stream, the sync face, the default of the environment."""
    said = quiet.python(
        """
        import asyncio
        from providers import available_providers, create_llm_provider, get_response

        async def main():
            async with create_llm_provider(api_key="k") as provider:
                stream = await provider.execute("one two three", stream_mode="enabled")
                print([piece async for piece in stream], stream.response.usage.total_tokens)

        asyncio.run(main())
        print(get_response("template", None, "from sync code"))
        print(available_providers())
        """,
        DEFAULT_LLM_PROVIDER="template",
        DEFAULT_MODEL_NAME="template-1",
        TEMPLATE_API_KEY="key",
    ).stdout.splitlines()
    assert said[0] == "['one', ' two', ' three'] 6"
    assert said[1] == "from sync code"
    assert "state='loaded', distribution='llm-provider-template', version='0.1.0', reason=None" in said[2]


def test_import_is_light_and_needs_no_plugin(crowded: Any) -> None:
    """F-170: `import providers` brings one module and nothing heavy, however many plugins there are."""
    program = """
        import sys
        before = set(sys.modules)
        import providers
        print(sorted(set(sys.modules) - before))
        from providers import create_llm_provider, LLMConfig
        create_llm_provider("template", "m", api_key="k")
        heavy = {"aiohttp", "orjson", "pydantic", "pydantic_settings", "dotenv", "openai", "pytest", "jsonschema_rs"}
        print(sorted(heavy & set(sys.modules)))
    """
    crowded.imported()
    assert crowded.python(program).stdout == "['__future__', 'providers']\n[]\n"
    assert crowded.imported() == set()


def test_broken_plugins_are_reported(crowded: Any) -> None:
    """F-171: each broken plugin shows with state, distribution, version and reason, and the good ones beside them."""
    done = crowded.run(
        "-c",
        "import json, dataclasses, providers\n"
        "infos = providers.available_providers()\n"
        "print(json.dumps({name: dataclasses.asdict(info) for name, info in infos.items()}))",
        SLEEP="0",
    )
    assert done.returncode == 0, done.stderr
    infos = json.loads(done.stdout)
    for name, (distribution, reason) in QUARANTINED.items():
        info = infos.pop(name)
        assert (info["name"], info["state"]) == (name, "quarantined")
        assert (info["distribution"], info["version"]) == (distribution, "1.2.3")
        assert reason in info["reason"]
    twin = infos.pop("twin")
    assert twin["state"] == "quarantined"
    assert "several packages claim the name 'twin'" in twin["reason"]
    assert "llm-provider-twinone" in twin["reason"]
    assert "llm-provider-twintwo" in twin["reason"]
    assert infos.pop("fallback")["state"] == "built-in"
    assert {name: (info["state"], info["reason"]) for name, info in infos.items()} == dict.fromkeys(
        ("template", "lending", "sleeping", "interrupted"), ("loaded", None)
    )
    # Who cannot be chosen is not imported even here; the rest had to be, to find out. (One cannot leave a mark.)
    assert crowded.imported() == {plugin.name for plugin in PLUGINS} - {"twinone", "twintwo", "odd", "garbled"}


def test_a_list_without_check_imports_nothing(crowded: Any) -> None:
    """F-171: `available_providers(check=False)` reads metadata only, in no time."""
    program = """
        from providers import available_providers
        infos = available_providers(check=False)
        print(infos["sleeping"].state, infos["raising"].state, infos["twin"].state, infos["odd name!"].state)
    """
    crowded.imported()
    assert crowded.python(program, timeout=15).stdout == "available available quarantined quarantined\n"
    assert crowded.imported() == set()


def test_another_name_neither_imports_nor_waits(crowded: Any, quiet: Any) -> None:
    """F-171: creating the template provider imports none of the others, sleeping ones included, and costs the same."""
    program = """
        import time
        began = time.process_time()
        from providers import create_llm_provider
        provider = create_llm_provider("template", "template-1", api_key="k")
        took = time.process_time() - began
        import asyncio
        assert asyncio.run(provider.execute("hi")).content == "hi"
        print(took)
    """
    crowded.imported()
    with_them = min(float(crowded.python(program, timeout=20).stdout) for _ in range(5))
    without = min(float(quiet.python(program, timeout=20).stdout) for _ in range(5))
    assert crowded.imported() == set()
    # Fifteen more distributions have to be looked through, at some 0.2 ms each; an import would cost far more.
    assert with_them < without * 1.5 + 0.03, (with_them, without)


@pytest.mark.parametrize(
    ("name", "kind", "cause"),
    [
        ("raising", "PluginError", "RuntimeError"),
        ("exiting", "PluginError", "SystemExit"),
        ("garbled", "PluginError", "SyntaxError"),
        ("importing", "MissingDependencyError", "ModuleNotFoundError"),
        ("vanished", "MissingDependencyError", "ModuleNotFoundError"),
        ("attribute", "PluginError", "AttributeError"),
        ("toothless", "PluginError", "PluginError"),
        ("hookless", "PluginError", "PluginError"),
        ("needy", "MissingDependencyError", "NoneType"),
        ("twin", "PluginError", "NoneType"),
        ("TWIN ", "PluginError", "NoneType"),
        ("odd name!", "UnknownProviderError", "NoneType"),
    ],
)
def test_asking_for_a_broken_one_tells_why(crowded: Any, name: str, kind: str, cause: str) -> None:
    """F-171, F-135: the error has the right class, the reason and the plugin's own exception as its cause; twice."""
    program = f"""
        import logging
        logging.disable()
        from providers import LLMProviderError, PluginError, create_llm_provider
        for _ in range(2):
            try:
                create_llm_provider({name!r}, "m")
            except LLMProviderError as error:
                print(type(error).__name__, type(error.__cause__).__name__, isinstance(error, ImportError))
                print(error)
        print(create_llm_provider("template", "m", api_key="k"))
    """
    crowded.imported()
    first, reason, second, again, good = crowded.python(program).stdout.splitlines()
    assert first == second == f"{kind} {cause} {kind == 'MissingDependencyError'}"
    assert reason == again
    if kind == "UnknownProviderError":
        assert "a provider's name must be letters, digits, '_' and '-', not 'odd name!'" in reason
    elif name.strip().lower() == "twin":
        assert "llm-provider-twinone (llm_provider_twinone)" in reason
        assert "llm-provider-twintwo (llm_provider_twintwo)" in reason
    else:
        distribution, why = QUARANTINED[name]
        assert why in reason
        assert distribution in reason
    assert good == "<TemplateProvider template/m>"
    assert crowded.imported() <= {name}


def test_a_keyboard_interrupt_passes(crowded: Any) -> None:
    """F-171: Ctrl-C during a plugin's import is the user's wish, not the plugin's fault; it works afterwards."""
    program = """
        import asyncio, os
        from providers import available_providers, create_llm_provider
        for ask in (lambda: create_llm_provider("interrupted", "m"), available_providers):
            try:
                ask()
            except KeyboardInterrupt:
                print("interrupted")
        del os.environ["INTERRUPT"]
        print(asyncio.run(create_llm_provider("interrupted", "m").execute("you")).content)
    """
    done = crowded.run("-c", textwrap.dedent(program), INTERRUPT="1", SLEEP="0")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "interrupted\ninterrupted\ninterrupted heard you\n"


def test_an_unknown_name_lists_what_is_there(crowded: Any) -> None:
    """F-171: the message for a misspelt name lists the installed ones, and suggests; nothing is imported for it."""
    program = """
        from providers import UnknownProviderError, create_llm_provider
        for name in ("templte", "anthropic", "acme", "", " ", None):
            try:
                create_llm_provider(name, "m")
            except UnknownProviderError as error:
                print(error)
    """
    crowded.imported()
    said = crowded.python(program).stdout.splitlines()
    assert "did you mean 'template'?" in said[0]
    for plugin in ("lending", "sleeping", "template", "twin"):
        assert plugin in said[0]
    assert "pip install 'llm-provider-system[anthropic]'" in said[1]
    assert "usually llm-provider-acme" in said[2]
    assert all("must be letters" in line for line in said[3:5])
    assert "no provider was named and none can be chosen" in said[5]
    assert "LENDING_SWITCH" in said[5]
    assert crowded.imported() == set()


def test_a_plugin_lends_names_to_the_front_door(crowded: Any) -> None:
    """F-171: `from providers import LendingProvider` loads that plugin alone; a name that fails is an ImportError."""
    program = """
        import asyncio, providers
        from providers import LendingProvider
        print(asyncio.run(LendingProvider("m").execute("you")).content)
        assert providers.create_llm_provider("lending", "m").__class__ is LendingProvider
        try:
            from providers import NobodysProvider
        except ImportError as error:
            print(error)
        print(hasattr(providers, "NobodysProvider"))
    """
    crowded.imported()
    said = crowded.python(program).stdout.splitlines()
    assert said[0] == "lending heard you"
    assert "NobodysProvider" in said[1]
    assert said[2] == "False"
    assert crowded.imported() == {"lending"}


def test_a_plugin_may_be_the_default(crowded: Any) -> None:
    """F-126, F-171: with its variable set and nothing named, `create_llm_provider()` gives the plugin of best rank."""
    program = """
        import asyncio, providers
        print(asyncio.run(providers.create_llm_provider(model_name="m").execute("you")).content)
    """
    crowded.imported()
    assert crowded.python(program, LENDING_SWITCH="on").stdout == "lending heard you\n"
    assert crowded.imported() == {"lending"}


def test_what_a_plugin_declares_is_enough(
    build_wheels: Any, core_wheel: Path, clean_environment: Any, tmp_path: Path
) -> None:
    """F-171, F-172: the openai plugin answers over both transports with only what its metadata asks for."""
    folder = ROOT / "plugins" / "openai"
    wheel = build_wheels({folder: tmp_path})[folder]
    copy_distributions(third_party(requirements_of(wheel), core_wheel).values(), tmp_path / "needs")
    clean = clean_environment(wheel, more=(tmp_path / "needs",))
    program = """
        import asyncio
        from providers import OpenAIProvider, create_llm_provider

        async def main():
            for transport in ("http", "sdk"):
                async with create_llm_provider("openai", "m", transport=transport) as provider:
                    assert type(provider) is OpenAIProvider
                    print((await provider.execute("hello")).content)

        asyncio.run(main())
    """
    with LoopbackServer() as server:
        Vendor().play(server)
        said = clean.python(program, OPENAI_BASE_URL=f"{server.url}/v1", OPENAI_API_KEY=KEY).stdout
    assert said == "hello\nhello\n"


def test_the_authors_kit_works_from_wheels(quiet: Any, tmp_path: Path) -> None:
    """F-173: pytest finds the kit's fixtures by the entry point, and the template's own tests pass."""
    (tmp_path / "test_fixtures.py").write_text(
        textwrap.dedent(
            """
            import asyncio, os, urllib.request
            import pytest
            from providers.testing import Reply

            def test_fixtures(loopback_server, echo_provider, scripted_provider, clean_provider_settings):
                loopback_server.script("/hello", Reply.json({"a": 1}))
                with urllib.request.urlopen(loopback_server.url + "/hello") as reply:
                    assert reply.read() == b'{"a":1}'
                assert asyncio.run(echo_provider.execute("hello")).content == "hello"
                scripted_provider.push("pushed")
                assert asyncio.run(scripted_provider.execute("hello")).content == "pushed"
                assert os.getcwd() == str(clean_provider_settings)
                assert "TEMPLATE_API_KEY" not in os.environ
            """
        ),
        encoding="utf-8",
    )
    own = (ROOT / "plugins" / "template" / "tests" / "test_template.py").read_text(encoding="utf-8")
    (tmp_path / "test_template.py").write_text(own, encoding="utf-8")
    ini = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    (tmp_path / "pytest.ini").write_text(ini, encoding="utf-8")
    done = quiet.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path, TEMPLATE_API_KEY="k", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    passed = int(done.stdout.rpartition(" passed")[0].rpartition("\n")[2].split()[-1])
    assert passed > 20, done.stdout


def test_no_test_here_passes_without_its_environment(quiet: Any) -> None:
    """What these tests stand on: the interpreter there sees the wheels' files and no file of this checkout."""
    program = """
        import sys, importlib.util
        import providers, llm_provider_template
        print("\\n".join([*sys.path, providers.__file__, llm_provider_template.__file__]))
        print([name for name in ("aiohttp", "openai", "hatchling", "src") if importlib.util.find_spec(name)])
    """
    said = quiet.python(program).stdout
    assert str(ROOT) not in said
    assert said.endswith("[]\n")
