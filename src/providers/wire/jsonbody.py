"""JSON in and out of HTTP bodies: fast on the usual path, with a clear error of ours on every other."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import isfinite
from typing import Any

from providers.exceptions import LLMProviderConfigurationError, LLMProviderResponseError

from .redaction import redact, shorten

_SNIPPET = 200


class Checked(dict[str, Any]):
    """A dict that is known to hold finite numbers, so that `encode_json` does not search it at every call: a schema
    that was compiled once."""


_UNSEARCHED = frozenset({int, bool, type(None), Checked})


def encode_json(value: Any, *, unsearched: Collection[str] = ()) -> bytes:
    """Write a request body.

    A lone surrogate in a text (half a character, as `"\\ud83d"`) becomes U+FFFD, since no UTF-8 can carry it. orjson
    would turn NaN and infinity into `null` without a word, so they are searched for everywhere but in what
    `unsearched` names: looking into a long conversation would cost several times what writing it costs.

    Args:
        value: dicts with string keys, lists, tuples, strings, finite numbers, booleans, `None`.
        unsearched: keys of `value` itself under which no number is expected, such as `"messages"`. A `Checked` is not
            searched either, wherever it stands.

    Returns:
        Compact UTF-8 JSON.

    Raises:
        LLMProviderConfigurationError: NaN, infinity, or something that has no form in JSON. The message names the
            place and the type, never the value.
    """
    import orjson

    try:
        body = orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        whole = _mended(value, "body")
        try:
            body = orjson.dumps(whole)
        except orjson.JSONEncodeError:
            raise LLMProviderConfigurationError(f"the request cannot be written as JSON: {error}") from error
    searched = [item for key, item in value.items() if key not in unsearched] if unsearched else value
    if not _finite(searched):
        raise LLMProviderConfigurationError(f"{_not_finite(value)} is not a finite number: JSON has no word for it")
    return body


def decode_json(
    body: bytes,
    *,
    provider: str | None = None,
    request_id: str | None = None,
    secrets: Iterable[str] = (),
) -> Any:
    """Read a reply's body.

    What strict JSON forbids but servers send (`NaN`, half a surrogate pair, a byte order mark) is accepted, since the
    answer was paid for; half pairs become U+FFFD.

    Args:
        body: the whole body, or the data of one stream event.
        provider: name of the provider, for the error.
        request_id: the backend's id of the request, for the error.
        secrets: strings that must not appear in the error.

    Returns:
        Whatever the JSON says: any type.

    Raises:
        LLMProviderResponseError: it is empty, cut off or not JSON; the message quotes its first 200 characters.
    """
    import orjson

    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        strict = error
    import json

    try:
        return _mended(json.loads(body), "body")
    except (ValueError, RecursionError, LLMProviderConfigurationError):
        pass
    if not body.strip():
        problem = "the reply is empty where JSON was expected"
    else:
        start = bytes(body[: 20 * _SNIPPET]).decode("utf-8", "replace")
        quoted = shorten(redact(start, secrets), _SNIPPET)
        problem = f"the reply of {len(body)} bytes is not whole JSON ({strict.msg}); it starts with {quoted!r}"
    # Without `from`: the decoder's error carries the whole document, secrets and all.
    raise LLMProviderResponseError(problem, provider=provider, request_id=request_id) from None


def decode_object(
    body: bytes,
    *,
    provider: str | None = None,
    request_id: str | None = None,
    secrets: Iterable[str] = (),
) -> dict[str, Any]:
    """Read a reply's body that has to be a JSON object.

    Args:
        body: the whole body, or the data of one stream event.
        provider: name of the provider, for the error.
        request_id: the backend's id of the request, for the error.
        secrets: strings that must not appear in the error.

    Returns:
        The object.

    Raises:
        LLMProviderResponseError: as `decode_json`, and for `null`, `[]`, `"text"` and numbers.
    """
    value = decode_json(body, provider=provider, request_id=request_id, secrets=secrets)
    if isinstance(value, dict):
        return value
    found = "null" if value is None else f"a JSON {type(value).__name__}"
    raise LLMProviderResponseError(
        f"the reply is {found} where an object was expected", provider=provider, request_id=request_id
    )


def _mended(value: Any, place: str) -> Any:
    """Copy with lone surrogates replaced; name the first thing that JSON cannot hold."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value
    try:
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise LLMProviderConfigurationError(f"{place} has a key of type {type(key).__name__}, not str")
            return {_mended(key, place): _mended(item, f"{place}.{key}") for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [_mended(item, f"{place}[{index}]") for index, item in enumerate(value)]
    except RecursionError:
        raise LLMProviderConfigurationError("the request contains itself, or is nested too deeply") from None
    if value is None or isinstance(value, (int, float)):
        return value
    import orjson

    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise LLMProviderConfigurationError(
            f"{_readable(place)} is of type {type(value).__name__}, which JSON cannot hold"
        ) from None
    return value


def _readable(place: str) -> str:
    return place.encode("utf-8", "replace").decode("utf-8")


def _finite(value: Any) -> bool:
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,):
        kind = type(item)
        if kind is str:
            continue
        if kind is float:
            if not isfinite(item):
                return False
        elif kind not in _UNSEARCHED and isinstance(item, (dict, list, tuple)) and not _finite(item):
            return False
    return True


def _not_finite(value: Any, place: str = "body") -> str | None:
    """Name the place of the first number that is not finite; `_finite` is the fast question whether there is one."""
    if isinstance(value, float):
        return None if isfinite(value) else _readable(place)
    if isinstance(value, dict):
        return next(filter(None, (_not_finite(item, f"{place}.{key}") for key, item in value.items())), None)
    if isinstance(value, (list, tuple)):
        return next(filter(None, (_not_finite(item, f"{place}[{index}]") for index, item in enumerate(value))), None)
    return None
