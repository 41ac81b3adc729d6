"""One provider object in every loop, thread and process; what is left open, and how a program ends, is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from providers.testing import LoopbackServer

from .vendor import KEY, Vendor, prompt_of

PROGRAMS = Path(__file__).with_name("programs")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A chat server that says back what it hears."""
    with LoopbackServer() as server:
        Vendor(pause=0.002).play(server)
        yield server


class Program:
    """A running program under test, in development mode, with unclosed resources as errors."""

    def __init__(self, name: str, *words: str, server: LoopbackServer, **env: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LLM_PROVIDERS_", "DEFAULT_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-X", "dev", str(PROGRAMS / f"{name}.py"), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**kept, "OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": KEY, **env},
        )

    def reach(self, word: str, within: float = 30) -> None:
        """Waits until the program says a word; one that does not is ended after `within` seconds."""
        assert self.process.stdout is not None
        watch = threading.Timer(within, self.process.kill)
        watch.start()
        try:
            if any(line.strip() == word for line in self.process.stdout):
                return
        finally:
            watch.cancel()
        _, stderr = self.process.communicate(timeout=10)
        pytest.fail(f"the program ended before it said {word!r}, with {self.process.returncode}\n{stderr}")

    def go_on(self) -> None:
        """Lets the program go on from where it waits."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self, within: float, status: int = 0) -> str:
        """Waits for the end, which must come in time, with this status and in silence; gives what was printed."""
        began = time.monotonic()
        try:
            stdout, stderr = self.process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, stderr = self.process.communicate()
            pytest.fail(f"the program still ran after {time.monotonic() - began:.1f} s\n{stderr}")
        assert stderr == ""
        assert self.process.returncode == status
        return stdout


@pytest.fixture
def start(server: LoopbackServer) -> Iterator[Callable[..., Program]]:
    """Starts programs that talk to `server`; none outlives the test."""
    started: list[Program] = []

    def begin(name: str, *words: str, **env: str) -> Program:
        started.append(Program(name, *words, server=server, **env))
        return started[-1]

    yield begin
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
        program.process.communicate()


@pytest.mark.parametrize("name", ["openai", "echo", pytest.param("llamacpp", marks=pytest.mark.slow)])
def test_one_provider_everywhere(name: str, start: Callable[..., Program], server: LoopbackServer) -> None:
    """F-143, F-172: plain script, running loop, eight threads, two runs, forked and spawned children; nothing is left.

    Every answer is checked against its prompt, so that none reaches another caller.
    """
    program = start("every_way", name)
    program.reach("used")
    # Loops that have ended closed what they had. The sync face's loop lives on, with what it keeps for the next call.
    assert server.wait_until(lambda: server.open_connections <= 8, 2), server.open_connections
    program.go_on()
    program.reach("closed")
    assert server.wait_until(lambda: server.open_connections == 0, 2), server.open_connections
    program.go_on()
    program.end(within=20)
    if name == "openai":
        texts = [prompt_of(request) for request in server.requests]
        for place in (
            "plain script",
            "second run",
            "inside a loop",
            "thread 7",
            "forked",
            "multiprocessing",
            "spawned",
        ):
            assert any(place in text for text in texts) or not hasattr(os, "fork"), place
        assert server.count() == len(texts) == len([text for text in texts if text]), "a call was sent twice"
        assert server.connections < server.count(), "no connection was used twice"


@forks
def test_a_forked_child_holds_nothing_of_its_parents(start: Callable[..., Program], server: LoopbackServer) -> None:
    """F-143, bad input 56: connections that the parent closes are closed, though a child that was forked lives on."""
    program = start("forked_child_lives")
    program.reach("closed")
    assert server.count() == 2
    assert server.wait_until(lambda: server.open_connections == 0, 2), server.open_connections
    program.go_on()
    program.reach("the child lived")
    program.end(within=10)
    assert server.count() == 3


@pytest.mark.parametrize(
    ("how", "requests"),
    [
        ("sync_in_a_thread", 1),
        ("stream_in_a_thread", 1),
        ("loop_in_a_thread", 1),
        ("tasks_of_a_run", 5),
        ("half_read_sync_stream", 1),
        ("nothing_open", 3),
        ("loop_closed_by_hand", 1),
    ],
)
@pytest.mark.parametrize("status", [0, 7])
def test_a_program_ends_with_a_request_open(
    how: str, requests: int, status: int, start: Callable[..., Program], server: LoopbackServer
) -> None:
    """Bad input 59: the interpreter exits at once, says nothing, keeps its status, and the server sees the end."""
    program = start("exit_at_work", how, **({"RAISE": "1"} if status else {}))
    program.reach("waiting")
    assert server.wait_until(lambda: server.count() == requests, 5), server.requests
    program.go_on()
    program.end(within=5, status=status)
    assert server.wait_until(lambda: server.open_connections == 0, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of descriptors here")
@pytest.mark.parametrize("retries", [0, 4])
def test_few_descriptors(retries: int, start: Callable[..., Program]) -> None:
    """Bad input 61: 200 calls at once with 64 descriptors give answers or our errors; then all calls work again."""
    said = start("few_descriptors", str(retries)).end(within=40).splitlines()
    kinds = json.loads(said[0].replace("'", '"'))
    assert sum(kinds.values()) == 200
    assert kinds["answer"] >= 40
    assert kinds.get("LLMProviderConnectionError", 0) + kinds["answer"] == 200, kinds
    if retries == 0:
        assert kinds["LLMProviderConnectionError"] > 0, "the limit was not met, so nothing was tested"
    assert said[1] == "recovered"


def test_clearing_the_cache_during_streams(start: Callable[..., Program], server: LoopbackServer) -> None:
    """F-140: a dropped provider lives until its last stream, in whichever loop, has ended; then it is closed."""
    program = start("clear_cache")
    program.reach("the old one rested")
    program.reach("cleared")
    assert server.wait_until(lambda: server.open_connections == 0, 2), server.open_connections
    program.go_on()
    program.end(within=10)
