"""Answers pushed to a Pusher Channels channel while they come, for llm-provider-system."""

from __future__ import annotations

from .settings import PusherSettings
from .streamer import PusherStreamer, PusherWarning

__all__ = ["PusherSettings", "PusherStreamer", "PusherWarning"]
