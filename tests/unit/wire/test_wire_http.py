"""Whole replies from a real server on loopback: what is sent, what comes back, and every way to fail."""

# ruff: noqa: ASYNC109, ASYNC110 (the timeouts under test are parameters; the server is in another thread)
from __future__ import annotations

import asyncio
import logging
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from providers import exceptions as e
from providers.wire import HttpClient, encode_json

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"),
]

KEY = "sk-canary-0123456789"


def client_of(server: Any, **options: Any) -> HttpClient:
    headers = {"Authorization": f"Bearer {KEY}"}
    return HttpClient(server.url, **{"headers": headers, "provider": "test", "proxy": "", **options})


async def ask(server: Any, timeout: float | None = 10, **options: Any) -> Any:
    client = client_of(server, **options)
    try:
        return await client.post("/v1/ask", b'{"q": 1}', timeout=timeout)
    finally:
        await client.close()


async def test_a_reply_and_what_was_sent(serve: Any) -> None:
    server = serve.answering(serve.reply(b'{"a": 1}', 201, X_Request_Id="r1"))
    reply = await ask(server)
    assert (reply.status, reply.body, reply.request_id) == (201, b'{"a": 1}', "r1")
    assert reply.headers["content-type"] == reply.headers["Content-Type"] == "application/json"
    [sent] = server.requests
    assert (sent.method, sent.target, sent.body) == ("POST", "/v1/ask", b'{"q": 1}')
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["accept"] == "application/json"
    assert sent.headers["accept-encoding"] == "gzip, deflate"
    assert sent.headers["content-length"] == "8"


async def test_request_id_falls_back(serve: Any) -> None:
    assert (await ask(serve.answering(serve.reply(Request_Id="r2")))).request_id == "r2"
    assert (await ask(serve.answering(serve.reply()))).request_id is None


async def test_get_delete_and_uploads(serve: Any) -> None:
    server = serve.answering(serve.reply())
    client = client_of(server)
    await client.get("/files?limit=2", timeout=5)
    await client.delete("files/a%20b", timeout=5)
    await client.request("PUT", "/files", b"\x00raw", timeout=5, headers={"content-type": "multipart/x", "X-More": "1"})
    await client.post("/ask", b"{}", timeout=5, headers={"Authorization": "Bearer other"})
    await client.post("/ask", b"{}", timeout=5)
    await client.close()
    got, deleted, put, other, usual = server.requests
    assert (got.method, got.target, got.body, got.headers.get("content-type")) == ("GET", "/files?limit=2", b"", None)
    assert (deleted.method, deleted.target) == ("DELETE", "/files/a%20b")
    assert (put.method, put.body, put.headers["content-type"], put.headers["x-more"]) == (
        "PUT",
        b"\x00raw",
        "multipart/x",
        "1",
    )
    assert other.headers["authorization"] == "Bearer other"
    assert usual.headers["authorization"] == f"Bearer {KEY}"
    assert len(server.connections) == 1, "one connection serves one call after another"


async def test_base_path_and_slashes(serve: Any) -> None:
    server = serve.answering(serve.reply())
    client = HttpClient(server.url + "/api/v1/", headers={}, provider="test", proxy="")
    for path in ("ask", "/ask", "//ask"):
        await client.post(path, b"", timeout=5)
    await client.close()
    assert [request.target for request in server.requests] == ["/api/v1/ask"] * 3


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/ä", "/a\0", "/a#b"])
async def test_a_path_that_is_not_encoded_is_refused(serve: Any, path: str) -> None:
    client = client_of(serve.answering(serve.reply()))
    with pytest.raises(e.LLMProviderConfigurationError, match="percent-encoded"):
        await client.get(path, timeout=5)
    await client.close()


async def test_many_paths_do_not_fill_the_memory(serve: Any) -> None:
    server = serve.answering(serve.reply())
    client = client_of(server)
    for number in range(200):
        await client.get(f"/files/{number}", timeout=5)
    assert len(client._urls) <= 64
    await client.close()
    assert [request.target for request in server.requests] == [f"/files/{number}" for number in range(200)]


async def test_bad_headers_of_one_call_are_refused(serve: Any) -> None:
    server = serve.answering(serve.reply())
    client = client_of(server)
    with pytest.raises(e.LLMProviderConfigurationError, match="X-Bad") as caught:
        await client.post("/ask", b"", timeout=5, headers={"X-Bad": f"{KEY}\r\nX: y"})
    assert KEY not in str(caught.value)
    await client.close()
    assert server.requests == []


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 529])
async def test_statuses_become_errors_after_one_request(serve: Any, status: int) -> None:
    """Bad input 33, 38: one request each; retrying is somebody else's."""
    body = encode_json({"error": {"message": f"no, {KEY}", "type": "t_error", "code": "c_code"}})
    server = serve.answering(serve.reply(body, status, X_Request_Id="r9", Retry_After="7"))
    with pytest.raises(e.LLMProviderError) as caught:
        await ask(server)
    error = caught.value
    assert (error.status_code, error.code, error.request_id, error.retry_after) == (status, "c_code", "r9", 7.0)
    assert error.provider == "test"
    assert KEY not in str(error)
    assert len(server.requests) == 1


async def test_the_next_call_after_an_error_uses_the_same_connection(serve: Any) -> None:
    server = serve.answering(serve.reply(b"{}", 500), serve.reply())
    client = client_of(server)
    with pytest.raises(e.LLMProviderServerError):
        await client.post("/ask", b"", timeout=5)
    assert (await client.post("/ask", b"", timeout=5)).status == 200
    await client.close()
    assert len(server.connections) == 1


async def test_the_plugin_classifies(serve: Any) -> None:
    server = serve.answering(serve.reply(b'{"message": "prompt is too long"}', 400))
    with pytest.raises(e.LLMProviderTokenLimitError):
        await ask(server, classify=lambda status, code, kind, message: e.LLMProviderTokenLimitError)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
async def test_redirects_are_not_followed(serve: Any, status: int) -> None:
    """Bad input 41: the key does not go to another host."""
    other = serve.answering(serve.reply())
    server = serve.answering(serve.reply(b"", status, Location=f"{other.url}/v1/ask?token=abcdefghijk"))
    with pytest.raises(e.LLMProviderAPIError, match="redirect") as caught:
        await ask(server)
    assert type(caught.value) is e.LLMProviderAPIError
    assert caught.value.status_code == status
    assert caught.value.retryable is False
    assert "abcdefghijk" not in str(caught.value)
    assert other.requests == []


async def test_cookies_are_not_kept(serve: Any) -> None:
    server = serve.answering(serve.reply(Set_Cookie="a=b"))
    client = HttpClient(f"http://localhost:{server.port}", headers={}, provider="test", proxy="")
    await client.post("/ask", b"", timeout=5)
    await client.post("/ask", b"", timeout=5)
    await client.close()
    assert "cookie" not in server.requests[1].headers


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate", "bare deflate", "identity"])
async def test_compressed_replies(serve: Any, encoding: str) -> None:
    text = b'{"text": "' + b"hello " * 10_000 + b'"}'
    bare = zlib.compressobj(wbits=-15)
    packed = {
        "deflate": zlib.compress(text),
        "bare deflate": bare.compress(text) + bare.flush(),
        "identity": text,
    }.get(encoding, serve.gzip(text[:100]) + serve.gzip(text[100:]))
    reply = await ask(serve.answering(serve.reply(packed, Content_Encoding=encoding.split()[-1])))
    assert reply.body == text


@pytest.mark.parametrize("keep", [0, 10, 30, -1, -8])
async def test_a_gzip_body_cut_short_is_noticed(serve: Any, keep: int) -> None:
    """Bad input 45: aiohttp itself gives out the half body as if it were whole."""
    packed = serve.gzip(b'{"text": "' + bytes(range(32, 127)) * 20 + b'"}')[: keep or 5]
    with pytest.raises(e.LLMProviderStreamError) as caught:
        await ask(serve.answering(serve.reply(packed, Content_Encoding="gzip")))
    assert isinstance(caught.value.__cause__, zlib.error)


async def test_damaged_and_unasked_compression(serve: Any) -> None:
    with pytest.raises(e.LLMProviderStreamError):
        await ask(serve.answering(serve.reply(b"this is no gzip", Content_Encoding="gzip")))
    with pytest.raises(e.LLMProviderResponseError, match="'br'"):
        await ask(serve.answering(serve.reply(b"x", Content_Encoding="br")))
    with pytest.raises(e.LLMProviderServerError):
        await ask(serve.answering(serve.reply(b"no gzip", 500, Content_Encoding="gzip")))
    with pytest.raises(e.LLMProviderServerError, match="packed no"):
        await ask(serve.answering(serve.reply(serve.gzip(b"packed no"), 500, Content_Encoding="gzip")))


async def test_a_content_length_that_is_too_long(serve: Any) -> None:
    def script(connection: Any) -> None:
        connection.request()
        connection.send(serve.reply(b'{"half": ', Content_Length="100", X_Request_Id="r1"))

    with pytest.raises(e.LLMProviderStreamError) as caught:
        await ask(serve(script))
    assert caught.value.__cause__ is not None
    assert caught.value.request_id == "r1"
    assert caught.value.retryable is True


async def test_an_error_body_that_is_cut_still_tells_its_status(serve: Any) -> None:
    def script(connection: Any) -> None:
        connection.request()
        connection.send(serve.reply(b'{"error": ', 503, Content_Length="100"))

    with pytest.raises(e.LLMProviderOverloadedError):
        await ask(serve(script))


async def test_an_endless_error_body_is_not_read_to_its_end(serve: Any) -> None:
    def script(connection: Any) -> None:
        connection.request()
        connection.send(serve.reply(b"", 500, Content_Length="", Transfer_Encoding="chunked"))
        while True:
            connection.chunk(b"x" * 65536)

    with pytest.raises(e.LLMProviderServerError):
        await ask(serve(script))


async def test_the_connection_breaks_before_the_reply(serve: Any) -> None:
    def closes(connection: Any) -> None:
        connection.request()

    def resets(connection: Any) -> None:
        connection.request()
        connection.reset()

    for script in (closes, resets):
        server = serve(script)
        with pytest.raises(e.LLMProviderConnectionError) as caught:
            await ask(server)
        assert caught.value.retryable is True
        assert caught.value.__cause__ is not None
        assert server.url in str(caught.value)
        assert len(server.requests) == 1


async def test_not_even_get_is_sent_twice(serve: Any) -> None:
    """aiohttp would repeat it by itself; the server's count of requests has to equal the policy's."""

    def script(connection: Any) -> None:
        connection.request()

    server = serve(script)
    client = client_of(server)
    with pytest.raises(e.LLMProviderConnectionError):
        await client.get("/ask", timeout=5)
    await client.close()
    assert len(server.requests) == 1


async def test_nobody_listens(serve: Any) -> None:
    server = serve.answering(serve.reply())
    server.stop()
    with pytest.raises(e.LLMProviderConnectionError) as caught:
        await ask(server)
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of the name service stands in for one, so that no test asks a real one."""
    import socket

    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    client = HttpClient("http://no-such-host.invalid", headers={}, provider="test", proxy="")
    with pytest.raises(e.LLMProviderConnectionError, match=r"no-such-host\.invalid"):
        await client.post("/ask", b"", timeout=20)
    await client.close()


async def test_a_server_that_does_not_speak_http(serve: Any) -> None:
    def script(connection: Any) -> None:
        connection.request()
        connection.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    with pytest.raises(e.LLMProviderResponseError, match="HTTP") as caught:
        await ask(serve(script))
    error: BaseException | None = caught.value
    while error is not None:  # aiohttp keeps the request's headers in its error, and its repr() shows them
        assert KEY not in repr(error) + repr(error.args)
        error = error.__cause__


async def test_f144_the_timeout_is_for_the_whole_call(serve: Any) -> None:
    """F-144: `timeout` counts from the first moment to the last byte, whatever trickles in between."""

    def silent(connection: Any) -> None:
        connection.request()
        connection.server.note("gone", connection.gone_after())

    def trickles(connection: Any) -> None:
        connection.request()
        connection.send(serve.reply(b"", Content_Length="1000"))
        for _ in range(100):
            connection.send(b" ")
            time.sleep(0.02)

    for script in (silent, trickles):
        server = serve(script)
        began = time.monotonic()
        with pytest.raises(e.LLMProviderTimeoutError, match=r"0\.3 s") as caught:
            await ask(server, timeout=0.3)
        assert 0.25 < time.monotonic() - began < 1.5
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.retryable is True
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        if script is silent:
            assert await server.noticed("gone") < 1.0


async def test_f144_each_call_has_its_own_timeout(serve: Any) -> None:
    """F-144: one timer serves all calls, so a long one in flight must not hide a short one, nor the other way."""

    def script(connection: Any) -> None:
        request = connection.request()
        time.sleep(float(request.body))
        connection.send(serve.reply(request.body))

    client = client_of(serve(script))
    began = time.monotonic()

    async def one(server_time: float, timeout: float | None) -> tuple[str, float]:
        try:
            await client.post("/ask", str(server_time).encode(), timeout=timeout)
            return "answer", time.monotonic() - began
        except e.LLMProviderTimeoutError:
            return "timeout", time.monotonic() - began

    cases = [(0.5, 30), (0.9, 0.2), (0.9, 0.4), (0.3, 0.9), (0.6, None), (1.2, 0.6), (0.1, 60)]
    results = await asyncio.gather(*(one(*case) for case in cases))
    assert [kind for kind, _ in results] == ["answer", "timeout", "timeout", "answer", "answer", "timeout", "answer"]
    for (server_time, timeout), (kind, at) in zip(cases, results, strict=True):
        expected = server_time if kind == "answer" else timeout or 0.0
        assert expected - 0.05 < at < expected + 0.5
    await client.close()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), 0.0])
async def test_f144_a_timeout_that_makes_no_sense(serve: Any, timeout: float) -> None:
    """F-144, bad input 5: refused, not an immediate silent timeout."""
    server = serve.answering(serve.reply())
    with pytest.raises(e.LLMProviderConfigurationError, match="timeout"):
        await ask(server, timeout=timeout)
    assert server.requests == []
    assert (await ask(server, timeout=None)).status == 200


async def test_cancelling_closes_the_connection_and_passes_through(serve: Any) -> None:
    """Bad input 54: CancelledError goes through at once, also with a deadline of ours in sight."""

    def script(connection: Any) -> None:
        connection.request()
        connection.server.note("gone", connection.gone_after())

    server = serve(script)
    client = client_of(server)
    task = asyncio.create_task(client.post("/ask", b"", timeout=30))
    while not server.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.noticed("gone") < 1.0
    await client.close()


async def test_a_timeout_of_the_callers_own(serve: Any) -> None:
    def script(connection: Any) -> None:
        connection.request()
        connection.gone_after()

    client = client_of(serve(script))
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.2):
            await client.post("/ask", b"", timeout=30)
    assert not isinstance(caught.value, e.LLMProviderError)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.post("/ask", b"", timeout=30), 0.2)
    await client.close()


async def test_cancelling_while_the_request_is_still_being_sent(serve: Any) -> None:
    """The server reads nothing, so 20 MB wait in our buffer: closing politely would wait for ever."""

    def script(connection: Any) -> None:
        time.sleep(1.0)
        connection.server.note("gone", connection.gone_after())

    server = serve(script)
    client = client_of(server)
    with pytest.raises(e.LLMProviderTimeoutError):
        await client.post("/ask", b"x" * 20_000_000, timeout=0.3)
    await client.close()
    assert await server.noticed("gone") < 1.0


async def test_a_prompt_of_20_mb(serve: Any) -> None:
    """Bad input 25: it goes out whole, with its length told, and without holding up the loop."""
    server = serve.answering(serve.reply())
    client = client_of(server)
    body = b"0123456789" * 2_000_000
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - began)

    ticking = asyncio.create_task(tick())
    assert (await client.post("/ask", body, timeout=30)).status == 200
    ticking.cancel()
    await client.close()
    assert server.requests[0].body == body
    assert server.requests[0].headers["content-length"] == str(len(body))
    assert server.requests[0].headers["content-type"] == "application/json"
    assert longest < 0.5


async def test_a_call_after_close(serve: Any) -> None:
    """Bad input 59: the second close is harmless, a call after it is a clear error."""
    server = serve.answering(serve.reply())
    client = client_of(server)
    await client.close()
    await client.close()
    client.close_nowait()
    with pytest.raises(e.ProviderClosedError):
        await client.post("/ask", b"", timeout=5)
    with pytest.raises(e.ProviderClosedError):
        await anext(client.stream("/ask", b"", timeout=5))
    assert server.connections == []


async def test_closing_ends_calls_under_way(serve: Any) -> None:
    def script(connection: Any) -> None:
        connection.request()
        connection.gone_after()

    server = serve(script)
    for nowait in (False, True):
        client = client_of(server)
        task = asyncio.create_task(client.post("/ask", b"", timeout=30))
        while not server.requests:
            await asyncio.sleep(0.01)
        server.requests.clear()
        if nowait:
            client.close_nowait()
        else:
            await client.close()
        with pytest.raises(e.ProviderClosedError):
            await task
        assert task.cancelling() == 0


async def test_closing_one_client_leaves_the_others_alone(serve: Any) -> None:
    def script(connection: Any) -> None:
        while (request := connection.request()) is not None:
            time.sleep(0.3)
            connection.send(serve.reply(request.body))

    server = serve(script)
    first, second = client_of(server), client_of(server)
    task = asyncio.create_task(second.post("/ask", b"second", timeout=10))
    waiting = asyncio.create_task(first.post("/ask", b"first", timeout=10))
    await asyncio.sleep(0.1)
    await first.close()
    with pytest.raises(e.ProviderClosedError):
        await waiting
    assert (await task).body == b"second"
    await second.close()


async def test_tls_with_a_certificate_of_ones_own(serve: Any, tls: Any, certificate: Path) -> None:
    server = serve.answering(serve.reply(), tls=tls)
    assert (await ask(server, ca_file=str(certificate))).status == 200
    with pytest.raises(e.LLMProviderConnectionError, match="ca_file") as caught:
        await ask(server)
    assert caught.value.retryable is False
    assert len(server.requests) == 1


async def test_tls_connections_are_cut_at_once(serve: Any, tls: Any, certificate: Path) -> None:
    """A polite end of TLS would wait for the other side; a silent server must not hold our loop's end up."""

    def script(connection: Any) -> None:
        connection.request()
        connection.server.note("gone", connection.gone_after())

    server = serve(script, tls)
    with pytest.raises(e.LLMProviderTimeoutError):
        await ask(server, timeout=0.3, ca_file=str(certificate))
    assert await server.noticed("gone") < 1.0


async def test_a_ca_file_without_certificates(serve: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate", encoding="utf-8")
    with pytest.raises(e.LLMProviderConfigurationError, match=r"bad\.pem"):
        await ask(serve.answering(serve.reply()), ca_file=str(bad))


async def test_one_tls_context_per_file(serve: Any, certificate: Path) -> None:
    """Building one costs milliseconds and half a megabyte, so it is shared."""
    server = serve.answering(serve.reply())
    clients = [client_of(server, ca_file=str(certificate)) for _ in range(3)]
    contexts = {id(client._open()["whole"]["ssl"]) for client in clients}
    assert len(contexts) == 1


async def test_proxy_for_http(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tunnel the proxy gets the whole address, and its password in a header."""
    server = serve.answering(serve.reply())
    proxy = serve.answering(serve.reply(b'{"from": "proxy"}'))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://user:{KEY}@127.0.0.1:{proxy.port}")
    client = client_of(server, proxy=None)
    for _ in range(2):
        assert (await client.post("/v1/ask?x=1", b"{}", timeout=5)).body == b'{"from": "proxy"}'
    await client.close()
    assert server.requests == []
    for request in proxy.requests:
        assert request.target == f"{server.url}/v1/ask?x=1"
        assert request.headers["proxy-authorization"].startswith("Basic ")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert (await ask(server, proxy=None)).body == b'{"ok": true}'


async def test_proxy_for_https(serve: Any, tls: Any, certificate: Path) -> None:
    """With TLS the proxy gets a CONNECT and nothing of the request."""
    import socket
    import threading

    server = serve.answering(serve.reply(), tls=tls)

    def tunnel(connection: Any) -> None:
        connection.request()
        with socket.create_connection(("127.0.0.1", server.port)) as onward:
            connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

            def back() -> None:
                while piece := onward.recv(65536):
                    connection.send(piece)

            threading.Thread(target=back, daemon=True).start()
            while piece := connection.sock.recv(65536):
                onward.sendall(piece)

    proxy = serve(tunnel)
    reply = await ask(server, proxy=f"http://user:secret@127.0.0.1:{proxy.port}", ca_file=str(certificate))
    assert reply.status == 200
    [connect] = proxy.requests
    assert (connect.method, connect.target) == ("CONNECT", f"127.0.0.1:{server.port}")
    assert connect.headers["proxy-authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert "authorization" not in connect.headers
    assert "proxy-authorization" not in server.requests[0].headers


async def test_a_proxy_that_refuses(serve: Any, tls: Any, certificate: Path) -> None:
    server = serve.answering(serve.reply(), tls=tls)
    proxy = serve.answering(serve.reply(b"", 407))
    with pytest.raises(e.LLMProviderConnectionError, match="407") as caught:
        await ask(server, proxy=f"http://user:{KEY}@127.0.0.1:{proxy.port}", ca_file=str(certificate))
    assert caught.value.retryable is False
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in repr(error) + str(error)
        error = error.__cause__


async def test_f144_debug_logs_are_useful_and_free_of_secrets(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    """F-144: DEBUG names provider, method, path, status, time and request id, and never a key."""
    caplog.set_level(logging.DEBUG)
    server = serve.answering(serve.reply(X_Request_Id="r7"))
    client = client_of(server)
    await client.post("/v1/ask?key=sk-other-0123456789", b"{}", timeout=5)
    await client.close()
    [record] = [record for record in caplog.records if record.name == "providers.wire"]
    line = record.getMessage()
    assert line.startswith("test: POST /v1/ask answered 200 after ")
    assert "r7" in line
    assert "sk-" not in caplog.text


async def test_300_calls_at_once_are_not_capped(serve: Any) -> None:
    """No silent limit: all are on the wire before the first is answered."""
    import threading

    together = threading.Barrier(300)

    def script(connection: Any) -> None:
        connection.request()
        together.wait(20)
        connection.send(serve.reply())

    server = serve(script)
    client = client_of(server)
    replies = await asyncio.gather(*(client.post("/ask", b"", timeout=20) for _ in range(300)))
    assert len(replies) == 300
    await client.close()


async def test_a_refusal_that_unpacks_to_hundreds_of_megabytes_is_cut(serve: Any) -> None:
    import tracemalloc

    packed = serve.gzip(b"a" * (100 << 20))
    for body in (packed, serve.gzip(b"a" * (1 << 19)) * 200):
        server = serve.answering(serve.reply(body, 500, Content_Encoding="gzip"))
        tracemalloc.start()
        try:
            with pytest.raises(e.LLMProviderServerError, match="aaaa"):
                await ask(server)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


async def test_a_key_that_comes_back_as_the_request_id_is_shown_nowhere(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="providers.wire")
    good = serve.reply(X_Request_Id=KEY)
    server = serve.answering(
        serve.reply(b"{}", 401, X_Request_Id=KEY), good, serve.reply(b"{}", X_Request_Id=KEY, Content_Length="9")
    )
    client = client_of(server)
    with pytest.raises(e.LLMProviderAuthenticationError) as refused:
        await client.post("/ask", b"", timeout=5)
    assert (await client.post("/ask", b"", timeout=5)).request_id == "***"
    with pytest.raises(e.LLMProviderError) as late:
        await client.post("/ask", b"", timeout=0.2)
    await client.close()
    assert (refused.value.request_id, late.value.request_id) == ("***", "***")
    assert "request id ***" in caplog.text
    assert KEY not in caplog.text
