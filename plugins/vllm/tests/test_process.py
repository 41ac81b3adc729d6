"""The process around the engine: its variables, its children, its end."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from llm_provider_vllm import VLLMProvider
from providers.exceptions import LLMProviderConfigurationError

from .conftest import COLORS, SMALL, Make, answer

HEAD = f"""
import asyncio, os, sys, threading
from llm_provider_vllm import VLLMProvider
OPTIONS = {{"max_tokens": 8, "llm_kwargs": {SMALL!r}}}

def provider(**more):
    return VLLMProvider(sys.argv[1], **OPTIONS, **more)

async def ask(found):
    return (await found.execute("Name three colors.")).content
"""


def run(tiny: Path, body: str, *, timeout: float = 240, guarded: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, which prints what it finds."""
    lines = textwrap.dedent(body).strip().splitlines()
    main = "\n".join(f"    {line}" for line in lines)
    program = f'{HEAD}\nif __name__ == "__main__":\n{main}\n' if guarded else HEAD + "\n".join(lines)
    file = Path("program.py")
    file.write_text(program, encoding="utf-8")
    command = [sys.executable, "-W", "error::ResourceWarning", str(file), str(tiny)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def children_of(text: str) -> list[int]:
    """Processes that a program has printed and that still run, seconds after its end."""
    deadline = time.monotonic() + 20
    while (left := _running(text)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _running(text: str) -> list[int]:
    found = [int(word) for line in text.splitlines() if line.startswith("children") for word in line.split()[1:]]
    return [pid for pid in found if Path(f"/proc/{pid}").exists() and "Z" not in _state(pid)]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


async def test_the_process_stays_as_it_was(make: Make) -> None:
    """The variables that this package sets for vLLM's start are gone afterwards, and so is what vLLM does to chance."""
    names = ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL", "LD_PRELOAD")
    before = {name: os.environ.get(name) for name in names}
    random.seed(11)
    state = random.getstate()
    provider = make()
    await provider.warm_cache()
    assert random.getstate() == state
    assert {name: os.environ.get(name) for name in names} == before
    assert (await answer(provider, COLORS)).ok


async def test_two_models_cannot_share_this_process(make: Make) -> None:
    """vLLM keeps state of the process for one engine; the error says what to do."""
    first = make(multiprocess=False)
    await first.warm_cache()
    with pytest.raises(LLMProviderConfigurationError, match="leave multiprocess out"):
        await make(multiprocess=False).execute(COLORS)
    assert (await answer(first, COLORS)).ok
    await first.close()
    assert (await answer(make(multiprocess=False), COLORS)).ok


def test_a_program_ends_cleanly(tiny: Path) -> None:
    """F-077: closed or not, in the middle of an answer or not: no word on stderr from us, no process left, status 0."""
    found = run(
        tiny,
        """
        async def main():
            one = provider()
            print(await ask(one))
            stream = one.stream("Tell me a story.", max_tokens=900, extra={"ignore_eos": True})
            async for event in stream:
                if event.type.value == "token":
                    break
            print("threads", [t.name for t in threading.enumerate() if t.name.startswith("vllm")])
            globals()["kept"] = (one, stream)
        asyncio.run(main())
        print("end")
        """,
        guarded=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.rstrip().endswith("end")
    assert "Traceback" not in found.stderr
    assert "ResourceWarning" not in found.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_says_so(tiny: Path) -> None:
    """A clear error in the child, at once, also from a new provider; the parent's engine lives on."""
    found = run(
        tiny,
        """
        one = provider()
        first = asyncio.run(ask(one))
        pid = os.fork()
        if pid == 0:
            for each in (one, provider()):
                try:
                    asyncio.run(ask(each))
                except NotImplementedError as error:
                    print("child", "spawn" in str(error), flush=True)
            asyncio.run(one.close())
            sys.exit(7)
        print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print("same", asyncio.run(ask(one)) == first)
        asyncio.run(one.close())
        """,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.count("child True") == 2
    assert "status 7" in found.stdout
    assert "same True" in found.stdout


@pytest.mark.slow
def test_an_engine_in_a_child_process(tiny: Path) -> None:
    """`multiprocess=True`: the same answers, streams that can be left, and no process behind when it is closed; one
    that is killed is made anew."""
    found = run(
        tiny,
        """
        async def main():
            one = provider(multiprocess=True)
            print("whole", await ask(one))
            text = ""
            async for event in one.stream("Name three colors."):
                text += event.data if event.type.value == "token" else ""
            print("same", text == await ask(one))
            async for event in one.stream("Tell me a story.", max_tokens=900, extra={"ignore_eos": True}):
                if event.type.value == "token":
                    break
            await asyncio.sleep(0.5)
            print("free", not one._found_engine._core.llm.llm_engine.has_unfinished_requests())
            import psutil
            print("children", *(child.pid for child in psutil.Process().children(recursive=True)))
            two = provider()
            print("second", await ask(two) == text)
            for child in psutil.Process().children(recursive=True):
                if "EngineCor" in child.name():
                    child.kill()
                    child.wait()
            print("again", await ask(one) == text)  # the first attempt finds the engine dead, the second loads it
            # What vLLM's watch does when it sees the process end, here just before a request goes out.
            one._found_engine._core.llm.llm_engine.engine_core.input_socket.close()
            print("third", await ask(one) == text)
            await one.close()
            await two.close()
        asyncio.run(main())
        """,
        timeout=600,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    for words in ("same True", "free True", "second True", "again True", "third True"):
        assert words in found.stdout
    assert "children " in found.stdout
    assert children_of(found.stdout) == []


@pytest.mark.slow
def test_a_child_process_needs_a_guard(tiny: Path) -> None:
    """Without `if __name__ == "__main__":` one error says so, and nothing hangs."""
    found = run(
        tiny,
        """
        try:
            asyncio.run(ask(provider(multiprocess=True)))
        except ValueError as error:
            print("error", error)
        """,
        guarded=False,
        timeout=300,
    )
    assert "__main__" in found.stdout, found.stdout + found.stderr[-2000:]


def test_importing_the_plugin_is_light() -> None:
    """F-019: no engine, no torch, no numpy."""
    program = (
        "import sys, llm_provider_vllm.plugin as p; p.llm_providers();"
        "print([n for n in ('vllm', 'torch', 'numpy', 'transformers', 'aiohttp', 'llguidance') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"


def test_the_provider_is_found_by_name() -> None:
    """F-004, F-171"""
    from providers import create_llm_provider

    assert isinstance(create_llm_provider("vllm", "some-model"), VLLMProvider)
