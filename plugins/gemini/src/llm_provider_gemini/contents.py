"""Messages as the vendor's `contents`: parts by role, calls with their signatures, results of tools, media."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from providers.exceptions import LLMProviderConfigurationError
from providers.types import Message, Part, Request, Role, ToolCall, read_part

from .common import as_json, camel, camel_keys, own_data
from .settings import NAME

_NO_NAMES: Final = "generateContent has no names of speakers"
_NO_SYSTEM: Final = "inside a conversation there is no system role; the text was sent as the user's"
_NO_KEYS: Final = "generateContent has no place for it"
_TEXT_KEYS: Final = frozenset({"type", "text", "annotations"})
_OWN_KEYS: Final = frozenset({"functionCall", "functionResponse", "partMetadata"})
_ROLES: Final = {"user": "user", "assistant": "model"}
_OPENED: Final = {role: b'{"role":"%b","parts":[{"text":' % own.encode() for role, own in _ROLES.items()}
_LONG: Final = 8  # messages from which on writing them at once pays


def encode_contents(request: Request, signature: str | None, lost: dict[str, str]) -> Any:
    """The `contents` of a request.

    Args:
        request: the call.
        signature: what stands for the signature of a tool call that another backend made, or `None`.
        lost: what has no place in the contents is added here, with the reason.

    Returns:
        A list of dicts; or, of a long talk of plain texts, the JSON as an `orjson.Fragment`: making three objects of
        each message would cost as much as all that the call does beside the network.

    Raises:
        LLMProviderConfigurationError: a part cannot be read, a call's arguments are no JSON object, or the answer of a
            tool names a call that is nowhere in the conversation.
    """
    plain = request.messages.plain
    if plain is not None:
        try:
            if len(plain) >= _LONG and (whole := _write(plain)) is not None:
                return whole
            return [{"role": _ROLES[item["role"]], "parts": [{"text": item["content"]}]} for item in plain]
        except KeyError:
            pass  # a system message is among them, which has to be reported
    return _Writer(request, signature, lost).write()


def _write(plain: Sequence[Mapping[str, Any]]) -> Any:
    """Plain messages as JSON; `None` where a text holds half a character, which has to be mended first.

    Raises:
        KeyError: there is a system message among them.
    """
    from orjson import Fragment, JSONEncodeError, dumps

    try:
        texts = [_OPENED[item["role"]] + dumps(item["content"]) for item in plain]
    except JSONEncodeError:
        return None
    return Fragment(b"[" + b"}]},".join(texts) + b"}]}]")


class _Writer:
    """Writes the messages of one request."""

    def __init__(self, request: Request, signature: str | None, lost: dict[str, str]) -> None:
        self._request = request
        self._signature = signature
        self._lost = lost
        self._calls: dict[str, ToolCall] = {}

    def write(self) -> list[dict[str, Any]]:
        contents: list[dict[str, Any]] = []
        results: list[dict[str, Any]] | None = None
        for message in self._request.messages:
            if message.role is Role.TOOL:
                # The answers to calls that were made together go back together.
                if results is None:
                    results = []
                    contents.append({"role": "user", "parts": results})
                results.append(self._result(message))
                continue
            results = None
            if message.name is not None:
                self._lost["messages[].name"] = _NO_NAMES
            if message.role is Role.ASSISTANT:
                contents.append({"role": "model", "parts": self._said(message)})
            else:
                if message.role is Role.SYSTEM:
                    self._lost["messages[].role 'system'"] = _NO_SYSTEM
                contents.append({"role": "user", "parts": self._parts(message.content)})
        return contents

    def _said(self, message: Message) -> list[dict[str, Any]]:
        """The parts of a model's message: as the backend sent them, where they are kept and still say the same."""
        calls = message.tool_calls or []
        self._calls.update((call.id, call) for call in calls)
        kept = own_data(message.provider_data).get("parts")
        if isinstance(kept, list) and _same(kept, message, calls):
            return kept
        parts = self._parts(message.content) if message.content else []
        unsigned = True
        for call in calls:
            part, signed = self._call(call)
            unsigned = unsigned and not signed
            parts.append(part)
        if calls and unsigned and self._signature is not None:
            # The vendor looks for it at the first call of a step.
            first = next(part for part in parts if "functionCall" in part)
            first["thoughtSignature"] = self._signature
        return parts or [{"text": ""}]

    def _call(self, call: ToolCall) -> tuple[dict[str, Any], bool]:
        try:
            arguments = call.parse_arguments()
        except ValueError as error:
            raise LLMProviderConfigurationError(
                f"a message of the model cannot be sent back: {error}", provider=NAME, model=self._request.model
            ) from None
        own = own_data(call.provider_data)
        function: dict[str, Any] = {"name": call.name, "args": arguments}
        if not own.get("made_id"):
            function = {"id": call.id, **function} if call.id else function
        part: dict[str, Any] = {"functionCall": function}
        if own.get("thoughtSignature"):
            part["thoughtSignature"] = own["thoughtSignature"]
        return part, "thoughtSignature" in part

    def _result(self, message: Message) -> dict[str, Any]:
        call = self._calls.get(str(message.tool_call_id))
        name = call.name if call is not None else message.name
        if name is None:
            raise LLMProviderConfigurationError(
                f"the answer of a tool names the call {message.tool_call_id!r}, which no message before it holds; "
                "give the tool's name with name=...",
                provider=NAME,
                model=self._request.model,
            )
        media: list[dict[str, Any]] = []
        content = message.content
        if isinstance(content, list):
            parts = self._parts(content)
            media = [part for part in parts if "text" not in part]
            content = "".join(part["text"] for part in parts if "text" in part)
        function: dict[str, Any] = {"name": name, "response": _response(content or "")}
        if call is None or not own_data(call.provider_data).get("made_id"):
            function = {"id": message.tool_call_id, **function}
        if media:
            function["parts"] = media
        return {"functionResponse": function}

    def _parts(self, content: Any) -> list[dict[str, Any]]:
        if not isinstance(content, list):
            return [{"text": content or ""}]
        return [self._part(raw) for raw in content]

    def _part(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        part = read_part(raw)
        if part.text is not None:
            for key in raw.keys() - _TEXT_KEYS - {"source", "title"}:
                if raw[key] not in (None, [], {}, ""):
                    self._lost[f"messages[].content[].{key}"] = _NO_KEYS
            return {"text": part.text}
        if part.raw.keys() & {"inline_data", "inlineData", "file_data", "fileData"}:
            return _as_it_is(part.raw, part.data)
        if part.kind in ("image", "document"):
            return self._media(part)
        return _as_it_is(part.raw)

    def _media(self, part: Part) -> dict[str, Any]:
        image = part.raw.get("image_url")
        detail = image.get("detail") if isinstance(image, Mapping) else part.raw.get("detail")
        if detail not in (None, "auto"):
            self._lost["messages[].content[].detail"] = "media_resolution in extra sets it for the whole call"
        if part.raw.get("cache_control"):
            self._lost["messages[].content[].cache_control"] = "context caches are made with create_cache"
        if part.data is not None:
            if part.media_type is None:
                raise LLMProviderConfigurationError(
                    f"a {part.kind} has bytes without a media type", provider=NAME, model=self._request.model
                )
            return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
        stored: dict[str, Any] = {"fileUri": part.url or _file_id(part)}
        media_type = part.media_type or _guess(part.url)
        if media_type:
            stored = {"mimeType": media_type, **stored}
        return {"fileData": stored}


def _same(kept: Sequence[Any], message: Message, calls: Sequence[ToolCall]) -> bool:
    """Whether kept parts still say what the message says, so that nobody's changes are lost."""
    if not all(isinstance(part, dict) for part in kept):
        return False
    text = "".join(part["text"] for part in kept if isinstance(part.get("text"), str) and not part.get("thought"))
    if text != message.text:
        return False
    found = [part["functionCall"] for part in kept if isinstance(part.get("functionCall"), dict)]
    return len(found) == len(calls) and all(
        part.get("name") == call.name
        and as_json(part.get("args") or {}) == (call.arguments or "{}")
        and (part.get("id") == call.id or (not part.get("id") and bool(own_data(call.provider_data).get("made_id"))))
        for part, call in zip(found, calls, strict=True)
    )


def _response(text: str) -> dict[str, Any]:
    """What a tool answered as the object that the vendor wants: its own, where the text is one, else under `output`."""
    if text.lstrip()[:1] == "{":
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return {"output": text}
        if isinstance(value, dict):
            return value
    return {"output": text}


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _as_it_is(raw: Mapping[str, Any], data: str | None = None) -> dict[str, Any]:
    part: dict[str, Any] = {}
    for key, value in raw.items():
        name = camel(key)
        if key != "type":
            # Arguments and answers of functions have keys of the caller's own.
            part[name] = value if name in _OWN_KEYS else camel_keys(value)
    if data is not None:
        part["inlineData"]["data"] = data
    return part


def _file_id(part: Part) -> Any:
    for place in (part.raw, part.raw.get("file"), part.raw.get("source")):
        if isinstance(place, Mapping) and place.get("file_id"):
            return place["file_id"]
    return None


def _guess(url: str | None) -> str | None:
    if url is None:
        return None
    import mimetypes
    from urllib.parse import urlsplit

    return mimetypes.guess_type(urlsplit(url).path)[0]
