"""What can be set beside `LLMConfig`: the model's file, and how much of this machine it may use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from providers.exceptions import LLMProviderConfigurationError
from providers.settings import ProviderSettings, setting
from providers.types.checks import Check, Number, OneOf, Text, check_fields

NAME: Final = "llamacpp"
"""The provider's name."""

POOLINGS: Final = ("mean", "cls", "last")

_CHECKS: Final[Mapping[str, Check]] = {
    "model_path": Text(),
    "n_ctx": Number(8, 2**31 - 1, integer=True),
    "n_threads": Number(1, 4096, integer=True),
    "n_parallel": Number(1, 256, integer=True, optional=False),
    "n_batch": Number(1, 2**20, integer=True),
    "n_gpu_layers": Number(0, 2**31 - 1, integer=True),
    "embedding_ctx": Number(8, 2**20, integer=True, optional=False),
    "prompt_cache_mib": Number(0, 2**20, integer=True, optional=False),
    "verbosity": Number(0, 9, integer=True, optional=False),
    "chat_template": Text(),
}


@dataclass(kw_only=True, eq=False)
class LlamaCppSettings(ProviderSettings):
    """Settings of the llamacpp provider.

    Attributes:
        model_path: a GGUF file. Without it the model's name decides: it may be such a path itself, or a name of
            `models.json` or of your `config/models.toml`.
        n_ctx: tokens of prompt and answer together, for each of the calls at a time; rounded up to a multiple of 256.
            Default: what the model was made for, 4096 at most.
        n_threads: compute threads. Default: `OMP_NUM_THREADS` where set, else half of the CPUs that this process may
            use (llama.cpp's threads wait for each other in a busy loop, so that two on one core are slower than one).
        n_parallel: calls at a time; each has a context of its own in memory. Further calls wait in a fair queue. Above
            1, calls are computed together: on many cores that is faster for all of them, but where two words are almost
            as likely, an answer may then differ with what else was asked, also at temperature 0.
        n_batch: tokens of a prompt that are worked on at a time: a cancelled call ends after at most so many. Default:
            128 on a CPU, llama.cpp's own on a graphics card.
        n_gpu_layers: layers on the graphics card, with a wheel of xllamacpp that has one. Default: as many as fit.
        pooling: how the vectors of a text's tokens become one: `"mean"`, `"cls"` or `"last"`. Default: what the model
            file says, else `"mean"`.
        embedding_ctx: most tokens of one text to embed. Memory grows with it: with a vocabulary of 50,000, by 0.2 MiB
            for each token.
        chat_template: Jinja text, or the path of a file with it, in place of the model's own.
        prompt_cache_mib: memory in MiB for the state of earlier prompts, so that a conversation that comes back is not
            read anew.
        verbosity: what llama.cpp says on stderr: 0 nothing, 1 errors, 2 warnings, 3 information. It holds for the whole
            process; the model that was opened last decides.
    """

    env_prefix: ClassVar[str] = "LLAMACPP_"

    model_path: str | None = setting(help="A GGUF file.")
    n_ctx: int | None = setting(help="Tokens of prompt and answer together.")
    n_threads: int | None = setting(help="Compute threads.")
    n_parallel: int = setting(1, help="Calls at a time.")
    n_batch: int | None = setting(help="Tokens of a prompt that are worked on at a time.")
    n_gpu_layers: int | None = setting(help="Layers on the graphics card.")
    pooling: str | None = setting(help="'mean', 'cls' or 'last'.")
    embedding_ctx: int = setting(512, help="Most tokens of one text to embed.")
    chat_template: str | None = setting(help="Jinja text, or the path of a file with it.")
    prompt_cache_mib: int = setting(256, help="MiB for the state of earlier prompts.")
    verbosity: int = setting(0, help="What llama.cpp says on stderr, 0 to 9.")

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            LLMProviderConfigurationError: names the setting, where it came from, and what is allowed.
        """
        for name, check in _CHECKS.items():
            check_fields({name: getattr(self, name)}, {name: check}, self.sources.get(name, "default"))
        if self.pooling is not None:
            source = self.sources.get("pooling", "default")
            check_fields({"pooling": self.pooling}, {"pooling": OneOf(POOLINGS)}, source)

    def template(self) -> str | None:
        """The chat template's text, or `None` for the model's own.

        Raises:
            LLMProviderConfigurationError: the file that holds it cannot be read.
        """
        given = self.chat_template
        # A template without any tag would say the same to every prompt: what has none is a path.
        if given is None or "{%" in given or "{{" in given:
            return given
        try:
            with open(given, encoding="utf-8") as file:
                return file.read()
        except (OSError, UnicodeDecodeError) as error:
            source = self.sources.get("chat_template", "default")
            raise LLMProviderConfigurationError(
                f"chat_template ({source}) is neither Jinja text nor a file that can be read: {error}", provider=NAME
            ) from None

    def threads(self) -> int:
        """Compute threads: as set, else as `OMP_NUM_THREADS` says, else half of the CPUs that this process may use."""
        if self.n_threads is not None:
            return self.n_threads
        named = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        if named.isdigit() and int(named) > 0:
            return int(named)
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(1, (usable or 1) // 2)
