"""A vendor's SDK as small as can be, over httpx2, for the tests of the transport that carries bodies over one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import httpx2

from providers.wire import SdkTransport, Sent


class Refused(Exception):
    """The server answered with a status that says no."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(f"refused: {response.text}")
        self.response = response
        self.body = response.text


class Lost(Exception):
    """No connection."""


class Late(Lost):
    """No answer in time."""


class SmallClient:
    """The SDK's client. It signs in with `X-Small-Key`, unless a header of that very spelling is given."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.closed = False
        self._headers = {"X-Small-Key": "the SDK's own", **headers}
        self._http = httpx2.AsyncClient(base_url=url, timeout=None)

    async def call(self, method: str, path: str, body: Any, headers: Mapping[str, Any], **how: Any) -> httpx2.Response:
        merged = [(name, value) for name, value in {**self._headers, **headers}.items() if value is not None]
        try:
            request = self._http.build_request(method, path, json=body, headers=merged, timeout=how["timeout"])
            response = await self._http.send(request, stream=how["streamed"])
        except httpx2.TimeoutException as error:
            raise Late("too late") from error
        except httpx2.HTTPError as error:
            raise Lost("no connection") from error
        if response.status_code >= 400:
            await response.aread()
            raise Refused(response)
        return response

    async def close(self) -> None:
        self.closed = True
        await self._http.aclose()


class SmallTransport(SdkTransport):
    """Bodies over `SmallClient`."""

    library: ClassVar[Any] = httpx2
    refused = (Refused,)
    late = (Late,)
    lost = (Lost,)
    signs_in = ("X-Small-Key",)

    def __init__(self, *args: Any, **wiring: Any) -> None:
        super().__init__(*args, **wiring)
        self.made: list[SmallClient] = []

    def make(self) -> SmallClient:
        self.made.append(SmallClient(self.address, self.headers))
        return self.made[-1]

    def send(self, client: SmallClient, request: Sent) -> Any:
        own = {**request.headers, **dict.fromkeys(self.unsaid)}
        how = {"timeout": self.patience(request.limit), "streamed": request.streamed}
        return client.call(request.method, request.path, request.body, own, **how)
