"""The secrets that are in use in this process, and the texts that they are kept out of."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from ..wire.redaction import SHORTEST_SECRET, redact, signs_in

_USER_PART: Final = r"://([^/\s@]+)@"


def redacted(text: str) -> str:
    """A text with all secrets that are in use, and all that looks like one, replaced by `***`."""
    return redact(masked(text))


def masked(text: str) -> str:
    """A text with all secrets that are in use replaced by `***`, and nothing else: for names and ids."""
    for secret in known_secrets():
        if secret in text:
            text = text.replace(secret, "***")
    return text


def protect(owner: object, secrets: Iterable[str]) -> None:
    """Let `redacted` and `masked` know secrets for as long as their owner lives.

    Args:
        owner: what uses them, such as a provider; more secrets of one owner (a rotated key) add up.
        secrets: as they are sent; those of fewer than 6 characters are left alone. Also masked are the forms that they
            have in an address and in JSON.
    """
    global _known
    found = {form for secret in secrets for form in _forms(secret.strip()) if len(form) >= SHORTEST_SECRET}
    if found:
        with _lock:
            _owners[owner] = _owners.get(owner, frozenset()) | found
            _known = ((), -1)


def known_secrets() -> tuple[str, ...]:
    """The secrets that are in use, the longest first."""
    global _known
    found, owners = _known
    if owners != len(_owners):  # one was added or is gone
        with _lock:
            held = list(_owners.values())
            found = tuple(sorted(set().union(*held), key=len, reverse=True))
            _known = (found, len(held))
    return found


def secrets_of(settings: object) -> list[str]:
    """What of a settings object must never be shown: every `Secret`, the values of headers that sign in, and what
    stands before the `@` of an address.

    Args:
        settings: an object with fields, such as a `ProviderSettings`.
    """
    return [secret for name, value in vars(settings).items() if name != "sources" for secret in _secrets_in(value)]


def _secrets_in(value: Any) -> Iterator[str]:
    if hasattr(value, "get_secret_value"):
        yield value.get_secret_value()
    elif isinstance(value, str):
        for user in re.findall(_USER_PART, value):
            yield user.partition(":")[2] or user
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, str) and signs_in(str(key)):
                yield from (item, item.partition(" ")[2])
            else:
                yield from _secrets_in(item)


def _forms(secret: str) -> set[str]:
    from urllib.parse import quote, unquote

    return {secret, quote(secret, safe=""), unquote(secret), json.dumps(secret)[1:-1]}


_owners: Final[WeakKeyDictionary[Any, frozenset[str]]] = WeakKeyDictionary()
_known: tuple[tuple[str, ...], int] = ((), 0)
_lock = threading.RLock()  # The garbage collector may end a call, whose texts are masked, while this thread holds it.


def _after_fork() -> None:
    # Another thread may have held it in the parent.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
