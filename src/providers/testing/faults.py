"""Everything that can go wrong with an answer, as replies that stand in a script like any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from .replies import Cut, HeaderLines, How, Reply, Stream


class Fault:
    """Makes bad replies, most of them out of a good one.

    ================================ ========================================================================
    `status`, `redirect`             an error status with any body and headers; another address to ask
    `empty`, `not_json`              200 and nothing; 200 and a page of HTML that calls itself JSON
    `truncated_json`, `cut_gzip`     half of the body, and a `Content-Length` that agrees with the half
    `short_body`                     half of what the `Content-Length` promises, then the connection closes
    `cut`                            ended, closed, reset or silent after some bytes or events
    `stall`                          silent for ever after some bytes or events
    `delay`, `slow`                  late; in small packets with waits between them
    `silence`                        never an answer
    `hang_up`                        the connection closes in place of an answer
    `refuse`                         the connection is reset as soon as it is made
    ================================ ========================================================================
    """

    @staticmethod
    def status(status: int, body: object = b"", headers: HeaderLines | None = None) -> Reply:
        """An error status; the body goes out as it is (`bytes`), as text (`str`) or as JSON (anything else)."""
        match body:
            case bytes():
                return Reply.bytes(body, status, headers)
            case str():
                return Reply.text(body, status, headers)
            case _:
                return Reply.json(body, status, headers)

    @staticmethod
    def redirect(url: str, status: int = 307) -> Reply:
        """Another address, in `Location`; 307 keeps method and body, 302 makes most clients send a GET."""
        return Reply.bytes(b"", status, {"Location": url})

    @staticmethod
    def empty(status: int = 200) -> Reply:
        """A JSON answer without a byte of body."""
        return Reply.bytes(b"", status, {"Content-Type": "application/json"})

    @staticmethod
    def not_json(text: str = "<html><body>It works!</body></html>", status: int = 200) -> Reply:
        """A text that is no JSON, under `Content-Type: application/json`."""
        return Reply.text(text, status, {"Content-Type": "application/json"})

    @staticmethod
    def truncated_json(value: object, status: int = 200) -> Reply:
        """The first half of the JSON, whole as far as HTTP can tell."""
        return _half(Reply.json(value, status), "end")

    @staticmethod
    def cut_gzip(value: object, status: int = 200) -> Reply:
        """The first half of the gzipped JSON, whole as far as HTTP can tell."""
        return _half(Reply.json(value, status).gzipped(), "end")

    @staticmethod
    def short_body(value: object, status: int = 200) -> Reply:
        """The `Content-Length` of the whole JSON, its first half, and the end of the connection."""
        return _half(Reply.json(value, status), "close")

    @staticmethod
    def cut(
        reply: Reply, *, after_bytes: int | None = None, after_events: int | None = None, how: How = "close"
    ) -> Reply:
        """A reply that stops early.

        Args:
            reply: what would have been sent.
            after_bytes: bytes of the body, HTTP framing not counted, that still go out.
            after_events: pieces of a stream, the `done` event counted, that still go out.
            how: `"end"`: the framing says that this was all. `"close"`: the connection closes (in the middle of an
                HTTP chunk, where `after_bytes` falls into one). `"reset"`: the same with a TCP reset. `"stall"`:
                nothing more comes, and the connection stays.

        Raises:
            ValueError: not exactly one place is named, or the body does not reach it. (A stream that does not reach
                it is reported when it is played.)
        """
        if (after_bytes is None) == (after_events is None):
            raise ValueError("name one place to cut: after_bytes or after_events")
        count = after_bytes if after_bytes is not None else after_events
        if count is None or count < 0:
            raise ValueError("an answer cannot be cut before its start")
        if not isinstance(reply.body, Stream):
            if after_events is not None:
                raise ValueError("after_events needs a stream: a whole body has no events")
            if count > len(reply.body):
                raise ValueError(f"the body has {len(reply.body)} bytes, it cannot be cut after {count}")
        return replace(reply, cut=Cut(how, "events" if after_bytes is None else "bytes", count))

    @staticmethod
    def stall(reply: Reply, *, after_bytes: int | None = None, after_events: int | None = None) -> Reply:
        """A reply that falls silent, until the client leaves or the server closes."""
        return Fault.cut(reply, after_bytes=after_bytes, after_events=after_events, how="stall")

    @staticmethod
    def delay(seconds: float, reply: Reply) -> Reply:
        """A reply whose first byte comes so many seconds late."""
        return replace(reply, delay=seconds)

    @staticmethod
    def slow(reply: Reply, *, chunk_size: int = 1, pause: float = 0.005) -> Reply:
        """A reply whose body comes in packets of `chunk_size` bytes, `pause` seconds apart."""
        return replace(reply, chunk_size=chunk_size, chunk_pause=pause)

    @staticmethod
    def silence() -> Reply:
        """Never an answer: the request is taken, and nothing comes back."""
        return Reply(cut=Cut("stall", "nothing"))

    @staticmethod
    def hang_up(how: Literal["close", "reset"] = "close") -> Reply:
        """The request is taken, and the connection closes, or is reset, without a byte of answer."""
        return Reply(cut=Cut(how, "nothing"))

    @staticmethod
    def refuse() -> Reply:
        """A TCP reset in place of a connection.

        Next in the script of `"*"`, it meets the next connection when that is accepted, and no request is recorded.
        In any other script, or on a connection that is already open, the request has to be read first, and is reset
        then. For an address where nobody listens, take the `url` of a server that is closed.
        """
        return Reply(cut=Cut("reset", "nothing"), refused=True)


def _half(reply: Reply, how: How) -> Reply:
    return Fault.cut(reply, after_bytes=len(reply.body) // 2 if isinstance(reply.body, bytes) else 0, how=how)
