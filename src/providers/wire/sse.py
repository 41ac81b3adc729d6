"""The incremental parser of server-sent events: bytes in, whole events out, however the bytes were cut.

Follows the event-stream rules of the HTML standard (https://html.spec.whatwg.org/multipage/server-sent-events.html)
with one exception, because real servers need it: an event whose closing blank line is missing at the end of the body
is delivered, not thrown away.
"""

from __future__ import annotations

Event = tuple[str | None, bytes]
"""One event: its name (`None` where the stream gave none) and its data, lines joined by a line feed, undecoded."""

_BOM = b"\xef\xbb\xbf"


_LF = 10
_CR = 13


class SSEParser:
    """Turn pieces of an event stream into events.

    Work and memory are linear in the size of the stream, whatever the size of the pieces. Data stays bytes, so a cut
    inside a UTF-8 character is no special case. The fields `id` and `retry`, comments and unknown fields are skipped.
    """

    __slots__ = ("_amid", "_data", "_fresh", "_head", "_name", "_named", "_partial", "_size", "_skip_lf")

    def __init__(self) -> None:
        self._partial: list[bytes] = []  # pieces of a line whose end has not come
        self._data: list[bytes] = []  # data lines of the event under way
        self._name: bytes = b""
        self._skip_lf = False  # the last piece ended in CR: a line feed that follows belongs to it
        self._amid = False  # an event is under way, or a line end
        # How the last event of one line of data began, and its name; or the usual beginning of one without a name.
        self._head = b"data: "
        self._size = len(self._head)
        self._named: str | None = None
        self._fresh = True  # no line was read yet, so a byte order mark may come

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next piece of the stream.

        Args:
            chunk: any number of bytes, cut anywhere.

        Returns:
            The events that this piece completed, in order.
        """
        # One event of one line of data is what servers send for each token, and most of them begin alike. In slices and
        # numbers: CPython 3.11 makes and drops an error at each `b"\r" in chunk`, and parses the arguments of `find`
        # at length.
        if not self._amid and chunk[: self._size] == self._head:
            end = -2 if chunk[-2:] == b"\n\n" else -4 if chunk[-4:] == b"\r\n\r\n" else 0
            data = chunk[self._size : end]
            if end and not (_LF in data or _CR in data):
                self._fresh = False
                return [(self._named, data)]
        events = self._feed(chunk)
        self._amid = bool(self._partial or self._data or self._name or self._skip_lf)
        return events

    def _feed(self, chunk: bytes) -> list[Event]:
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[0] == 10:
                chunk = chunk[1:]
        returns = _CR in chunk
        cut = chunk.rfind(b"\n") + 1
        if returns:
            cut = max(cut, chunk.rfind(b"\r") + 1)
        if not cut:
            if chunk:
                self._partial.append(chunk)
            return []
        rest = chunk[cut:]
        text = chunk[:cut] if rest else chunk
        if self._partial:
            # Each byte is joined once: what is joined here ends in a line end, so it never waits again.
            self._partial.append(text)
            text = b"".join(self._partial)
            self._partial.clear()
        if rest:
            self._partial.append(rest)
        if returns:
            self._skip_lf = not rest and text.endswith(b"\r")
            # The text ends in a line end, and bytes know no other ones than the three of the standard.
            text = b"\n".join([*text.splitlines(), b""])
        if self._fresh:
            self._fresh = False
            text = text.removeprefix(_BOM)
        return self._events(text)

    def close(self) -> list[Event]:
        """Take the end of the stream.

        Returns:
            The last event, if its closing blank line (or even its line end) was missing; else nothing.
        """
        events: list[Event] = []
        if self._partial:
            line = b"".join(self._partial)
            self._partial.clear()
            self._line(line.removeprefix(_BOM) if self._fresh else line)
        self._dispatch(events)
        return events

    def _events(self, text: bytes) -> list[Event]:
        # `text` is whole lines, ended by line feeds alone. Between two blank lines stands one event, nearly always of
        # one data line, with a name or without one: such a one is cut out. All else is read line by line.
        events: list[Event] = []
        blocks = text.split(b"\n\n")
        last = blocks.pop()
        for block in blocks:
            if not (self._data or self._name) and (event := self._whole(block)) is not None:
                events.append(event)
                continue
            for line in block.split(b"\n"):
                if line:
                    self._line(line)
                else:
                    self._dispatch(events)
            self._dispatch(events)
        if last:
            for line in last.split(b"\n")[:-1]:
                if line:
                    self._line(line)
                else:
                    self._dispatch(events)
        return events

    def _whole(self, block: bytes) -> Event | None:
        """The event of a block of one line of data, with its name in a line before it or without one."""
        if block[: self._size] != self._head:
            if block[:6] == b"data: ":
                self._head, self._named = b"data: ", None
            elif block[:7] == b"event: ":
                head, _, rest = block.partition(b"\n")
                if rest[:6] != b"data: ":
                    return None
                self._head, self._named = head + b"\ndata: ", head[7:].decode("utf-8", "replace") or None
            else:
                return None
            self._size = len(self._head)
        data = block[self._size :]
        return None if _LF in data else (self._named, data)

    def _line(self, line: bytes) -> None:
        if line[:6] == b"data: ":
            self._data.append(line[6:])
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ")

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            events.append((self._name.decode("utf-8", "replace") or None, data))
            self._data = []
        self._name = b""
