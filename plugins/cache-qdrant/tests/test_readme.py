"""The README says what the code does."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from llm_provider_cache_qdrant import QdrantCache
from llm_provider_cache_qdrant.bound import MOST_HERE

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_options() -> None:
    """Each argument is named, and those in the table with their defaults."""
    parameters = inspect.signature(QdrantCache).parameters
    for name in parameters.keys() - {"clock", "self"}:
        assert f"`{name}" in README, name
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", README, re.MULTILINE))
    assert len(rows) >= 6
    for name, default in rows.items():
        found = parameters[name].default
        assert default in (str(found), getattr(found, "__name__", "")), name
    assert parameters["max_bytes"].default == 256 * 2**20
    assert f"{MOST_HERE:,} answers at most" in README


def test_code() -> None:
    """It is Python, and awaits what it should."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)
