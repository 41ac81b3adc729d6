"""The other transport: the same bodies, carried by the vendor's own SDK through its low-level `client.post`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, ClassVar

import openai

from providers.wire import SdkTransport, Sent

# The SDK's HTTP library changed its name with major 3; with it both may be installed.
if int(openai.VERSION.partition(".")[0]) >= 3:
    import httpx2 as httpx
else:
    import httpx  # type: ignore[import-not-found, no-redef, unused-ignore]


class OpenAITransport(SdkTransport):
    """Bodies over `openai.AsyncOpenAI`."""

    library: ClassVar[Any] = httpx
    refused = (openai.APIStatusError,)
    late = (openai.APITimeoutError,)
    lost = (openai.APIConnectionError,)
    signs_in = ("Authorization",)

    def make(self) -> openai.AsyncOpenAI:
        """A client of the SDK, without retries."""
        return openai.AsyncOpenAI(
            api_key="unused", base_url=self.address, max_retries=0, timeout=None, default_headers=self.headers
        )

    def send(self, client: Any, request: Sent) -> Awaitable[Any]:
        """Through `client.post` and its like; asked for the reply itself, the SDK makes no stream of its own."""
        given: dict[str, Any] = {} if request.body is None else {"body": request.body}
        if request.streamed:
            given |= {"stream": True, "stream_cls": openai.AsyncStream[Any]}
        own = {**request.headers, **dict.fromkeys(self.unsaid, openai.Omit())}
        options = {"timeout": self.patience(request.limit), "follow_redirects": False, "headers": own}
        call = getattr(client, request.method.lower())
        reply: Awaitable[Any] = call(request.path, cast_to=httpx.Response, options=options, **given)
        return reply
