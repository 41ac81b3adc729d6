"""Google's provider: the plan of each model, the transport that carries its calls, and what becomes of errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from providers.capabilities import EmbeddingRequest, Embeddings, TokenCounting
from providers.exceptions import LLMProviderAPIError, LLMProviderConfigurationError, LLMProviderError
from providers.profiles import ProfileTable
from providers.remote import RemoteProvider
from providers.types import EmbeddingResult, LLMConfig, Request, StreamEvent, Usage
from providers.wire import Failed, SdkTransport

from . import caches, embeddings, generate
from .caches import ContextCache
from .errors import classify, hint_at_version
from .generate_stream import GenerateStream
from .plan import Plan, resource_of
from .settings import KEY_HEADER, NAME, GeminiSettings
from .tools import read_choice, read_tools

T = TypeVar("T")


class GeminiProvider(Embeddings, TokenCounting, RemoteProvider):
    """Google's Gemini API, and every server that speaks generateContent.

    Args:
        config: an `LLMConfig`, or the model's name; where neither it nor `model` names one, the default of
            `models.json`.
        api_key: the key; `GOOGLE_API_KEY`, then `GEMINI_API_KEY`, where left out. Not needed where `base_url` names
            another server.
        base_url: the server's address without a version; `GOOGLE_GEMINI_BASE_URL` or `GEMINI_BASE_URL` where left out.
        options: fields of `LLMConfig` and of `GeminiSettings` (`api_version`, `transport`, `cached_content`...), and
            `model`.

    Raises:
        MissingCredentialsError: there is no key and the server is the vendor's own.
        LLMProviderConfigurationError: a value is refused; the message names field and source.
    """

    name = NAME
    Settings = GeminiSettings
    profiles = ProfileTable(Path(__file__).with_name("models.json"))
    understands: ClassVar[frozenset[str]] = frozenset(
        {"tools", "structured_output", "images", "documents", "content_parts"}
    )
    signs_in = frozenset({"authorization", KEY_HEADER})
    prompt = ("contents", "systemInstruction")
    sdk_package = "google-genai: pip install 'google-genai>=2,<4', or pip install 'llm-provider-system[gemini]'"
    classify = staticmethod(classify)

    settings: GeminiSettings
    _plans: dict[str, Plan]

    def __init__(
        self, config: LLMConfig | str | None = None, api_key: Any = None, base_url: str | None = None, **options: Any
    ) -> None:
        super().__init__(config, api_key=api_key, base_url=base_url, **options)
        if self.config.model_name is None:
            self.update_config(model_name=self.profiles.document["default_model"])

    def address(self) -> str:
        """The server's address with the version segment."""
        return "/".join(filter(None, self.settings.address))

    def headers(self) -> dict[str, str]:
        """The key; it stands in a header and never in the address."""
        return {KEY_HEADER: self.settings.api_key.get_secret_value()} if self.settings.api_key else {}

    def sdk_transport(self) -> SdkTransport:
        """The transport over `google.genai.Client`."""
        from .sdk_transport import GeminiTransport

        address, version = self.settings.address
        return GeminiTransport(address, version, **self.wiring())

    # --- answers

    def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer one request, piece by piece where it asks for that."""
        return self._answer(request, self._begin)

    def _begin(self, request: Request, failed: Failed) -> AsyncIterator[StreamEvent]:
        plan = self._plans.get(request.model) or self._plan(request.model)
        body, meta = generate.encode(request, plan)
        decoder = GenerateStream(meta, self._refusal, secrets=self._secrets)
        path = plan.path + generate.STREAM_VERB
        return self._transport.stream(path, body, request.timeout, decoder, failed=failed)

    async def respond(self, request: Request) -> list[StreamEvent]:
        """Answer one request in one piece."""
        plan = self._plans.get(request.model) or self._plan(request.model)
        try:
            body, meta = generate.encode(request, plan)
            waiting = self._transport.post(plan.path + generate.VERB, body, request.timeout)
            del body  # it has been written; a call that waits shall not hold it
            reply, request_id = self._transport.read(await waiting)
            if reply.get("error"):
                raise self._refusal(reply, request_id)
            return generate.decode(reply, meta, request_id)
        except LLMProviderError as error:
            self._place(error, request.model)
            raise

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        """Vectors of all inputs, in their order; more than the server takes at once go in several requests."""
        vectors: list[list[float]] = []
        usage = Usage()
        try:
            plan = self._plans.get(request.model) or self._plan(request.model)
            most = self.profiles.document["embedding_batch"]
            for verb, body, count in embeddings.encode(request, resource_of(request.model), most):
                waiting = self._transport.post(plan.path + verb, body, request.timeout)
                reply, request_id = self._transport.read(await waiting)
                if reply.get("error"):
                    raise self._refusal(reply, request_id)
                some, used = embeddings.decode(reply, count, request_id)
                vectors += some
                usage = usage + used
        except LLMProviderError as error:
            self._place(error, request.model)
            raise
        return EmbeddingResult(vectors, usage, request.model)

    async def count_tokens(self, messages: Any, **options: Any) -> int:
        """How many tokens the messages are as a prompt, counted by the server (`:countTokens`).

        A gateway may know messages alone, and count a prompt without its system prompt and tools.

        Args:
            messages: a text, or messages in any spelling.
            options: as in `execute`, where they change the prompt (`tools`, `system`).

        Raises:
            LLMProviderNotFoundError: the server cannot count.
        """
        request = self._request(messages, None, {**options, "on_unsupported": "drop"}, stream=False)
        plan = self._plans.get(request.model) or self._plan(request.model)
        body = generate.encode_count(request, plan, resource_of(request.model), plainly=not self._vendor)
        return await self._ask(
            request,
            lambda transport: transport.post(plan.path + generate.COUNT_VERB, body, request.timeout),
            generate.decode_count,
        )

    # --- context caches

    async def create_cache(
        self,
        messages: Any,
        *,
        system: str | None = None,
        tools: Any = None,
        ttl: float | str | None = None,
        expires: datetime | None = None,
        display_name: str | None = None,
        **options: Any,
    ) -> ContextCache:
        """Have the vendor keep a prompt, to be named by later calls with `extra={"cached_content": cache.name}`.

        Context caches are a feature of `api_version="v1beta"`. A call that names one sends neither system prompt nor
        tools of its own: both belong into the cache.

        Args:
            messages: a text, or messages in any spelling; what each later prompt begins with.
            system: the system prompt.
            tools: tools in any spelling.
            ttl: how long it is kept, in seconds or as `"3600s"`; the vendor's default (an hour) where left out.
            expires: until when it is kept, in place of `ttl`.
            display_name: the caller's name of it.
            options: `timeout`, `attempts`, `backoff`, `tool_choice`, as in `execute`.

        Raises:
            LLMProviderConfigurationError: an argument is wrong.
            LLMProviderError: the backend refused, or nobody answered.
        """
        life = caches.lifetime(ttl, expires)
        # A cache named by the settings is for calls; it has no place in a new one.
        request = self._request(messages, system, {**options, "tools": tools, "on_unsupported": "drop"}, stream=False)
        plan = self._plans.get(request.model) or self._plan(request.model)
        made, _ = generate.encode(request, plan)
        body = caches.encode_create(made, resource_of(request.model), life, display_name)
        return await self._ask(
            request, lambda transport: transport.post(caches.PATH, body, request.timeout), ContextCache.of
        )

    async def get_cache(self, cache: ContextCache | str, **options: Any) -> ContextCache:
        """What the vendor tells of a cache now.

        Raises:
            LLMProviderNotFoundError: there is none of that name any more; some servers say that it is forbidden.
        """
        return await self._ask_plainly("GET", caches.path_of(cache), None, options, ContextCache.of)

    async def update_cache(
        self,
        cache: ContextCache | str,
        *,
        ttl: float | str | None = None,
        expires: datetime | None = None,
        **options: Any,
    ) -> ContextCache:
        """Change how long a cache is kept, counted from now; nothing else of it can be changed.

        Raises:
            LLMProviderConfigurationError: neither `ttl` nor `expires` is given, or both are.
        """
        life = caches.lifetime(ttl, expires)
        if not life:
            raise LLMProviderConfigurationError("update_cache needs ttl or expires", provider=self.name)
        return await self._ask_plainly("PATCH", caches.path_of(cache), life, options, ContextCache.of)

    async def delete_cache(self, cache: ContextCache | str, **options: Any) -> None:
        """Have the vendor forget a cache.

        Raises:
            LLMProviderNotFoundError: there is none of that name.
        """
        await self._ask_plainly("DELETE", caches.path_of(cache), None, options, lambda reply, request_id: None)

    async def list_caches(self, *, page_size: int | None = None, **options: Any) -> list[ContextCache]:
        """All context caches of the account.

        Args:
            page_size: how many the server gives at once; its default where left out.
            options: `timeout`, `attempts`, `backoff`, as in `execute`.
        """
        found: list[ContextCache] = []
        token = ""
        seen: set[str] = set()
        while True:
            words = [f"pageSize={page_size}"] if page_size is not None else []
            words += [f"pageToken={quote(token, safe='')}"] if token else []
            path = caches.PATH + (f"?{'&'.join(words)}" if words else "")
            some, following = await self._ask_plainly("GET", path, None, options, _page)
            found += some
            if not isinstance(following, str) or not following or following in seen:
                return found
            seen.add(following)
            token = following

    # --- how they stand on the transport

    def _request(self, messages: Any, system: str | None, options: dict[str, Any], stream: bool) -> Request:
        # The vendor's own spellings of tools and of their choice, for which the house has no words.
        if options.get("tools") is not None:
            options = {**options, "tools": read_tools(options["tools"])}
        if options.get("tool_choice") is not None:
            choice, own = read_choice(options["tool_choice"])
            extra = options.get("extra")
            options = {**options, "tool_choice": choice}
            if own is not None and (extra is None or isinstance(extra, Mapping)):
                options["extra"] = {"tool_config": own, **(extra or {})}
        return super()._request(messages, system, options, stream)

    async def _ask_plainly(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        options: dict[str, Any],
        read: Callable[[dict[str, Any], str | None], T],
    ) -> T:
        # The options are read like a call's; its prompt is never sent.
        request = self._request("-", None, options, stream=False)
        return await self._ask(request, lambda transport: transport.request(method, path, body, request.timeout), read)

    def _place(self, error: LLMProviderError, model: str) -> None:
        super()._place(error, model)
        if isinstance(error, LLMProviderAPIError):
            hint_at_version(error, self.settings.address[1])

    def _plan(self, model: str) -> Plan:
        plans = self._plans  # before the rest is read: another thread may change the settings
        plan = plans[model] = Plan.of(self.profiles.get(model), self.settings, vendor=self._vendor)
        return plan


def _page(reply: dict[str, Any], request_id: str | None) -> tuple[list[ContextCache], Any]:
    """Some caches of a list, and the token of those that follow."""
    items = reply.get("cachedContents")
    found = [ContextCache.of(item, request_id) for item in items or () if isinstance(item, dict)]
    return found, reply.get("nextPageToken")
