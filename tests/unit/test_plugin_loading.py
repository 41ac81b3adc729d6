"""Loading a plugin: one that is slow keeps nobody else waiting, one that fails for a moment is tried again; each case
in a fresh interpreter with real metadata on its path."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROVIDER = """
    from providers import LLMProvider, StreamEvent, hookimpl

    class Provider(LLMProvider):
        name = "{name}"

        async def generate(self, request):
            yield StreamEvent.token("from {name}")
"""
HOOK = """
    @hookimpl
    def llm_providers():
        {first}
        return {{"{name}": Provider}}
"""


def plugin(name: str, first: str = "pass", before: str = "") -> str:
    """Source of a plugin: what it does before all else, and first of all in its hook."""
    return before + textwrap.dedent(PROVIDER.format(name=name)) + textwrap.dedent(HOOK.format(name=name, first=first))


@pytest.fixture
def ask(python: Any, site: Path) -> Any:
    def run(code: str, **options: Any) -> Any:
        quiet = "import json, logging, os\nlogging.disable()\n"
        return json.loads(python(quiet + textwrap.dedent(code), path=[ROOT / "src", site], **options).stdout)

    return run


def test_a_slow_hook_keeps_nobody_else_waiting(ask: Any, install: Any) -> None:
    """Bad input 19: the house's lock is not held while somebody else's code runs."""
    slow = plugin(
        "slow",
        "STARTED.set(); assert GO.wait(20)",
        "import threading\nSTARTED, GO = [threading.Event() for _ in 'ab']\n",
    )
    install("slow", {"llm_providers": {"slow": "slow_plugin"}}, {"slow_plugin": slow})
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": plugin("acme")})
    found = ask("""
        import threading, slow_plugin
        from providers import available_providers, create_llm_provider
        made = []
        def make(name):
            made.append(create_llm_provider(name, "m").name)
        first = threading.Thread(target=make, args=("slow",), daemon=True)
        first.start()
        assert slow_plugin.STARTED.wait(10)
        others = [threading.Thread(target=make, args=("acme",), daemon=True)]
        others.append(threading.Thread(target=lambda: made.append(len(available_providers(check=False))), daemon=True))
        for other in others:
            other.start()
        for other in others:
            other.join(5)
        meanwhile = sorted(map(str, made))
        slow_plugin.GO.set()
        first.join(10)
        print(json.dumps([meanwhile, made[-1]]))
    """)
    assert found == [["3", "acme"], "slow"]


@pytest.mark.parametrize("where", ["import", "hook"])
@pytest.mark.parametrize("error", ["OSError(24, 'Too many open files')", "MemoryError()", "PermissionError('not yet')"])
def test_what_fails_for_a_moment_is_reported_and_tried_again(ask: Any, install: Any, error: str, where: str) -> None:
    """Bad input 14: a full table of files at the first call must not cost the provider for the life of the process."""
    check = f"if 'CALM' not in os.environ: raise {error}"
    source = (
        plugin("acme", before=f"import os\n{check}\n") if where == "import" else plugin("acme", check, "import os\n")
    )
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": source})
    first, state, second, name, after, seen = ask("""
        from providers import available_providers, create_llm_provider, PluginError
        said = []
        for _ in range(2):
            try:
                create_llm_provider("acme", "m")
            except PluginError as error:
                said.append([str(error), type(error.__cause__).__name__])
        info = available_providers()["acme"]
        state = [info.state, info.reason]
        os.environ["CALM"] = "1"
        name = create_llm_provider("acme", "m").name
        after = available_providers()["acme"]
        print(json.dumps([said[0], state, said[1], name, [after.state, after.reason], info.state]))
    """)
    assert first == second
    assert first[1] == error.partition("(")[0]
    assert first[1] in first[0]
    assert state[0] == "quarantined"
    assert state[1] in first[0]
    assert (name, after) == ("acme", ["loaded", None])
    assert seen == "quarantined", "a report that was given out does not change under its reader"


def test_a_mistake_is_not_made_twice(ask: Any, install: Any) -> None:
    """Bad input 14: what the code says would be said again; the module is not imported a second time."""
    source = "import os\nos.environ['TIMES'] = os.environ.get('TIMES', '') + 'x'\nraise ValueError('a mistake')\n"
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": source})
    found = ask("""
        from providers import create_llm_provider, PluginError
        for _ in range(3):
            try:
                create_llm_provider("acme", "m")
            except PluginError:
                pass
        print(json.dumps(os.environ["TIMES"]))
    """)
    assert found == "x"


def test_a_plain_generator_is_quarantined_with_a_clear_sentence(ask: Any, install: Any) -> None:
    """Bad input 18."""
    source = plugin("acme").replace("async def generate", "def generate")
    install("acme", {"llm_providers": {"acme": "acme_plugin"}}, {"acme_plugin": source})
    reason = ask("""
        from providers import available_providers
        print(json.dumps(available_providers()["acme"].reason))
    """)
    assert "must be an async function with yield, and it is a plain generator: write `async def`" in reason
