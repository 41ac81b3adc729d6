"""What providers share whose backend is a server: two transports, how they sign in, their errors, and live settings.

class AcmeProvider(RemoteProvider):
    name = "acme"
    Settings = AcmeSettings                     # a RemoteSettings
    vendor_url = "https://api.acme.example/v1"

    def headers(self):                          # of every request: the key
        return {"Authorization": ...}

    async def respond(self, request): ...       # a whole answer, over self._transport.post

    def generate(self, request):                # one in pieces, over self._transport.stream
        return self._answer(request, lambda request, failed: ...)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

from .base import LLMProvider
from .exceptions import (
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderUnsupportedOperationError,
    MissingDependencyError,
)
from .notices import shown
from .resilience import retrying
from .settings import ProviderSettings, keep_secrets, setting
from .types import LLMConfig, Request, Secret, StreamEvent
from .wire import Failed, HttpTransport, SdkTransport, error_from_event, hidden, merged_headers

T = TypeVar("T")

_TRANSPORTS: Final = ("http", "sdk")


@dataclass(kw_only=True, eq=False)
class RemoteSettings(ProviderSettings):
    """What every remote provider lets its users set; subclass it as a dataclass and add fields.

    Attributes:
        api_key: the key; may be left out where `base_url` names another server, and is then not sent at all.
        base_url: the server's address; the vendor's own where left out.
        transport: `"http"` (this package's own client) or `"sdk"` (the vendor's).
        default_headers: headers for every request; they win over those made here. In the environment a JSON object.
    """

    api_key: Secret | None = setting(help="The key.")
    base_url: str | None = setting(help="The server's address.")
    transport: str = setting("http", help="'http' or 'sdk'.")
    # Not in the repr: a header may hold a key.
    default_headers: dict[str, str] | None = field(
        default=None, repr=False, metadata={"help": "Headers for every request, as a JSON object."}
    )


class RemoteProvider(LLMProvider):
    """Base of providers whose backend is a server.

    Beside what every provider has, a subclass stands on:

    * `self._transport`, which carries the bodies. A call takes it once: `detach` puts another in its place.
    * `self._secrets`: what no message may show.
    * `self._vendor`: whether the server is the vendor's own, one of the `vendor_hosts` of its data file.
    * `self._plans`: what it worked out for each model; empty again where the settings changed.

    Raises:
        MissingCredentialsError: there is no key and the server is the vendor's own.
        LLMProviderConfigurationError: the address, a header or the transport's name makes no sense.
    """

    Settings: ClassVar[type[ProviderSettings]] = RemoteSettings

    requires: ClassVar[tuple[str, ...]] = ("aiohttp", "orjson")

    vendor_url: ClassVar[str] = ""
    """The server's address where the settings name none."""

    signs_in: ClassVar[frozenset[str]] = frozenset({"authorization"})
    """Headers that sign in, in small letters; the vendor's own server is not called without one of them."""

    prompt: ClassVar[tuple[str, ...]] = ()
    """Keys of a body that hold the conversation, which is not searched for numbers that JSON has no word for."""

    sdk_package: ClassVar[str] = "of the vendor's SDK"
    """Name of the SDK's package and how to install it, for the error where it is missing."""

    settings: RemoteSettings
    _opened = False

    def __init__(self, config: LLMConfig | str | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._settle()

    # --- what an author writes --------------------------------------------------------------------------------------

    def address(self) -> str:
        """What the paths of requests are put behind."""
        return self.settings.base_url or self.vendor_url

    def headers(self) -> dict[str, str]:
        """The headers of every request, without the user's own; where there is no key, none that signs in."""
        return {}

    @staticmethod
    def classify(status: int | None, code: str | None, type: str | None, message: str) -> type[LLMProviderError] | None:
        """The class of an error in the backend's own words, or `None` where the shared tables know best."""
        return None

    def sdk_transport(self) -> SdkTransport:
        """The transport over the vendor's SDK, which is imported here and not before.

        Raises:
            ImportError: it is not installed.
        """
        raise LLMProviderUnsupportedOperationError(f"{self.name} has transport='http' only", provider=self.name)

    def wiring(self) -> dict[str, Any]:
        """What both transports take beside the address: headers, secrets and the rest, by name."""
        return {
            "headers": merged_headers(self.headers(), self.settings.default_headers),
            "provider": self.name,
            "secrets": hidden(self.settings.secrets(), self.settings.default_headers),
            "classify": self.classify,
            "prompt": self.prompt,
        }

    # --- its life ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Load the vendor's SDK, where it is the transport; after a rest, make the transport anew.

        Raises:
            MissingDependencyError: it is not installed.
        """
        self._opened = True
        if self._stale or self._settled is not self.settings:
            self._settle()

    async def shut(self) -> None:
        """Close all connections."""
        self._stale = True
        await self._transport.close()

    def detach(self) -> Callable[[], Awaitable[None]]:
        """Take what `settings` says now for calls that start from now on; those under way keep their connections.

        Returns:
            What closes the old connections, once their calls have ended.

        Raises:
            LLMProviderConfigurationError, MissingCredentialsError, MissingDependencyError: as when a provider is made
                and opened. Nothing has changed then.
        """
        before = dict(vars(self))
        try:
            self._settle()
        except BaseException:
            vars(self).update(before)
            raise
        close: Callable[[], Awaitable[None]] = before["_transport"].close
        return close

    def _settle(self) -> None:
        """Work out all that follows from the settings: done at first, where they changed, and after a rest.

        A subclass that derives more does so here, before it hands on.
        """
        settings = self.settings
        self._check_word("transport", _TRANSPORTS)
        wiring = self.wiring()
        # Made in any case, since it checks the address and the headers; it connects at the first call.
        try:
            transport: HttpTransport | SdkTransport = HttpTransport(self.address(), **wiring)
        except LLMProviderConfigurationError as error:
            keep_secrets(error, settings.secrets())
            source = settings.sources.get("base_url", "argument")
            if error.message.startswith("base_url ") and source != "argument":
                error.message = f"{error.message} (from {source})"
            raise
        host = urlsplit(self.address()).hostname or ""
        hosts = self.profiles.document.get("vendor_hosts") or [urlsplit(self.vendor_url).hostname]
        vendor = any(host == own or host.endswith(f".{own}") for own in hosts)
        if vendor and self.signs_in.isdisjoint(name.lower() for name in wiring["headers"]):
            self.require("api_key")
        sdk = settings.transport == "sdk"
        if sdk and self._opened:
            transport = self._over_sdk()
        self._settled = settings
        self._stale = sdk and not self._opened
        self._secrets = wiring["secrets"]
        self._vendor = vendor
        self._transport = transport
        self._plans: dict[str, Any] = {}

    def _over_sdk(self) -> SdkTransport:
        try:
            return self.sdk_transport()
        except ImportError as error:
            raise MissingDependencyError(
                f"transport='sdk' needs the package {self.sdk_package} ({error})", provider=self.name
            ) from error

    def _check_word(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self.settings, name)
        if value not in allowed:
            source = self.settings.sources.get(name, "default")
            told = shown(value, self.settings.secrets())
            raise LLMProviderConfigurationError(
                f"{name} ({source}) must be {' or '.join(map(repr, allowed))}, not {told}", provider=self.name
            )

    # --- calls and their errors -------------------------------------------------------------------------------------

    def _answer(
        self, request: Request, begin: Callable[[Request, Failed], AsyncIterator[StreamEvent]]
    ) -> AsyncIterator[StreamEvent]:
        """What `generate` gives where whole answers come from `respond`, and pieces from a transport's `stream`.

        No generator around that one: it would cost each piece as much as reading it.

        Args:
            request: the call. A provider without a `respond` of its own is asked for pieces in any case.
            begin: takes the request, and what the transport is to tell of errors, and gives `self._transport.stream`
                with the body and a decoder.

        Raises:
            LLMProviderError: what `begin` raises.
        """
        if not request.stream:
            if type(self).respond is not LLMProvider.respond:
                return self._at_once(request)
            request = request.replace(stream=True)

        def failed(error: LLMProviderError) -> None:
            self._place(error, request.model)

        try:
            return begin(request, failed)
        except LLMProviderError as error:
            failed(error)
            raise

    async def _at_once(self, request: Request) -> AsyncIterator[StreamEvent]:
        for event in await self.respond(request):
            yield event

    async def _ask(
        self,
        request: Request,
        call: Callable[[HttpTransport | SdkTransport], Awaitable[Any]],
        read: Callable[[dict[str, Any], str | None], T],
    ) -> T:
        """Ask for something other than an answer; passing failures are tried again.

        Args:
            request: whose model and policy of retries hold.
            call: sends it over the transport that it is given.
            read: makes the result of the reply and of the backend's id of the request.

        Raises:
            LLMProviderError: the backend refused, nobody answered, or the reply is none.
        """
        life = self._life  # the settings may change meanwhile, and with them the life and the transport
        await life.begin()
        transport = self._transport
        try:
            reply, request_id = transport.read(await retrying(request.retry, lambda: call(transport)))
            if reply.get("error"):
                raise self._refusal(reply, request_id)
            return read(reply, request_id)
        except LLMProviderError as error:
            self._place(error, request.model)
            raise
        finally:
            await life.end()

    def _refusal(self, payload: Mapping[str, Any], request_id: str | None) -> LLMProviderError:
        """The error that a reply of status 200, or an event of a stream, holds."""
        return error_from_event(
            payload, provider=self.name, secrets=self._secrets, classify=self.classify, request_id=request_id
        )

    def _place(self, error: LLMProviderError, model: str) -> None:
        """Say in an error which model it is about."""
        if error.model is None:
            error.model = model
