"""The author's kit: fakes, a loopback server that fails on command, and the conformance tests every provider passes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .conformance import ProviderConformance as ProviderConformance
    from .conformance.caches import CacheConformance as CacheConformance
    from .conformance.limits import LimitConformance as LimitConformance
    from .conformance.limits import SharedLimitConformance as SharedLimitConformance
    from .conformance.live import LiveSettingsConformance as LiveSettingsConformance
    from .conformance.local import LocalConformance as LocalConformance
    from .conformance.remote import RemoteConformance as RemoteConformance
    from .conformance.shared_caches import SharedCacheConformance as SharedCacheConformance
    from .conformance.structure import StructuredOutputConformance as StructuredOutputConformance
    from .fakes import EchoProvider as EchoProvider
    from .fakes import ScriptedProvider as ScriptedProvider
    from .server import Fault as Fault
    from .server import LoopbackServer as LoopbackServer
    from .server import RecordedRequest as RecordedRequest
    from .server import Reply as Reply

_ROOM_OF = {
    "CacheConformance": "conformance.caches",
    "EchoProvider": "fakes",
    "Fault": "server",
    "LimitConformance": "conformance.limits",
    "SharedLimitConformance": "conformance.limits",
    "LiveSettingsConformance": "conformance.live",
    "LocalConformance": "conformance.local",
    "LoopbackServer": "server",
    "ProviderConformance": "conformance",
    "RecordedRequest": "server",
    "RemoteConformance": "conformance.remote",
    "Reply": "server",
    "ScriptedProvider": "fakes",
    "SharedCacheConformance": "conformance.shared_caches",
    "StructuredOutputConformance": "conformance.structure",
}

__all__ = [
    "CacheConformance",
    "EchoProvider",
    "Fault",
    "LimitConformance",
    "LiveSettingsConformance",
    "LocalConformance",
    "LoopbackServer",
    "ProviderConformance",
    "RecordedRequest",
    "RemoteConformance",
    "Reply",
    "ScriptedProvider",
    "SharedCacheConformance",
    "SharedLimitConformance",
    "StructuredOutputConformance",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    return value
