"""Layers around a call, all of one shape: `(request, inner) -> events`."""

from .retry import retry

__all__ = ["retry"]
