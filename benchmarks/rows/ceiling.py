"""No HTTP client at all: the same bytes again and again over raw connections, to show what the server can do."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

from benchmarks.answers import ANSWER, MODEL, PROMPT

_END = b'"fp_bench"}'
_EXPECTED = ANSWER.encode()


class _Wire(asyncio.Protocol):
    """One connection; an answer's last bytes are known."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.answered: asyncio.Future[bytes]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(_END):
            self.answered.set_result(data)


class Door:
    """As many connections as there are calls at a time."""

    def __init__(self, base_url: str, *, text_stream: bool = False) -> None:
        at = urlsplit(base_url)
        self._host, self._port = at.hostname or "", at.port or 0
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}).encode()
        path = f"POST {at.path}/chat/completions HTTP/1.1"
        self._request = f"{path}\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        self._all: list[_Wire] = []
        self._free: list[_Wire] = []

    async def call(self) -> str:
        """Send, wait, and look whether it is the answer."""
        wire = self._free.pop() if self._free else await self._connect()
        wire.answered = asyncio.get_running_loop().create_future()
        wire.transport.write(self._request)
        data = await wire.answered
        self._free.append(wire)
        return ANSWER if _EXPECTED in data else ""

    async def _connect(self) -> _Wire:
        _, wire = await asyncio.get_running_loop().create_connection(_Wire, self._host, self._port)
        self._all.append(wire)
        return wire

    async def close(self) -> None:
        """Close all connections."""
        for wire in self._all:
            wire.transport.close()
