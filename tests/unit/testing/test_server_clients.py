"""The loopback server and its clients: who left and when, secrets, crowds, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import socket
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from providers.testing.server import Fault, LoopbackServer, RecordedRequest, Reply


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as started:
        yield started


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        yield session


def ask(server: LoopbackServer, path: str = "/x") -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)), timeout=5)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return sock


# --- clients that leave

DUE: dict[str, Callable[[], Reply]] = {
    "endless": lambda: Reply.sse(itertools.count()),
    "paced": lambda: Reply.sse(itertools.count(), pause=0.01),
    "long pause": lambda: Reply.sse(itertools.count(), pause=30),
    "stall": lambda: Fault.stall(Reply.sse(["a", "b"]), after_events=1),
    "stall in a body": lambda: Fault.stall(Reply.text("abc"), after_bytes=1),
    "delay": lambda: Fault.delay(30, Reply.text("late")),
    "silence": Fault.silence,
}


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("due", DUE)
def test_a_client_that_leaves_is_noticed_at_once(server: LoopbackServer, due: str, reset: bool) -> None:
    server.script("/x", DUE[due]())
    with ask(server) as sock:
        assert server.wait_until(lambda: server.count("/x"))
        if due not in {"delay", "silence"}:
            assert sock.recv(10)
        assert server.disconnects == 0
        assert not server.wait_for_disconnect(0.02)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    left = time.monotonic()
    assert server.wait_for_disconnect(1.0)
    [request] = server.requests
    assert request.client_disconnected
    assert request.closed_at is not None
    assert request.closed_at - left < 0.5
    assert request.answered_at is None
    assert server.wait_until(lambda: server.open_connections == 0)


async def test_the_end_of_a_client_library_stream_is_noticed(
    server: LoopbackServer, client: aiohttp.ClientSession
) -> None:
    closed = threading.Event()

    def tokens() -> Iterator[object]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    server.script("/x", Reply.sse(tokens, pause=0.005), repeat=True)
    async with client.get(f"{server.url}/x") as answer:
        assert (await answer.content.readline()) == b"data: 0\n"
        assert server.disconnects == 0
    assert await server.eventually(lambda: server.disconnects == 1)
    assert await asyncio.to_thread(closed.wait, 1)
    assert await server.eventually(lambda: server.open_connections == 0)

    reading = asyncio.create_task(client.get(f"{server.url}/x"))
    assert await server.eventually(lambda: server.count("/x") == 2)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    if not reading.cancelled():
        reading.result().close()
    assert await server.eventually(lambda: server.disconnects == 2)
    assert not await server.eventually(lambda: server.disconnects == 3, within=0.02)


async def test_a_client_that_has_its_answer_may_leave(server: LoopbackServer) -> None:
    server.script("/s", Reply.sse(["a"]), repeat=True)
    server.script("/j", Reply.bytes(b"x" * 3_000_000), repeat=True)
    for path in ("/s", "/j") * 10:
        async with aiohttp.ClientSession() as session, session.get(server.url + path) as answer:
            await answer.read()
    assert await server.eventually(lambda: server.open_connections == 0)
    assert (server.count(), server.disconnects) == (20, 0)
    assert all(request.answered_at for request in server.requests)


def test_a_request_whose_client_left_at_once_is_recorded(server: LoopbackServer) -> None:
    server.script("/x", Fault.silence(), repeat=True)
    for _ in range(50):
        ask(server).close()
    assert server.wait_until(lambda: server.count("/x") == server.disconnects == 50)


def test_a_client_that_reads_slowly_slows_an_endless_stream(server: LoopbackServer) -> None:
    made = 0

    def blocks() -> Iterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"x" * 100_000

    server.script("/x", Reply.stream(blocks))
    with ask(server) as sock:
        sock.recv(10)
        time.sleep(0.2)
        paused = made
        time.sleep(0.1)
        assert made == paused  # Full are the buffers of the kernel, not our own.
        assert paused < 200
        for _ in range(1000):
            sock.recv(1 << 20)
        assert made > paused


async def test_waiting_does_not_block_a_running_loop(server: LoopbackServer) -> None:
    with pytest.raises(RuntimeError, match="eventually"):
        server.wait_for_disconnect()
    began = time.monotonic()
    assert not await server.eventually(lambda: server.count(), within=0.05)
    assert 0.04 < time.monotonic() - began < 1


# --- secrets


async def test_no_repr_shows_a_secret(server: LoopbackServer, client: aiohttp.ClientSession) -> None:
    secret = "canary-81f3"
    names = ["Authorization", "X-API-Key", "x-goog-api-key", "api-key", "Cookie", "Proxy-Authorization", "X-Auth-Token"]
    server.script("*", Reply.json({}), repeat=True)
    headers = dict.fromkeys(names, f"Bearer {secret}") | {"X-Plain": "shown"}
    async with client.post(f"{server.url}/x?key={secret}", headers=headers, json={"key": secret}) as answer:
        assert answer.status == 200
    [request] = server.requests
    assert all(request.headers[name] == f"Bearer {secret}" for name in names)
    for shown in (repr(request), str(request), f"{request.headers}", repr(server.requests), repr(server)):
        assert secret not in shown
    assert "POST /x" in repr(request)
    assert "'x-plain': 'shown'" in repr(request)
    assert request.headers.all("authorization") == [f"Bearer {secret}"]
    assert "missing" not in request.headers


# --- crowds


async def test_hundreds_of_connections_at_once(server: LoopbackServer) -> None:
    crowd, full = 400, asyncio.Event()

    async def gate(request: RecordedRequest) -> Reply:
        if server.count() == crowd:
            full.set()
        await full.wait()
        return Reply.json(request.json)

    server.script("/x", gate, repeat=True)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call(n: int) -> object:
            async with session.post(f"{server.url}/x", json=n) as answer:
                return await answer.json()

        assert await asyncio.gather(*(call(n) for n in range(crowd))) == list(range(crowd))
        assert server.connections == server.open_connections == crowd


def test_threads_script_while_the_server_serves(server: LoopbackServer) -> None:
    def work(n: int) -> set[bytes]:
        seen = set()
        for round_ in range(10):
            text = f"{n}-{round_}"
            server.script(f"/{n}", Reply.text(text, headers={"Connection": "close"}))
            with ask(server, f"/{n}") as sock:
                wire = b"".join(iter(lambda: sock.recv(65536), b""))
            assert wire.endswith(f"\r\n\r\n{text}".encode())
            seen.add(wire)
        return seen

    with ThreadPoolExecutor(8) as pool:
        assert sum(len(seen) for seen in pool.map(work, range(8))) == 80
    assert (server.count(), server.count("/3")) == (80, 10)


# --- nothing stays behind


def sockets() -> int | None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return None
    links = []
    for entry in folder.iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            continue
    return sum(link.startswith(("socket:", "anon_inode:[eventpoll]")) for link in links)


def test_close_leaves_no_thread_task_or_socket() -> None:
    gc.collect()
    threads, before = set(threading.enumerate()), sockets()
    ended = []

    async def held(request: RecordedRequest) -> Reply:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(request.path)
        raise AssertionError("unreachable")

    async def tokens() -> AsyncIterator[object]:
        try:
            for n in itertools.count():
                yield n
                await asyncio.sleep(0.001)
        finally:
            ended.append("tokens")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ExitStack() as clients, LoopbackServer() as server:
            server.script("/held", held, repeat=True)
            server.script("/x", Reply.sse(tokens), Fault.silence(), Fault.delay(30, Reply.json(1)), repeat=True)
            for path in ["/held", "/x", "/x", "/x", "/held"]:
                clients.enter_context(ask(server, path))
            assert server.wait_until(lambda: server.count() == 5)
            url = server.url
            began = time.monotonic()
            server.close()
            assert time.monotonic() - began < 0.5
            assert sorted(ended) == ["/held", "/held", "tokens"]
            assert server.open_connections == server.disconnects == 0
            assert set(threading.enumerate()) == threads
            server.close()
            assert server.url == url
            with pytest.raises(ConnectionRefusedError):
                ask(server)
        gc.collect()
    assert sockets() == before
    with pytest.raises(RuntimeError, match="once"):
        server.start()
    with pytest.raises(RuntimeError, match="before it is started"):
        _ = LoopbackServer().url


def test_connections_that_come_in_while_it_closes_are_closed_too() -> None:
    gc.collect()
    before = sockets()
    server, blocked, go_on = LoopbackServer().start(), threading.Event(), threading.Event()

    def block(request: RecordedRequest) -> Reply:
        server.script("*", *[Fault.refuse()] * 10)
        blocked.set()
        assert go_on.wait(5)
        return Reply.json({})

    server.script("/x", block)
    with ExitStack() as clients:
        clients.enter_context(ask(server))
        assert blocked.wait(5)
        for _ in range(20):
            clients.enter_context(ask(server, "/y"))
        closing = threading.Thread(target=server.close)
        closing.start()
        time.sleep(0.1)  # The wish to close is there before the server sees the first of the twenty.
        go_on.set()
        closing.join()
    assert server.connections == 21
    assert server.open_connections == 0
    assert server.errors == []
    gc.collect()
    assert sockets() == before


async def test_it_is_an_asynchronous_context_too(client: aiohttp.ClientSession) -> None:
    async with LoopbackServer() as server:
        server.script("/x", Reply.json([]))
        async with client.get(f"{server.url}/x") as answer:
            assert await answer.json() == []
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.get(f"{server.url}/x")
