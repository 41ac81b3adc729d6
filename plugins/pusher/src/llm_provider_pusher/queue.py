"""The queue behind a streamer, and the task that empties it: batches, retries, rests while Pusher is down."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from contextvars import Context
from time import monotonic, time
from typing import Any, Final

from providers import LLMProviderBadRequestError, LLMProviderError, RetryPolicy, StreamEvent, StreamEventType
from providers.resilience import retrying
from providers.wire import HttpClient, encode_json

from .events import Entry
from .settings import NAME, PusherSettings
from .signing import signed_path

logger = logging.getLogger("providers.pusher")

MOST_EVENTS: Final = 10
"""Most events of one request: https://pusher.com/docs/channels/library_auth_reference/rest-api/ (batch_events)."""

_MOST_WAITING: Final = 1000
_REST: Final = 2.0  # seconds without a request after one that failed for good
_LONGEST_REST: Final = 60.0
_ONCE: Final = RetryPolicy(max_attempts=1)
_LAST: Final = frozenset({StreamEventType.DONE, StreamEventType.ERROR})


class PushQueue:
    """Events on their way to one channel.

    The task that pushes lives only while something waits, so that an idle queue belongs to no event loop.

    Args:
        settings: the app's account, checked.
        channel: where the events go.
        event: what their names begin with.
        batch_seconds: how long an event waits for others.
        timeout: seconds for one request.
        retry: how often and after which wait a request is tried again.
    """

    def __init__(
        self,
        settings: PusherSettings,
        channel: str,
        event: str,
        *,
        batch_seconds: float,
        timeout: float,
        retry: RetryPolicy,
    ) -> None:
        self._channel, self._event = channel, event
        self._batch_seconds, self._timeout, self._retry = batch_seconds, timeout, retry
        self._key, self._secret = settings.signer
        self._path = f"/apps/{settings.app_id}"
        self._client = HttpClient(
            settings.address, headers={}, provider=NAME, secrets=settings.secrets(), classify=_classify
        )
        self._waiting: deque[Entry] = deque()
        self._flight: list[dict[str, Any]] = []  # what a task that was cancelled had in hand stays here
        self._seq = 0
        self._came = 0  # number of the last entry
        self._taken = 0  # number of the last one that is in `_flight`, or was
        self._gone = 0  # number of the last one that was pushed or given up
        self._hurry = 0  # up to this entry nothing waits for company
        self._down = False
        self._rest_until = 0.0
        self._failure: Exception | None = None
        self._lost = 0
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()

    # --- from outside

    def put(self, event: StreamEvent) -> None:
        """Add one event; a text becomes part of the one before it, where that waits still."""
        entry = Entry.of(event)
        if entry.type is StreamEventType.USAGE:
            self._forget_usage()
        if not self._waiting or not self._waiting[-1].joined(entry):
            self._came += 1
            entry.number = self._came
            self._waiting.append(entry)
        self._start()
        if self._is_urgent():
            self._wake.set()

    async def room(self) -> None:
        """Wait while too many entries wait that cannot be joined; never for a stream of texts."""
        if len(self._waiting) >= _MOST_WAITING:
            await self.drain()

    def hurry(self) -> None:
        """Let nothing that has come wait for company any longer."""
        self._hurry = max(self._hurry, self._came)
        self._wake.set()

    async def drain(self) -> None:
        """Wait until all that has come is pushed or given up; cancelling the wait does not stop the pushing."""
        target = self._came
        while self._gone < target:
            self._start()
            self.hurry()
            await self._progress.wait()

    async def stop(self) -> None:
        """End the task and the connections, and count what is left as lost."""
        task, self._task = self._task, None
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])
        self._give_up(None)
        await self._client.close()

    def lose(self, count: int, error: Exception | None) -> None:
        """Count events that will not be pushed, and log why."""
        text = error if error is not None else "there was no time left for them"
        logger.log(
            logging.INFO if self._lost == 0 else logging.WARNING,
            "%d events are not pushed to %s: %s",
            count,
            self._channel,
            text,
        )
        self._lost += count
        self._failure = self._failure or error or LLMProviderError(str(text), provider=NAME)

    def take_failure(self) -> tuple[Exception | None, int]:
        """The first failure that lost events since the last time, and how many were lost in all."""
        error, self._failure = self._failure, None
        return error, self._lost

    # --- the task

    def _start(self) -> None:
        loop, task = asyncio.get_running_loop(), self._task
        if task is not None and not task.done() and task.get_loop() is loop:
            return
        self._wake, self._progress = asyncio.Event(), asyncio.Event()
        # A context of its own: what the caller's says of retries and of a vendor's limits is not meant for Pusher.
        self._task = loop.create_task(self._run(), name="llm-provider-pusher", context=Context())

    async def _run(self) -> None:
        try:
            while self._flight or self._waiting:
                if not self._flight or self._down:
                    await self._window()
                while self._waiting and len(self._flight) < MOST_EVENTS:
                    self._take(self._waiting.popleft())
                if self._flight:
                    await self._send(self._flight[:MOST_EVENTS])
                if not self._flight:
                    self._settle()
        finally:
            # Also for a task that is cancelled: who waits starts another one.
            self._progress.set()

    async def _window(self) -> None:
        """Wait for company, or for the end of a rest, as long as nobody is in a hurry."""
        while not self._is_urgent():
            due = self._waiting[0].arrived + self._batch_seconds if self._waiting else 0.0
            left = max(due, self._rest_until if self._down else 0.0) - monotonic()
            if left <= 0:
                return
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    def _is_urgent(self) -> bool:
        if self._gone < self._hurry:
            return True
        waiting = self._waiting
        return not self._down and bool(waiting) and (len(waiting) >= MOST_EVENTS or waiting[-1].type in _LAST)

    def _take(self, entry: Entry) -> None:
        self._taken = entry.number
        name = f"{self._event}.{entry.type.value}"
        made = []
        try:
            for seq, payload in enumerate(entry.payloads(), self._seq + 1):
                data = encode_json({**payload, "seq": seq, "timestamp": entry.timestamp}).decode()
                made.append({"name": name, "data": data})
        except Exception as error:
            self.lose(1, error)
        else:
            self._flight += made
            self._seq += len(made)

    async def _send(self, batch: list[dict[str, Any]]) -> None:
        try:
            await retrying(_ONCE if self._down else self._retry, lambda: self._post(batch))
        except Exception as error:
            self._failed(error, len(batch))
        else:
            if self._down:
                logger.info("events are pushed to %s again", self._channel)
            self._down = False
            del self._flight[: len(batch)]

    async def _post(self, batch: list[dict[str, Any]]) -> None:
        if len(batch) == 1:
            path, content = f"{self._path}/events", {**batch[0], "channels": [self._channel]}
        else:
            path = f"{self._path}/batch_events"
            content = {"batch": [{**one, "channel": self._channel} for one in batch]}
        body = encode_json(content)
        signed = signed_path(path, body, key=self._key, secret=self._secret, timestamp=int(time()))
        await self._client.post(signed, body, timeout=self._timeout)

    def _failed(self, error: Exception, count: int) -> None:
        if isinstance(error, LLMProviderBadRequestError):  # these events are refused; others may pass
            del self._flight[:count]
            self.lose(count, error)
            return
        hint = getattr(error, "retry_after", None) or 0.0
        self._down = True
        self._rest_until = monotonic() + min(max(_REST, hint), _LONGEST_REST)
        if self._gone < self._hurry:
            self._give_up(error)
        elif isinstance(error, LLMProviderError) and error.retryable:
            logger.info("%d events for %s are kept for another try: %s", count, self._channel, error)
        else:
            del self._flight[:count]
            self.lose(count, error)

    def _give_up(self, error: Exception | None) -> None:
        """Let go of all that waits."""
        count = len(self._flight) + len(self._waiting)
        if count:
            self.lose(count, error)
        self._taken = self._came
        self._waiting.clear()
        self._flight.clear()
        self._settle()

    def _settle(self) -> None:
        """What was taken is pushed or given up: tell those who wait."""
        self._gone = self._taken
        done, self._progress = self._progress, asyncio.Event()
        done.set()

    def _forget_usage(self) -> None:
        """A usage is cumulative: one that waits is void when the next one comes, and texts around it can be joined.

        Looked for in the last two entries: a backend that tells the usage with each token must not fill the queue.
        """
        waiting = self._waiting
        for place in range(len(waiting) - 1, max(len(waiting) - 3, -1), -1):
            if waiting[place].type is StreamEventType.USAGE:
                del waiting[place]
                if place and place < len(waiting) and waiting[place - 1].joined(waiting[place]):
                    del waiting[place]
                return


def _classify(status: int | None, code: str | None, kind: str | None, message: str) -> type[LLMProviderError] | None:
    return LLMProviderBadRequestError if status == 413 else None
