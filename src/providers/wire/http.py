"""The HTTP client of the remote plugins: whole replies, event streams, every failure as one of our errors."""

# ruff: noqa: ASYNC109 (the timeout of a stream is not one that `asyncio.timeout` could keep)
from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from providers.exceptions import LLMProviderConfigurationError, LLMProviderError, ProviderClosedError
from providers.headroom import listening

from .address import address_of, check_base_url, check_headers
from .arrival import pieces_of
from .errors import Classifier, error_from_reply
from .failures import failure, not_a_stream
from .inflate import Inflater
from .options import fed, request_options
from .pool import GRACE, NEVER, Call, LoopSession, join
from .reading import AS_THEY_ARE, BodyParser, Decoder, Failed, kind_of, parser_of, unseen
from .redaction import sign_in_secrets
from .reply import Reply, headroom_of, read_refusal, request_id_of

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

_log = logging.getLogger("providers.wire")
_DISTRUST = 300.0  # seconds
_LINGER = 0.25  # seconds that a stream may take to end behind its last word
_MOST_PATHS = 64  # paths with an id in them must not fill the memory


class HttpClient:
    """Requests to one server.

    One client may be used from any number of event loops and threads, one after another or at once. All clients share
    one pool of connections for each loop. Redirects are not followed and nothing is sent twice: retrying is the
    caller's.

    Args:
        base_url: the server's address with the common start of all paths; a slash at its end is forgiven.
        headers: sent with every request; the key among them. `Accept`, `Content-Type` and the rest have defaults.
        provider: name of the provider, for errors.
        secrets: strings that must not appear in any message. Values of sign-in headers need not be listed.
        proxy: address of a proxy, `""` for none, `None` for the environment's, read at the first request.
        ca_file: a file or folder of certificates to trust instead of the system's (which `SSL_CERT_FILE` and
            `SSL_CERT_DIR` may change).
        classify: a plugin's say in the class of an error reply.

    Raises:
        LLMProviderConfigurationError: the address or a header makes no sense, or `ca_file` does not exist.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        provider: str,
        secrets: Iterable[str] = (),
        proxy: str | None = None,
        ca_file: str | None = None,
        classify: Classifier | None = None,
    ) -> None:
        self.provider = provider
        self._address = check_base_url(base_url, provider=provider)
        self._headers = check_headers(headers, provider=provider)
        self._secrets = tuple(dict.fromkeys((*secrets, *sign_in_secrets(self._headers))))
        self._proxy = proxy
        self._ca_file = ca_file
        self._classify = classify
        self._closed = False
        self._distrusted_until = 0.0  # until then no connection is kept behind a stream: the server closed one there
        self._endless_until = 0.0  # until then no end of a stream is waited for: the server was seen to send none
        self._pools: dict[asyncio.AbstractEventLoop, LoopSession] = {}
        self._urls: dict[str, URL] = {}
        self._options: dict[str, dict[str, Any]] = {}  # aiohttp's, for each kind of request; made at the first one
        if ca_file is not None:
            from os.path import exists

            if not exists(ca_file):
                raise LLMProviderConfigurationError(f"ca_file {ca_file!r} does not exist", provider=provider)

    @property
    def base_url(self) -> str:
        """The checked address, without a slash at its end."""
        return self._address.url

    def __repr__(self) -> str:
        return f"HttpClient({self._address.url!r}, provider={self.provider!r})"

    async def post(
        self, path: str, body: bytes, *, timeout: float | None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a body and read the whole reply; see `request`."""
        return await self.request("POST", path, body, timeout=timeout, headers=headers)

    async def get(self, path: str, *, timeout: float | None, headers: Mapping[str, str] | None = None) -> Reply:
        """Read a whole reply; see `request`."""
        return await self.request("GET", path, timeout=timeout, headers=headers)

    async def delete(self, path: str, *, timeout: float | None, headers: Mapping[str, str] | None = None) -> Reply:
        """Delete something and read the whole reply; see `request`."""
        return await self.request("DELETE", path, timeout=timeout, headers=headers)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout: float | None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Make one request and read the whole reply.

        Args:
            method: `GET`, `POST`, ...
            path: below `base_url`, percent-encoded; may have a query.
            body: what to send; JSON unless `headers` name another `Content-Type`.
            timeout: most seconds for the whole call, connecting included; `None` for no limit.
            headers: for this request alone; they win over the client's.

        Returns:
            The reply, of a status from 200 to 299.

        Raises:
            LLMProviderAPIError: of the class that the status and the body tell; also for redirects.
            LLMProviderTimeoutError: the reply was not whole in time.
            LLMProviderConnectionError: no connection, or one that broke before the reply began.
            LLMProviderStreamError: the reply was cut off or its compression is damaged.
            LLMProviderResponseError: what came is not HTTP.
            LLMProviderConfigurationError: `timeout`, `path`, a header or the proxy makes no sense.
            ProviderClosedError: the client is closed, or was closed meanwhile.
        """
        pool, url, options = self._prepare(path, timeout, headers, "whole" if body is not None else "bare")
        began = perf_counter()
        call = pool.start(self)
        pool.wait(call, timeout)
        try:
            response = call.response = await pool.request(method, url, data=fed(body), **options)
            status = response.status
            if 200 <= status < 300:
                data = await response.content.read()
                if "Content-Encoding" in response.headers:
                    data = Inflater(response.headers["Content-Encoding"], self.provider).whole(data)
            else:
                data = await read_refusal(response)
        except BaseException as error:
            ours = self._failure(error, call, timeout)
            if ours is None:
                raise
            raise ours from error
        finally:
            pool.calls.discard(call)
            if call.response is not None:
                call.hang_up()
        if call.why is not None:
            call.stopped()  # stopped in the very moment in which it ended well
        if _log.isEnabledFor(logging.DEBUG):
            self._report(method, path, response, began)
        if 200 <= status < 300:
            if (listener := listening.get()) is not None:
                listener(headroom_of(response.headers))
            return Reply(status, response.headers, data, self._secrets)
        raise self._refused(response, data)

    async def stream(
        self,
        path: str,
        body: bytes,
        *,
        timeout: float | None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        decoder: Decoder[Any] = AS_THEY_ARE,
        failed: Failed = unseen,
    ) -> AsyncGenerator[Any, None]:
        """Send a body and give out what comes of the reply, as it comes.

        Read to the end, the connection serves the next call; closed or dropped earlier, it is cut at once.

        Args:
            path: below `base_url`, percent-encoded; may have a query.
            body: what to send, JSON unless `headers` say otherwise.
            timeout: most seconds without a single byte, before the reply as well as inside it; `None` for no limit.
                Time that the consumer takes between two events does not count.
            headers: for this request alone; they win over the client's.
            method: the HTTP method.
            decoder: makes something of the events, which are given as they are where it is left out. Each generator
                around this one costs every piece as much as reading it.
            failed: sees each error of ours before it is raised.

        Yields:
            What the decoder makes; without one, name and data of each server-sent event. A server that answers with one
            JSON document instead gives one event without a name, the document.

        Raises:
            LLMProviderStreamError: the stream was cut, reset, or its compression is damaged. One that ends cleanly but
                too early is the decoder's to refuse, who alone knows its last event.
            LLMProviderResponseError: a reply that is neither an event stream nor JSON, such as a web page.
            LLMProviderError: all that `request` raises, and the decoder.
        """
        feed = decoder.feed
        try:
            if perf_counter() < self._distrusted_until:
                headers = {**(headers or {}), "Connection": "close"}
            pool, url, options = self._prepare(path, timeout, headers, "stream")
            call = pool.start(self)
            try:
                response = await self._begun(pool, call, timeout, method, path, url, data=fed(body), **options)
                decoder.begin(request_id_of(response.headers, self._secrets))
                if (listener := listening.get()) is not None:
                    listener(headroom_of(response.headers))
                parser, inflater = self._readers(response)
                content = response.content
                pieces = pieces_of(content)
                call.task = None  # from now on the body's reader is told of a stop, not the task
                while True:
                    over = decoder.done
                    if over and perf_counter() < self._endless_until and not content.is_eof():
                        break
                    try:
                        pool.expect(call, _LINGER if over else timeout)
                        chunk = await pieces
                        last = not chunk
                        if inflater is not None:
                            chunk = inflater.end() if last else inflater.feed(chunk)
                    except BaseException as error:
                        ours = self._failure(error, call, timeout)
                        if ours is None:
                            raise
                        if over:
                            self._endless_until = perf_counter() + _DISTRUST if call.why == "timeout" else 0.0
                            break
                        raise ours from error
                    call.deadline = NEVER  # the time of the stream's consumer does not count
                    events = parser.feed(chunk)
                    if last:
                        response.protocol.streamed = (self, perf_counter())
                        events = [*events, *parser.close()]
                    for name, data in events:
                        if decoder.done:
                            break
                        for item in feed(name, data):
                            yield item
                    if last:
                        break
            finally:
                pool.calls.discard(call)
                call.hang_up()
            for item in decoder.finish():
                yield item
        except LLMProviderError as error:
            failed(error)
            raise

    async def _begun(
        self, pool: LoopSession, call: Call, timeout: float | None, method: str, path: str, url: URL, **options: Any
    ) -> Any:
        """The reply of a stream, once it has begun; one that refuses is read and raised."""
        began, refusal = perf_counter(), None
        pool.wait(call, timeout)
        try:
            response = call.response = await pool.request(method, url, **options)
            if not 200 <= response.status < 300:
                refusal = await read_refusal(response)
        except BaseException as error:
            ours = self._failure(error, call, timeout)
            if ours is None:
                raise
            raise ours from error
        if _log.isEnabledFor(logging.DEBUG):
            self._report(method, path, response, began)
        if refusal is not None:
            raise self._refused(response, refusal)
        return response

    def _readers(self, response: aiohttp.ClientResponse) -> tuple[BodyParser, Inflater | None]:
        kind, encoding = kind_of(response.headers), response.headers.get("Content-Encoding")

        def refuse(start: bytes) -> Exception:
            return not_a_stream(response, kind, start, self.provider, self._address.url, self._secrets)

        return parser_of(kind, refuse), Inflater(encoding, self.provider) if encoding else None

    def distrust(self) -> None:
        """The server closed a connection behind a stream: for some minutes keep none there."""
        self._distrusted_until = perf_counter() + _DISTRUST

    async def close(self) -> None:
        """Close the client's connections in every loop; calls under way end with `ProviderClosedError`.

        Sessions of loops that run in other threads are closed there; this waits for them for at most a second.
        Closing twice is harmless.
        """
        here = asyncio.get_running_loop()
        events = []
        for pool in self._part():
            if pool.loop is here:
                await pool.release(self)
            else:
                events.append(pool.release_soon(self))
        until = here.time() + GRACE
        while not all(event.is_set() for event in events) and here.time() < until:  # noqa: ASYNC110 (other threads)
            await asyncio.sleep(0.002)

    def close_nowait(self) -> None:
        """Close without waiting, from sync code: loops that run close their part at their next turn."""
        for pool in self._part():
            pool.release_soon(self)

    def _part(self) -> list[LoopSession]:
        self._closed = True
        pools = list(self._pools.values())
        self._pools.clear()
        return [pool for pool in pools if pool.open]

    def _prepare(
        self, path: str, timeout: float | None, headers: Mapping[str, str] | None, kind: str
    ) -> tuple[LoopSession, URL, dict[str, Any]]:
        pool = self._pools.get(asyncio.get_running_loop())
        if pool is None or not pool.open:
            pool = self._join()
        if timeout is not None and not timeout > 0:
            raise LLMProviderConfigurationError(
                f"timeout has to be a number of seconds above 0 or None, not {timeout!r}", provider=self.provider
            )
        url = self._urls.get(path)
        if url is None:
            url = self._url(path)
        options = self._options.get(kind) or self._open()[kind]
        if headers:
            merged = options["headers"].copy()
            merged.update(check_headers(headers, provider=self.provider))
            options = {**options, "headers": merged}
        return pool, url, options

    def _join(self) -> LoopSession:
        if self._closed:
            raise ProviderClosedError("the provider was closed; create a new one", provider=self.provider)
        for loop in [loop for loop, pool in tuple(self._pools.items()) if not pool.open]:
            self._pools.pop(loop, None)
        pool = join(self)
        self._pools[pool.loop] = pool
        if self._closed:  # another thread closed the client in this moment
            pool.release_soon(self)
            raise ProviderClosedError("the provider was closed; create a new one", provider=self.provider)
        return pool

    def _url(self, path: str) -> URL:
        if len(self._urls) >= _MOST_PATHS:
            self._urls.clear()
        url = self._urls[path] = address_of(self._address.url, path, provider=self.provider)
        return url

    def _open(self) -> dict[str, dict[str, Any]]:
        options, secrets = request_options(
            self._address, self._headers, proxy=self._proxy, ca_file=self._ca_file, provider=self.provider
        )
        self._secrets = (*self._secrets, *secrets)
        self._options = options
        return options

    def _failure(self, error: BaseException, call: Call, timeout: float | None) -> Exception | None:
        reply = call.response
        return failure(
            error,
            call,
            timeout=timeout,
            provider=self.provider,
            address=self._address.url,
            request_id=None if reply is None else request_id_of(reply.headers, self._secrets),
            secrets=self._secrets,
        )

    def _refused(self, response: aiohttp.ClientResponse, body: bytes) -> Exception:
        return error_from_reply(
            response.status,
            response.headers,
            body,
            provider=self.provider,
            secrets=self._secrets,
            classify=self._classify,
        )

    def _report(self, method: str, path: str, response: aiohttp.ClientResponse, began: float) -> None:
        # The path without its query: some backends take the key there.
        _log.debug(
            "%s: %s %s answered %d after %.1f ms (request id %s)",
            self.provider,
            method,
            path.partition("?")[0],
            response.status,
            (perf_counter() - began) * 1e3,
            request_id_of(response.headers, self._secrets),
        )
