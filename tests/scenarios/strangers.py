"""Plugins of strangers, to be generated, built and installed: some are well, most go wrong in a way of their own."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

_PROVIDER = """
from providers import LLMProvider, StreamEvent, hookimpl

class {cls}(LLMProvider):
    name = {name!r}
    {more}

    async def generate(self, request):
        yield StreamEvent.token("{name} heard " + request.messages.last_text)
        yield StreamEvent.finish("stop")

@hookimpl
def llm_providers():
    return {{{name!r}: {cls}}}
"""


def provider(name: str, more: str = "") -> str:
    """Source of a module with a whole provider."""
    return _PROVIDER.format(name=name, cls=f"{name.title()}Provider", more=more)


@dataclass(frozen=True)
class Plugin:
    """A plugin to generate, build and install; it leaves a mark when it is imported.

    Attributes:
        name: last part of the distribution's name, and the entry point's name where `claims` has no other.
        source: what its module does after it has left its mark.
        claims: the entry point's name.
        target: what follows the module in the entry point's value.
        groups: further entry points.
    """

    name: str
    source: str
    claims: str | None = None
    target: str = ""
    groups: str = ""

    def write(self, folder: Path) -> Path:
        """Writes the project; gives its folder."""
        module = f"llm_provider_{self.name}"
        package = folder / self.name / module
        package.mkdir(parents=True)
        mark = f'import os, pathlib\npathlib.Path(os.environ["MARKS"], {self.name!r}).touch()\n'
        (package / "__init__.py").write_text(mark + self.source, encoding="utf-8")
        metadata = f"""
            [build-system]
            requires = ["hatchling"]
            build-backend = "hatchling.build"
            [project]
            name = "llm-provider-{self.name}"
            version = "1.2.3"
            dependencies = ["llm-provider-system"]
            [project.entry-points.llm_providers]
            "{self.claims or self.name}" = "{module}{self.target}"
            """
        text = textwrap.dedent(metadata) + textwrap.dedent(self.groups)
        (folder / self.name / "pyproject.toml").write_text(text, encoding="utf-8")
        return folder / self.name


_LENT = """
[project.entry-points."llm_providers.names"]
LendingProvider = "llm_provider_lending:LendingProvider"
BrokenName = "llm_provider_raising:Nothing"
[project.entry-points."llm_providers.default"]
"5.LENDING_SWITCH" = "lending"
"""
# The name that available_providers() shows, the package that brings it, and a part of the reason.
QUARANTINED = {
    "raising": ("llm-provider-raising", "RuntimeError: the mistake of its own"),
    "exiting": ("llm-provider-exiting", "SystemExit: it gives up"),
    "garbled": ("llm-provider-garbled", "SyntaxError"),
    "importing": ("llm-provider-importing", "No module named 'a_package_that_nobody_has'"),
    "vanished": ("llm-provider-vanished", "No module named 'llm_provider_vanished.no_such_module'"),
    "attribute": ("llm-provider-attribute", "no_such_attribute"),
    "toothless": ("llm-provider-toothless", "has no generate()"),
    "hookless": ("llm-provider-hookless", "has no function llm_providers() marked with @hookimpl"),
    "needy": ("llm-provider-needy", "needs the package a_package_that_nobody_has, which is not installed"),
    "odd name!": ("llm-provider-odd", "a provider's name must be letters, digits, '_' and '-'"),
}
PLUGINS = (
    Plugin("raising", 'raise RuntimeError("the mistake of its own")'),
    Plugin("exiting", 'import sys\nsys.exit("it gives up")'),
    Plugin("garbled", "def broken(:\n    pass"),
    Plugin("importing", "import a_package_that_nobody_has"),
    Plugin("vanished", "", target=".no_such_module"),
    Plugin("attribute", "", target=":no_such_attribute"),
    Plugin("toothless", "from providers import LLMProvider", target=":LLMProvider"),
    Plugin("hookless", "answer = 42"),
    Plugin("needy", provider("needy", 'requires = ("a_package_that_nobody_has",)')),
    Plugin("odd", provider("odd"), claims="odd name!"),
    Plugin("twinone", provider("twin"), claims="twin"),
    Plugin("twintwo", provider("twin"), claims="Twin"),
    Plugin("sleeping", 'import time\ntime.sleep(float(os.environ.get("SLEEP", "30")))\n' + provider("sleeping")),
    Plugin("interrupted", 'if "INTERRUPT" in os.environ:\n    raise KeyboardInterrupt\n' + provider("interrupted")),
    Plugin("lending", provider("lending"), groups=_LENT),
)
