"""Messages: who says what, in every spelling that callers use, and a sequence of them that stays lazy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, Final, TypeAlias, overload

from ..exceptions import LLMProviderConfigurationError
from ..notices import warn
from .tools import ToolCall


class Role(str, Enum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"

    __str__ = str.__str__


_ROLES: Final[dict[str, Role]] = {
    **{role.value: role for role in Role},
    "developer": Role.SYSTEM,
    "human": Role.USER,
    "model": Role.ASSISTANT,
    "ai": Role.ASSISTANT,
    "function": Role.TOOL,
}

Content: TypeAlias = str | list[dict[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks.
        content: the text; or a list of parts (`{"type": "text", "text": ...}` and others of the chat convention) for
            providers that take them; or `None` where an assistant message holds tool calls only.
        tool_calls: the calls of an assistant message, or `None`.
        tool_call_id: the call that a tool message answers, or `None`.
        name: name of the speaker or of the tool, or `None`.
        reasoning: the reasoning text that came with an assistant message, or `None`.
        provider_data: what a backend needs back unchanged with this message (signatures, encrypted reasoning).
    """

    role: Role
    content: Content = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None
    provider_data: dict[str, Any] | None = None

    @classmethod
    def user(cls, content: Content, name: str | None = None) -> Message:
        """What the user says."""
        return cls(Role.USER, content, name=name)

    @classmethod
    def assistant(cls, content: Content = None, tool_calls: Iterable[ToolCall] | None = None) -> Message:
        """What the model said, with the calls that it asked for."""
        return cls(Role.ASSISTANT, content, list(tool_calls) if tool_calls else None)

    @classmethod
    def system(cls, content: Content) -> Message:
        """What the model shall be."""
        return cls(Role.SYSTEM, content)

    @classmethod
    def tool_result(cls, tool_call_id: str, content: Content, name: str | None = None) -> Message:
        """What a tool answered to the call of that id."""
        return cls(Role.TOOL, content, tool_call_id=tool_call_id, name=name)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Read the dict of the chat convention. A key that is not known is left out, with a warning that names it.

        Raises:
            LLMProviderConfigurationError: the role is unknown, the content is neither text nor a list of parts, or a
                tool message lacks the id of its call.
        """
        return cls._read(data, "a message")

    @classmethod
    def _read(cls, data: Mapping[str, Any], place: str) -> Message:
        if not data.keys() <= _KEYS:
            _warn_unknown(data, place)
        content = data.get("content")
        calls = data.get("tool_calls") or ()
        if not isinstance(calls, list | tuple):
            raise LLMProviderConfigurationError(f"tool_calls must be a list of tool calls, not {type(calls).__name__}")
        return cls(
            data.get("role"),  # type: ignore[arg-type] # any spelling; checked() makes it a Role or refuses it
            list(content) if isinstance(content, tuple) else content,
            [ToolCall.from_dict(call) for call in calls] or None,
            data.get("tool_call_id"),
            data.get("name"),
            data.get("reasoning"),
            data.get("provider_data"),
        ).checked()

    def checked(self) -> Message:
        """This message, its role read from a text where it is one.

        Raises:
            LLMProviderConfigurationError: as `from_dict`.
        """
        role, content = self.role, self.content
        if type(role) is not Role:
            found = _ROLES.get(role) if isinstance(role, str) else None
            if found is None:
                raise LLMProviderConfigurationError(
                    f"a message has the role {role!r}; known roles: {', '.join(_ROLES)}"
                )
            return replace(self, role=found).checked()
        if isinstance(content, list):
            for part in content:
                if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
                    raise LLMProviderConfigurationError("each part of a message's content must be a dict with a 'type'")
        elif content is not None and not isinstance(content, str):
            kind = type(content).__name__
            raise LLMProviderConfigurationError(f"a message's content must be text or a list of parts, not {kind}")
        if role is Role.TOOL and not (isinstance(self.tool_call_id, str) and self.tool_call_id):
            raise LLMProviderConfigurationError("a tool message needs the tool_call_id of the call that it answers")
        return self

    def to_dict(self) -> dict[str, Any]:
        """The dict of the chat convention; what is `None` is left out, except content."""
        data: dict[str, Any] = {"role": self.role.value, "content": self.content}
        if self.tool_calls:
            data["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        for key in ("tool_call_id", "name", "reasoning", "provider_data"):
            value = getattr(self, key)
            if value is not None:
                data[key] = value
        return data

    @property
    def text(self) -> str:
        """The text of the content, parts that are no text left out."""
        if isinstance(self.content, str):
            return self.content
        texts = (part.get("text") for part in self.content or () if part["type"].endswith("text"))
        return "".join(text for text in texts if isinstance(text, str))


_KEYS: Final = frozenset(item.name for item in fields(Message))


def _warn_unknown(data: Mapping[str, Any], place: str) -> None:
    """Warn of what would vanish. An empty value (`"annotations": []`, as SDKs write it) says nothing and is no loss."""
    lost = [str(key) for key, value in data.items() if key not in _KEYS and not _says_nothing(value)]
    if lost:
        warn(f"{place} has keys that are not known and not sent: {', '.join(lost)}")


def _says_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _is_plain_text(message: Message) -> bool:
    """Whether a system message is nothing but text, so that its text may stand in its place."""
    if message.name is not None or message.provider_data is not None:
        return False
    return not isinstance(message.content, list) or all(
        part["type"] in ("text", "input_text") and len(part) == 2 and isinstance(part.get("text"), str)
        for part in message.content
    )


MessageInput: TypeAlias = str | Mapping[str, Any] | Message | Iterable["str | Mapping[str, Any] | Message"]

_PLAIN_ROLES: Final = frozenset({"system", "user", "assistant"})


class Messages(Sequence[Message]):
    """An immutable sequence of messages that makes its `Message` objects only when asked.

    A long talk is mostly plain dicts of role and text. They are checked once and kept as they are, so that a codec
    whose wire format has the same shape sends them without a further step for each message: with 101 messages such a
    step costs more than all the rest of the call. The caller's dicts are neither copied nor changed.
    """

    __slots__ = ("_items", "_plain")

    def __init__(self, items: Iterable[Message] = (), *, plain: list[dict[str, Any]] | None = None) -> None:
        self._plain = plain
        self._items: tuple[Message, ...] | None = tuple(items) if plain is None else None

    @classmethod
    def of(cls, value: Any) -> Messages:
        """Read messages in every spelling: a text, a dict, a `Message`, or an iterable of these.

        Raises:
            LLMProviderConfigurationError: there is no message, or one cannot be read; it is named by its place.
        """
        if isinstance(value, str):
            return cls(plain=[{"role": "user", "content": value}])
        if type(value) is list and value and _all_plain(value):
            # The list is copied, its dicts are not: that would cost a long talk as much as checking it does.
            return cls(plain=value[:])
        if isinstance(value, cls) and len(value):
            return value
        if isinstance(value, Message | Mapping):
            value = [value]
        elif hasattr(value, "get_messages"):
            value = value.get_messages()
        elif not isinstance(value, Iterable) or isinstance(value, bytes | bytearray):
            raise LLMProviderConfigurationError(
                f"messages must be a text, a dict, a Message or a list of these, not {type(value).__name__}"
            )
        items = value if isinstance(value, list) else list(value)
        if not items:
            raise LLMProviderConfigurationError("there is no message to send: the list is empty")
        if items is not value and _all_plain(items):
            return cls(plain=items)
        return cls(_read(item, place) for place, item in enumerate(items))

    @property
    def plain(self) -> list[dict[str, Any]] | None:
        """The messages as dicts of exactly `role` (system, user or assistant) and `content` (text), or `None` where
        some message holds more than that. Not to be changed."""
        return self._plain

    def split_system(self) -> tuple[str | None, Messages]:
        """The text of the leading system messages, or `None`, and the messages after them.

        A system message that holds more than text (a picture, a mark for the backend's cache) stays among the messages,
        and so do those after it.
        """
        if self._plain is not None:
            at = 0
            while at < len(self._plain) and self._plain[at]["role"] == "system":
                at += 1
            if at == 0:
                return None, self
            text = "\n\n".join(item["content"] for item in self._plain[:at])
            return text, Messages(plain=self._plain[at:])
        items = self._all()
        at = 0
        while at < len(items) and items[at].role is Role.SYSTEM and _is_plain_text(items[at]):
            at += 1
        if at == 0:
            return None, self
        return "\n\n".join(item.text for item in items[:at]), Messages(items[at:])

    def _all(self) -> tuple[Message, ...]:
        if self._items is None:
            self._items = tuple(Message(_ROLES[item["role"]], item["content"]) for item in self._plain or ())
        return self._items

    @property
    def last_text(self) -> str:
        """The text of the last message; empty where there is none."""
        return self[-1].text if len(self) else ""

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        return self._all()[index]

    def __iter__(self) -> Iterator[Message]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._plain if self._plain is not None else self._items or ())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Messages) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(tuple((message.role, str(message.content)) for message in self._all()))

    def __repr__(self) -> str:
        return f"Messages({len(self)})"


def _all_plain(items: list[Any]) -> bool:
    try:
        for item in items:
            if (
                type(item) is not dict
                or len(item) != 2
                or type(item["content"]) is not str
                or item["role"] not in _PLAIN_ROLES
            ):
                return False
    except (KeyError, TypeError):
        return False
    return True


def _read(item: Any, place: int) -> Message:
    if isinstance(item, str):
        return Message(Role.USER, item)
    if not isinstance(item, Mapping | Message):
        raise LLMProviderConfigurationError(
            f"message {place} must be a text, a dict or a Message, not {type(item).__name__}"
        )
    try:
        return item.checked() if isinstance(item, Message) else Message._read(item, f"message {place}")
    except LLMProviderConfigurationError as error:
        raise LLMProviderConfigurationError(f"message {place}: {error.message}") from None


def normalize_messages(messages: MessageInput) -> list[Message]:
    """A list of `Message` from any of the spellings of `MessageInput`.

    Raises:
        LLMProviderConfigurationError: a message cannot be read; it is named by its place.
    """
    return list(Messages.of(messages))
