"""The verbs of a provider, which stand once: everything a caller may ask, on top of one `Calls`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from typing import Any, ClassVar, Unpack, overload

from .calls import Calls
from .exceptions import LLMProviderError, LLMProviderUnsupportedOperationError
from .failures import MISTAKES, failed
from .request_builder import RequestBuilder, wants
from .text_stream import TextStream
from .types import (
    APIType,
    CallOptions,
    LLMConfig,
    LLMResponse,
    NotStreaming,
    Request,
    StreamEvent,
    Streaming,
    StreamMode,
)
from .types.config import parse_enum


class Verbs:
    """What a caller may ask of a provider. `LLMProvider` is one; nothing else needs to be."""

    name: ClassVar[str]
    understands: ClassVar[frozenset[str]]
    config: LLMConfig
    _calls: Calls
    _builder: RequestBuilder

    @overload
    async def execute(
        self,
        prompt: Any = None,
        system_prompt: str | None = None,
        *,
        stream_mode: Streaming,
        **options: Unpack[CallOptions],
    ) -> TextStream: ...
    @overload
    async def execute(
        self,
        prompt: Any = None,
        system_prompt: str | None = None,
        *,
        stream_mode: NotStreaming | None = None,
        **options: Unpack[CallOptions],
    ) -> LLMResponse: ...
    async def execute(self, prompt: Any = None, system_prompt: str | None = None, **options: Any) -> Any:
        """Answer a prompt.

        Args:
            prompt: a text, or messages in any spelling.
            system_prompt: what the model shall be.
            options: of this call; `CallOptions` lists them. And `stream_mode`, in place of the configuration's.

        Returns:
            An `LLMResponse`; with `StreamMode.ENABLED` a `TextStream`; with `StreamMode.AUTO` a `TextStream` that may
            be iterated (it streams) or awaited (it does not). A type checker sees the mode of this call only: where the
            configuration streams, name the mode in the call too, or say the type.

        Raises:
            LLMProviderError: of the class that tells what happened; see `providers.exceptions`.
        """
        return await self._execute(prompt, system_prompt, options)

    @overload
    async def execute_chat_completion(
        self,
        messages: Any,
        *,
        stream_mode: Streaming,
        system_prompt: str | None = None,
        **options: Unpack[CallOptions],
    ) -> TextStream: ...
    @overload
    async def execute_chat_completion(
        self,
        messages: Any,
        *,
        stream_mode: NotStreaming | None = None,
        system_prompt: str | None = None,
        **options: Unpack[CallOptions],
    ) -> LLMResponse: ...
    async def execute_chat_completion(self, messages: Any, **options: Any) -> Any:
        """Answer a conversation; like `execute` with messages, through the chat interface."""
        if self.config.api_type is not APIType.CHAT_COMPLETION:
            options.setdefault("api_type", APIType.CHAT_COMPLETION)
        return await self._execute(messages, options.pop("system_prompt", None), options)

    @overload
    async def execute_responses_api(
        self,
        input_message: Any,
        instructions: str | None = None,
        previous_response_id: str | None = None,
        tools: Any = None,
        *,
        stream_mode: Streaming,
        **options: Any,
    ) -> TextStream: ...
    @overload
    async def execute_responses_api(
        self,
        input_message: Any,
        instructions: str | None = None,
        previous_response_id: str | None = None,
        tools: Any = None,
        *,
        stream_mode: NotStreaming | None = None,
        **options: Any,
    ) -> LLMResponse: ...
    async def execute_responses_api(
        self,
        input_message: Any,
        instructions: str | None = None,
        previous_response_id: str | None = None,
        tools: Any = None,
        **options: Any,
    ) -> Any:
        """Answer through an interface whose conversations the backend keeps.

        Args:
            input_message: a text, or messages.
            instructions: what the model shall be.
            previous_response_id: the `response_id` of the answer that this one continues.
            tools: tools in any spelling.
            options: as in `execute`.

        Raises:
            LLMProviderUnsupportedOperationError: the provider has no such interface.
        """
        options.update(api_type=APIType.RESPONSES, previous_response_id=previous_response_id, tools=tools)
        return await self._execute(input_message, instructions, options)

    async def complete(self, messages: Any, tools: Any = None, **options: Any) -> LLMResponse:
        """Answer messages, never streaming, and report a failure of the backend as a value.

        Args:
            messages: a text, a dict, a `Message`, or a list of these.
            tools: tools in any spelling.
            options: as in `execute`.

        Returns:
            An `LLMResponse`; where the call failed, `ok` is false and `status` and `error` say why.

        Raises:
            LLMProviderConfigurationError: an argument is wrong; that is a mistake of the caller and no answer.
        """
        try:
            return await self._calls.answer(self._request(messages, None, {"tools": tools, **options}, stream=False))
        except MISTAKES:
            raise
        except LLMProviderError as error:
            return failed(error, self.name, self.config.model_name)

    def stream(self, messages: Any, tools: Any = None, **options: Any) -> AsyncGenerator[StreamEvent, None]:
        """Answer messages as events; the last one is DONE with the whole answer, or ERROR with what went wrong.

        Args:
            messages: a text, a dict, a `Message`, or a list of these.
            tools: tools in any spelling.
            options: as in `execute`.

        Returns:
            An asynchronous generator; nothing is sent before its first event is asked for; closing it ends the call.

        Raises:
            LLMProviderConfigurationError: an argument is wrong; that is a mistake of the caller and no answer.
        """
        if tools is not None:
            options["tools"] = tools
        return self._calls.events(self._request(messages, None, options, stream=True))

    def _request(self, messages: Any, system: str | None, options: dict[str, Any], stream: bool) -> Request:
        request = self._builder.build(messages, system, options, stream)
        wanted = wants(request)
        if wanted and not wanted <= self.understands:
            missing = ", ".join(sorted(wanted - self.understands))
            raise LLMProviderUnsupportedOperationError(
                f"this provider does not do {missing}", provider=self.name, model=request.model
            )
        return request

    def _execute(self, messages: Any, system: str | None, options: dict[str, Any]) -> Awaitable[Any]:
        # No coroutine of its own: with a thousand calls under way, each one that waits costs.
        mode = options.pop("stream_mode", None)
        mode = self.config.stream_mode if mode is None else parse_enum(StreamMode, mode, "stream_mode")
        request = self._request(messages, system, options, mode is not StreamMode.DISABLED)
        if mode is StreamMode.DISABLED:
            return self._calls.answer(request)
        whole = (lambda: self._calls.answer(request.replace(stream=False))) if mode is StreamMode.AUTO else None
        return _given(TextStream(lambda outcome: self._calls.text(request, outcome), whole))


async def _given(stream: TextStream) -> TextStream:
    return stream
