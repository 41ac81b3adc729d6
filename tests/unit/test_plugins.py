"""Plugins: found through metadata, loaded one at a time, quarantined with a reason; each case in a fresh interpreter
with real metadata on its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from providers import LLMProviderConfigurationError
from providers.plugins import normalize_name

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
    from providers import LLMProvider, StreamEvent, hookimpl

    class Provider(LLMProvider):
        name = "{name}"

        async def generate(self, request):
            yield StreamEvent.token("from {name}")

    @hookimpl
    def llm_providers():
        return {{"{name}": Provider}}
"""
TELL = """
    import json, logging
    logging.disable()
    from providers import available_providers, create_llm_provider, PluginError, UnknownProviderError

    def state(check=True):
        return {name: [info.state, info.distribution, info.version, info.reason]
                for name, info in available_providers(check=check).items()}

    def asked(name):
        try:
            return create_llm_provider(name, "m").name
        except Exception as error:
            return [type(error).__name__, str(error), type(error.__cause__).__name__]
"""


@pytest.fixture
def ask(python: Any, site: Path) -> Any:
    def run(code: str, **options: Any) -> Any:
        import textwrap

        program = textwrap.dedent(TELL) + textwrap.dedent(code)
        return json.loads(python(program, path=[ROOT / "src", site], **options).stdout)

    return run


def test_a_plugin_is_found_by_name_without_a_change_of_code(ask: Any, install: Any) -> None:
    """F-171, F-173."""
    install("llm-provider-acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": GOOD.format(name="acme")})
    found = ask("""
        import asyncio
        before = state(check=False)
        answer = asyncio.run(create_llm_provider("ACME ", "m").execute("hi")).content
        print(json.dumps([before["acme"], answer, state()["acme"]]))
    """)
    assert found == [
        ["available", "llm-provider-acme", "1.2", None],
        "from acme",
        ["loaded", "llm-provider-acme", "1.2", None],
    ]


def test_the_entry_point_may_be_the_class_itself(ask: Any, install: Any) -> None:
    source = """
        from providers import LLMProvider, StreamEvent

        class Nameless(LLMProvider):
            async def generate(self, request):
                yield StreamEvent.token("x")
    """
    install("acme", {"llm_providers": {"acme": "acme_plugin:Nameless"}}, {"acme_plugin": source})
    assert ask('print(json.dumps(asked("acme")))') == "acme"


BROKEN = {
    "missing_package": ("import a_package_that_is_nowhere", "ModuleNotFoundError", "a_package_that_is_nowhere"),
    "import_error": ("raise ImportError('install x')", "ImportError", "install x"),
    "syntax_error": ("def broken(:", "SyntaxError", "invalid syntax"),
    "system_exit": ("import sys; sys.exit(3)", "SystemExit", "3"),
    "recursion": ("def f(): f()\nf()", "RecursionError", ""),
    "assertion": ("assert False", "AssertionError", ""),
    "no_hook": ("x = 1", "PluginError", "llm_providers"),
    "no_mark": ("def llm_providers(): return {}", "PluginError", "@hookimpl"),
    "wrong_name": (GOOD.format(name="other").replace("\n    ", "\n"), "PluginError", "other"),
    "no_class": (
        "from providers import hookimpl\n@hookimpl\ndef llm_providers(): return {'no_class': dict}",
        "PluginError",
        "subclass",
    ),
    "no_dict": ("from providers import hookimpl\n@hookimpl\ndef llm_providers(): return 5", "PluginError", "dict"),
    "hook_raises": (
        "from providers import hookimpl\n@hookimpl\ndef llm_providers(): 1 / 0",
        "ZeroDivisionError",
        "zero",
    ),
    "no_generate": (
        "from providers import LLMProvider, hookimpl\nclass P(LLMProvider): pass\n"
        "@hookimpl\ndef llm_providers(): return {'no_generate': P}",
        "PluginError",
        "generate",
    ),
    "not_async": (
        "from providers import LLMProvider, hookimpl\nclass P(LLMProvider):\n"
        "    async def generate(self, request): return 'x'\n"
        "@hookimpl\ndef llm_providers(): return {'not_async': P}",
        "PluginError",
        "generate",
    ),
    "old_hook": (
        "from providers import hookimpl\n@hookimpl\ndef llm_providers(registry): return {}",
        "PluginValidationError",
        "registry",
    ),
}


def test_broken_plugins_are_quarantined_with_their_reason_and_others_work(ask: Any, install: Any) -> None:
    """Bad input 14, 15, 18, 20; users: one broken plugin kills the app."""
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": GOOD.format(name="acme")})
    for name, (source, _, _) in BROKEN.items():
        install(f"dist-{name}", {"llm_providers": {name: f"plugin_{name}"}}, {f"plugin_{name}": source})
    install("no-module", {"llm_providers": {"no_module": "nowhere.at_all"}})
    install("no-attribute", {"llm_providers": {"no_attribute": "acme_plugin:Missing"}})
    names = [*BROKEN, "no_module", "no_attribute"]
    found = ask(f"""
        first = {{name: asked(name) for name in {names!r}}}
        again = {{name: asked(name) for name in {names!r}}}
        print(json.dumps([first, again, state(), asked("acme")]))
    """)
    first, again, states, acme = found
    assert acme == "acme"
    assert again == first
    for name in names:
        kind, text, cause = first[name]
        state, distribution, _, reason = states[name]
        missing = name in ("missing_package", "no_module")
        assert (kind, state) == ("MissingDependencyError" if missing else "PluginError", "quarantined"), name
        assert distribution in text
        assert reason in text
        if name in BROKEN:
            assert cause == BROKEN[name][1], (name, text)
            assert BROKEN[name][2] in text, name
    assert first["no_module"][2] == "ModuleNotFoundError"
    assert first["no_attribute"][2] == "AttributeError"
    assert states["acme"][0] == "loaded"


def test_control_c_passes_through_and_does_not_quarantine(ask: Any, install: Any) -> None:
    """Bad input 14."""
    source = "import os\nif 'CALM' not in os.environ: raise KeyboardInterrupt\n" + GOOD.format(name="acme").replace(
        "\n    ", "\n"
    )
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": source})
    found = ask("""
        import os
        try:
            create_llm_provider("acme", "m")
        except KeyboardInterrupt:
            passed = True
        os.environ["CALM"] = "1"
        print(json.dumps([passed, asked("acme")]))
    """)
    assert found == [True, "acme"]


def test_a_plugin_that_nobody_asks_for_is_not_imported(ask: Any, install: Any) -> None:
    """Bad input 19: one that sleeps and prints."""
    slow = "import time\nprint('loaded!')\ntime.sleep(30)\n"
    install("slow", {"llm_providers": {"slow": "slow_plugin"}}, {"slow_plugin": slow})
    install("exits", {"llm_providers": {"exits": "exit_plugin"}}, {"exit_plugin": "import os; os._exit(9)"})
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": GOOD.format(name="acme")})
    found = ask("""
        import sys
        state(check=False)
        answer = asked("acme"), asked("nobody")[0]
        print(json.dumps([*answer, "slow_plugin" in sys.modules, "exit_plugin" in sys.modules]))
    """)
    assert found == ["acme", "UnknownProviderError", False, False]


def test_two_that_claim_one_name_are_both_refused_and_named(ask: Any, install: Any) -> None:
    """Bad input 16, 22: never by the order of folders; names that differ in case are one name."""
    for owner, name in (("first", "acme"), ("second", "acme"), ("third", "Twin"), ("fourth", "twin")):
        source = GOOD.format(name=name.lower())
        install(f"dist-{owner}", {"llm_providers": {name: f"plugin_{owner}"}}, {f"plugin_{owner}": source})
    found = ask("""
        import sys
        answers = [asked("acme"), asked("TWIN"), state()]
        print(json.dumps([*answers, [name for name in sys.modules if name.startswith("plugin_")]]))
    """)
    acme, twin, states, loaded = found
    assert acme[0] == twin[0] == "PluginError"
    assert "dist-first" in acme[1]
    assert "dist-second" in acme[1]
    assert "dist-third" in twin[1]
    assert "dist-fourth" in twin[1]
    assert states["acme"][0] == states["twin"][0] == "quarantined"
    assert loaded == []


def test_odd_names_are_refused_and_shown(ask: Any, install: Any) -> None:
    """Bad input 22."""
    for number, name in enumerate(["weird name!", "ünïcode", "../up", "-dash"]):
        install(f"dist-{number}", {"llm_providers": {name: "acme_plugin"}}, {"acme_plugin": GOOD.format(name="acme")})
    found = ask("print(json.dumps(state()))")
    for name in ("weird name!", "ünïcode", "../up", "-dash"):
        assert found[name][0] == "quarantined"
        assert "letters, digits" in found[name][3]


def test_broken_metadata_harms_nobody_else(ask: Any, install: Any) -> None:
    """Users: one broken plugin kills the app."""
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": GOOD.format(name="acme")})
    install("no-metadata", {"llm_providers": {"bare": "acme_plugin"}}, metadata=False)
    install("no-equals", "[llm_providers]\nnonsense\n")
    install("no-section", "acme = acme_plugin\n")
    install("odd-object", {"llm_providers": {"odd": "not a module!!"}})
    found = ask('print(json.dumps([asked("acme"), asked("bare"), asked("odd"), asked("nobody")[0]]))')
    assert found[0] == "acme"
    assert found[1][0] == "PluginError"
    assert found[2][0] == "PluginError"
    assert found[3] == "UnknownProviderError"


def test_a_missing_package_is_told_by_the_listing_without_importing_it(ask: Any, install: Any) -> None:
    """F-018, bad input 20."""
    source = GOOD.format(name="acme").replace(
        'name = "acme"', 'name = "acme"\n        requires = ("nowhere_sdk", "json")'
    )
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": source})
    state, _, _, reason = ask("print(json.dumps(state()))")["acme"]
    assert state == "quarantined"
    assert "nowhere_sdk" in reason
    assert "json" not in reason


def test_two_names_of_one_plugin(ask: Any, install: Any) -> None:
    source = """
        from providers import LLMProvider, StreamEvent, hookimpl

        class One(LLMProvider):
            async def generate(self, request):
                yield StreamEvent.token("1")

        class Two(One):
            pass

        @hookimpl
        def llm_providers():
            return {"one": One, "Two": Two}
    """
    install("acme", {"llm_providers": {"one": "acme_plugin", "two": "acme_plugin"}}, {"acme_plugin": source})
    assert ask('print(json.dumps([asked("one"), asked("two")]))') == ["one", "two"]


def test_a_distribution_that_is_seen_twice_is_one(python: Any, install: Any, site: Path) -> None:
    """A folder that stands twice on the path (an editable installation) claims a name once."""
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": GOOD.format(name="acme")})
    code = 'from providers import create_llm_provider; print(create_llm_provider("acme", "m").name)'
    assert python(code, path=[ROOT / "src", site, site / "." / "."]).stdout == "acme\n"


def test_a_plugin_that_is_installed_meanwhile_is_found_after_forgetting(ask: Any, install: Any, site: Path) -> None:
    info = site / "late-1.dist-info"
    found = ask(f"""
        import pathlib
        from providers.plugins import manager
        before = asked("late")[0]
        info = pathlib.Path({str(info)!r})
        info.mkdir()
        (info / "METADATA").write_text("Name: late\\nVersion: 1\\n", encoding="utf-8")
        (info / "entry_points.txt").write_text("[llm_providers]\\nlate = late_plugin", encoding="utf-8")
        (info.parent / "late_plugin.py").write_text({_dedented(GOOD.format(name="late"))!r}, encoding="utf-8")
        import importlib; importlib.invalidate_caches()
        manager.forget()
        print(json.dumps([before, asked("late")]))
    """)
    assert found == ["UnknownProviderError", "late"]


def _dedented(text: str) -> str:
    import textwrap

    return textwrap.dedent(text)


# --- names lent to the front door, defaults


def test_names_lent_to_the_front_door(ask: Any, install: Any) -> None:
    """F-171: `from providers import AcmeProvider`, and the core names no vendor."""
    install(
        "acme",
        {
            "llm_providers": {"acme": "acme_plugin"},
            "llm_providers.names": {"AcmeProvider": "acme_plugin:Provider", "Client": "acme_plugin:Provider"},
        },
        {"acme_plugin": GOOD.format(name="acme")},
    )
    install("exits", {"llm_providers.names": {"Exits": "exit_plugin:X"}}, {"exit_plugin": "raise SystemExit(3)"})
    found = ask("""
        import sys, providers
        from providers import Client
        early = "acme_plugin" in sys.modules
        from providers import AcmeProvider
        problems = []
        for name in ("Exits", "Nothing", "_private", "__wrapped__"):
            try:
                getattr(providers, name)
            except Exception as error:
                problems.append(type(error).__name__)
        same = AcmeProvider is type(create_llm_provider("acme", "m"))
        print(json.dumps([early, Client.__module__, same, problems]))
    """)
    assert found == [False, "providers.clients", True, ["PluginError", *["AttributeError"] * 3]]


def test_a_name_that_two_packages_lend_is_lent_by_neither(ask: Any, install: Any) -> None:
    """Bad input 16."""
    for owner in ("first", "second"):
        install(f"dist-{owner}", {"llm_providers.names": {"Shared": f"plugin_{owner}:X"}}, {f"plugin_{owner}": "X = 1"})
    found = ask("""
        import providers
        try:
            providers.Shared
        except AttributeError as error:
            print(json.dumps(str(error)))
    """)
    assert "dist-first" in found
    assert "dist-second" in found


def test_the_default_provider(ask: Any, install: Any) -> None:
    """F-126: the installed provider whose key is set, in the order of rank; else one that needs none."""
    for name, rank in (("acme", "50.ACME_API_KEY"), ("better", "20.BETTER_KEY"), ("local", "90")):
        groups = {"llm_providers": {name: f"plugin_{name}"}, "llm_providers.default": {rank: name}}
        install(f"dist-{name}", groups, {f"plugin_{name}": GOOD.format(name=name)})
    install("odd", {"llm_providers.default": {"first!": "acme"}})
    code = """
        import logging; logging.disable()
        print(json.dumps(create_llm_provider(model_name="m").name))
    """
    assert ask(code) == "local"
    assert ask(code, ACME_API_KEY="x") == "acme"
    assert ask(code, ACME_API_KEY="x", BETTER_KEY="y") == "better"
    assert ask(code, ACME_API_KEY=" ") == "local"
    assert ask(code, ACME_API_KEY="x", DEFAULT_LLM_PROVIDER=" Local ") == "local"


def test_no_default_provider_says_what_to_do(ask: Any, install: Any) -> None:
    groups = {"llm_providers": {"acme": "acme_plugin"}, "llm_providers.default": {"50.ACME_API_KEY": "acme"}}
    install("acme", groups, {"acme_plugin": GOOD.format(name="acme")})
    kind, text, _ = ask("print(json.dumps(asked(None)))")
    assert kind == "UnknownProviderError"
    assert "DEFAULT_LLM_PROVIDER" in text
    assert "ACME_API_KEY" in text


# --- names


@pytest.mark.parametrize(
    ("name", "expected"), [("Acme", "acme"), (" acme\n", "acme"), ("a-b_c1", "a-b_c1"), ("9", "9")]
)
def test_names_are_forgiven_case_and_spaces(name: str, expected: str) -> None:
    """Bad input 8."""
    assert normalize_name(name) == expected


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "ä", "a.b", None, 5, b"acme", ["acme"]], ids=repr)
def test_what_is_no_name(name: Any) -> None:
    """Bad input 8, 22."""
    with pytest.raises(LLMProviderConfigurationError, match="name"):
        normalize_name(name)
