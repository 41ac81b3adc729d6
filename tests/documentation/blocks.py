"""Fenced blocks of a markdown file, and a way to run one as it stands, top-level `await` included."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        path: the file.
        line: number of its first line of code.
        language: what stands behind the fence, or `""`.
        heading: the heading above it, without pictures in front.
        code: its text.
    """

    path: Path
    line: int
    language: str
    heading: str
    code: str

    def run(self, names: dict[str, Any]) -> dict[str, Any]:
        """Runs it verbatim in a namespace, inside an event loop where it awaits; gives the namespace.

        A traceback points into the markdown file.
        """
        source, flags = "\n" * (self.line - 1) + self.code, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, str(self.path), "exec", flags, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(_awaited(code, names))
        else:
            exec(code, names)
        return names


async def _awaited(code: Any, names: dict[str, Any]) -> None:
    await eval(code, names)


def blocks_of(path: Path) -> list[Block]:
    """Every fenced block of a markdown file, in order."""
    text = path.read_text(encoding="utf-8")
    # Comments of a block begin as headings do.
    bare = _FENCED.sub(lambda match: " " * len(match[0]), text)
    headings = [(match.start(), re.sub(r"^[^\w`]+", "", match[1]).strip()) for match in _HEADING.finditer(bare)]
    found = []
    for match in _FENCE.finditer(text):
        above = [heading for start, heading in headings if start < match.start()]
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(Block(path, line, match[1], above[-1] if above else "", match[2]))
    return found
