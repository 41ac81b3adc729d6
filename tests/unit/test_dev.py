"""The task runner: what reaches pytest, and what it says where engines are not pinned."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dev
import pytest

from scripts import environments

ENGINES = [f"plugins/{name}/tests" for name in dev.ENGINES]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ENGINES),
        (["-x", "-k", "stream"], ["-x", "-k", "stream", *ENGINES]),
        (["plugins/mlx/tests"], ["plugins/mlx/tests"]),
        (["-x", "tests/unit/test_dev.py::test_x"], ["-x", "tests/unit/test_dev.py::test_x"]),
        (["-k", ""], ["-k", "", *ENGINES]),
    ],
)
def test_options_alone_do_not_change_which_tests_of_engines_run(given: list[str], expected: list[str]) -> None:
    assert dev.tests_of(dev.ENGINES, given) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="its uv is a script with a first line")
def test_why_torch_was_not_found_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """The places of the user are asked first, then torch's own index; both reasons are told."""
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(environments, "command", lambda *words, **_: seen.append(words))
    uv = tmp_path / "uv"
    uv.write_text(f"#!{sys.executable}\nimport sys; sys.exit('no such wheel')\n", encoding="utf-8")
    uv.chmod(0o755)
    environments.install_torch(str(uv), environments.LOCAL, {})
    assert [words[-1] for words in seen] == ["--torch-backend=cpu"]
    assert "no such wheel" in capsys.readouterr().err


def test_pins_of_engines_know_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not environments.pinned_for_here()
