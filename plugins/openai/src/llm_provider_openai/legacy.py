"""The client of the first version: one method, whose answer is a dict."""

from __future__ import annotations

from typing import Any, Self

from .provider import OpenAIProvider


class OpenAIClient:
    """The first version's client, on top of `OpenAIProvider`; new code uses that.

    Args:
        model: the model's name, or a profile such as `GPT5`; the provider's default where left out.
        options: as in `OpenAIProvider`: `api_key`, `base_url`, `temperature`, `timeout`...

    Raises:
        MissingCredentialsError: there is no key and the server is the vendor's own.
        LLMProviderConfigurationError: a value is refused.
    """

    def __init__(self, model: Any = None, **options: Any) -> None:
        self.provider = OpenAIProvider(model, **options)

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.provider.config.model_name)

    async def get_response(self, messages: Any, **options: Any) -> dict[str, Any]:
        """Answer a conversation.

        Args:
            messages: a text, a dict, a `Message`, or a list of these.
            options: as in `OpenAIProvider.complete`.

        Returns:
            A dict that JSON can hold:

            - `output`: the text, or the parsed value where structured output was asked for; `None` where the call
              failed.
            - `status`: the HTTP status, 200 where all went well.
            - `error`: `"OK"`, or what went wrong.
            - `usage`: figures under the names of `Usage`, `None` where unknown.
            - `model`, `response_id`, `finish_reason`, `reasoning`, and `tool_calls` as a list of dicts or `None`.

        Raises:
            LLMProviderConfigurationError: an argument is wrong; that is a mistake of the caller and no answer.
        """
        response = await self.provider.complete(messages, **options)
        known = response.to_dict()
        output = known["parsed"] if response.parsed is not None else response.content
        failed = response.error or f"status {response.status}"
        return {
            "output": output if response.ok else None,
            "status": response.status,
            "error": "OK" if response.ok else failed,
            "usage": known["usage"],
            **{name: known[name] for name in ("model", "response_id", "finish_reason", "reasoning", "tool_calls")},
        }

    async def close(self) -> None:
        """Give back all connections; harmless when repeated."""
        await self.provider.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<OpenAIClient {self.model}>"
