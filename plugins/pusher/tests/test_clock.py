"""The time that a request is signed with: the server refuses one that is ten minutes off."""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_provider_pusher import PusherStreamer
from providers import StreamEvent
from providers.testing import Reply

from .conftest import Pusher

Make = Callable[..., PusherStreamer]


async def test_each_request_is_signed_with_the_time_of_its_sending(make: Make, pusher: Pusher) -> None:
    """F-105; a try that is made again is signed anew. Source: as in `llm_provider_pusher.signing`."""
    pusher.failing = [Reply.json({}, status=503)]
    before = int(time.time())
    async with make() as streamer:
        await streamer.push(StreamEvent.token("a"))
        await streamer.flush()
    sent = [int(request.query["auth_timestamp"]) for request in pusher.server.requests]
    assert len(sent) == 2
    assert all(before <= at <= time.time() for at in sent)
    assert pusher.data("token") == ["a"]
