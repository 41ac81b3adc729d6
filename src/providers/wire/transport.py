"""What carries bodies to a server and replies back: the contract of a remote plugin's transports, and the default one.

A plugin may have a second transport, its vendor's SDK, which carries the same bodies; codecs do not know which it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from .errors import Classifier
from .http import HttpClient
from .jsonbody import decode_object, encode_json
from .reading import Decoder, Failed, unseen
from .redaction import sign_in_secrets
from .reply import Reply

T = TypeVar("T")

Headers: TypeAlias = Mapping[str, str] | None
"""Headers of one request, on top of the transport's own."""


class Answer(NamedTuple):
    """A whole reply: its JSON object, and the backend's id of the request."""

    data: dict[str, Any]
    request_id: str | None


class Transport(Protocol):
    """A way to the server; raises errors of `providers.exceptions` only. `HttpTransport` can do more than that."""

    def post(self, path: str, body: dict[str, Any], limit: float | None) -> Awaitable[Any]:
        """Send a body and wait for the whole reply, `limit` seconds at most; `read` makes an answer of what it gives.

        Two steps, so that a call that waits holds one coroutine less: with a thousand under way they are what costs.
        """

    def read(self, reply: Any) -> Answer:
        """Read what `post` gave."""

    def stream(
        self,
        path: str,
        body: dict[str, Any],
        limit: float | None,
        decoder: Decoder[T],
        headers: Headers = None,
        failed: Failed = unseen,
    ) -> AsyncGenerator[T, None]:
        """Send a body and give what the decoder makes of the reply; `limit` seconds at most between two of its pieces.

        Behind its last word the stream is read to its end, so that its connection serves the next call; but that may
        take 0.25 s only, and whatever goes wrong there costs no more than the connection.
        """

    async def close(self) -> None:
        """Close all connections."""


class HttpTransport:
    """The default transport: bodies over `HttpClient`, without any SDK.

    Args:
        address: what paths are put behind.
        headers: of every request.
        provider: the provider's name, for errors.
        secrets: what no message may show.
        classify: the backend's own words for errors.
        prompt: keys of a body that hold the conversation, which is not searched for numbers that JSON has no word for.

    Raises:
        LLMProviderConfigurationError: the address or a header makes no sense.
    """

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
        self._provider = provider
        self._secrets = secrets
        self._prompt = prompt
        self._client = HttpClient(address, headers=headers, provider=provider, secrets=secrets, classify=classify)

    def post(self, path: str, body: dict[str, Any], limit: float | None, headers: Headers = None) -> Awaitable[Reply]:
        """Send a body, which is written here and now, and give what `read` makes an answer of."""
        sent = encode_json(body, unsearched=self._prompt)
        return self._client.request("POST", path, sent, timeout=limit, headers=headers)

    def request(
        self, method: str, path: str, body: dict[str, Any] | None, limit: float | None, headers: Headers = None
    ) -> Awaitable[Reply]:
        """Make a request with any method."""
        sent = None if body is None else encode_json(body, unsearched=self._prompt)
        return self._client.request(method, path, sent, timeout=limit, headers=headers)

    def read(self, reply: Reply) -> Answer:
        """Read a whole reply; one that says by its status that it has no body is an empty object."""
        request_id = reply.request_id
        if reply.status == 204:
            return Answer({}, request_id)
        data = decode_object(reply.body, provider=self._provider, request_id=request_id, secrets=self._secrets)
        return Answer(data, request_id)

    def stream(
        self,
        path: str,
        body: dict[str, Any],
        limit: float | None,
        decoder: Decoder[T],
        headers: Headers = None,
        failed: Failed = unseen,
    ) -> AsyncGenerator[T, None]:
        """Send a body, which is written here and now, and give what the decoder makes of the reply."""
        sent = encode_json(body, unsearched=self._prompt)
        return self._client.stream(path, sent, timeout=limit, headers=headers, decoder=decoder, failed=failed)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


class Hidden(tuple[str, ...]):
    """Texts that a debugger's dump of an object does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} hidden>"


def hidden(secrets: Iterable[str], headers: Headers = None) -> Hidden:
    """What no message may show: secrets, and the values of headers that sign in by another name.

    Args:
        secrets: a provider's own, as `settings.secrets()` gives them.
        headers: those that the user adds.
    """
    return Hidden(filter(None, (*secrets, *sign_in_secrets(headers or {}))))


def merged_headers(headers: Mapping[str, str], own: Headers) -> dict[str, str]:
    """Headers of every request, where the user's own win, however they are written."""
    replaced = {name.lower() for name in own or {}}
    return {**{name: value for name, value in headers.items() if name.lower() not in replaced}, **(own or {})}
