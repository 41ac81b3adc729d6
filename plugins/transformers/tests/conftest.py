"""A loaded model for the whole session, a factory for others, and an environment that decides nothing."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_provider_transformers import TransformersProvider
from providers import LLMResponse

MISSING = [name for name in ("torch", "transformers", "llguidance") if importlib.util.find_spec(name) is None]
REQUIRED = os.environ.get("LLM_PROVIDER_REQUIRE_ENGINES") == "1"

SHORT: dict[str, Any] = {"max_tokens": 16}
"""Short answers; repeatable, since nothing asks for chance."""

Make = Callable[..., TransformersProvider]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the engine none of these tests can say anything."""
    if MISSING and not REQUIRED:
        mark = pytest.mark.skip(reason=f"NOT TESTED: {', '.join(MISSING)} not installed (python3 dev.py test-local)")
        for item in items:
            if Path(__file__).parent in Path(item.path).parents:
                item.add_marker(mark)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable or file of this machine may decide a test, and nothing is asked of the network."""
    for name in list(os.environ):
        if name.startswith(("TRANSFORMERS_", "DEFAULT_", "LLM_PROVIDERS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def offline() -> Iterator[None]:
    """The hub is not asked; transformers reads this when it is imported."""
    before = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")}
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with random weights."""
    from providers.testing.tiny_model import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of a real small model, made once and kept."""
    from providers.testing.tiny_model import smollm2_folder

    return smollm2_folder()


@pytest.fixture(scope="session")
def provider(tiny: Path) -> Iterator[TransformersProvider]:
    """The model with random weights, loaded once; used from the loop of each test."""
    found = TransformersProvider(str(tiny), **SHORT)
    yield found
    asyncio.run(found.close())


@pytest.fixture
async def make(tiny: Path) -> AsyncIterator[Make]:
    """Makes providers that load the model anew, and closes them."""
    made: list[TransformersProvider] = []

    def build(model: Any = None, **options: Any) -> TransformersProvider:
        made.append(TransformersProvider(str(model or tiny), **{**SHORT, **options}))
        return made[-1]

    yield build
    for each in made:
        await each.close()


async def answer(provider: TransformersProvider, *args: Any, **options: Any) -> LLMResponse:
    """A whole answer."""
    response = await provider.execute(*args, **options)
    assert isinstance(response, LLMResponse)
    return response
