"""The other transport: the same bodies, carried by the vendor's own SDK through its low-level `client.post`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any, ClassVar, Final

import anthropic
import httpx2 as httpx

from providers.wire import SdkTransport, Sent

# Later versions of major 1, and major 2, make spans where the application traces: each call would be seen twice.
_QUIET: Final[dict[str, Any]] = {
    name: False for name in ("open_telemetry",) if name in inspect.signature(anthropic.AsyncAnthropic).parameters
}


class AnthropicTransport(SdkTransport):
    """Bodies over `anthropic.AsyncAnthropic`."""

    library: ClassVar[Any] = httpx
    refused = (anthropic.APIStatusError,)
    late = (anthropic.APITimeoutError,)
    lost = (anthropic.APIConnectionError,)
    # By which of them the SDK signs in depends on its major.
    signs_in = ("Authorization", "X-Api-Key")

    def make(self) -> anthropic.AsyncAnthropic:
        """A client of the SDK, without retries. An explicit timeout keeps it from refusing long whole answers."""
        return anthropic.AsyncAnthropic(
            api_key="unused",
            base_url=self.address,
            max_retries=0,
            timeout=None,
            default_headers=self.headers,
            **_QUIET,
        )

    def send(self, client: Any, request: Sent) -> Awaitable[Any]:
        """Through `client.post` and its like; asked for the reply itself, the SDK makes no stream of its own."""
        given: dict[str, Any] = {} if request.body is None else {"body": request.body}
        if request.streamed:
            given |= {"stream": True, "stream_cls": anthropic.AsyncStream[Any]}
        own = {**request.headers, **dict.fromkeys(self.unsaid, anthropic.omit)}
        options = {"timeout": self.patience(request.limit), "follow_redirects": False, "headers": own}
        call = getattr(client, request.method.lower())
        reply: Awaitable[Any] = call(request.path, cast_to=httpx.Response, options=options, **given)
        return reply
