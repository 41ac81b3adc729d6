"""Other Pythons that a test starts, hears and kills."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from subprocess import PIPE

Process = subprocess.Popen[bytes]

_PATIENCE = 60.0


def python(*arguments: str) -> list[str]:
    """The command for another Python in which each warning is an error."""
    return [sys.executable, "-W", "error", *arguments]


@contextmanager
def started(commands: Sequence[Sequence[str]], patience: float = _PATIENCE) -> Iterator[list[Process]]:
    """Processes that are killed at the end, and after some seconds in any case.

    Args:
        commands: of each process.
        patience: seconds after which one is killed; the test then reads the end of what it says.
    """
    with ExitStack() as stack:
        processes: list[Process] = []
        for command in commands:
            process = stack.enter_context(subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE))
            stack.callback(process.kill)
            timer = threading.Timer(patience, process.kill)
            timer.start()
            stack.callback(timer.join)
            stack.callback(timer.cancel)
            processes.append(process)
        yield processes


def hear(process: Process, word: str) -> None:
    """Wait for a line.

    Raises:
        AssertionError: the process says another one, or has ended.
    """
    assert process.stdout is not None
    said = process.stdout.readline()
    if said.strip() != word.encode():
        process.kill()
        raise AssertionError(f"{said!r} in place of {word}: {process.communicate()[1].decode(errors='replace')}")


def tell(process: Process, word: str) -> None:
    """Send a line."""
    assert process.stdin is not None
    process.stdin.write(f"{word}\n".encode())
    process.stdin.flush()


def finish(process: Process) -> None:
    """Wait for the end of a process.

    Raises:
        AssertionError: it failed, or said something about errors.
    """
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, b""), errors.decode(errors="replace")
