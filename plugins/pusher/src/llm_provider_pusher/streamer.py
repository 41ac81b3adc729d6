"""The streamer: events go into a queue, and one task beside the reading pushes them, a request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Literal, Self

from providers import (
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderStreamError,
    LLMResponse,
    ProviderClosedError,
    RetryPolicy,
    Secret,
    StreamEvent,
    StreamEventType,
)
from providers.notices import warn

from .events import check_channel, check_event
from .queue import PushQueue, logger
from .settings import NAME, PusherSettings

_GRACE = 1.0  # seconds that a cancelled `async with` gives what has come


class PusherWarning(UserWarning):
    """Events of a stream did not reach Pusher; the answer is not touched by that."""


class PusherStreamer:
    """Pushes the events of streams to one channel of Pusher, beside the reading.

        async with PusherStreamer("private-chat-1") as pusher:
            response = await pusher.consume(provider.stream("Hi"))

    May be used in several event loops one after another, not by two at the same time.

    Args:
        channel: name of the channel.
        app_id: the app's id; `PUSHER_APP_ID` where left out.
        key: the app's key; `PUSHER_KEY` where left out.
        secret: the app's secret; `PUSHER_SECRET` where left out.
        cluster: where the app lives, such as `"eu"`; `PUSHER_CLUSTER` where left out.
        host: address of another server that speaks the protocol; `http://` on this machine only.
        event: what the names of the events begin with: `"llm"` makes `llm.token`, `llm.done`...
        batch_seconds: how long an event waits for others that go with it; texts that come meanwhile are joined.
        timeout: seconds for one request.
        on_failure: what becomes of events that cannot be pushed: `"warn"` (one `PusherWarning`, the rest is logged) or
            `"raise"` (the error, after the answer).
        retry: how often and after which wait a request is tried again; three tries where left out.

    Raises:
        MissingCredentialsError: one of the settings is in no source; names the variables.
        LLMProviderConfigurationError: an argument or a setting makes no sense.
    """

    def __init__(
        self,
        channel: str,
        *,
        app_id: str | int | None = None,
        key: str | Secret | None = None,
        secret: str | Secret | None = None,
        cluster: str | None = None,
        host: str | None = None,
        event: str = "llm",
        batch_seconds: float = 0.05,
        timeout: float = 10.0,
        on_failure: Literal["warn", "raise"] = "warn",
        retry: RetryPolicy | None = None,
    ) -> None:
        given = {"app_id": app_id, "key": key, "secret": secret, "cluster": cluster, "host": host}
        self.channel = check_channel(channel)
        self.event = check_event(event)
        if on_failure not in ("warn", "raise"):
            raise LLMProviderConfigurationError(f"on_failure must be 'warn' or 'raise', not {on_failure!r}")
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise LLMProviderConfigurationError(f"retry must be a RetryPolicy, not {type(retry).__name__}")
        _check_seconds("batch_seconds", batch_seconds, 0.0)
        _check_seconds("timeout", timeout, 0.001)
        self._raises = on_failure == "raise"
        self._warned = False
        self._closed = False
        self._settings = PusherSettings.resolve(NAME, given)
        self._queue = PushQueue(
            self._settings,
            self.channel,
            self.event,
            batch_seconds=batch_seconds,
            timeout=timeout,
            retry=retry or RetryPolicy(max_attempts=3, initial_wait=0.25, max_wait=2.0),
        )

    def __repr__(self) -> str:
        return f"PusherStreamer({self.channel!r}, host={self._settings.address!r}, event={self.event!r})"

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        else:
            await self._end(_GRACE if isinstance(error, asyncio.CancelledError) else None)
            self._log_failure()

    async def consume(self, stream: AsyncIterable[StreamEvent]) -> LLMResponse:
        """Read a stream to its end, push its events, and give the whole answer when all of them are pushed.

        Args:
            stream: what `provider.stream(...)` gives.

        Raises:
            LLMProviderError: what the stream's ERROR event tells, or what the stream raised; and with
                `on_failure="raise"` what kept events from being pushed, with the answer in `error.response`.
            ProviderClosedError: this streamer is closed.
        """
        response: LLMResponse | None = None
        failed: Any = None
        async with aclosing(self._through(stream, report=False)) as events:
            async for event in events:
                if event.type is StreamEventType.DONE:
                    response = event.data
                elif event.type is StreamEventType.ERROR:
                    failed = event.data
        if response is None:
            self._log_failure()
            if isinstance(failed, dict):
                status = failed.get("status")
                raise LLMProviderError(
                    str(failed.get("error")), status_code=status if isinstance(status, int) else None
                )
            raise LLMProviderStreamError("the stream ended without its last event, done")
        self._report(response)
        return response

    def through(self, stream: AsyncIterable[StreamEvent]) -> AsyncGenerator[StreamEvent, None]:
        """Give a stream's events on, unchanged and at their pace, and push them beside that.

        Ends when all of them are pushed. Left early it closes the stream and has pushed at once what came; `flush()`,
        `close()` and the end of `async with` wait for that.

        Raises:
            Exception: what the stream raised; and with `on_failure="raise"`, after the last event, what kept events
                from being pushed.
        """
        return self._through(stream, report=True)

    async def _through(self, stream: AsyncIterable[StreamEvent], *, report: bool) -> AsyncGenerator[StreamEvent, None]:
        self._check_open()
        told = False
        try:
            try:
                async for event in stream:
                    told = told or event.type is StreamEventType.ERROR
                    await self._queue.room()
                    self._put(event)
                    yield event
            finally:
                close = getattr(stream, "aclose", None)
                if close is not None:
                    await close()
        except (asyncio.CancelledError, GeneratorExit):
            # Whoever leaves does not want to wait, and at the end of an event loop there is nobody left to wait for:
            # what came is pushed meanwhile, or by close().
            self._queue.hurry()
            raise
        except Exception as error:
            if not told:
                self._put(StreamEvent(StreamEventType.ERROR, _error_data(error)))
            await self._queue.drain()
            raise
        await self._queue.drain()
        if report:
            self._report()

    async def push(self, event: StreamEvent) -> None:
        """Queue one event; returns at once, but for a queue that is full.

        Raises:
            ProviderClosedError: this streamer is closed.
        """
        self._check_open()
        await self._queue.room()
        self._put(event)

    async def flush(self) -> None:
        """Wait until all events that were queued until now are pushed, or given up.

        Raises:
            LLMProviderError: with `on_failure="raise"`: what kept events from being pushed since the last time.
        """
        await self._queue.drain()
        self._report()

    async def close(self) -> None:
        """Push what is queued, and close the connections; harmless the second time.

        Raises:
            LLMProviderError: as in `flush`.
        """
        await self._end(None)
        self._report()

    async def _end(self, grace: float | None) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            async with asyncio.timeout(grace):
                await self._queue.drain()
        except TimeoutError:
            pass  # what is left is counted and told by `stop`
        finally:
            await self._queue.stop()

    def _put(self, event: StreamEvent) -> None:
        try:
            self._queue.put(event)
        except Exception as error:  # a value that cannot be written must not end the answer
            self._queue.lose(1, error)

    def _check_open(self) -> None:
        if self._closed:
            raise ProviderClosedError("the streamer was closed; create a new one", provider=NAME)

    def _report(self, response: LLMResponse | None = None) -> None:
        """Tell of what was lost since the last time, in the way that was asked for."""
        error, lost = self._queue.take_failure()
        if error is None:
            return
        if self._raises:
            if isinstance(error, LLMProviderError) and error.response is None:
                error.response = response
            raise error
        if self._warned:
            return
        self._warned = True
        warn(
            f"{lost} events did not reach the channel {self.channel}: {error} (the answer is whole; further failures "
            "are logged)",
            PusherWarning,
        )

    def _log_failure(self) -> None:
        """For an end that has an error of its own: a second one would hide it."""
        error, lost = self._queue.take_failure()
        if error is not None:
            logger.warning("%d events did not reach the channel %s: %s", lost, self.channel, error)


def _check_seconds(name: str, value: object, least: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= 3600:  # type: ignore[operator]
        raise LLMProviderConfigurationError(f"{name} must be seconds from {least:g} to 3600, not {value!r}")


def _error_data(error: Exception) -> dict[str, Any]:
    # What is raised and not told by an event is no failure of a backend: its text may name files and variables of this
    # machine, and a channel is read by browsers.
    return {"status": getattr(error, "status_code", None), "error": type(error).__name__}
