"""Parameters on their way to the wire: each is sent, mapped or reported, and none is dropped silently."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, TypeAlias

from .exceptions import UnsupportedParameterError
from .notices import warn
from .types import Request

ParamTable: TypeAlias = Mapping[str, str | Callable[[dict[str, Any], Any], None]]
"""Name of a parameter to its name on the wire, or to a function that puts the value into the body."""


class UnsupportedParameterWarning(UserWarning):
    """A parameter that was given cannot be honoured and was left out."""


def map_params(
    request: Request, table: ParamTable, body: dict[str, Any], refused: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Put the request's parameters into the body and say what became of each.

    Args:
        request: the call.
        table: the parameters that this wire format knows.
        body: the body of the request; changed in place. `request.extras` come last and win.
        refused: name to reason, for parameters that this model does not take.

    Returns:
        `{"sent": {wire name: value}, "left_out": {name: reason}}`, for `metadata["params"]`. `sent` holds every extra,
        those among them that took the place of something in the body.

    Raises:
        UnsupportedParameterError: a given parameter cannot be honoured and `request.on_unsupported` is `"error"`.
    """
    before = len(body)
    left_out: dict[str, str] = {}
    for name, value in request.params.items():
        where = table.get(name)
        if refused and name in refused:
            left_out[name] = refused[name]
        elif where is None:
            left_out[name] = "this interface has no such parameter"
        elif isinstance(where, str):
            body[where] = value
        else:
            where(body, value)
    body.update(request.extras)
    if left_out:
        report_left_out(request, left_out)
    # A dict keeps its order: what was not there before stands behind what was.
    sent = dict(islice(body.items(), before, None))
    if request.extras:
        sent.update(request.extras)
    return {"sent": sent, "left_out": left_out}


def report_left_out(request: Request, left_out: Mapping[str, str]) -> None:
    """Report parameters that are left out although somebody gave them, in the way that the request asks for.

    Raises:
        UnsupportedParameterError: `request.on_unsupported` is `"error"`.
    """
    given = [name for name in left_out if name in request.given]
    if not given or request.on_unsupported == "drop":
        return
    text = "; ".join(f"{name}={request.params.get(name)!r} was not sent: {left_out[name]}" for name in given)
    if request.on_unsupported == "error":
        raise UnsupportedParameterError(text, model=request.model)
    warn(f"{request.model}: {text}", UnsupportedParameterWarning)
