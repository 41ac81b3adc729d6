"""What the loopback server saw: requests, with headers that keep their secrets out of every repr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_SECRET_WORDS = ("auth", "key", "token", "secret", "cookie")


class Headers(Mapping[str, str]):
    """The header fields of one message; names are looked up without regard to case.

    Values of one name are joined with `", "`; `all(name)` gives them one by one. The repr shows `***` for the value
    of each name that speaks of a key, token, cookie, secret or authorization.
    """

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def all(self, name: str) -> list[str]:
        """Every value that came under this name, in order; empty where there is none."""
        return list(self._values.get(name.lower(), ()))

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        shown = {name: "***" if any(word in name for word in _SECRET_WORDS) else self[name] for name in self}
        return f"Headers({shown})"


@dataclass(slots=True, eq=False, repr=False)
class RecordedRequest:
    """One request as it came in, and what became of its answer.

    Attributes:
        method: `"POST"`, as sent.
        target: what stood in the request line, query included. A client that uses the server as its proxy sends a
            whole URL.
        http_version: `"HTTP/1.1"` or `"HTTP/1.0"`.
        headers: looked up without regard to case.
        body: the whole body, its chunks joined; not decompressed.
        received_at: when the last byte of the request was here, in seconds of `time.monotonic()`.
        answered_at: when the last byte of the answer had left, or `None`: it has not, or a fault kept it back.
        closed_at: when the client closed the connection with the answer still due or under way, or `None`.
    """

    method: str
    target: str
    http_version: str
    headers: Headers
    body: bytes
    received_at: float
    answered_at: float | None = None
    closed_at: float | None = None

    @property
    def path(self) -> str:
        """The decoded path, without host and query."""
        raw = self.target.partition("?")[0] if self.target.startswith("/") else urlsplit(self.target).path
        return unquote(raw)

    @property
    def query(self) -> dict[str, str]:
        """The decoded query; where a name comes twice, its last value."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def text(self) -> str:
        """The body, read as UTF-8."""
        return self.body.decode("utf-8")

    @property
    def json(self) -> Any:
        """The body, read as JSON; raises `ValueError` where it is none."""
        return json.loads(self.body)

    @property
    def client_disconnected(self) -> bool:
        """Whether the client left before it had the whole answer."""
        return self.closed_at is not None

    def matches(self, route: str) -> bool:
        """Whether a route, as `LoopbackServer.script` takes it, stands for this request."""
        return route in self.routes

    @property
    def routes(self) -> tuple[str, str, str]:
        """The routes that stand for this request, the narrowest first."""
        return f"{self.method} {self.path}", self.path, "*"

    def __repr__(self) -> str:
        # No query, no body: a key may stand in both.
        fate = ", client left" if self.client_disconnected else ""
        return f"<RecordedRequest {self.method} {self.path}, {len(self.body)} bytes{fate}, {self.headers!r}>"
