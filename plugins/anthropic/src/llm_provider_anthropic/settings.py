"""What can be set beside `LLMConfig`: how to sign in, the address, the API's version, and how the requests travel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from providers.remote import RemoteSettings
from providers.settings import setting
from providers.types import Secret

AUTH_HEADERS: Final = ("both", "bearer", "x-api-key")

# Source: platform.claude.com/docs/en/api/versioning. The newer version has no sampling parameters; the older one goes
# with requests that hold some, and is otherwise the same for what this package sends.
NEW_VERSION: Final = "2026-10-21"
OLD_VERSION: Final = "2023-06-01"


@dataclass(kw_only=True, eq=False)
class AnthropicSettings(RemoteSettings):
    """Settings of the anthropic provider.

    Attributes:
        api_key: the key; may be left out where `base_url` names another server, and is then not sent at all.
        auth_token: a bearer token in place of a key, for gateways; goes out as `Authorization` alone.
        base_url: the server's address without `/v1`, for instance `"http://127.0.0.1:8000"`; with `/v1` will do too.
        transport: `"http"` (this package's own client) or `"sdk"` (the vendor's `AsyncAnthropic`).
        auth_header: how the key travels: `"bearer"` (as the vendor's SDK sends it since 2.0), `"x-api-key"` (as it did
            before), or `"both"`, which every server seen so far understands.
        api_version: `anthropic-version` of every request; where left out the newest, and the one before it for
            requests with `temperature`, `top_p` or `top_k`, which the newest refuses.
        betas: names for the header `anthropic-beta`.
        default_headers: headers for every request; they win over those made here. In the environment a JSON object.
    """

    env_prefix: ClassVar[str] = "ANTHROPIC_"

    auth_token: Secret | None = setting(help="A bearer token in place of a key.")
    auth_header: str = setting("both", help="How the key travels: 'both', 'bearer' or 'x-api-key'.")
    api_version: str | None = setting(help="anthropic-version of every request.")
    betas: list[str] | None = setting(help="Names for the header anthropic-beta, as a JSON list.")
