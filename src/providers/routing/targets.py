"""One target of a fallback: a provider, its health, and the requests that it is asked with."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from ..base import LLMProvider
from ..costs import cost_of
from ..exceptions import LLMProviderError
from ..layers.models import Models
from ..notices import warn_only
from ..profiles import ModelProfile
from ..request_builder import RequestBuilder
from ..types import APIType, LLMConfig, Request, Usage
from ..types.config import OnUnsupported, is_default
from .health import Health

_AUTO: Final = APIType.AUTO

# Objects of their own, so that identity tells whether somebody gave the value: what nobody gave is the targets' to say.
OWN_TIMEOUT: Final[float] = float("60")
OWN_ON_UNSUPPORTED: Final[OnUnsupported] = "".join(("wa", "rn"))  # type: ignore[assignment]


class FromTalk(str):
    """A system prompt that the conversation holds, which a target's own configuration goes before."""

    __slots__ = ()


class FallbackBuilder(RequestBuilder):
    """Builds the requests of a fallback: what nobody gave stays open for each target to fill in.

    Args:
        provider: the fallback's name.
        config: its configuration.
        caches: whether a response cache stands around it or a target now; targets change with `reload`.
    """

    def __init__(self, provider: str, config: LLMConfig, caches: Callable[[], bool]) -> None:
        super().__init__(provider, config)
        self._caches = caches

    def _build_with(self, messages: Any, system: str | None, options: dict[str, Any], stream: bool) -> Request:
        self._cached = self._caches()
        return super()._build_with(messages, system, options, stream)

    def pick_system(self, call: str | None, config: str | None, conversation: str | None) -> str | None:
        """See `RequestBuilder`; one that only the conversation holds is marked as such."""
        found = super().pick_system(call, config, conversation)
        if found is None or call is not None or config is not None or self._system is not None:
            return found
        return FromTalk(found)


class Target:
    """A provider that a fallback may ask.

    Attributes:
        label: its name within the fallback.
        provider: itself.
        health: whether it is asked at present.
        weight: how often it is chosen, in proportion to the others'.
        mixed: whether it is a fallback itself.
    """

    __slots__ = ("_models", "_warned", "health", "label", "mixed", "provider", "weight")

    def __init__(self, label: str, provider: LLMProvider, health: Health, weight: float, mixed: bool) -> None:
        self.label = label
        self.provider = provider
        self.health = health
        self.weight = weight
        self.mixed = mixed
        self._models = Models(provider.profiles)
        self._warned: set[str] = set()

    def request(self, said: Request) -> Request:
        """The request that the target's own builder makes of what a call says, its own configuration below that.

        Raises:
            LLMProviderConfigurationError: the target has no model.
        """
        builder, config, system = self.provider._builder, self.provider.config, said.system
        if isinstance(system, FromTalk):
            found = builder.pick_system(None, None, system)
            system = found if self.mixed or found is None else str(found)
        else:
            system = builder.pick_system(system, None, None)
        return builder.fill(
            said,
            system,
            timeout=config.timeout if said.timeout is OWN_TIMEOUT else said.timeout,
            on_unsupported=config.on_unsupported if said.on_unsupported is OWN_ON_UNSUPPORTED else said.on_unsupported,
        )

    @property
    def model(self) -> str | None:
        """The name of its model."""
        return self.provider.config.model_name

    @property
    def profile(self) -> ModelProfile:
        """What is known of its model; nothing where the user's file is wrong, which the call itself will tell."""
        try:
            return self._models.get(self.model or "")
        except LLMProviderError:
            return ModelProfile(self.model or "")

    @property
    def window(self) -> int | None:
        """Most tokens of a prompt: as configured, else as the model's data say at most; `None` where nobody knows."""
        if self.mixed:
            windows = [target.window for target in self.provider._targets]  # type: ignore[attr-defined]
            return None if None in windows else max(windows)
        configured = self.provider.config.token_limit
        if not is_default(configured):
            return configured
        profile = self.profile
        known = [size for size in (profile.context_window, profile.max_input_tokens) if size is not None]
        return max(known, default=None)

    def cost(self, input_tokens: int, output_tokens: int) -> Decimal | None:
        """What so many tokens are expected to cost in US dollars; of a fallback, what they cost at its cheapest."""
        if self.mixed:
            inner: list[Target] = self.provider._targets  # type: ignore[attr-defined]
            costs = [cost for target in inner if (cost := target.cost(input_tokens, output_tokens)) is not None]
            return min(costs, default=None)
        try:
            return cost_of(Usage(input_tokens, output_tokens), self.profile, self.provider.name).total
        except LLMProviderError:
            return None

    @property
    def powers(self) -> frozenset[str]:
        """What it can do with a request beyond text."""
        return self.provider.capabilities if self.mixed else self.provider.understands

    @property
    def caches(self) -> bool:
        """Whether a response cache stands around it, or around a target of it."""
        found: bool = self.provider._caches() if self.mixed else self.provider._cached  # type: ignore[attr-defined]
        return found

    def warn(self, kind: str, message: str) -> None:
        """Warn the first time that something of a kind happens."""
        if kind not in self._warned:
            self._warned.add(kind)
            warn_only(message)
