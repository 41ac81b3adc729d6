"""Answers beside mlx-lm's own: the same text, the same figures, whichever way they are asked for."""

from __future__ import annotations

import json
import warnings
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from llm_provider_mlx import MLXProvider
from providers import Client
from providers.exceptions import (
    LLMProviderBadRequestError,
    LLMProviderConfigurationError,
    LLMProviderTokenLimitError,
    LLMProviderUnsupportedOperationError,
)
from providers.parameters import UnsupportedParameterWarning
from providers.testing.tiny_model import CONTEXT
from providers.types import LLMResponse, Message, StreamEventType, ToolCall

from .conftest import COLORS, SHORT, TOOL, Make, answer, bare

USER = [{"role": "user", "content": COLORS}]


async def test_the_same_answer_as_mlx_lm(provider: MLXProvider, folder: Path) -> None:
    """F-052, F-068: text, both counts and the finish reason, of a whole answer."""
    response = await answer(provider, COLORS)
    found = (response.content, response.prompt_tokens, response.completion_tokens, response.finish_reason)
    assert found == bare(folder, USER)
    assert response.finish_reason == "length"


async def test_one_at_a_time_is_the_same_too(make: Make, folder: Path) -> None:
    """F-052: without the continuous batch, with a long prompt that is read in pieces, and with penalties."""
    provider = make(n_parallel=1, prefill_step=3)
    long = "word " * 40 + COLORS
    text, prompt, count, _ = bare(folder, [{"role": "user", "content": long}])
    response = await answer(provider, long)
    assert (response.content, response.prompt_tokens, response.completion_tokens) == (text, prompt, count)
    together = make(prefill_step=3)
    options: dict[str, Any] = {"presence_penalty": 1.5, "extra": {"repetition_penalty": 1.3}}
    one, other = await answer(provider, long, **options), await answer(together, long, **options)
    assert one.content == other.content != text


async def test_an_answer_that_ends_by_itself(provider: MLXProvider) -> None:
    """F-068: a token that ends the answer counts, as mlx-lm counts it, and is not shown."""
    response = await answer(provider, COLORS, extra={"logit_bias": {2: 1000.0}})
    assert (response.content, response.completion_tokens, response.finish_reason) == ("", 1, "stop")


async def test_streamed_whole_and_cancelled_agree(provider: MLXProvider) -> None:
    """F-006, F-015: the same text and figures; of a cancelled stream, those of what had come."""
    whole = await answer(provider, COLORS)
    events = [event async for event in provider.stream(COLORS)]
    done = events[-1].data
    tokens = [event.data for event in events if event.type is StreamEventType.TOKEN]
    assert "".join(tokens) == whole.content == done.content
    assert len(tokens) > 2  # of a model as fast as this one, several at a time
    assert done.usage == whole.usage
    assert done.finish_reason == whole.finish_reason
    said, usage = "", None
    async with aclosing(provider.stream(COLORS)) as stream:
        async for event in stream:
            if event.type is StreamEventType.TOKEN:
                said += event.data
            if event.type is StreamEventType.USAGE:
                usage = event.data
                if usage.output_tokens >= 8:
                    break
    assert usage is not None
    assert (usage.input_tokens, usage.total_tokens) == (whole.prompt_tokens, whole.prompt_tokens + usage.output_tokens)
    short = await answer(provider, COLORS, max_tokens=usage.output_tokens)
    # What may be half a character is held back until the next token, or the end.
    assert short.content.rstrip("\ufffd").startswith(said.rstrip("\ufffd"))
    assert whole.content.startswith(said)


async def test_stop_strings(provider: MLXProvider) -> None:
    """F-042: the text ends before the stop string, however tokens cut it; the model stops there."""
    whole = (await answer(provider, COLORS)).content
    for start, end in ((2, 4), (5, 6), (9, 14)):
        stop = whole[start:end]
        for options in ({"stop": stop}, {"stop": ["never there", stop]}, {"extra": {"stop": [stop]}}):
            response = await answer(provider, COLORS, **options)
            assert response.content == whole[: whole.index(stop)]
            assert response.finish_reason == "stop"
            assert response.metadata["stop_sequence"] == stop
            assert response.completion_tokens is not None
            assert response.completion_tokens < 24
    events = [event async for event in provider.stream(COLORS, stop=whole[9:14])]
    assert events[-1].data.content == whole[: whole.index(whole[9:14])]


async def test_prompts_with_and_without_the_template(make: Make, folder: Path) -> None:
    """F-049, F-045, F-052: a prompt becomes a user turn; or is read as it is written."""
    plain, unfinished = make(apply_chat_template=False), make(add_generation_prompt=False)
    response = await answer(plain, COLORS)
    assert (response.content, response.prompt_tokens) == bare(folder, COLORS)[:2]
    response = await answer(unfinished, COLORS)
    expected = bare(folder, USER, {"add_generation_prompt": False})
    assert (response.content, response.prompt_tokens) == expected[:2]
    # Several messages have no other form than the template's.
    talk = [*USER, {"role": "assistant", "content": "Red."}, {"role": "user", "content": "And?"}]
    assert (await answer(plain, talk)).prompt_tokens == bare(folder, talk)[1]
    # The same for one call.
    assert (await answer(make(), COLORS, extra={"add_generation_prompt": False})).content == response.content


async def test_conversations_and_system_prompts(provider: MLXProvider, folder: Path) -> None:
    """F-043, F-046: extra["conversation"] replaces the input, its dict form goes to the template, as does "system"."""
    talk = [{"role": "system", "content": "Be brief."}, *USER]
    expected = bare(folder, talk)[:2]
    for extra in ({"system": "Be brief."}, {"conversation": talk}, {"conversation": {"messages": talk}}):
        prompt = "not used" if "conversation" in extra else COLORS
        response = await answer(provider, prompt, config={"extra": extra})
        assert (response.content, response.prompt_tokens) == expected
    half = {"messages": talk, "add_generation_prompt": False}
    response = await answer(provider, "not used", config={"extra": {"conversation": half}})
    assert response.prompt_tokens == bare(folder, talk, {"add_generation_prompt": False})[1]


def test_batches(folder: Path) -> None:
    """F-047, F-052: extra["conversations"], one for each prompt; in order; all of them computed together."""
    talks = [[{"role": "user", "content": text}] for text in ("Name a color.", "Hello!", "What is the capital?")]
    with Client(MLXProvider(str(folder), **SHORT)) as client:
        extra = {"system": "You are concise.", "conversations": talks, "sampler": {"temp": 0.0}}
        batch = client.submit_batch(["1", "2", "3"], {"max_tokens": 12, "extra": extra})
        system = {"role": "system", "content": "You are concise."}
        assert batch.wait().results() == [bare(folder, [system, *talk], max_tokens=12)[0] for talk in talks]
        with pytest.raises(ValueError, match="one for each input"):
            client.submit_batch(["1"], {"extra": {"conversations": talks}})


async def test_continuing_the_last_message(provider: MLXProvider, folder: Path) -> None:
    """F-046: the template's own arguments reach it."""
    talk = [*USER, {"role": "assistant", "content": "Red, green"}]
    response = await answer(provider, talk, extra={"continue_final_message": True})
    options = {"continue_final_message": True, "add_generation_prompt": False}
    assert (response.content, response.prompt_tokens) == bare(folder, talk, options)[:2]
    response = await answer(provider, COLORS, extra={"chat_template": "{{ messages[0].content }}"})
    assert response.content == bare(folder, COLORS)[0]


async def test_counting(provider: MLXProvider) -> None:
    """F-142: what usage says."""
    for prompt, options in ((COLORS, {}), (USER, {"tools": [TOOL]}), (COLORS, {"system_prompt": "Be brief."})):
        response = await answer(provider, prompt, **options)
        assert await provider.count_tokens(prompt, **options) == response.prompt_tokens


async def test_the_context_is_a_limit(make: Make, provider: MLXProvider) -> None:
    """F-144, F-006: with counts; an answer ends where the context does; a huge prompt is refused at once."""
    assert provider.token_limit == CONTEXT
    narrow = make(context_length=40)
    response = await answer(narrow, COLORS, max_tokens=1000)
    assert (response.total_tokens, response.finish_reason) == (40, "length")
    assert narrow.token_limit == 40
    with pytest.raises(LLMProviderTokenLimitError, match=r"the prompt has 2\d\d tokens, and .* may have 40") as caught:
        await narrow.execute("word " * 60)
    assert "raise context_length" in str(caught.value)
    with pytest.raises(LLMProviderTokenLimitError, match="more than"):
        await narrow.execute("x y " * 5_000_000)
    assert await narrow.count_tokens("word " * 60) > 200


async def test_odd_texts(provider: MLXProvider) -> None:
    """Half a character, a null, marks of the template: answered, never a crash."""
    for prompt in ("\ud83d", "a\0b", "<|im_end|>", "\u200b", "🙂" * 20, " "):
        assert (await answer(provider, prompt, max_tokens=2)).completion_tokens == 2


async def test_messages_that_the_template_refuses(make: Make) -> None:
    """One clear error that says who refuses what."""
    strict = make(chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(LLMProviderBadRequestError, match=r"chat template refuses .*roles must alternate"):
        await strict.execute(COLORS)
    with pytest.raises(LLMProviderConfigurationError, match="neither Jinja text nor a file"):
        await make(chat_template="/no/such/file.jinja").execute(COLORS)


async def test_a_model_without_template(make: Make, folder: Path, tmp_path: Path) -> None:
    """The texts themselves, a blank line between."""
    import shutil

    base = shutil.copytree(folder, tmp_path / "base")
    config = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    del config["chat_template"]
    (base / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    provider = make(str(base))
    assert (await answer(provider, COLORS)).content == bare(folder, COLORS)[0]
    assert (await answer(provider, COLORS, "Be brief.")).content == bare(folder, f"Be brief.\n\n{COLORS}")[0]


async def test_what_is_not_understood_is_refused(provider: MLXProvider) -> None:
    """F-076, F-138: vectors, images, unknown extras, several answers."""
    with pytest.raises(NotImplementedError, match="no embeddings"):
        await provider.embed("text")
    image = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(LLMProviderUnsupportedOperationError):
        await provider.execute([{"role": "user", "content": image}])
    with pytest.raises(LLMProviderConfigurationError, match=r"no parameter for: best_of, mirostat; it takes .*min_p"):
        await provider.execute(COLORS, extra={"mirostat": 1, "best_of": 2})
    with pytest.raises(LLMProviderUnsupportedOperationError, match="n must be 1"):
        await provider.execute(COLORS, extra={"n": 2})
    provider.update_config(model_name="other")
    try:
        with pytest.raises(LLMProviderConfigurationError, match="create another one"):
            await provider.execute(COLORS)
    finally:
        provider.update_config(model_name=provider._model_name)


async def test_effort_without_a_place_for_it(provider: MLXProvider, make: Make) -> None:
    """F-042: reported, or passed on where the template reads it."""
    with pytest.warns(UnsupportedParameterWarning, match="reasoning_effort='low'"):
        response = await answer(provider, COLORS, reasoning_effort="low")
    assert "reasoning_effort" in response.metadata["params"]["left_out"]
    template = "{{ messages[0].content }} {{ reasoning_effort }}"
    knows = make(chat_template=template)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        longer = await answer(knows, COLORS, reasoning_effort="a very very long effort")
    assert (longer.prompt_tokens or 0) > ((await answer(knows, COLORS)).prompt_tokens or 0) + 5


async def test_tool_results_reach_the_template(provider: MLXProvider, folder: Path) -> None:
    """F-064: calls with their arguments as objects, and what the tool said."""
    call = ToolCall("call_1", "get_weather", '{"city": "Paris"}')
    talk = [Message.user("Weather?"), Message.assistant(None, [call]), Message.tool_result("call_1", "Sunny.")]
    plain: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]},
        {"role": "tool", "content": "Sunny."},
    ]
    response = await answer(provider, talk)
    assert isinstance(response, LLMResponse)
    assert (response.content, response.prompt_tokens) == bare(folder, plain)[:2]


@pytest.mark.slow
async def test_a_real_model(make: Make) -> None:
    """F-052: SmolLM2, in bf16, knows one thing."""
    from providers.testing.tiny_model import smollm2_folder

    provider = make(str(smollm2_folder()), timeout=600)
    response = await answer(provider, "What is the capital of France?", "Answer in one short sentence.")
    assert "Paris" in response.content
    assert response.finish_reason == "stop"
