"""What the server's headers say is left of a limit bounds the calls under way."""

from __future__ import annotations

from typing import Any

import pytest

from providers import Concurrency
from providers.testing.server import LoopbackServer, Reply
from providers.wire.reply import headroom_of

from . import bodies
from .conftest import Make

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ({"x-ratelimit-remaining-requests": "7", "x-ratelimit-remaining-tokens": "900"}, (7, 900)),
        ({"anthropic-ratelimit-requests-remaining": "3", "anthropic-ratelimit-input-tokens-remaining": "50"}, (3, 50)),
        ({"X-RateLimit-Remaining-Tokens-Minute": "10", "x-rate-limit-remaining-tokens-day": "5"}, (None, 5)),
        ({"x-ratelimit-remaining-requests": "soon", "x-ratelimit-limit-requests": "9"}, (None, None)),
        ({"ratelimit-remaining": "9", "remaining-requests": "1"}, (None, None)),
    ],
)
def test_headers_in_their_many_spellings(headers: dict[str, str], left: tuple[int | None, int | None]) -> None:
    assert headroom_of(headers) == left


@pytest.mark.parametrize("stream", [False, True])
async def test_the_bound_is_never_above_what_is_left(make: Make, server: LoopbackServer, stream: bool) -> None:
    """Issue: adaptive concurrency, fed by the vendors' headers."""

    def reply(left: int) -> Any:
        headers = {"x-ratelimit-remaining-requests": str(left)}
        if stream:
            return Reply.sse(bodies.chat_stream("Hello"), headers=headers)
        return Reply.json(bodies.chat("Hello"), headers=headers)

    bound = Concurrency(start=20, most=40)
    provider = make(max_concurrency=bound)

    async def ask() -> None:
        if stream:
            assert "".join([piece async for piece in await provider.execute("Hi", stream_mode="enabled")]) == "Hello"
        else:
            await provider.execute("Hi")

    for left, expected in ((100, 20), (5, 5), (0, 1), (50, 20)):
        server.script(CHAT, reply(left))
        await ask()
        assert bound.bound == expected
    # Nobody listens where no bound is learned.
    server.script(CHAT, reply(0))
    provider = make()
    await ask()
    assert bound.bound == 20
