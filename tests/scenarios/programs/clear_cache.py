"""Cached providers are dropped while streams read from them, in a loop, in another thread's and in the sync face."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading

from providers import (
    Client,
    LLMProvider,
    StreamEventType,
    clear_provider_cache,
    get_cached_provider,
)

logging.getLogger("asyncio").setLevel(logging.ERROR)


def cached() -> LLMProvider:
    """The provider of the cache."""
    return get_cached_provider("openai", "model-1", timeout=20)


async def read(provider: LLMProvider, prompt: str, begun: threading.Barrier, cleared: threading.Event) -> None:
    """Read a stream whose second half comes after the cache was cleared."""
    stream = await provider.execute(prompt, stream_mode="enabled")
    text = await anext(stream)
    await asyncio.to_thread(begun.wait, 10)
    await asyncio.to_thread(cleared.wait, 10)
    assert text + "".join([piece async for piece in stream]) == prompt


def read_sync(provider: LLMProvider, prompt: str, begun: threading.Barrier, cleared: threading.Event) -> None:
    """The same in the sync face."""
    events = Client(provider).stream(prompt)
    text = next(event.data for event in events if event.type is StreamEventType.TOKEN)
    begun.wait(10)
    cleared.wait(10)
    assert text + "".join(event.data for event in events if event.type is StreamEventType.TOKEN) == prompt


async def clear_inside(streams: int) -> None:
    """Clear inside the loop that reads; a thread with a loop, and one with the sync face, read too."""
    provider = cached()
    assert provider is cached()
    begun, cleared = threading.Barrier(streams + 3), threading.Event()
    failed: list[BaseException] = []

    def guarded(target: object, *args: object) -> None:
        try:
            target(*args)  # type: ignore[operator]
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=guarded, args=(read_sync, provider, "one two three four", begun, cleared)),
        threading.Thread(
            target=guarded, args=(lambda: asyncio.run(read(provider, "five six seven eight", begun, cleared)),)
        ),
    ]
    for thread in threads:
        thread.start()
    tasks = [asyncio.create_task(read(provider, f"task {n} reads its words", begun, cleared)) for n in range(streams)]
    await asyncio.to_thread(begun.wait, 10)
    assert provider.calls_under_way == streams + 2
    clear_provider_cache()
    new = cached()
    assert new is not provider
    answer = await new.execute("the new one answers")
    assert answer.content == "the new one answers"
    await asyncio.sleep(0.05)
    assert provider.calls_under_way == streams + 2, "the old one's streams were ended"
    cleared.set()
    await asyncio.gather(*tasks)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    if failed:
        raise failed[0]
    # It gave its connections back, and whoever holds it may still ask it.
    answer = await provider.execute("once more")
    assert answer.content == "once more"
    await provider.close()
    print("the old one rested", flush=True)


if __name__ == "__main__":
    asyncio.run(clear_inside(3))
    asyncio.run(cached().execute("used by a loop that is gone"))  # type: ignore[arg-type]
    clear_provider_cache()
    print("cleared", flush=True)
    sys.stdin.readline()
