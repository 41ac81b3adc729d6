"""Layers around a call, all of one shape: `(request, inner) -> events`."""

from .retrying import retry

__all__ = ["retry"]
