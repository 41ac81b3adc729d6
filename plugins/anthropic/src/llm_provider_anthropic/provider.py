"""Anthropic's provider: settings to headers, a request to its answer, and what becomes of errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from providers.capabilities import TokenCounting
from providers.exceptions import LLMProviderConfigurationError, LLMProviderError, StructuredOutputError
from providers.profiles import ProfileTable
from providers.remote import RemoteProvider
from providers.types import LLMConfig, Request, StreamEvent
from providers.wire import Failed, SdkTransport

from . import messages
from .common import META, NAME, TOKEN
from .errors import classify
from .plan import DEFAULT_MAX_TOKENS, Plan
from .schema import unfenced
from .settings import AUTH_HEADERS, NEW_VERSION, AnthropicSettings
from .stream import MessageStream


class AnthropicProvider(TokenCounting, RemoteProvider):
    """Anthropic's Messages API, and every server that speaks it.

    Args:
        model: the model's name, or an `LLMConfig`; where neither names one, `"claude-3-5-sonnet-20241022"`, which the
            founding document promises and the vendor has retired: name one.
        api_key: the key; `ANTHROPIC_API_KEY` where left out. Not needed where `base_url` names another server.
        base_url: the server's address; `ANTHROPIC_BASE_URL` where left out.
        max_tokens: most tokens of an answer where a call names none; the API wants a figure.
        default_temperature: another name of `temperature`.
        options: fields of `LLMConfig` and of `AnthropicSettings`, and `config` as another name of `model`.

    Raises:
        MissingCredentialsError: there is no key and the server is the vendor's own.
        LLMProviderConfigurationError: a value is refused; the message names field and source.
    """

    name = NAME
    Settings = AnthropicSettings
    profiles = ProfileTable(Path(__file__).with_name("models.json"))
    understands: ClassVar[frozenset[str]] = frozenset(
        {"tools", "structured_output", "content_parts", "images", "documents"}
    )
    vendor_url = "https://api.anthropic.com"
    signs_in = frozenset({"authorization", "x-api-key"})
    prompt = ("messages",)
    sdk_package = "anthropic: pip install anthropic, or pip install 'llm-provider-system[anthropic]'"
    classify = staticmethod(classify)

    settings: AnthropicSettings
    _plans: dict[str, Plan]

    def __init__(
        self,
        model: LLMConfig | str | None = None,
        api_key: Any = None,
        base_url: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        default_temperature: float | None = None,
        **options: Any,
    ) -> None:
        config = options.pop("config", None)
        if config is None and isinstance(model, LLMConfig):
            config, model = model, None
        # A default goes below a configuration's own value; what somebody gave goes over it.
        most = None if max_tokens is DEFAULT_MAX_TOKENS else max_tokens
        super().__init__(
            config,
            model=model,
            api_key=api_key,
            base_url=base_url,
            max_tokens=most,
            default_temperature=default_temperature,
            **options,
        )
        if self.config.model_name is None:
            self.update_config(model_name=self.profiles.document["direct_default_model"])
        if self.config.max_tokens is None:
            self.update_config(max_tokens=DEFAULT_MAX_TOKENS)

    def _settle(self) -> None:
        settings = self.settings
        self._check_word("auth_header", AUTH_HEADERS)
        # As in the vendor's SDK: a key goes before a token, but what is given goes before the environment.
        if settings.api_key and settings.auth_token:
            given = [name for name in ("api_key", "auth_token") if settings.was_given(name)]
            if len(given) == 2:
                raise LLMProviderConfigurationError("give api_key or auth_token, not both", provider=self.name)
            setattr(settings, "api_key" if given == ["auth_token"] else "auth_token", None)
        # Headers of the user's own win over ours, also over those of one call; betas of a call join them.
        own = {name.lower(): value for name, value in (settings.default_headers or {}).items()}
        betas = own["anthropic-beta"].split(",") if "anthropic-beta" in own else settings.betas or ()
        self._betas = tuple(name.strip() for name in betas if name.strip())
        self._version = own.get("anthropic-version", settings.api_version)
        super()._settle()

    def address(self) -> str:
        """The server's address without the version segment, which all paths of this API begin with."""
        address = super().address().strip().rstrip("/")
        # One that has it twice is left to the check of addresses, which says so.
        return address if address.endswith("/v1/v1") else address.removesuffix("/v1")

    def headers(self) -> dict[str, str]:
        """The API's version and its betas, and who calls."""
        settings = self.settings
        headers: dict[str, str] = {"anthropic-version": settings.api_version or NEW_VERSION}
        if settings.auth_token:
            headers["Authorization"] = f"Bearer {settings.auth_token.get_secret_value()}"
        elif settings.api_key:
            key = settings.api_key.get_secret_value()
            if settings.auth_header != "x-api-key":
                headers["Authorization"] = f"Bearer {key}"
            if settings.auth_header != "bearer":
                headers["X-Api-Key"] = key
        if settings.betas:
            headers["anthropic-beta"] = ",".join(settings.betas)
        return headers

    def sdk_transport(self) -> SdkTransport:
        """The transport over `anthropic.AsyncAnthropic`."""
        from .sdk_transport import AnthropicTransport

        return AnthropicTransport(self.address(), **self.wiring())

    def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer one request, piece by piece where it asks for that."""
        return self._answer(request, self._begin)

    def _begin(self, request: Request, failed: Failed) -> AsyncIterator[StreamEvent]:
        wire = messages.encode(request, self._plan(request.model), self._betas)
        decoder = MessageStream(wire.meta, self._refusal, secrets=self._secrets)
        if wire.in_words:
            decoder.and_then = lambda text, facts: _parsed(request, text, facts)
        return self._transport.stream(messages.PATH, wire.body, request.timeout, decoder, wire.headers, failed)

    async def respond(self, request: Request) -> list[StreamEvent]:
        """Answer one request in one piece."""
        try:
            wire = messages.encode(request, self._plan(request.model), self._betas)
            meta, in_words = wire.meta, wire.in_words
            waiting = self._transport.post(messages.PATH, wire.body, request.timeout, wire.headers)
            del wire  # it has been written; a call that waits shall not hold it
            reply, request_id = self._transport.read(await waiting)
            if reply.get("error"):
                raise self._refusal(reply, request_id)
            events = messages.decode(reply, meta, request_id)
            if in_words:
                text = "".join(event.data for event in events if event.type is TOKEN)
                events += _parsed(request, text, events[0].data)
        except LLMProviderError as error:
            self._place(error, request.model)
            raise
        return events

    async def count_tokens(self, messages: Any, **options: Any) -> int:
        """How many tokens the messages are as a prompt, counted by the server (`POST /v1/messages/count_tokens`).

        Args:
            messages: a text, or messages in any spelling.
            options: as in `execute`, where they change the prompt (`tools`, `system`).

        Raises:
            LLMProviderNotFoundError: the server cannot count.
        """
        request = self._request(messages, None, {**options, "on_unsupported": "drop"}, stream=False)
        return await self._count(request)

    async def _count(self, request: Request) -> int:
        wire = messages.encode(request, self._plan(request.model), self._betas)
        body = messages.encode_count(wire)
        headers = wire.headers
        return await self._ask(
            request,
            lambda transport: transport.post(messages.COUNT_PATH, body, request.timeout, headers),
            messages.decode_count,
        )

    def _plan(self, model: str) -> Plan:
        plans = self._plans  # before the rest is read: another thread may change the settings
        found = plans.get(model)
        if found is None:
            # Gateways put a prefix before the vendor's names.
            at = -1 if self.profiles.knows(model) else model.find("claude-")
            found = plans[model] = Plan.of(
                self.profiles.get(model[at:] if at > 0 else model),
                self.profiles.document,
                vendor=self._vendor,
                version=self._version,
            )
        return found


def _parsed(request: Request, text: str, facts: Mapping[str, Any]) -> list[StreamEvent]:
    """The structure inside a code fence: asked for in words, some models put one around it all the same."""
    inner = unfenced(text)
    if inner is None or request.output is None or facts.get("finish_reason") != "stop":
        return []
    try:
        return [StreamEvent(META, {"parsed": request.output.parse(inner)})]
    except StructuredOutputError:
        return []  # the house says what is wrong with it


def is_available() -> bool:
    """Whether the packages of one of the transports are installed: aiohttp and orjson, or the vendor's SDK."""
    return all(map(find_spec, AnthropicProvider.requires)) or find_spec("anthropic") is not None
