"""Sessions and their loops: one each, closed with it or without it, forgotten by a fork (bad input 55 to 61).

Most of these run in a fresh interpreter with `-W error::ResourceWarning` and asyncio's debug mode; the server stays in
this process, so every socket of the program is its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def secured(serve: Any, secure: bool, request: pytest.FixtureRequest, script: Any = None) -> tuple[Any, Path | None]:
    tls = request.getfixturevalue("tls") if secure else None
    server = serve(script, tls) if script else serve.answering(serve.reply(), tls=tls)
    return server, request.getfixturevalue("certificate") if secure else None


both = pytest.mark.parametrize("secure", [False, True])


@both
def test_two_runs_one_after_another(serve: Any, run_script: Any, request: Any, secure: bool) -> None:
    """Bad input 55: no close() in between, and no socket is left when a loop has ended."""
    server, ca_file = secured(serve, secure, request)
    run_script(
        """
for _ in range(3):
    asyncio.run(ask())
    assert sockets() == 0, sockets()
asyncio.run(client.close())
asyncio.run(client.close())
""",
        server,
        ca_file,
    )
    assert len(server.requests) == len(server.connections) == 3


@both
def test_a_loop_that_ends_with_streams_and_calls_open(serve: Any, run_script: Any, request: Any, secure: bool) -> None:
    def script(connection: Any) -> None:
        while (asked := connection.request()) is not None:
            connection.send(serve.stream_head() if asked.target == "/stream" else serve.reply())
            if asked.target == "/stream":
                connection.chunk(b"data: a\n\n")
                connection.gone_after()

    server, ca_file = secured(serve, secure, request, script)
    run_script(
        """
kept = []
async def main():
    stream = client.stream("/stream", b"", timeout=30)
    assert await anext(stream) == (None, b"a")
    kept.append(stream)
    async def wait():
        async for _ in client.stream("/stream", b"", timeout=30):
            pass
    kept.append(asyncio.create_task(wait()))
    await asyncio.sleep(0.3)
    await ask()
asyncio.run(main())
assert sockets() == 0, sockets()
kept.clear()
asyncio.run(ask())
assert sockets() == 0, sockets()
""",
        server,
        ca_file,
    )


@both
def test_a_loop_closed_without_a_shutdown(serve: Any, run_script: Any, request: Any, secure: bool) -> None:
    """Its sockets are closed at the next use, or at the next close; both without a warning."""
    server, ca_file = secured(serve, secure, request)
    run_script(
        """
def old_style(what):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(what)
    loop.close()

old_style(ask())
assert sockets() == 1
old_style(ask())
assert sockets() == 1, "the first loop's is gone"
asyncio.run(ask())
assert sockets() == 0
old_style(ask())
assert sockets() == 1
client.close_nowait()
assert sockets() == 0
other = HttpClient(URL, headers={}, provider="test", ca_file=CA)
old_style(ask(other))
asyncio.run(other.close())
assert sockets() == 0
""",
        server,
        ca_file,
    )


def test_a_loop_closed_without_a_shutdown_while_a_stream_is_open(serve: Any, run_script: Any) -> None:
    def script(connection: Any) -> None:
        connection.request()
        connection.send(serve.stream_head())
        connection.chunk(b"data: a\n\n")
        connection.gone_after()

    run_script(
        """
stream = client.stream("/stream", b"", timeout=30)
loop = asyncio.new_event_loop()
assert loop.run_until_complete(anext(stream)) == (None, b"a")
loop.close()
assert sockets() == 1
client.close_nowait()
assert sockets() == 0
del stream, loop
gc.collect()
""",
        serve(script),
    )


def test_a_loop_closed_while_a_connection_is_being_made(serve: Any, run_script: Any) -> None:
    """A listener that accepts nothing: the connection hangs half-made when its loop is closed."""
    run_script(
        """
import socket
full = socket.socket()
full.bind(("127.0.0.1", 0))
full.listen(0)
held = []
for _ in range(3):
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(full.getsockname())
    held.append(one)
asyncio.run(ask())
before = sockets()
stuck = HttpClient("http://127.0.0.1:%d" % full.getsockname()[1], headers={}, provider="test")
loop = asyncio.new_event_loop()
task = loop.create_task(stuck.post("/", b"", timeout=30))
loop.run_until_complete(asyncio.sleep(0.1))
task._log_destroy_pending = False  # that a task was left pending is asyncio's complaint, not ours
loop.close()
assert sockets() == before + 1
asyncio.run(ask())
assert sockets() == before
for one in [full, *held]:
    one.close()
""",
        serve.answering(serve.reply()),
    )


@both
@pytest.mark.parametrize("ending", ["", "loop.close()", "asyncio.run(ask())\nloop.close()"])
def test_a_program_that_never_closes_anything(
    serve: Any, run_script: Any, request: Any, secure: bool, ending: str
) -> None:
    """Bad input 59: no complaint and no hang at the interpreter's end, whatever the program forgot."""
    server, ca_file = secured(serve, secure, request)
    # A loop that is still open at our exit hook has to be closed later, or asyncio complains about the loop itself.
    late = "" if ending else "atexit.register(loop.close)"
    run_script(
        f"""
import atexit
loop = asyncio.new_event_loop()
def at_the_very_end():
    assert sockets() == (2 if not loop.is_closed() else 0), sockets()
atexit.register(at_the_very_end)
{late}
loop.run_until_complete(ask())
{ending}
""",
        server,
        ca_file,
    )


def test_a_program_that_ends_while_a_thread_still_runs_its_loop(serve: Any, run_script: Any) -> None:
    run_script(
        """
loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever, daemon=True)
thread.start()
asyncio.run_coroutine_threadsafe(ask(), loop).result(10)
assert sockets() == 3
""",
        serve.answering(serve.reply()),
    )


@both
def test_closing_from_another_loop(serve: Any, run_script: Any, request: Any, secure: bool) -> None:
    """The loops of other threads close their part themselves, and close() waits for it."""
    server, ca_file = secured(serve, secure, request)
    run_script(
        """
loops = []
for _ in range(3):
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    loops.append(loop)
for loop in loops:
    asyncio.run_coroutine_threadsafe(ask(), loop).result(10)
assert sockets() == 9, "two of each loop are its own"

async def main():
    await ask()
    loops[0].call_soon_threadsafe(time.sleep, 0.3)
    await client.close()
    assert sockets() == 8, sockets()
asyncio.run(main())
for loop in loops:
    try:
        asyncio.run_coroutine_threadsafe(ask(), loop).result(10)
    except ProviderClosedError:
        pass
    else:
        raise SystemExit("used after close")
    loop.call_soon_threadsafe(loop.stop)
while any(loop.is_running() for loop in loops):
    time.sleep(0.01)
for loop in loops:
    loop.close()
assert sockets() == 0
""",
        server,
        ca_file,
    )


def test_a_server_that_never_says_goodbye(serve: Any, run_script: Any, tls: Any, certificate: Path) -> None:
    """A polite end of TLS waits for the other side, up to 30 s: a loop that ends before would leave the socket open."""

    def script(connection: Any) -> None:
        request = connection.request()
        if request.target == "/stream":
            connection.send(serve.stream_head())
            connection.chunk(b"data: a\n\n")
        connection.server.noted.wait(20)

    server = serve(script, tls)
    run_script(
        """
async def leave():
    async for _ in client.stream("/stream", b"", timeout=30):
        break
asyncio.run(leave())
assert sockets() == 0
async def wait():
    try:
        await client.post("/ask", b"", timeout=0.5)
    except LLMProviderTimeoutError:
        return
    raise SystemExit("no timeout")
asyncio.run(wait())
assert sockets() == 0
""",
        server,
        certificate,
    )
    server.note("end", 1)


@both
def test_closing_while_the_loop_stands_still(serve: Any, run_script: Any, request: Any, secure: bool) -> None:
    """The sockets go at once, and the loop can go on: its selector has forgotten them."""
    server, ca_file = secured(serve, secure, request)
    run_script(
        """
loop = asyncio.new_event_loop()
loop.run_until_complete(ask())
assert sockets() == 3
client.close_nowait()
assert sockets() == 2
other = HttpClient(URL, headers={}, provider="test", ca_file=CA)
for _ in range(3):
    loop.run_until_complete(ask(other))
assert sockets() == 3
asyncio.run(other.close())
assert sockets() == 2
loop.run_until_complete(asyncio.sleep(0.01))
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
assert sockets() == 0
""",
        server,
        ca_file,
    )
    assert len(server.connections) == 2


def test_closing_a_standing_loop_ends_its_calls_when_it_runs_again(serve: Any, run_script: Any) -> None:
    def script(connection: Any) -> None:
        connection.request()
        connection.send(serve.reply())
        connection.request()
        connection.gone_after()

    run_script(
        """
loop = asyncio.new_event_loop()
async def begin():
    await ask()
    task = asyncio.create_task(client.post("/ask", b"", timeout=30))
    await asyncio.sleep(0.2)
    return task
task = loop.run_until_complete(begin())
client.close_nowait()
assert sockets() == 2
try:
    loop.run_until_complete(task)
except ProviderClosedError:
    pass
else:
    raise SystemExit("no error")
loop.close()
""",
        serve(script),
    )


def test_threads_with_a_loop_each(serve: Any, run_script: Any) -> None:
    """Bad input 57: right answers to the right callers, and a session for every loop."""

    def script(connection: Any) -> None:
        while (asked := connection.request()) is not None:
            connection.send(serve.reply(asked.body))

    server = serve(script)
    run_script(
        """
wrong = []
def work(name):
    async def main():
        for number in range(20):
            body = f"{name}-{number}".encode()
            reply = await client.post("/ask", body, timeout=10)
            if reply.body != body:
                wrong.append((body, reply.body))
    try:
        asyncio.run(main())
    except BaseException as error:
        wrong.append(error)
threads = [threading.Thread(target=work, args=(name,)) for name in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert wrong == [], wrong
assert sockets() == 0, sockets()
""",
        server,
    )
    assert len(server.requests) == 400
    assert len(server.connections) == 20, "each loop keeps one connection"


def test_clients_share_a_session_and_the_last_one_closes_it(serve: Any, run_script: Any) -> None:
    server = serve.answering(serve.reply())
    run_script(
        """
async def main():
    others = [HttpClient(URL, headers={"X": str(n)}, provider="test") for n in range(5)]
    for other in others:
        await ask(other)
    assert sockets() == 3, "five clients, one connection"
    for other in others[:-1]:
        await other.close()
    await ask(others[-1])
    assert sockets() == 3
    await others[-1].close()
    assert sockets() == 2
    await ask()
    await client.close()
    assert sockets() == 2
asyncio.run(main())
""",
        server,
    )
    assert len(server.connections) == 2


def test_clients_that_are_dropped_without_close(serve: Any, run_script: Any) -> None:
    run_script(
        """
import weakref
async def main():
    other = HttpClient(URL, headers={}, provider="test")
    await ask(other)
    seen = weakref.ref(other)
    del other
    gc.collect()
    assert seen() is None, "the pool holds clients weakly"
    await ask()
    await client.close()
    assert sockets() == 2
asyncio.run(main())
""",
        serve.answering(serve.reply()),
    )


FORK = """
ready, go = threading.Event(), threading.Event()
stream_kept = []
def background():
    async def main():
        await ask()
        if STREAM:
            stream = client.stream("/stream", b"", timeout=30)
            assert await anext(stream) == (None, b"a")
            stream_kept.append(stream)
        ready.set()
        while not go.is_set():
            await asyncio.sleep(0.01)
        await ask()
        if STREAM:
            assert [data async for _, data in stream_kept[0]] == [b"b"]
    asyncio.run(main())
thread = threading.Thread(target=background)
thread.start()
ready.wait(10)
before = sockets()
child = os.fork()
if child == 0:
    code = 1
    try:
        assert sockets() == 2, f"only the loop's own pair is inherited, not {sockets()}"
        asyncio.run(ask())
        asyncio.run(ask())
        gc.collect()
        assert sockets() == 2
        code = 0
    finally:
        sys.stderr.flush()
        LEAVE(code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert sockets() == before
go.set()
thread.join()
asyncio.run(client.close())
assert sockets() == 0
"""


@both
@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
@pytest.mark.parametrize("stream", [False, True])
def test_fork(serve: Any, run_script: Any, request: Any, secure: bool, leave: str, stream: bool) -> None:
    """Bad input 56: the child starts afresh, and the parent's connections do not even notice.

    A byte, an end of TLS or a change of the shared epoll from the child would break the parent's second call, which
    has to come over its first connection.
    """

    def script(connection: Any) -> None:
        while (asked := connection.request()) is not None:
            if asked.target == "/ask":
                connection.send(serve.reply())
                continue
            connection.send(serve.stream_head())
            connection.chunk(b"data: a\n\n")
            connection.server.noted.wait(10)
            connection.chunk(b"data: b\n\n")
            connection.send(b"0\r\n\r\n")

    def counting(connection: Any) -> None:
        if len(connection.server.connections) > (2 if stream else 1):
            connection.server.note("child", 1)
        script(connection)

    server, ca_file = secured(serve, secure, request, counting)
    run_script(f"STREAM = {stream}; LEAVE = {leave}" + FORK, server, ca_file)
    first, *others = server.connections
    asked = [[one.target for one in connection.requests] for connection in (first, *others)]
    assert asked == [["/ask", "/stream", "/ask"] if stream else ["/ask", "/ask"], ["/ask"], ["/ask"]]


def test_no_descriptors_left(serve: Any, run_script: Any) -> None:
    """Bad input 61: the usual error at the limit, and recovery when descriptors are free again."""

    def script(connection: Any) -> None:
        connection.request()
        connection.send(serve.reply(Connection="close"))

    run_script(
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
async def main():
    await ask()
    held = []
    while True:
        try:
            held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            break
    for _ in range(3):
        try:
            await ask()
        except LLMProviderConnectionError as error:
            assert "Too many open files" in str(error), error
        else:
            raise SystemExit("no error")
    for number in held:
        os.close(number)
    await ask()
    await asyncio.gather(*(ask() for _ in range(20)))
asyncio.run(main())
assert sockets() == 0
""",
        serve(script),
    )


def test_importing_the_room_costs_nothing(serve: Any, run_script: Any) -> None:
    server = serve.answering(serve.reply())
    out = run_script(
        """
heavy = {"aiohttp", "orjson", "ssl", "yarl", "multidict", "email", "urllib.request", "json", "pydantic"}
print(sorted(heavy & set(sys.modules)))
HttpClient("https://host/v1", headers={"a": "b"}, provider="test")
print(sorted(heavy & set(sys.modules)))
""",
        server,
    )
    # asyncio itself imports ssl
    assert out == "['ssl']\n['ssl']\n"
    assert server.connections == []
