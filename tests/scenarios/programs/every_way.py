"""One provider object, used in every way that a process can; says what it does, and waits where it is told to.

Started with the name of a provider: `openai` (the address and the key are in the environment), `echo`, or `llamacpp`,
which runs a real model in this process and so does not repeat what it hears.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import sys
import threading
import warnings
from typing import Any

from providers import Client, LLMProvider, StreamEventType, create_llm_provider
from providers.testing import EchoProvider

# Slow turns of a loop are logged in development mode: that is this machine, not the project. Its errors still show.
logging.getLogger("asyncio").setLevel(logging.ERROR)
# What Python says of every fork beside a thread. That it is well is what is tested here.
warnings.filterwarnings("ignore", message=r".*multi-threaded.*fork", category=DeprecationWarning)


def make() -> LLMProvider:
    """The provider under test."""
    match sys.argv[1]:
        case "echo":
            return EchoProvider()
        case "llamacpp":
            return create_llm_provider("llamacpp", temperature=0, max_tokens=3)
        case name:
            return create_llm_provider(name, "model-1", timeout=20)


def check(answer: str, prompt: str) -> None:
    """The answer belongs to the prompt."""
    assert answer if sys.argv[1] == "llamacpp" else answer == prompt, f"{answer!r} came for {prompt!r}"


async def whole_and_streamed(provider: LLMProvider, word: str) -> None:
    """A whole answer, a stream of text, a stream of events, and three calls at once."""
    check((await provider.execute(f"whole {word}")).content, f"whole {word}")
    stream = await provider.execute(f"streamed {word}", stream_mode="enabled")
    check("".join([piece async for piece in stream]), f"streamed {word}")
    events = [event async for event in provider.stream(f"events {word}")]
    assert events[-1].type is StreamEventType.DONE, events
    check(events[-1].data.content, f"events {word}")
    answers = await asyncio.gather(*(provider.execute(f"{place} {word}") for place in range(3)))
    for place, answer in enumerate(answers):
        check(answer.content, f"{place} {word}")


def sync_calls(provider: LLMProvider, word: str) -> None:
    """The sync face: a whole answer, a whole stream, and a stream that is left early."""
    client = Client(provider)
    check(client.get_response(f"sync {word}"), f"sync {word}")
    texts = [event.data for event in client.stream(f"sync stream {word}") if event.type is StreamEventType.TOKEN]
    check("".join(texts), f"sync stream {word}")
    pieces = client.stream(f"left early {word}")
    next(pieces)
    pieces.close()


async def sync_inside_a_loop(provider: LLMProvider) -> None:
    """What a notebook does: sync calls in a thread that runs an event loop already, between asynchronous ones."""
    await whole_and_streamed(provider, "before")
    sync_calls(provider, "inside a loop")
    await whole_and_streamed(provider, "after")


def eight_threads(provider: LLMProvider) -> None:
    """Eight threads at once; half have a loop of their own, half use the sync face."""
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            if number % 2:
                sync_calls(provider, f"thread {number}")
            else:
                asyncio.run(whole_and_streamed(provider, f"thread {number}"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def use(provider: LLMProvider, word: str) -> None:
    """What a child does: both faces."""
    sync_calls(provider, word)
    asyncio.run(whole_and_streamed(provider, word))


def spawned() -> None:
    """In a spawned process nothing is inherited: it makes a provider of its own."""
    provider = make()
    use(provider, "spawned")
    asyncio.run(provider.close())


def processes(provider: LLMProvider) -> None:
    """A forked child that ends as programs do, one of multiprocessing, a spawned one; the parent streams meanwhile."""
    if hasattr(os, "fork"):
        stream = Client(provider).stream("the parent's stream goes on")
        first = next(event for event in stream if event.type is StreamEventType.TOKEN)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            use(provider, "forked")
            sys.exit(0)  # not os._exit: what the house does at exit shall run here too
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the forked child failed"
        rest = "".join(event.data for event in stream if event.type is StreamEventType.TOKEN)
        check(first.data + rest, "the parent's stream goes on")
        join(multiprocessing.get_context("fork").Process(target=use, args=(provider, "multiprocessing")))
    join(multiprocessing.get_context("spawn").Process(target=spawned))
    use(provider, "after the children")


def join(process: Any) -> None:
    """Run a child process that must end well."""
    process.start()
    process.join()
    assert process.exitcode == 0, f"{process} failed"
    process.close()


def say(word: str) -> None:
    """Tell the test where we are, and wait until it has looked at the server."""
    print(word, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    shared = make()
    sync_calls(shared, "plain script")
    asyncio.run(whole_and_streamed(shared, "first run"))
    asyncio.run(whole_and_streamed(shared, "second run"))
    asyncio.run(sync_inside_a_loop(shared))
    eight_threads(shared)
    processes(shared)
    say("used")
    Client(shared).close()
    say("closed")
