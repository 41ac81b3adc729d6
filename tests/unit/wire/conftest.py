"""A real server on loopback for the tests of the wire: blocking sockets, so that a test decides about every byte."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"


@dataclass
class Request:
    """What the server read."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """The server's side of one connection, in a thread of its own."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock = sock
        self.server = server
        self.buffer = b""
        self.requests: list[Request] = []
        self.sent_eof = False

    def _more(self) -> bool:
        try:
            piece = self.sock.recv(65536)
        except OSError:
            piece = b""
        self.buffer += piece
        return bool(piece)

    def request(self) -> Request | None:
        """Read the next request, `None` at the end of the connection."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                self.sent_eof = True
                return None
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (item.partition(":") for item in fields)}
        length = int(headers.get("content-length", "0"))
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        if len(body) < length:
            with self.sock.makefile("rb") as rest:
                body += rest.read(length - len(body))
            if len(body) < length:
                return None
        method, target, _ = line.split(" ")
        request = Request(method, target, headers, body)
        self.requests.append(request)
        self.server.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def reset(self) -> None:
        """Send RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def gone_after(self, limit: float = 5.0) -> float:
        """Wait until the client closes; returns the seconds that it took, `limit` if it did not."""
        began = time.monotonic()
        self.sock.settimeout(limit)
        try:
            while self.sock.recv(65536):
                pass
        except TimeoutError:
            return limit
        except OSError:
            pass
        return time.monotonic() - began


Script = Callable[[Connection], object]


@dataclass
class Server:
    """Accepts connections and runs the script for each."""

    script: Script
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)
    noted: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            connection = Connection(sock, self)
            self.connections.append(connection)
            with contextlib.suppress(OSError):
                self.script(connection)
        except OSError:
            pass
        finally:
            sock.close()

    def note(self, name: str, value: float) -> None:
        self.notes[name] = value
        self.noted.set()

    async def noticed(self, name: str) -> float:
        """Wait, with the loop running, for what the script notes."""
        assert await asyncio.to_thread(self.noted.wait, 10), f"the server noted nothing, not {name}"
        return self.notes[name]

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)


class Serve:
    """Starts servers; also knows how replies look."""

    def __init__(self) -> None:
        self.servers: list[Server] = []

    def __call__(self, script: Script, tls: ssl.SSLContext | None = None) -> Server:
        server = Server(script, tls)
        self.servers.append(server)
        return server

    def answering(self, *replies: bytes, tls: ssl.SSLContext | None = None) -> Server:
        """A server that gives these replies one after another, and the last one for ever."""
        waiting = list(replies)

        def script(connection: Connection) -> None:
            while connection.request() is not None:
                connection.send(waiting.pop(0) if len(waiting) > 1 else waiting[0])

        return self(script, tls)

    @staticmethod
    def reply(body: bytes = b'{"ok": true}', status: int = 200, **headers: str) -> bytes:
        """A whole reply; `content_type` stands for `Content-Type`, and so on."""
        fields = {"content_type": "application/json", "content_length": str(len(body))}
        fields.update({name.lower(): value for name, value in headers.items()})
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
        return f"HTTP/1.1 {status} Some Reason\r\n{head}\r\n".encode() + body

    @staticmethod
    def stream_head(**headers: str) -> bytes:
        fields = {"content_type": "text/event-stream", "transfer_encoding": "chunked"}
        fields.update({name.lower(): value for name, value in headers.items()})
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
        return f"HTTP/1.1 200 OK\r\n{head}\r\n".encode()

    @staticmethod
    def gzip(data: bytes) -> bytes:
        return gzip.compress(data)


@pytest.fixture
def serve() -> Iterator[Serve]:
    starter = Serve()
    yield starter
    for server in starter.servers:
        server.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a certificate for 127.0.0.1 and its key, made for this run."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command, which makes the certificate, is missing")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem".split(),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem"


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


PRELUDE = """
import asyncio, gc, os, sys, threading, time
from providers.exceptions import *
from providers.wire import HttpClient

URL, CA = sys.argv[1], sys.argv[2] or None
client = HttpClient(URL, headers={"Authorization": "Bearer sk-canary-123456"}, provider="test", ca_file=CA)

def sockets():
    gc.collect()
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            pass
    return count

async def ask(using=None):
    reply = await (using or client).post("/ask", b"{}", timeout=10)
    assert reply.body == b'{"ok": true}', reply.body
"""


@pytest.fixture
def run_script() -> Callable[..., str]:
    """Run a program in a fresh interpreter where every leak is an error; its standard error has to stay empty."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("open sockets are counted in /proc")

    def run(code: str, server: Server, ca_file: Path | None = None) -> str:
        environment = {**os.environ, "PYTHONASYNCIODEBUG": "1", "PYTHONPATH": str(SOURCE)}
        # From 3.12 on, fork() itself warns where there are threads.
        strict = ["-W", "error::ResourceWarning", "-W", "error::RuntimeWarning", "-W", "ignore:This process"]
        done = subprocess.run(
            [sys.executable, *strict, "-c", PRELUDE + code, server.url, str(ca_file or "")],
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
        )
        # Slow machines make asyncio's debug mode speak of slow callbacks; that is no leak.
        told = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
        assert told == [], done.stderr
        assert done.returncode == 0
        return done.stdout

    return run
