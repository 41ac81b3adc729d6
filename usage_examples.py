"""What llm-provider-system can do, one section each, on the embedded model: no key, no network.

    python usage_examples.py            every section
    python usage_examples.py --demo     three answers of a real model, in seconds

The embedded provider is named in each place, so that these examples run as they are where a key is set too. Your own
code need not name one: `create_llm_provider()` takes `DEFAULT_LLM_PROVIDER`, else the provider whose key it finds in
the environment or in `.env`, else the embedded one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import BaseModel, Field

from providers import (
    LLMConfig,
    LLMProvider,
    LLMProviderConfigurationError,
    LLMProviderTokenLimitError,
    Message,
    Request,
    StreamEvent,
    StreamEventType,
    StructuredOutput,
    TokenCounting,
    UnknownProviderError,
    Usage,
    available_providers,
    clear_provider_cache,
    client,
    create_batch,
    create_llm_provider,
    get_cached_provider,
    get_response,
    register_provider,
    unregister_provider,
)

PROVIDER = "llamacpp"
# A small model, which answers the same question in the same way each time: short answers, no chance.
OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": 40}


class Animal(BaseModel):
    """What the model is asked to describe."""

    name: str = Field(max_length=20)
    kind: Literal["cat", "dog", "bird"]
    age: int = Field(ge=0, le=30)


def title(text: str) -> None:
    """Print the heading of a section."""
    print(f"\n{text}\n{'-' * len(text)}")


# --- asynchronous -----------------------------------------------------------------------------------------------------


async def answers(provider: LLMProvider) -> None:
    """One prompt, a conversation, and failures as values."""
    title("execute")
    response = await provider.execute("What is the capital of France?", "Answer in one short sentence.")
    print(response.content)
    print(f"{response.model}: {response.prompt_tokens} + {response.completion_tokens} tokens, {response.finish_reason}")

    title("execute_chat_completion")
    talk = [Message.user("Name three colors.")]
    first = await provider.execute_chat_completion(talk)
    print(first.content)
    second = await provider.execute_chat_completion([*talk, first.to_message(), Message.user("Which one is the sky?")])
    print(second.content)

    title("complete: what fails comes back as a value")
    long = await provider.complete("word " * 5000)
    print(long.ok, long.status, long.error)


async def streams(provider: LLMProvider) -> None:
    """Text as it is written, and events with everything that happens."""
    title("streaming text")
    text = await provider.execute("Name three colors.", stream_mode="enabled")
    async for piece in text:
        print(piece, end="|", flush=True)
    print(f"\n{text.response.usage.total_tokens} tokens in all")

    title("stream: events")
    async for event in provider.stream("What is the opposite of hot?", max_tokens=8):
        if event.type is StreamEventType.TOKEN:
            print(event.to_sse().strip().replace("\n", "   "))
        elif event.type is StreamEventType.DONE:
            print("done:", event.data.finish_reason)


async def structures(provider: LLMProvider) -> None:
    """Answers that fit a schema, word for word."""
    title("structured output: a pydantic model")
    response = await provider.execute("Describe a cat named Tom who is 3 years old.", schema=Animal)
    print(repr(response.parsed))

    title("structured output: a JSON Schema, and a parser of your own")
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    output = StructuredOutput(schema=schema, name="Mood", parser=lambda found: found["mood"].upper())
    response = await provider.execute("I love this! What is my mood?", schema=output)
    print(response.content, "->", response.parsed)


async def numbers(provider: LLMProvider) -> None:
    """Vectors, tokens, and a configuration that changes."""
    title("embeddings")
    result = await provider.embed(["A cat sits on the mat.", "A kitten lies on the rug.", "Stocks fell today."])
    cat, kitten, stocks = result.embeddings
    print(f"{len(cat)} dimensions; cat and kitten {dot(cat, kitten):.2f}, cat and stocks {dot(cat, stocks):.2f}")

    title("tokens: a guess, and the exact count")
    prompt = "How many tokens is this sentence?"
    print(provider.estimate_tokens(prompt), "estimated")
    if isinstance(provider, TokenCounting):  # a rarer power: not every provider has it
        print(await provider.count_tokens(prompt), "counted, with what the model's template adds")
    print("fits:", provider.validate_token_limit(prompt, max_tokens=100), provider.get_model_info()["token_limit"])

    title("update_config: for the calls from now on")
    provider.update_config(max_tokens=5)
    response = await provider.execute("Tell me a story.")
    print(response.completion_tokens, response.finish_reason)
    provider.update_config(**OPTIONS)


def dot(one: list[float], two: list[float]) -> float:
    """How near two vectors of length 1 are, 1 at most."""
    return sum(left * right for left, right in zip(one, two, strict=True))


async def parallel(provider: LLMProvider) -> None:
    """Many calls at once, and one provider for all who ask for the same."""
    title("asyncio.gather")
    cities = ["France", "Italy", "Spain"]
    questions = [f"What is the capital of {country}?" for country in cities]
    found = await asyncio.gather(*(provider.execute(question, max_tokens=8) for question in questions))
    print([response.completion_tokens for response in found], "tokens")

    title("get_cached_provider")
    one, two = get_cached_provider(PROVIDER, **OPTIONS), get_cached_provider(PROVIDER, **OPTIONS)
    print("the same object:", one is two)
    clear_provider_cache()


async def errors(provider: LLMProvider) -> None:
    """Every error is an `LLMProviderError`, and most are a builtin too."""
    title("errors")
    try:
        await provider.execute("word " * 5000)
    except LLMProviderTokenLimitError as error:
        print("too long:", error.message)
    try:
        create_llm_provider("opnai")
    except UnknownProviderError as error:  # a ValueError too
        print("unknown:", error.message)
    try:
        create_llm_provider(PROVIDER, temperature=7)
    except LLMProviderConfigurationError as error:
        print("wrong value:", error.message)


# --- a provider of your own -------------------------------------------------------------------------------------------


class EchoProvider(LLMProvider):
    """Says back what it hears: `generate` is all that an author has to write."""

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """One request in, events out."""
        words = request.messages.last_text.split()
        for word in words:
            yield StreamEvent.token(f"{word} ")
        yield StreamEvent.usage(Usage(len(words), len(words)))
        yield StreamEvent.finish("stop")


async def own_provider() -> None:
    """Register a class of your program; a package brings its own by an entry point (see plugins/template)."""
    title("a provider of your own")
    register_provider("echo", EchoProvider)
    async with create_llm_provider("echo", "echo-1") as provider:
        print((await provider.execute("every verb works at once")).content)
    unregister_provider("echo")


# --- synchronous ------------------------------------------------------------------------------------------------------


def sync_face() -> None:
    """The same for programs that are not asynchronous, notebooks included."""
    title("get_response")
    print(get_response(PROVIDER, None, "Name three colors.", OPTIONS))

    title("client: answers, streams, batches")
    with client(PROVIDER, **OPTIONS) as small:
        print(small.get_response("Describe a dog named Rex, 5 years old.", schema=Animal))
        for event in small.stream("Name three colors."):
            if event.type is StreamEventType.TOKEN:
                print(event.data, end="")
        print()
        batch = small.submit_batch(["What is the opposite of hot?", "Say yes."], {"max_tokens": 6})
        print(batch.normalized_status(), batch.wait().results())

    title("create_batch")
    batch = create_batch(["One.", "Two."], PROVIDER, None, {**OPTIONS, "max_tokens": 4})
    print(batch.id, len(batch.results()), "results")
    clear_provider_cache()


def installed() -> None:
    """What there is on this machine, and why something is not usable."""
    title("available_providers")
    for name, info in available_providers().items():
        print(f"{name:12} {info.state:12} {info.distribution or ''} {info.reason or ''}".rstrip())


# --- the programs -----------------------------------------------------------------------------------------------------


async def tour() -> None:
    """Every section, on one model that is loaded once."""
    # LLMConfig holds what a provider does by default; fields may be given by name as well, as everywhere here.
    config = LLMConfig(**OPTIONS)
    async with create_llm_provider(PROVIDER, config=config) as provider:
        for section in (answers, streams, structures, numbers, parallel, errors):
            await section(provider)
    await own_provider()


async def demo() -> None:
    """An answer, the same answer as it is written, and an object of a class."""
    start = time.perf_counter()

    def took() -> str:
        nonlocal start
        before, start = start, time.perf_counter()
        return f"   [{start - before:.2f} s]"

    async with create_llm_provider(PROVIDER, **OPTIONS) as provider:
        question = ("What is the capital of France?", "Answer in one short sentence.")
        response = await provider.execute(*question)
        print(f"answer    {response.content}{took()}   (loading the model included)")

        print("stream    ", end="")
        async for piece in await provider.execute(*question, stream_mode="enabled"):
            print(piece, end="", flush=True)
        print(took())

        response = await provider.execute("Describe a cat named Tom who is 3 years old.", schema=Animal)
        print(f"object    {response.parsed!r}{took()}")


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description="llm-provider-system on the embedded model, without a key.")
    parser.add_argument("--demo", action="store_true", help="only three answers, in seconds")
    if parser.parse_args(arguments).demo:
        asyncio.run(demo())
        return 0
    installed()
    asyncio.run(tour())
    sync_face()
    return 0


if __name__ == "__main__":
    sys.exit(main())
