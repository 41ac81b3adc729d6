"""The provider: settings, `open`, `generate`, and the hook that brings it in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from providers import LLMProvider, ProviderSettings, Request, Secret, StreamEvent, Usage, hookimpl, setting
from providers.exceptions import LLMProviderConfigurationError, LLMProviderConnectionError, translating
from providers.parameters import map_params


@dataclass(kw_only=True)
class TemplateSettings(ProviderSettings):
    """Read from arguments, TEMPLATE_API_KEY, TEMPLATE_VOICE, `.env` and providers.toml."""

    env_prefix = "TEMPLATE_"

    api_key: Secret | None = setting(None, required=True, help="key of the service")
    voice: str = setting("plain", help="how the service speaks: 'plain' or 'loud'")


class TemplateProvider(LLMProvider):
    """Talks to the service of `service.py`; put your own in its place."""

    name = "template"
    Settings = TemplateSettings
    settings: TemplateSettings

    def open(self) -> None:
        """Import the service's SDK only now, so that finding this plugin costs nothing."""
        from .service import Service

        with translating({ValueError: LLMProviderConfigurationError}, provider=self.name):
            self.service = Service(api_key=self.require("api_key"), voice=self.settings.voice)

    async def generate(self, request: Request) -> AsyncIterator[StreamEvent]:
        """One request in, events out. Parameters that the service does not know are reported by `map_params`."""
        # The whole conversation: a service that hears only the last message forgets all that was said before.
        turns = [{"who": message.role.value, "text": message.text} for message in request.messages]
        body: dict[str, Any] = {"turns": turns, "system": request.system}
        params = map_params(request, {"temperature": "temperature", "max_tokens": "limit"}, body)
        usage, reason = Usage(), "stop"  # what holds where not a single piece comes
        with translating({OSError: LLMProviderConnectionError}, provider=self.name, model=request.model):
            async for piece in self.service.stream(body):
                usage, reason = Usage(piece.words_read, piece.words_written), "length" if piece.cut else "stop"
                yield StreamEvent.token(piece.text)
        yield StreamEvent.usage(usage)
        yield StreamEvent.finish(reason, params=params)


@hookimpl
def llm_providers() -> dict[str, type[LLMProvider]]:
    """What this plugin brings."""
    return {"template": TemplateProvider}
