"""What can be set beside `LLMConfig`: how a model is loaded, how prompts are written, how much runs at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from providers.exceptions import LLMProviderConfigurationError
from providers.settings import ProviderSettings, setting
from providers.types.checks import Check, Dict, Number, Text, check_fields

NAME: Final = "mlx"
"""The provider's name."""

_CHECKS: Final[Mapping[str, Check]] = {
    "load_kwargs": Dict(),
    "chat_template": Text(),
    "context_length": Number(8, 2**31 - 1, integer=True),
    "n_parallel": Number(1, 256, integer=True, optional=False),
    "prefill_step": Number(1, 2**16, integer=True),
}
_OURS: Final = frozenset({"path_or_hf_repo", "return_config"})


@dataclass(kw_only=True, eq=False)
class MLXSettings(ProviderSettings):
    """Settings of the mlx provider.

    Attributes:
        load_kwargs: passed to `mlx_lm.load()`: `tokenizer_config`, `model_config`, `adapter_path`, `lazy`, `revision`,
            `trust_remote_code` (mlx-lm 0.32.2).
        apply_chat_template: whether prompts go through the model's chat template. Without it, a prompt is read as it is
            written; conversations of several messages go through the template all the same.
        add_generation_prompt: whether the template ends with the beginning of the model's turn.
        chat_template: Jinja text, or the path of a file with it, in place of the model's own.
        context_length: most tokens of prompt and answer together. Default, and limit: what the model was made for.
        n_parallel: calls at a time. They are computed together, which is much faster for all of them; rounding then
            depends on what else is asked, and where two words are almost as likely, the answer may too. At 1, answers
            can be repeated bit by bit. Further calls wait in a fair queue.
        prefill_step: tokens of each prompt that are worked on at a time: a cancelled call ends after at most so many.
            Default: mlx-lm's own 2048 on a graphics card; on a CPU as many as take 0.15 s, but not fewer than 12 in all
            prompts together that take less than 0.5 s, and 8 where `n_parallel` is 1.
    """

    env_prefix: ClassVar[str] = "MLX_"

    load_kwargs: dict[str, Any] | None = setting(help="Passed to mlx_lm.load().")
    apply_chat_template: bool = setting(True, help="Whether prompts go through the model's chat template.")
    add_generation_prompt: bool = setting(True, help="Whether the template ends with the beginning of an answer.")
    chat_template: str | None = setting(help="Jinja text, or the path of a file with it.")
    context_length: int | None = setting(help="Most tokens of prompt and answer together.")
    n_parallel: int = setting(8, help="Calls at a time.")
    prefill_step: int | None = setting(help="Tokens of a prompt that are worked on at a time.")

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            LLMProviderConfigurationError: names the setting, where it came from, and what is allowed.
        """
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None or name == "n_parallel":
                check_fields({name: value}, {name: check}, self.sources.get(name, "default"))
        taken = _OURS & (self.load_kwargs or {}).keys()
        if taken:
            source = self.sources.get("load_kwargs", "default")
            raise LLMProviderConfigurationError(
                f"load_kwargs ({source}) must not hold {', '.join(sorted(taken))}: this package sets it", provider=NAME
            )

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
