"""The contract: what a provider is. THE file that a plugin's author reads.

A provider is a subclass of `LLMProvider` with one method:

    class AcmeProvider(LLMProvider):
        name = "acme"
        Settings = AcmeSettings                 # a dataclass with env_prefix; see providers.settings

        def open(self) -> None:                 # once, before the first call: import the SDK, load the model
            self.client = ...

        async def generate(self, request):      # one Request in, StreamEvents out
            yield StreamEvent.token("Hello")
            yield StreamEvent.usage(Usage(3, 1))
            yield StreamEvent.finish("stop")

All verbs (`execute`, `execute_chat_completion`, `execute_responses_api`, `complete`, `stream`, `embed`...) stand here,
once, on top of `generate`. Rarer powers are mixins in `providers.capabilities`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

from .calls import Calls
from .configuring import Configured, configure, configure_anew
from .exceptions import LLMProviderUnsupportedOperationError, MissingCredentialsError, ProviderClosedError
from .layers.pricing import Priced
from .life import Life
from .lives import changing, close_all
from .pipeline import Layer, collecting, compose, compose_whole, respond_of
from .presets import Preset, taken_preset
from .profiles import ModelProfile, ProfileTable, estimate_tokens
from .request_builder import RequestBuilder
from .settings import ProviderSettings, all_variables, missing_key
from .stack import Owner, Stack, as_layers, make_stack
from .types import (
    EmbeddingResult,
    LLMConfig,
    LLMResponse,
    Request,
    StreamEvent,
)
from .types.config import DEFAULT_TOKEN_LIMIT
from .verbs import Verbs

__all__ = [
    "BaseProvider",
    "LLMConfig",
    "LLMProvider",
    "LLMProviderUnsupportedOperationError",
    "LLMResponse",
    "Provider",
    "Request",
    "StreamEvent",
    "capabilities_of",
]


class LLMProvider(Verbs):
    """Base of all providers.

    Args:
        config: an `LLMConfig`, a dict of its fields, or the model's name.
        options: fields of `LLMConfig` and of the provider's settings by name; they override `config`. `model` is
            another name of `model_name`; a class or object with a `model_name` will do for a name. What stands around
            each call is set by the fields of `LayerSettings` (`cache_backend`, `requests_per_minute`, `budget`...), or
            composed by hand with `layers`, outermost first.

    Raises:
        UnknownOptionError: an option that neither knows.
        LLMProviderConfigurationError: a value is refused; the message names field and source.
        MissingCredentialsError: the provider needs a key and no source has one.
    """

    name: ClassVar[str] = ""
    """The provider's name, as in `create_llm_provider(name)`."""

    Settings: ClassVar[type[ProviderSettings]] = ProviderSettings
    """What can be set beside `LLMConfig`: keys, addresses, paths."""

    profiles: ClassVar[ProfileTable] = ProfileTable()
    """What is known of the provider's models."""

    layers: ClassVar[tuple[Layer, ...] | None] = None
    """What stands around each call, outermost first; `None` for what the settings say (`providers.stack`)."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Import names of packages that `open` needs, for `available_providers`."""

    understands: ClassVar[frozenset[str]] = frozenset()
    """What `generate` does with a request beyond text: any of `"tools"`, `"structured_output"`, `"responses"` (the
    interface whose conversations the backend keeps), `"images"`, `"documents"` and `"content_parts"` (messages with
    parts of other kinds, sent as they are). A request for anything else is refused before it reaches `generate`, so
    that nothing is ignored by an author who never met it."""

    slow_open: ClassVar[bool] = False
    """Whether `open` takes long (loads a model), so that it must not run on the event loop's thread."""

    batch_workers: ClassVar[int] = 16
    """How many calls of a batch are made at a time; more for a backend that computes hundreds in one run."""

    settings: ProviderSettings
    _preset: Preset | None = None

    def __init__(self, config: LLMConfig | Mapping[str, Any] | str | None = None, **options: Any) -> None:
        self._composed = self.layers if (given := options.pop("layers", None)) is None else as_layers(given)
        self._preset = taken_preset()
        made = configure(self.name, self.Settings, config, options, self._preset)
        self.config, self.settings, self._arguments, _ = made
        self._life = self._new_life()
        self._former: tuple[Life, ...] = ()
        self._stack = self._make_stack(self._composed, self._arguments, self.settings)
        self._surround()

    def _new_life(self) -> Life:
        return Life(self.name, self.open, self.slow_open, self._give_back)

    async def _give_back(self) -> None:
        try:
            await self.shut()
        finally:
            await self._stack.close()

    def _make_stack(
        self, composed: tuple[Layer, ...] | None, arguments: Mapping[str, Any], settings: ProviderSettings
    ) -> Stack:
        owner = Owner(self.name, self.profiles, settings, type(self).__module__)
        return make_stack(owner, composed, arguments, getattr(self, "_stack", None))

    def _surround(self) -> None:
        """Put the layers around the calls that begin from now on."""
        layers = self._stack.layers
        self._cached = any(getattr(layer, "caches", False) for layer in layers)
        first = layers[0] if layers else None
        priced, inner = (first, layers[1:]) if isinstance(first, Priced) else (None, layers)
        handler = compose(inner, self.generate)
        whole = compose_whole(inner, self.generate, respond_of(self))
        self._calls = Calls(self.name, handler, whole, self._life, priced, getattr(self, "_calls", None))
        self._builder = RequestBuilder(self.name, self.config, cached=self._cached)

    # --- what an author writes --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Get ready, once, before the first call: import what is heavy, load what is large.

        Runs in the caller's thread, or in a worker thread where `slow_open` is set. May raise; the next call tries
        again.
        """

    def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer one request: an async generator of events. The one method that an author has to write.

        Yield `StreamEvent.token`, `.reasoning`, `.tool_start` / `.tool_delta` / `.tool_call`, `.usage` (cumulative) and
        at the end `.finish(reason)`. Raise errors of `providers.exceptions`. Close what is open when the generator is
        closed: that is how a cancelled call ends.
        """
        raise LLMProviderUnsupportedOperationError(f"{type(self).__name__} has no generate()", provider=self.name)

    async def respond(self, request: Request) -> Sequence[StreamEvent]:
        """All events of a whole answer at once; what `generate` yields, collected.

        To be overridden where the backend gives an answer in one piece anyway: it saves each call a generator.
        """
        return await collecting(self.generate)(request)

    async def shut(self) -> None:
        """Give back what `open` took. Called once for each `open`, and again by `close` where a loop ended meanwhile.
        After a slow opening that nobody waits for any more it runs on a loop of its own."""

    def detach(self) -> Callable[[], Awaitable[None]] | None:
        """Make way for new settings, which `self.settings` holds already: `reload` calls it.

        To be overridden where old and new can stand side by side: give a function that closes what was made from the
        old settings. It is called once the calls that began with it have ended; leave it in place until `open` puts
        another there, since some of them may take it still. `None`, the default, leaves the old in use until no call is
        under way. Or to be overridden where the next `open` would refuse the new settings, so that they are refused
        now. Nobody opens or shuts the provider meanwhile.

        Raises:
            LLMProviderConfigurationError: the new settings are refused; nothing may have changed then.
        """
        return None

    # --- more verbs -------------------------------------------------------------------------------------------------

    async def embed(
        self, inputs: str | list[str], encoding_format: str = "float", dimensions: int | None = None, **options: Any
    ) -> EmbeddingResult:
        """Vectors of texts, for providers with the `Embeddings` capability.

        Raises:
            LLMProviderUnsupportedOperationError: this provider makes no embeddings.
        """
        raise LLMProviderUnsupportedOperationError("this provider makes no embeddings", provider=self.name)

    def update_config(self, **changes: Any) -> None:
        """Change the configuration for calls that start from now on; all changes, or none where one is refused.

        Raises:
            UnknownOptionError: a name is no field of `LLMConfig`.
            LLMProviderConfigurationError: a value is refused.
        """
        config = self.config.updated(changes, "update_config")
        self.config, self._builder = config, RequestBuilder(self.name, config, cached=self._cached)

    async def reload(self, **changes: Any) -> None:
        """Read the settings anew (arguments, environment, `.env`, toml, the preset): a rotated key or a changed limit
        counts from the next call on. Calls and streams under way go on as they began. What `update_config` changed
        since stays. An opening that is under way is waited for.

        Args:
            changes: options in place of those that the provider was made with; fields of `LLMConfig` too.

        Raises:
            LLMProviderConfigurationError: a value is refused, or a key is missing; everything is as before then.
            ProviderClosedError: the provider was closed.
        """
        layers = changes.pop("layers", None)
        stack: Stack | None = None
        try:
            async with changing(lambda: self._life) as life:
                if self.is_closed:
                    raise ProviderClosedError("this provider was closed; create a new one", provider=self.name)
                composed = tuple(layers) if layers is not None else self._composed
                config, settings, arguments, preset = self._configured_anew(changes)
                stack, former = self._make_stack(composed, arguments, settings), self._stack
                before, self.config, self.settings = (self.config, self.settings), config, settings
                try:
                    close = self.detach()
                except BaseException:
                    self.config, self.settings = before
                    raise
                self._arguments, self._composed, self._stack, self._preset = arguments, composed, stack, preset
                was_open = life.is_open
                if close is not None and life.hand_over(close):
                    self._life = self._new_life()
                    self._former = (*(one for one in self._former if one.under_way), life)
                self._surround()
        except BaseException:
            if stack is not None:
                await stack.close(but=self._stack)
            raise
        try:
            # What goes on of the stack is not to be closed with what `open` took.
            if close is None and was_open:
                await life.rest_when_idle(self.shut)
            elif life is not self._life:
                await life.retire(self._life)
        finally:
            await life.afterwards(lambda: former.close(but=None if self.is_closed else self._stack))

    def get_model_info(self) -> dict[str, Any]:
        """Facts: `provider_type`, `model_name`, `api_type`, `token_limit`, `capabilities`, `sources` of settings."""
        return {
            "provider_type": self.name,
            "model_name": self.config.model_name,
            "api_type": self.config.api_type.value,
            "token_limit": self.token_limit,
            "provider_class": f"{type(self).__module__}.{type(self).__qualname__}",
            "capabilities": sorted(self.capabilities),
            "sources": {**self._stack.sources, **self.settings.sources},
        }

    def estimate_tokens(self, prompt: str) -> int:
        """A guess of how many tokens a text is; see `providers.profiles.estimate_tokens` for its error."""
        return estimate_tokens(prompt)

    def validate_token_limit(self, prompt: str, max_tokens: int | None = None) -> bool:
        """Whether a prompt and its answer are likely to fit the model's context window.

        Args:
            prompt: the text.
            max_tokens: tokens kept for the answer; the configuration's where left out, none where that has none.
        """
        reserve = max_tokens if max_tokens is not None else self.config.max_tokens or 0
        return self.estimate_tokens(prompt) + reserve <= self.token_limit

    async def warm_cache(self) -> None:
        """Get the caches ready, where there are any, and the provider too."""
        for layer in self._stack.layers:
            if hasattr(layer, "warm"):
                await layer.warm()
        await self._life.ensure_open()

    async def close(self) -> None:
        """Give back connections, models and files; harmless when repeated. Calls that are under way are not waited for.

        Raises:
            LLMProviderError: what the backend says when it is shut.
        """
        await close_all(lambda: (*self._former, self._life), lambda: self._stack.close())

    async def close_when_idle(self) -> None:
        """Close once the last call and the last stream have ended; at once where none is under way."""
        await self._life.close_when_idle()

    async def rest_when_idle(self) -> None:
        """Give back what `open` took once no call is under way; a later call opens the provider again."""
        await self._life.rest_when_idle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- facts ------------------------------------------------------------------------------------------------------

    @property
    def profile(self) -> ModelProfile:
        """What is known of the configured model."""
        return self.profiles.get(self.config.model_name or "")

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, so that no further call is taken."""
        return self._life.closed

    @property
    def calls_under_way(self) -> int:
        """Calls and streams that have begun and not ended."""
        return sum(life.under_way for life in (*self._former, self._life))

    @property
    def token_limit(self) -> int:
        """The context window in tokens: as configured, else as the model's profile says, else 8192."""
        configured = self.config.token_limit
        if configured is DEFAULT_TOKEN_LIMIT:
            return self.profile.context_window or configured
        return configured

    @property
    def capabilities(self) -> frozenset[str]:
        """What this provider can do beyond text: what it `understands`, and the mixins of `providers.capabilities`."""
        return capabilities_of(type(self))

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that the settings are read from."""
        return (*all_variables(type(self.settings)), *self._stack.variables)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}/{self.config.model_name}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a {type(self).__name__} holds connections and cannot be pickled; create one in each process with "
            "create_llm_provider or get_cached_provider"
        )

    def _configured_anew(self, changes: Mapping[str, Any]) -> Configured:
        """What `reload` takes on; nothing has changed yet."""
        now = Configured(self.config, self.settings, self._arguments, self._preset)
        return configure_anew(self.name, self.Settings, now, changes)

    # --- how the verbs stand on generate ----------------------------------------------------------------------------

    def require(self, name: str) -> str:
        """The value of a setting that has to be there, a secret's value included.

        Raises:
            MissingCredentialsError: no source has one; names the variable and the files searched.
        """
        value = getattr(self.settings, name)
        if not value:
            raise MissingCredentialsError(missing_key(type(self.settings), name), provider=self.name)
        return cast(str, value.get_secret_value() if hasattr(value, "get_secret_value") else value)


def capabilities_of(provider: type[LLMProvider]) -> frozenset[str]:
    """What the providers of a class can do beyond text; needs none of them, so no key and no model."""
    mixins = (word for cls in provider.__mro__ if (word := cls.__dict__.get("capability")))
    return provider.understands.union(mixins)


BaseProvider = LLMProvider
Provider = LLMProvider
