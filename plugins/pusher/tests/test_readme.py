"""The README's python runs as it stands, and the name is lent by the front door."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from llm_provider_pusher import PusherStreamer
from providers.settings import all_variables
from providers.sources import forget_files
from providers.testing import LoopbackServer, RecordedRequest, Reply
from tests.documentation.blocks import blocks_of
from tests.scenarios.vendor import Vendor

from .conftest import APP, KEY, SECRET, check_signature
from .test_settings import PusherSettings

README = Path(__file__).parents[1] / "README.md"
POINTS = entry_points(group="llm_providers.names", name="PusherStreamer")
installed = pytest.mark.skipif(not POINTS, reason="the distribution is not installed here")


@installed
def test_the_entry_point_leads_here() -> None:
    """F-105, F-109."""
    [point] = POINTS
    assert point.load() is PusherStreamer


@installed
def test_the_snippets_run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """F-105."""
    pytest.importorskip("llm_provider_openai")
    names: list[str] = []

    def take(request: RecordedRequest) -> Reply:
        check_signature(request)
        body = request.json
        names.extend(one["name"] for one in body.get("batch", [body]))
        return Reply.json({})

    blocks = [block for block in blocks_of(README) if block.language == "python"]
    assert len(blocks) == 2
    with LoopbackServer() as pusher, LoopbackServer() as server:
        pusher.script("*", take, repeat=True)
        Vendor(say=lambda heard: "Paris", key="sk-1").play(server)
        for name, value in (
            ("PUSHER_APP_ID", APP),
            ("PUSHER_KEY", KEY),
            ("PUSHER_SECRET", SECRET),
            ("PUSHER_HOST", pusher.url),
            ("OPENAI_API_KEY", "sk-1"),
            ("OPENAI_BASE_URL", f"{server.url}/v1"),
            ("DEFAULT_MODEL_NAME", "gpt-4o-mini"),
        ):
            monkeypatch.setenv(name, value)
        forget_files()
        for block in blocks:
            block.run({"__name__": "__main__"})
    assert capfd.readouterr().out.splitlines() == ["Paris", "Paris"]
    assert {"llm.token", "llm.done", "chat.token", "chat.done"} <= set(names)


def test_every_setting_is_documented() -> None:
    """F-060."""
    text = README.read_text(encoding="utf-8")
    for variable in all_variables(PusherSettings):
        assert f"`{variable}`" in text
    arguments: Any = PusherStreamer.__init__.__annotations__.keys() - {"return"}
    assert set(arguments) == set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
