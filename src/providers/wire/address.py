"""Where requests go: the checked base address, the proxy that the environment names, headers fit for the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from providers.exceptions import LLMProviderConfigurationError
from providers.notices import shown

if TYPE_CHECKING:
    from yarl import URL

_REPEATED_VERSION = r"/(v\d[\w.-]*)/\1(?:/|$)"
_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEADER_VALUE = r"[\t -~]*"
_HOST = r"(?:[^.%@\\]{1,63}\.)*[^.%@\\]{1,63}\.?"
_PATH = r"[!-~]*"


class Address(NamedTuple):
    """A checked base address: `url` has no slash at its end."""

    url: str
    scheme: str
    host: str
    port: int


class Proxy(NamedTuple):
    """A proxy: its address without user and password, and the header value that signs in there, or `None`."""

    url: str
    authorization: str | None
    password: str | None


def check_base_url(base_url: object, *, provider: str) -> Address:
    """Check the address of a server, without using the network.

    Args:
        base_url: such as `https://host/v1`; blanks around it and slashes at its end are forgiven.
        provider: name of the provider, for the error.

    Returns:
        The address in parts.

    Raises:
        LLMProviderConfigurationError: no text, blank, without `http://` or `https://`, without a host, with a query,
            a fragment, a password, an empty path segment or a version segment twice.
    """
    from urllib.parse import urlsplit

    def refuse(problem: str) -> LLMProviderConfigurationError:
        return LLMProviderConfigurationError(f"base_url {problem}", provider=provider)

    if not isinstance(base_url, str):
        raise refuse(f"has to be a text, not {type(base_url).__name__}")
    text = base_url.strip()
    if not text:
        raise refuse("is blank; give an address such as https://host/v1, or leave it out")
    # Queries and passwords may hold secrets: neither is ever quoted.
    told = re.sub(r"//[^/]*@", "//", re.split(r"[?#]", text, maxsplit=1)[0])[:200]
    # What is no address at all may be a key that was set under the wrong name.
    quoted = repr(told)
    if not text.lower().startswith(("http://", "https://")) and shown(told) != quoted:
        quoted = f"({shown(told)})"
    if not re.fullmatch(_PATH, text) and re.search(r"[\s\x00-\x1f\x7f]", text):
        raise refuse(f"{quoted} holds a blank or a control character")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise refuse(f"{quoted} is not an address (look at its port and brackets)") from None
    if parts.scheme.lower() not in ("http", "https") or not text[len(parts.scheme) :].startswith("://"):
        raise refuse(f"{quoted} has to start with http:// or https://")
    if not parts.hostname:
        raise refuse(f"{quoted} names no host")
    if ":" not in parts.hostname and not re.fullmatch(_HOST, parts.hostname):
        raise refuse(f"{quoted} has a host that no name service can know")
    if "?" in text or "#" in text:
        raise refuse(f"{quoted} must not have a query or a fragment")
    if parts.username is not None or parts.password is not None:
        raise refuse(f"{quoted} must not hold a user or a password; give a header instead")
    path = parts.path.rstrip("/")
    if "//" in path:
        raise refuse(f"{quoted} has an empty path segment (//)")
    repeated = re.search(_REPEATED_VERSION, path)
    if repeated:
        raise refuse(f"{quoted} has /{repeated[1]} twice")
    scheme = parts.scheme.lower()
    if port == 0:
        raise refuse(f"{quoted} has port 0")
    host = parts.netloc
    return Address(f"{scheme}://{host}{path}", scheme, parts.hostname, port or (443 if scheme == "https" else 80))


def check_path(path: str, *, provider: str) -> str:
    """Check the path of one request, as it will stand in the request line.

    Args:
        path: below the base address, percent-encoded, with or without a slash at its start; may have a query.
        provider: name of the provider, for the error.

    Returns:
        The path with one slash at its start.

    Raises:
        LLMProviderConfigurationError: a blank, a control character or a letter beyond ASCII: it was not encoded.
    """
    if not re.fullmatch(_PATH, path) or "#" in path:
        raise LLMProviderConfigurationError(f"the path {path[:100]!r} is not percent-encoded", provider=provider)
    return "/" + path.lstrip("/")


def address_of(base: str, path: str, *, provider: str) -> URL:
    """The whole address of a request.

    Args:
        base: a checked base address.
        path: as for `check_path`.
        provider: name of the provider, for the error.

    Raises:
        LLMProviderConfigurationError: the path was not encoded, or the base is no address after all.
    """
    from yarl import URL

    below = check_path(path, provider=provider)
    try:
        return URL(str(URL(base)).rstrip("/") + below, encoded=True)
    except ValueError as error:
        raise LLMProviderConfigurationError(f"base_url {base!r} is not an address", provider=provider) from error


def check_headers(headers: Mapping[str, str], *, provider: str) -> dict[str, str]:
    """Check headers before they meet the HTTP library, whose own complaints are late and quote the value.

    Args:
        headers: names and values.
        provider: name of the provider, for the error.

    Returns:
        The same headers.

    Raises:
        LLMProviderConfigurationError: a name or value that is no text, or holds a line end, a control character or a
            letter beyond ASCII. The message names the header, never its value.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not re.fullmatch(_HEADER_NAME, name):
            raise LLMProviderConfigurationError(f"{name!r} is no header name", provider=provider)
        if not isinstance(value, str):
            found = f"of type {type(value).__name__}, not str"
        elif not re.fullmatch(_HEADER_VALUE, value):
            # A key read with `$(cat file)` ends in a line end, one copied from a page has typographic letters.
            found = "with a line end, a control character or a letter beyond ASCII"
        else:
            continue
        raise LLMProviderConfigurationError(f"the header {name} has a value {found}", provider=provider)
    return dict(headers)


def find_proxy(address: Address, explicit: str | None, *, provider: str) -> Proxy | None:
    """Choose the proxy for an address.

    Args:
        address: where the requests go.
        explicit: the address of a proxy; `""` for none; `None` to read `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
            `NO_PROXY` (either case) and what the system has set, as `urllib.request` does.
        provider: name of the provider, for the error.

    Returns:
        The proxy, or `None` to connect directly.

    Raises:
        LLMProviderConfigurationError: the proxy's address makes no sense, or is of a kind other than HTTP.
    """
    from urllib.parse import unquote, urlsplit

    where = "proxy"
    if explicit is None:
        from urllib.request import getproxies, proxy_bypass

        found = getproxies()
        name = next((name for name in (address.scheme, "all") if found.get(name)), None)
        if name is None or proxy_bypass(address.host) or proxy_bypass(f"{address.host}:{address.port}"):
            return None
        where, explicit = f"the environment's {name.upper()}_PROXY", found[name]
    text = explicit.strip()
    if not text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port, host = parts.port, parts.hostname
    except ValueError:
        parts, port, host = urlsplit(""), None, None
    if parts.scheme not in ("http", "https") or not host:
        raise LLMProviderConfigurationError(
            f"{where} has to be an address like http://host:port"
            + (f", not {parts.scheme}://" if parts.scheme and host else ""),
            provider=provider,
        )
    name = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{name}" + (f":{port}" if port else "")
    if parts.username is None:
        return Proxy(url, None, None)
    from base64 import b64encode

    user, password = unquote(parts.username), unquote(parts.password or "")
    return Proxy(url, "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii"), password or None)
