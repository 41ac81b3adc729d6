"""The other transport: the same bodies, carried by the vendor's own SDK, google-genai, below its typed calls.

The SDK's client is given an HTTP client of ours. With its own it would use aiohttp in silence wherever that is
installed, try again behind the caller's back after one to ten seconds, and follow redirects. The automatic calling of
functions is never met.
"""

from __future__ import annotations

from typing import Any, ClassVar

from google import genai
from google.genai import errors as genai_errors

from providers.wire import SdkTransport, Sent

from .settings import KEY_HEADER

# The SDK's HTTP library changed its name with major 3; with it both may be installed.
if int(genai.__version__.partition(".")[0]) >= 3:
    import httpx2 as httpx
else:
    import httpx  # type: ignore[import-not-found, no-redef, unused-ignore]


class GeminiTransport(SdkTransport):
    """Bodies over `google.genai.Client`.

    Args:
        address: the server's address without a version.
        version: the version segment, or `""`.
        wiring: as `SdkTransport` takes it.
    """

    library: ClassVar[Any] = httpx
    refused = (genai_errors.APIError,)
    quotes = "details"
    signs_in = (KEY_HEADER,)

    def __init__(self, address: str, version: str, **wiring: Any) -> None:
        super().__init__(address, **wiring)
        self._version = version

    def make(self) -> _Client:
        """A client of the SDK over HTTP clients of ours."""
        return _Client(self.address, self._version)

    async def send(self, client: _Client, request: Sent) -> Any:
        """The SDK builds, signs and sends the request, and leaves the body of its reply unread."""
        body = {} if request.body is None else request.body
        wanted = client.low._build_request(request.method.lower(), request.path.lstrip("/"), body)
        # Ours win in whatever spelling; the SDK wants a key in any case, and ours may be none.
        ours = {**self.headers, **request.headers}
        taken = {name.lower() for name in (*ours, *self.unsaid)}
        wanted.headers = {name: value for name, value in wanted.headers.items() if name.lower() not in taken} | ours
        try:
            response = (await client.low._async_request(wanted, stream=True)).response_stream
        except genai_errors.APIError as error:
            response = error.response
            if not 200 <= response.status_code < 300:
                raise
            # To the SDK every status but 200 is a failure.
        if not request.streamed:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response

    async def end(self, client: _Client) -> None:
        """Close our HTTP clients, and with them the SDK's."""
        client.idle.close()
        await client.http.aclose()


class _Client:
    """What the SDK's client of one event loop stands on."""

    def __init__(self, address: str, version: str) -> None:
        # Without limits of their own: our clock measures each call, and must not run while one waits for its turn.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self.http = httpx.AsyncClient(timeout=None, follow_redirects=False, limits=limits)
        self.idle = httpx.Client(timeout=None, follow_redirects=False)  # never used; the SDK would make its own
        self._client = genai.Client(
            # Our own headers carry the key. A key has to be given here, and an environment variable must not be it.
            api_key="unused",
            vertexai=False,
            http_options=genai.types.HttpOptions(
                base_url=address, api_version=version, httpx_client=self.idle, httpx_async_client=self.http
            ),
        )
        self.low: Any = self._client._api_client
