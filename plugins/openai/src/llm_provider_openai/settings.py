"""What can be set beside `LLMConfig`: the key, the address, and how the requests travel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from providers.remote import RemoteSettings
from providers.settings import setting


@dataclass(kw_only=True, eq=False)
class OpenAISettings(RemoteSettings):
    """Settings of the openai provider.

    Attributes:
        api_key: the key; may be left out where `base_url` names another server, and is then not sent at all.
        base_url: the server's address with its version segment, for instance `"http://127.0.0.1:8000/v1"`.
        organization: the organisation that pays.
        project: the project that pays.
        transport: `"http"` (this package's own client) or `"sdk"` (the vendor's `AsyncOpenAI`).
        default_headers: headers for every request; they win over those made here. In the environment a JSON object.
        use_responses_api: whether `execute`, `complete` and `stream` go through the Responses interface.
    """

    env_prefix: ClassVar[str] = "OPENAI_"

    organization: str | None = setting(env="OPENAI_ORG_ID", help="The organisation that pays.")
    project: str | None = setting(env="OPENAI_PROJECT_ID", help="The project that pays.")
    use_responses_api: bool = setting(False, help="Whether calls go through the Responses interface by default.")
