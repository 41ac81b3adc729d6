"""What carries bodies over a vendor's own SDK: a client for each event loop, and every failure as one of our errors.

No SDK is imported here. A plugin says in a subclass what is its SDK's alone: how a client is made, how one request is
sent, and which exceptions it has.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, cast

from providers.exceptions import (
    LLMProviderConnectionError,
    LLMProviderError,
    LLMProviderResponseError,
    LLMProviderStreamError,
    LLMProviderTimeoutError,
    ProviderClosedError,
)

from .errors import Classifier, error_from_reply
from .jsonbody import decode_json, decode_object, encode_json
from .options import EVENTS
from .reading import Decoder, Failed, kind_of, parser_of, unseen
from .redaction import redact
from .reply import Reply
from .transport import Answer, Headers

T = TypeVar("T")

_CONNECT: Final = 30.0  # seconds until an address that does not even accept a connection is given up
_GRACE: Final = 1.0  # seconds that closing waits for clients of loops in other threads
_LINGER: Final = 0.25  # seconds that a stream may take to end behind its last word
_DISTRUST: Final = 300.0  # seconds that a server is known not to end its streams
_CUT: Final = "peer closed connection without sending"


class Sent(NamedTuple):
    """One request, as `SdkTransport.send` takes it.

    Attributes:
        method: `"POST"`, `"GET"`...
        path: below the address.
        body: plain JSON values, or `None` for a request without a body.
        limit: seconds for the request, which are measured here; `patience` makes something of them for the SDK.
        headers: of this request alone.
        streamed: whether the reply is given open, its body not read.
    """

    method: str
    path: str
    body: Any
    limit: float | None
    headers: Mapping[str, str]
    streamed: bool


class SdkTransport(ABC):
    """Bodies over an SDK that stands on httpx or on its successor; a `Transport`, and `request` beside it.

    The client that `make` gives must neither try again (retrying has one owner, and it is not here) nor follow
    redirects. Replies are taken as bytes, so that both transports of a plugin decode with the same code. One client is
    kept for each event loop, since none can be used from a second one; it is closed with its loop.

    Args:
        address: the server's address, as `make` hands it to the SDK.
        headers: of every request.
        provider: the provider's name, for errors.
        secrets: what no message may show.
        classify: the backend's own words for errors.
        prompt: keys of a body that hold the conversation, which is not searched for numbers that JSON has no word for.

    Attributes:
        address: as given.
        headers: as given, but those of `signs_in` in the SDK's spelling.
        unsaid: names of `signs_in` that `headers` lacks: what the SDK says there on its own must not go out.
    """

    library: ClassVar[Any]
    """The module of the HTTP library that the SDK stands on."""

    refused: ClassVar[tuple[type[Exception], ...]]
    """The SDK's exceptions for a status; they hold the library's reply, its body read, in `response`."""

    late: ClassVar[tuple[type[Exception], ...]] = ()
    """The SDK's exceptions for a reply that did not come in time."""

    lost: ClassVar[tuple[type[Exception], ...]] = ()
    """The SDK's exceptions for a connection that failed; the library's own is their cause."""

    quotes: ClassVar[str] = "body"
    """The attribute of the SDK's exceptions that repeats what the server said."""

    signs_in: ClassVar[tuple[str, ...]] = ()
    """Headers by which the SDK signs in, as it spells them: in another spelling its own would go out beside ours."""

    def __init__(
        self,
        address: str,
        *,
        headers: Mapping[str, str],
        provider: str,
        secrets: Sequence[str],
        classify: Classifier | None,
        prompt: tuple[str, ...],
    ) -> None:
        spelling = {name.lower(): name for name in self.signs_in}
        self.address = address
        self.headers = {spelling.get(name.lower(), name): value for name, value in headers.items()}
        self.unsaid = [name for name in self.signs_in if name not in self.headers]
        self._provider = provider
        self._secrets = secrets
        self._classify = classify
        self._prompt = prompt
        self._clients: dict[asyncio.AbstractEventLoop, _LoopClient] = {}
        self._closed = False
        self._endless_until = 0.0  # until then no end of a stream is waited for: the server was seen to send none

    # --- what a plugin says of its SDK

    @abstractmethod
    def make(self) -> Any:
        """Make a client for the running loop. `headers` hold the key, so that none is sent where there is none."""

    @abstractmethod
    def send(self, client: Any, request: Sent) -> Awaitable[Any]:
        """Send one request over what `make` gave; what is awaited gives the library's reply."""

    async def end(self, client: Any) -> None:
        """Close a client."""
        await client.close()

    def patience(self, limit: float | None) -> Any:
        """The library's own timeout for a request: only an address that never accepts a connection meets one."""
        return self.library.Timeout(None, connect=_CONNECT if limit is None else min(_CONNECT, limit))

    # --- what both transports of a plugin can do

    def post(self, path: str, body: dict[str, Any], limit: float | None, headers: Headers = None) -> Awaitable[Any]:
        """Send a body and give what `read` makes an answer of."""
        return self.request("POST", path, body, limit, headers)

    async def request(
        self, method: str, path: str, body: dict[str, Any] | None, limit: float | None, headers: Headers = None
    ) -> Any:
        """Make a request with any method."""
        return await self._reply_to(Sent(method, path, self._plain(body), limit, headers or {}, False))

    def read(self, response: Any) -> Answer:
        """Read a whole reply; one that says by its status that it has no body is an empty object."""
        request_id = self._request_id(response)
        if response.status_code == 204:
            return Answer({}, request_id)
        content = response.content
        try:
            data = decode_object(content, provider=self._provider, request_id=request_id, secrets=self._secrets)
        except LLMProviderResponseError as error:
            # The library lets a compressed body pass that was cut; what it held is an object without an end.
            packed = response.headers.get("Content-Encoding", "identity") != "identity"
            if packed and content.lstrip()[:1] in (b"", b"{") and not content.rstrip().endswith(b"}"):
                raise LLMProviderStreamError(error.message, provider=self._provider, request_id=request_id) from None
            raise
        return Answer(data, request_id)

    async def stream(
        self,
        path: str,
        body: dict[str, Any],
        limit: float | None,
        decoder: Decoder[T],
        headers: Headers = None,
        failed: Failed = unseen,
    ) -> AsyncGenerator[T, None]:
        """Send a body and give what the decoder makes of the reply."""
        own = {**(headers or {}), "Accept": EVENTS}
        try:
            response = await self._reply_to(Sent("POST", path, self._plain(body), limit, own, True))
            try:
                request_id = self._request_id(response)
                decoder.begin(request_id)
                kind = kind_of(response.headers)
                parser = parser_of(kind, lambda _: self._not_a_stream(response, kind))
                chunks = response.aiter_bytes()
                while True:
                    over = decoder.done
                    if over and perf_counter() < self._endless_until:
                        break
                    try:
                        async with asyncio.timeout(_LINGER if over else limit):
                            chunk = await anext(chunks, b"")
                    except Exception as error:
                        ours = self._failure(error, limit, request_id, begun=True)
                        if ours is None:
                            raise
                        if over:
                            if isinstance(ours, LLMProviderTimeoutError):
                                self._endless_until = perf_counter() + _DISTRUST
                            break
                        raise ours from self._cause(error)
                    for name, data in parser.feed(chunk) if chunk else parser.close():
                        if decoder.done:
                            break
                        for item in decoder.feed(name, data):
                            yield item
                    if not chunk:
                        break
            finally:
                await response.aclose()
            for item in decoder.finish():
                yield item
        except LLMProviderError as error:
            failed(error)
            raise

    async def close(self) -> None:
        """Close the clients of all loops."""
        self._closed = True
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()

    # --- how they stand on the SDK

    def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        found = self._clients.get(loop)
        if found is None or found.ended:
            # A loop that was closed without the end of its generators has told nobody.
            gone = [other for other, client in tuple(self._clients.items()) if client.ended or other.is_closed()]
            for other in gone:
                self._clients.pop(other, None)
            if not self._closed:
                found = self._clients[loop] = _LoopClient(loop, self.make(), self.end)
            if self._closed or found is None:  # closed, perhaps by another thread in this moment
                self._clients.pop(loop, None)
                raise ProviderClosedError("the provider was closed; create a new one", provider=self._provider)
        return found.client

    async def _reply_to(self, request: Sent) -> Any:
        """Send a request; gives its reply where the status says that all is well."""
        client = self._client()  # made before the clock runs: the first of a loop takes its time
        try:
            async with asyncio.timeout(request.limit):
                response = await self.send(client, request)
                well = 200 <= response.status_code < 300
                if request.streamed and not well:
                    try:
                        await response.aread()
                    finally:
                        await response.aclose()
        except Exception as error:
            ours = self._failure(error, request.limit)
            if ours is None:
                raise
            raise ours from self._cause(error)
        if not well:
            raise self._of_reply(response)
        return response

    def _plain(self, body: dict[str, Any] | None) -> Any:
        # Through our own encoder first: it refuses NaN and mends half characters, and both transports send the same.
        return None if body is None else decode_json(encode_json(body, unsearched=self._prompt))

    def _request_id(self, response: Any) -> str | None:
        return Reply(response.status_code, response.headers, secrets=self._secrets).request_id

    def _not_a_stream(self, response: Any, kind: str) -> LLMProviderError:
        return LLMProviderResponseError(
            f"{self.address} answered with {kind or 'an unnamed type'} where an event stream was expected",
            provider=self._provider,
            status_code=response.status_code,
            request_id=self._request_id(response),
        )

    def _of_reply(self, response: Any) -> LLMProviderError:
        return error_from_reply(
            response.status_code,
            dict(response.headers.items()),
            response.content,
            provider=self._provider,
            secrets=self._secrets,
            classify=self._classify,
        )

    def _failure(
        self, error: Exception, limit: float | None, request_id: str | None = None, *, begun: bool = False
    ) -> LLMProviderError | None:
        """Our error for one of the SDK, of its library or of the system, or `None`: it is not ours to translate."""
        library = self.library
        if isinstance(error, LLMProviderError):
            return None
        if isinstance(error, self.refused):
            return self._of_reply(cast(Any, error).response)
        if isinstance(error, (TimeoutError, library.TimeoutException, *self.late)):
            if isinstance(error.__cause__, library.ConnectTimeout):
                text = f"{self.address} does not accept a connection"
                return LLMProviderConnectionError(text, provider=self._provider)
            waited = "nothing came" if begun else "no answer"
            within = f"{limit:g} s" if limit is not None else "its limit"
            return LLMProviderTimeoutError(
                f"{waited} from {self.address} within {within}", provider=self._provider, request_id=request_id
            )
        known = (library.HTTPError, library.StreamError, library.InvalidURL, OSError, *self.lost)
        # A client that is closed while it works may say so in this way.
        if isinstance(error, known) or (self._closed and isinstance(error, RuntimeError)):
            if self._closed:
                text = "the provider was closed while this call was under way"
                return ProviderClosedError(text, provider=self._provider)
            return self._broken(error, request_id, begun)
        if isinstance(error, UnicodeDecodeError):
            # An SDK may read every refusal as JSON, and let this one out where it is no text at all.
            text = f"{self.address} refused with a body that is no text"
            return LLMProviderResponseError(text, provider=self._provider)
        return None

    def _broken(self, error: Exception, request_id: str | None, begun: bool) -> LLMProviderError:
        library = self.library
        inner = error if isinstance(error, library.HTTPError) else error.__cause__ or error
        detail = redact(f"{type(inner).__name__}: {inner}", self._secrets)[:300]
        # A whole reply is read where it is sent for: what breaks there after the head is a cut reply, too.
        cut = isinstance(inner, library.RemoteProtocolError) and _CUT in str(inner)
        if begun or cut or isinstance(inner, library.DecodingError):
            return LLMProviderStreamError(
                f"the reply from {self.address} was cut off or damaged: {detail}",
                provider=self._provider,
                request_id=request_id,
            )
        return LLMProviderConnectionError(f"no connection to {self.address}: {detail}", provider=self._provider)

    def _cause(self, error: Exception) -> Exception | None:
        # The SDK's errors quote the server, and a server may quote the key.
        chain = [error, error.__cause__, error.__context__]
        shown = " ".join(f"{item!s} {item!r} {getattr(item, self.quotes, '')}" for item in chain if item is not None)
        return None if any(secret in shown for secret in self._secrets if len(secret) > 5) else error


class _LoopClient:
    """The SDK's client of one event loop; ends with its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: Any, end: Callable[[Any], Awaitable[None]]) -> None:
        self.client = client
        self.ended = False
        self._loop = loop
        self._end = end
        # The loop closes every generator that was started in it, and this one's `finally` is our only notice of that.
        self._keeper = self._keep()
        with suppress(StopIteration):
            self._keeper.__anext__().send(None)

    async def _keep(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.ended = True
            await self._end(self.client)

    async def close(self) -> None:
        """Close the client in the loop that it belongs to; where that loop stands still, its end will do it."""
        if self.ended:
            return
        if self._loop is asyncio.get_running_loop():
            await self._keeper.aclose()
        elif self._loop.is_running():
            future = asyncio.run_coroutine_threadsafe(self._keeper.aclose(), self._loop)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(future), _GRACE)
