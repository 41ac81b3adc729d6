"""What aiohttp is told with each request: made once for a client, so that a call only hands it on."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from .address import Address, find_proxy
from .inflate import ACCEPTED
from .tls import tls_context

if TYPE_CHECKING:
    from multidict import CIMultiDict

_ONE_PIECE = 1 << 20  # bytes
JSON = "application/json"
EVENTS = "text/event-stream"

_DEFAULTS = {
    "whole": {"Accept": JSON, "Content-Type": JSON},
    "bare": {"Accept": JSON},
    "stream": {"Accept": EVENTS, "Content-Type": JSON},
}


def request_options(
    address: Address, headers: Mapping[str, str], *, proxy: str | None, ca_file: str | None, provider: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Make the options of each kind of request.

    Args:
        address: where the requests go.
        headers: the client's own; they win over the defaults.
        proxy: as `find_proxy` takes it.
        ca_file: as `tls_context` takes it, or `None` for the default trust.
        provider: name of the provider, for errors.

    Returns:
        Keyword arguments of `aiohttp.ClientSession.request` for the kinds `whole` (a body out, a whole reply in),
        `bare` (nothing out) and `stream` (a body out, events in); and the secrets that came with the proxy.

    Raises:
        LLMProviderConfigurationError: the proxy or `ca_file` makes no sense.
    """
    from multidict import CIMultiDict

    shared: dict[str, Any] = {"allow_redirects": False}
    extra: dict[str, str] = {}
    secrets: list[str] = []
    chosen = find_proxy(address, proxy, provider=provider)
    if chosen is not None:
        shared["proxy"] = chosen.url
        if chosen.authorization is not None:
            secrets = [chosen.authorization.partition(" ")[2], chosen.password or ""]
            sign_in = {"Proxy-Authorization": chosen.authorization}
            if address.scheme == "https":
                shared["proxy_headers"] = sign_in
            else:  # without a tunnel the proxy reads the request itself
                extra = sign_in
    if ca_file is not None:
        shared["ssl"] = tls_context(ca_file, provider=provider)
    made: dict[str, dict[str, Any]] = {}
    for kind, defaults in _DEFAULTS.items():
        head: CIMultiDict[str] = CIMultiDict({**defaults, "Accept-Encoding": ACCEPTED, **extra})
        head.update(headers)
        made[kind] = {**shared, "headers": head}
    return made, secrets


def fed(body: bytes | None) -> bytes | BytesIO | None:
    """A body as aiohttp takes it: it warns about large ones in one piece, since they hold up the loop; a file it sends
    piece by piece."""
    return body if body is None or len(body) <= _ONE_PIECE else BytesIO(body)
