"""What can be set beside `LLMConfig`: the key, the address, the interface's version, and how the requests travel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from providers.exceptions import LLMProviderConfigurationError
from providers.remote import RemoteSettings
from providers.settings import setting
from providers.types import Secret

NAME: Final = "gemini"
"""The provider's name, and the key of what it keeps in `provider_data`."""

VENDOR_URL: Final = "https://generativelanguage.googleapis.com"
KEY_HEADER: Final = "x-goog-api-key"
DEFAULT_VERSION: Final = "v1"

_VERSION: Final = re.compile(r"v\d+[a-z0-9]*")


@dataclass(kw_only=True, eq=False)
class GeminiSettings(RemoteSettings):
    """Settings of the gemini provider.

    Attributes:
        api_key: the key; may be left out where `base_url` names another server, and is then not sent at all.
        base_url: the server's address without the version segment, for instance `"http://127.0.0.1:4000"`.
        api_version: the version segment: `"v1"` (the default of google-genai 3.3), `"v1beta"` (preview models, aliases
            that end in `-latest`, context caches), `"v1alpha"`; `""` for a server that has none. `"beta"` means
            `"v1beta"`.
        transport: `"http"` (this package's own client) or `"sdk"` (the vendor's `google.genai.Client`).
        cached_content: name of the context cache that every call uses, for instance `"cachedContents/abc"`.
        include_thoughts: whether summaries of the model's thoughts are asked for; where left out they are with calls
            that name a `reasoning_effort`.
        default_headers: headers for every request; they win over those made here. In the environment a JSON object.
    """

    env_prefix: ClassVar[str] = "GEMINI_"

    api_key: Secret | None = setting(env=("GOOGLE_API_KEY", "GEMINI_API_KEY"), help="The key.")
    base_url: str | None = setting(
        env=("GOOGLE_GEMINI_BASE_URL", "GEMINI_BASE_URL"), help="The server's address without the version segment."
    )
    api_version: str | None = setting(
        env=("GEMINI_API_VERSION", "GOOGLE_GENAI_API_VERSION"), help="The version segment; 'v1' where left out."
    )
    cached_content: str | None = setting(help="Name of the context cache that every call uses.")
    include_thoughts: bool | None = setting(help="Whether summaries of the model's thoughts are asked for.")

    @property
    def address(self) -> tuple[str, str]:
        """The server's address without a version, and the version.

        An address that ends in a version segment is forgiven: that is the version then.

        Raises:
            LLMProviderConfigurationError: the address and `api_version` name two versions, or it is no version.
        """
        version = self.api_version
        if version == "beta":
            version = "v1beta"
        if version is not None and not re.fullmatch(r"[A-Za-z0-9_.-]*", version):
            source = self.sources.get("api_version", "argument")
            raise LLMProviderConfigurationError(
                f"api_version ({source}) must be a version such as 'v1' or 'v1beta', not {version!r}", provider=NAME
            )
        url = (self.base_url or VENDOR_URL).strip().rstrip("/")
        head, _, last = url.rpartition("/")
        if not version and version != "" and _VERSION.fullmatch(last):
            return head, last
        if version and _VERSION.fullmatch(last):
            if last != version:
                raise LLMProviderConfigurationError(
                    f"base_url ends in {last!r} and api_version is {version!r}: leave the version out of base_url",
                    provider=NAME,
                )
            return head, last
        return url, DEFAULT_VERSION if version is None else version
