"""A value that no message, repr or log shows."""

from __future__ import annotations

from typing import Any


class Secret:
    """Holds a secret string; `repr`, `str` and formatting show stars only.

    Has pydantic's `get_secret_value()`, so that `SecretStr` and this class may stand for each other, without the
    import of pydantic on the way to the first answer. White space around the value is stripped: a key read with
    `export KEY=$(cat file)` carries a newline that no HTTP header may hold.

    Raises:
        ValueError: the value holds a control character in its middle.
    """

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if not isinstance(text, str):
            raise TypeError(f"a secret must be a string, not {type(text).__name__}")
        text = text.strip()
        if any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise ValueError("a secret must not hold control characters")
        self._value = text

    def get_secret_value(self) -> str:
        """The value itself."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('**********')" if self._value else "Secret('')"

    def __str__(self) -> str:
        return "**********" if self._value else ""
