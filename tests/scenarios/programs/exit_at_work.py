"""Ends while a request is open, in the way that its argument names; nothing is closed on purpose."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from typing import Any

from providers import Client, create_llm_provider, get_cached_provider, get_response

logging.getLogger("asyncio").setLevel(logging.ERROR)


def silent(**options: Any) -> str:
    """A sync call that never gets its answer."""
    return str(get_response("openai", "model-1", "silence", **options))


def wait_for_the_server() -> None:
    """Wait until the test says that the request is there."""
    print("waiting", flush=True)
    sys.stdin.readline()


def sync_in_a_thread() -> None:
    """A daemon thread waits in the sync face."""
    threading.Thread(target=silent, daemon=True).start()
    wait_for_the_server()


def stream_in_a_thread() -> None:
    """A daemon thread waits in a sync stream, after its first pieces."""
    client = Client("openai", "model-1")
    threading.Thread(target=lambda: list(client.stream("silence after two words")), daemon=True).start()
    wait_for_the_server()


def loop_in_a_thread() -> None:
    """A daemon thread has an event loop of its own, and waits in it."""
    provider = create_llm_provider("openai", "model-1")
    threading.Thread(target=lambda: asyncio.run(provider.execute("silence")), daemon=True).start()
    wait_for_the_server()


def tasks_of_a_run() -> None:
    """`asyncio.run` ends with tasks and half-read streams under way; the provider is not closed."""

    async def main() -> None:
        provider = get_cached_provider("openai", "model-1")
        tasks = [asyncio.create_task(provider.execute("silence")) for _ in range(3)]
        stream = await provider.execute("silence after two words", stream_mode="enabled")
        print([await anext(stream), await anext(stream)], file=sys.stdout)
        events = provider.stream("silence after two words")
        await anext(events)
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        await asyncio.to_thread(wait_for_the_server)

    asyncio.run(main())


def half_read_sync_stream() -> None:
    """A sync stream stands half-read in a variable of the module."""
    global kept
    kept = Client("openai", "model-1").stream("silence after two words")
    next(kept)
    wait_for_the_server()


def nothing_open() -> None:
    """Calls of every kind have ended; nobody closed anything."""
    print(get_response("openai", "model-1", "hello"))
    provider = create_llm_provider("openai", "model-1")
    print(asyncio.run(provider.execute("hello")).content)
    print(list(Client(provider).stream("hello"))[-1].data.content)
    wait_for_the_server()


def loop_closed_by_hand() -> None:
    """A loop of the old kind, closed without a shutdown of its generators."""
    provider = create_llm_provider("openai", "model-1")
    loop = asyncio.new_event_loop()
    print(loop.run_until_complete(provider.execute("hello")).content)
    loop.close()
    wait_for_the_server()


kept: Any = None
if __name__ == "__main__":
    began = time.monotonic()
    globals()[sys.argv[1]]()
    if os.environ.get("RAISE"):
        raise SystemExit(7)
