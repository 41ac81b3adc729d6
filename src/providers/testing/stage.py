"""What is scripted and what was seen: the one place that the server's thread and the test's threads share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

from .recorded import RecordedRequest
from .replies import Reply

Answer: TypeAlias = Reply | Callable[[RecordedRequest], Reply | Awaitable[Reply]]


@dataclass(slots=True)
class _Line:
    """One answer in a script."""

    answer: Answer
    repeat: bool = False
    played: bool = False


class Stage:
    """Scripts by route, records in order, counters, and a way to wait for a change of any of them.

    Each public method may be called from any thread.
    """

    def __init__(self) -> None:
        # A condition's own lock may be taken again by its holder, which `wait_until` needs for its check.
        self._changed = threading.Condition()
        self._scripts: dict[str, deque[_Line]] = {}
        self._requests: list[RecordedRequest] = []
        self._errors: list[Exception] = []
        self._watchers: list[Callable[[], object]] = []
        self._accepted = 0
        self._open = 0

    # --- what is scripted

    def script(self, route: str, answers: tuple[Answer, ...], repeat: bool) -> None:
        """Queues answers behind those that the route has; a repeated one gives way to what comes after it."""
        with self._changed:
            queue = self._scripts.setdefault(route, deque())
            if queue and queue[-1].repeat:
                if queue[-1].played:
                    queue.pop()
                else:
                    queue[-1].repeat = False
            queue.extend(_Line(answer) for answer in answers)
            queue[-1].repeat = repeat

    def take_refusal(self) -> bool:
        """Counts a new connection, and says whether the script of `"*"` refuses it."""
        with self._noting():
            self._accepted += 1
            if (queue := self._scripts.get("*")) and isinstance(queue[0].answer, Reply) and queue[0].answer.refused:
                self._take("*")
                return True
            self._open += 1
            return False

    def take(self, request: RecordedRequest) -> Answer:
        """Records a request and gives the answer that is next for it; a 404 that says why, where none is."""
        with self._noting():
            self._requests.append(request)
            for route in request.routes:
                if (answer := self._take(route)) is not None:
                    return answer
            known = sorted(self._scripts)
        if any(route in known for route in request.routes):
            why = f"no answer is left for {request.method} {request.path}: all that were scripted are used up"
        else:
            why = f"no answer is scripted for {request.method} {request.path}"
        return Reply.json({"error": {"message": why, "path": request.path, "scripted": known}}, 404)

    def _take(self, route: str) -> Answer | None:
        queue = self._scripts.get(route)
        if not queue:
            return None
        line = queue[0] if queue[0].repeat else queue.popleft()
        line.played = True
        return line.answer

    # --- what was seen

    def answered(self, request: RecordedRequest) -> None:
        """Notes that the whole answer has left."""
        with self._noting():
            request.answered_at = time.monotonic()

    def client_left(self, request: RecordedRequest) -> None:
        """Notes that the client closed the connection before it had the whole answer."""
        with self._noting():
            request.closed_at = time.monotonic()

    def connection_lost(self) -> None:
        """Notes the end of a connection, whoever ended it."""
        with self._noting():
            self._open -= 1

    def failed(self, error: Exception) -> None:
        """Keeps what a script raised."""
        with self._noting():
            self._errors.append(error)

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests so far, in the order of their last bytes; a new list."""
        with self._changed:
            return list(self._requests)

    @property
    def errors(self) -> list[Exception]:
        """What scripts raised so far; a new list."""
        with self._changed:
            return list(self._errors)

    @property
    def accepted(self) -> int:
        """Connections so far, refused ones too."""
        with self._changed:
            return self._accepted

    @property
    def open(self) -> int:
        """Connections that are open now."""
        with self._changed:
            return self._open

    def clear(self) -> None:
        """Forgets scripts, requests, errors and the count of connections; what is under way goes on."""
        with self._noting():
            self._scripts.clear()
            self._requests.clear()
            self._errors.clear()
            self._accepted = 0

    # --- waiting

    def wait_until(self, check: Callable[[], object], timeout: float) -> bool:
        """Blocks until the check is true, for at most `timeout` seconds; says whether it is."""
        with self._changed:
            return bool(self._changed.wait_for(check, timeout))

    @contextmanager
    def watched(self, wake: Callable[[], object]) -> Iterator[None]:
        """Calls `wake`, on whichever thread it happens, after each change."""
        with self._changed:
            self._watchers.append(wake)
        try:
            yield
        finally:
            with self._changed:
                self._watchers.remove(wake)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()
            for wake in self._watchers:
                with suppress(RuntimeError):  # The watcher's event loop may be gone.
                    wake()
