"""OpenAI's provider: which interface carries a call, by which transport, and what becomes of its errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar, Final

from providers.capabilities import EmbeddingRequest, Embeddings, TokenCounting
from providers.exceptions import LLMProviderAPIError, LLMProviderError
from providers.pipeline import Assembler, attach
from providers.profiles import ProfileTable
from providers.remote import RemoteProvider
from providers.types import APIType, EmbeddingResult, LLMConfig, Request, StreamEvent
from providers.unwrap import Unwrapping, unwrap_whole
from providers.wire import Decoder, Failed, SdkTransport

from . import chat, embeddings, responses
from .chat_stream import ChatStream
from .common import NAME, usage_of
from .errors import classify, hint_at_chat
from .plan import Plan, needs_chat
from .responses_stream import ResponsesStream
from .schema import is_wrapped
from .settings import OpenAISettings

_CHAT: Final = APIType.CHAT_COMPLETION
_RESPONSES: Final = APIType.RESPONSES


class OpenAIProvider(Embeddings, TokenCounting, RemoteProvider):
    """OpenAI, and every server that speaks its dialect.

    Args:
        config: an `LLMConfig`, or the model's name; where neither it nor `model` names one, `"gpt-5"`.
        api_key: the key; `OPENAI_API_KEY` where left out. Not needed where `base_url` names another server.
        base_url: the server's address with its version segment; `OPENAI_BASE_URL` where left out.
        organization: the organisation that pays; `OPENAI_ORG_ID` where left out.
        options: fields of `LLMConfig`, of `OpenAISettings` and of `LayerSettings` (`cache_backend="fs"`,
            `requests_per_minute=500`...), and `model`.

    Raises:
        MissingCredentialsError: there is no key and the server is the vendor's own.
        LLMProviderConfigurationError: a value is refused; the message names field and source.
    """

    name = NAME
    Settings = OpenAISettings
    profiles = ProfileTable(Path(__file__).with_name("models.json"))
    understands: ClassVar[frozenset[str]] = frozenset(
        {"tools", "structured_output", "responses", "images", "documents", "content_parts"}
    )
    vendor_url = "https://api.openai.com/v1"
    signs_in = frozenset({"authorization", "api-key"})
    prompt = ("messages", "input")
    sdk_package = "openai: pip install openai, or pip install 'llm-provider-system[openai]'"
    classify = staticmethod(classify)

    settings: OpenAISettings
    _plans: dict[str, Plan]
    _moved = False  # whether `use_responses_api` has put RESPONSES in the place of CHAT_COMPLETION

    def __init__(
        self,
        config: LLMConfig | str | None = None,
        api_key: Any = None,
        base_url: str | None = None,
        organization: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(config, api_key=api_key, base_url=base_url, organization=organization, **options)
        if self.config.model_name is None:
            self.update_config(model_name=self.profiles.document["direct_default_model"])

    def _settle(self) -> None:
        super()._settle()
        wanted, api = self.settings.use_responses_api, self.config.api_type
        if wanted and api is _CHAT:
            self._moved = True
            self.update_config(api_type=_RESPONSES)
        elif self._moved and not wanted:
            # The setting has moved it there, and was taken back; what somebody named since stays.
            self._moved = False
            if api is _RESPONSES:
                self.update_config(api_type=_CHAT)

    def headers(self) -> dict[str, str]:
        """Who calls, for whom, and who pays."""
        settings = self.settings
        headers: dict[str, str] = {}
        if settings.api_key:
            headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        if settings.organization:
            headers["OpenAI-Organization"] = settings.organization
        if settings.project:
            headers["OpenAI-Project"] = settings.project
        return headers

    def sdk_transport(self) -> SdkTransport:
        """The transport over `openai.AsyncOpenAI`."""
        from .sdk_transport import OpenAITransport

        return OpenAITransport(self.address(), **self.wiring())

    def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer one request through the interface that it names, or that `AUTO` finds right."""
        return self._answer(request, self._begin)

    def _begin(self, request: Request, failed: Failed) -> AsyncIterator[StreamEvent]:
        codec, plan = self._route(request)
        body, meta = codec.encode(request, plan)
        decoder: Decoder[StreamEvent] = self._decoder(codec, request, meta)
        if is_wrapped(request.output):
            decoder = Unwrapping(decoder)

        def blamed(error: LLMProviderError) -> None:
            failed(error)
            _hint(codec, error)

        return self._transport.stream(codec.PATH, body, request.timeout, decoder, failed=blamed)

    async def respond(self, request: Request) -> list[StreamEvent]:
        """Answer one request in one piece."""
        codec, plan = self._route(request)
        try:
            body, meta = codec.encode(request, plan)
            waiting = self._transport.post(codec.PATH, body, request.timeout)
            del body  # it has been written; a call that waits shall not hold it
            reply, request_id = self._transport.read(await waiting)
            if reply.get("error"):
                raise _billed(self._refusal(reply, request_id), reply.get("usage"), request)
            events: list[StreamEvent] = codec.decode(reply, meta, request_id)
            if is_wrapped(request.output):
                events = unwrap_whole(events)
        except LLMProviderError as error:
            self._place(error, request.model)
            _hint(codec, error)
            raise
        return events

    def _route(self, request: Request) -> tuple[Any, Plan]:
        api = request.api_type
        if api is APIType.AUTO:
            api = self._choose(request)
        return chat if api is _CHAT else responses, self._plans.get(request.model) or self._plan(request.model)

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        """Vectors of all inputs, in their order."""
        try:
            waiting = self._transport.post(embeddings.PATH, embeddings.encode(request), request.timeout)
            reply, request_id = self._transport.read(await waiting)
            if reply.get("error"):
                raise self._refusal(reply, request_id)
            return embeddings.decode(reply, request, request_id)
        except LLMProviderError as error:
            self._place(error, request.model)
            raise

    async def count_tokens(self, messages: Any, **options: Any) -> int:
        """How many tokens the messages are as a prompt, counted by the server (`POST /responses/input_tokens`).

        Args:
            messages: a text, or messages in any spelling.
            options: as in `execute`, where they change the prompt (`tools`, `system`).

        Raises:
            LLMProviderNotFoundError: the server cannot count.
        """
        request = self._request(messages, None, {**options, "on_unsupported": "drop"}, stream=False)
        body = responses.encode_count(request, self._plans.get(request.model) or self._plan(request.model))
        return await self._ask(
            request,
            lambda transport: transport.post(responses.COUNT_PATH, body, request.timeout),
            responses.decode_count,
        )

    def _choose(self, request: Request) -> APIType:
        """Responses, but Chat Completions for what only it can carry, and for a schema on servers other than the
        vendor's: they enforce it there, and not all of them do so in Responses (llama.cpp does not)."""
        if request.previous_response_id is not None:
            return _RESPONSES
        chat_only = needs_chat(request) or (request.output is not None and not self._vendor)
        return _CHAT if chat_only else _RESPONSES

    def _plan(self, model: str) -> Plan:
        plans = self._plans  # before the rest is read: another thread may change the settings
        plan = plans[model] = Plan.of(self.profiles.get(model), vendor=self._vendor)
        return plan

    def _decoder(self, codec: Any, request: Request, meta: dict[str, Any]) -> ChatStream | ResponsesStream:
        if codec is chat:
            several = request.extras.get("n", 1) != 1
            return ChatStream(meta, self._refusal, several=several, secrets=self._secrets)
        return ResponsesStream(meta, self._refusal, secrets=self._secrets)


def _hint(codec: Any, error: LLMProviderError) -> None:
    if codec is responses and isinstance(error, LLMProviderAPIError):
        hint_at_chat(error)


def _billed(error: LLMProviderError, usage: Any, request: Request) -> LLMProviderError:
    """The error of a whole reply, with what it cost where the reply says so: a response may fail half-way."""
    told = usage_of(usage)
    if told is not None:
        answer = Assembler(request, NAME)
        answer.feed(StreamEvent.usage(told))
        attach(error, answer)
    return error
