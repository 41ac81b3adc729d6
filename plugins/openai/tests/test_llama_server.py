"""Against a real llama.cpp server: chat, Responses, embeddings, schemas and refusals, over both transports."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from llm_provider_openai import OpenAIProvider
from providers.exceptions import (
    LLMProviderAuthenticationError,
    LLMProviderNotFoundError,
    LLMProviderTokenLimitError,
    OutputTruncatedError,
)
from providers.types import APIType, LLMResponse, StreamEventType

from .conftest import LLAMA_KEY, Make

QUESTION = "What is the capital of France?"
SYSTEM = "You answer in one short sentence."


class Capital(BaseModel):
    city: Literal["Paris", "Rome", "Oslo"]
    rank: int = Field(ge=1, le=9)


async def streamed(provider: OpenAIProvider, prompt: Any, **options: Any) -> tuple[list[Any], LLMResponse]:
    events = [event async for event in provider.stream(prompt, **options)]
    assert events[-1].type is StreamEventType.DONE, events[-1]
    return events, events[-1].data


@pytest.mark.parametrize("api_type", ["chat_completion", "responses"])
async def test_stream_and_whole_answer_agree(ask_llama: Make, transport: str, api_type: str) -> None:
    """F-128, F-129, F-130, F-131, F-132, F-071, F-073"""
    provider = ask_llama(transport=transport, api_type=api_type)
    whole = await provider.execute(QUESTION, SYSTEM)
    events, folded = await streamed(provider, [{"role": "user", "content": QUESTION}], system_prompt=SYSTEM)
    assert isinstance(whole, LLMResponse)
    assert "Paris" in whole.content
    assert "".join(event.data for event in events if event.type is StreamEventType.TOKEN) == whole.content
    assert folded.content == whole.content
    assert (folded.finish_reason, folded.model) == (whole.finish_reason, "smollm2")
    assert folded.api_type is whole.api_type is APIType(api_type)
    assert folded.total_tokens == whole.total_tokens == (whole.prompt_tokens or 0) + (whole.completion_tokens or 0)
    kinds = [event.type for event in events]
    assert kinds.index(StreamEventType.USAGE) < kinds.index(StreamEventType.DONE)
    assert folded.metadata["params"]["sent"].keys() == whole.metadata["params"]["sent"].keys()
    text = await provider.execute(QUESTION, SYSTEM, stream_mode="enabled")
    assert not isinstance(text, LLMResponse)
    assert "".join([chunk async for chunk in text]) == whole.content


@pytest.mark.parametrize("api_type", ["chat_completion", "responses"])
async def test_a_talk_of_several_turns(ask_llama: Make, transport: str, api_type: str) -> None:
    """F-131"""
    talk = [
        {"role": "system", "content": "You repeat words."},
        {"role": "user", "content": "Say: apple"},
        {"role": "assistant", "content": "apple"},
        {"role": "user", "content": "Say: pear"},
        {"role": "assistant", "content": "pear"},
        {"role": "user", "content": "Say: plum"},
    ]
    before = [dict(message) for message in talk]
    answer = await ask_llama(transport=transport, max_tokens=5).execute(talk, api_type=api_type)
    assert isinstance(answer, LLMResponse)
    assert answer.content
    assert talk == before


# This server knows no `text.format`, so Responses is not tried; "auto" knows that.
@pytest.mark.parametrize("api_type", ["chat_completion", "auto"])
async def test_a_schema_is_enforced(ask_llama: Make, transport: str, api_type: str) -> None:
    """F-009, F-040, F-066"""
    provider = ask_llama(transport=transport, api_type=api_type, max_tokens=60)
    answer = await provider.execute("Name a capital and its rank.", schema=Capital)
    assert isinstance(answer, LLMResponse)
    assert isinstance(answer.parsed, Capital)
    _events, folded = await streamed(provider, "Name a capital and its rank.", schema=Capital)
    assert folded.parsed == answer.parsed


async def test_a_cut_off_schema_says_so(ask_llama: Make, transport: str) -> None:
    with pytest.raises(OutputTruncatedError) as caught:
        await ask_llama(transport=transport, max_tokens=4).execute("Name a capital and its rank.", schema=Capital)
    assert caught.value.response.content
    assert caught.value.response.finish_reason == "length"


async def test_seed_stop_and_logprobs(ask_llama: Make, transport: str) -> None:
    """F-042"""
    provider = ask_llama(transport=transport, temperature=1.5, max_tokens=12)
    one, two, three = [(await provider.complete("Tell me a story.", seed=seed)).content for seed in (7, 7, 1234567)]
    assert one == two != three
    stopped = await provider.complete(QUESTION, system_prompt=SYSTEM, stop=["Paris"], temperature=0, max_tokens=24)
    assert stopped.finish_reason == "stop"
    assert "Paris" not in stopped.content
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 3, "extra": {"logprobs": True, "top_logprobs": 2}}
    scored = await provider.complete(QUESTION, **options)
    _, folded = await streamed(provider, QUESTION, **options)
    tokens = [entry["token"] for entry in scored.metadata["logprobs"]["content"]]
    assert "".join(tokens) == scored.content
    assert [entry["token"] for entry in folded.metadata["logprobs"]["content"]] == tokens


async def test_several_choices_do_not_mix(ask_llama: Make, transport: str) -> None:
    provider = ask_llama(transport=transport, temperature=1.2, max_tokens=8)
    whole = await provider.complete("Tell me a story.", extra={"n": 2, "seed": 3})
    _, folded = await streamed(provider, "Tell me a story.", extra={"n": 2, "seed": 3})
    for answer in (whole, folded):
        choices = answer.metadata["choices"]
        assert [choice["index"] for choice in choices] == [0, 1]
        assert choices[0]["message"]["content"] == answer.content
        assert choices[1]["message"]["content"]


async def test_a_bad_key_is_an_authentication_error(ask_llama: Make, transport: str) -> None:
    """F-069, F-135"""
    provider = ask_llama(transport=transport, api_key="sk-a-wrong-key-of-mine")
    with pytest.raises(LLMProviderAuthenticationError) as caught:
        await provider.execute(QUESTION)
    assert caught.value.status_code == 401
    assert "wrong-key" not in str(caught.value)
    result = await provider.complete(QUESTION)
    assert (result.ok, result.status) == (False, 401)
    last = [event async for event in provider.stream(QUESTION)][-1]
    assert (last.type, last.data["status"]) == (StreamEventType.ERROR, 401)


@pytest.mark.parametrize("api_type", ["chat_completion", "responses"])
async def test_a_prompt_that_does_not_fit(ask_llama: Make, transport: str, api_type: str) -> None:
    """F-135"""
    provider = ask_llama(transport=transport, api_type=api_type)
    with pytest.raises(LLMProviderTokenLimitError) as caught:
        await provider.execute("word " * 6000)
    assert caught.value.status_code == 400
    last = [event async for event in provider.stream("word " * 6000)][-1]
    assert last.data["type"] == "LLMProviderTokenLimitError"


async def test_tokens_are_counted_by_the_server(ask_llama: Make, transport: str) -> None:
    provider = ask_llama(transport=transport, max_tokens=1)
    count = await provider.count_tokens(QUESTION, system_prompt=SYSTEM)
    answer = await provider.execute(QUESTION, SYSTEM)
    assert isinstance(answer, LLMResponse)
    assert count == answer.prompt_tokens
    assert "token_counting" in provider.capabilities


async def test_an_interface_that_is_not_there(ask_llama: Make, llama: str, transport: str) -> None:
    """F-138"""
    provider = ask_llama(transport=transport, base_url=llama.removesuffix("/v1") + "/nowhere")
    with pytest.raises(LLMProviderNotFoundError, match='api_type="chat_completion"'):
        await provider.execute_responses_api("Hi")
    with pytest.raises(LLMProviderNotFoundError) as caught:
        await provider.execute_chat_completion("Hi")
    assert "api_type" not in str(caught.value)


def similarity(one: list[float], two: list[float]) -> float:
    return sum(a * b for a, b in zip(one, two, strict=True))


async def test_embeddings(llama_embeddings: str, transport: str) -> None:
    """F-076"""
    async with OpenAIProvider("smollm2", base_url=llama_embeddings, api_key=LLAMA_KEY, transport=transport) as provider:
        both = await provider.embed(["a cat", "a dog on a mat"])
        assert both.ok, both.error
        assert [len(vector) for vector in both.embeddings] == [576, 576]
        packed = await provider.embed(["a cat", "a dog on a mat"], encoding_format="base64")
        cat, dog = await provider.embed("a cat"), await provider.embed("a dog on a mat")
        assert packed.embeddings[1] == pytest.approx(both.embeddings[1], abs=1e-5)
        assert cat.embedding == pytest.approx(both.embeddings[0], abs=1e-5)
        # This server computes texts of one request together, which changes the later ones a little.
        assert similarity(both.embeddings[1], dog.embedding) > similarity(both.embeddings[1], cat.embedding) + 0.1
        assert both.usage.input_tokens
        assert both.usage.input_tokens > 0
        assert both.model == "smollm2"
