"""What has to be known of a Pusher app: from arguments, the environment, `.env` and the toml file, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self
from urllib.parse import urlsplit

from providers import MissingCredentialsError, ProviderSettings, Secret, setting
from providers.settings import missing_key, refused_value

NAME: Final = "pusher"
# They stand in the signed address as they are, so nothing that would have to be encoded may be in them.
_WORD: Final = re.compile(r"[A-Za-z0-9._~-]+")
_CLUSTER: Final = re.compile(r"[A-Za-z0-9-]{1,40}")
_LOOPBACK: Final = re.compile(r"(?:.*\.)?localhost|127(?:\.\d{1,3}){3}|::1")


@dataclass(kw_only=True, eq=False)
class PusherSettings(ProviderSettings):
    """The account of a Pusher app; also read from `[providers.pusher]` of the toml file.

    Attributes:
        app_id: the app's id.
        key: the app's key. It is no secret to browsers; here no message shows it all the same.
        secret: what requests are signed with; it is never sent.
        cluster: where the app lives, such as `"eu"`; not needed where `host` is given.
        host: address of another server that speaks the same protocol, such as `http://127.0.0.1:6001`.
    """

    env_prefix: ClassVar[str] = "PUSHER_"

    app_id: str | int | None = setting(env="PUSHER_APP_ID", help="The app's id.")
    key: Secret | None = setting(env=("PUSHER_KEY", "PUSHER_APP_KEY", "PUSHER_AUTH_KEY"), help="The app's key.")
    secret: Secret | None = setting(
        env=("PUSHER_SECRET", "PUSHER_APP_SECRET", "PUSHER_AUTH_SECRET"), help="What requests are signed with."
    )
    cluster: str | None = setting(env=("PUSHER_CLUSTER", "PUSHER_APP_CLUSTER"), help="Where the app lives: 'eu'...")
    host: str | None = setting(env="PUSHER_HOST", help="Address of another server that speaks the protocol.")

    @classmethod
    def resolve(cls, provider: str, arguments: Mapping[str, Any], also: frozenset[str] = frozenset()) -> Self:
        """Settings from all sources, checked.

        Args:
            provider: the name of the table in the toml file.
            arguments: values that the caller gave; `None` is "not given".
            also: other names that may stand in that table.

        Raises:
            MissingCredentialsError: one is in no source; names the variables.
            LLMProviderConfigurationError: a value makes no sense.
        """
        found = super().resolve(provider, arguments, also)
        found._check()
        return found

    def _check(self) -> None:
        wanted = ["app_id", "key", "secret"] + ([] if self.host else ["cluster"])
        missing = [name for name in wanted if not getattr(self, name)]
        if missing:
            text = "; ".join(missing_key(PusherSettings, name) for name in missing)
            raise MissingCredentialsError(text, provider=NAME)
        self.app_id = str(self.app_id)
        for name, value in (("app_id", self.app_id), ("key", self._plain(self.key))):
            if not _WORD.fullmatch(value):
                raise refused_value(self, name, "may hold letters, digits and ._~- only")
        if self.host:
            self.host = self._address(self.host)
        elif not _CLUSTER.fullmatch(self.cluster or ""):
            raise refused_value(self, "cluster", "must be a short name such as 'eu' or 'mt1'")

    def _address(self, host: str) -> str:
        text = host if "://" in host else f"https://{host}"
        try:
            parts = urlsplit(text)
            name = parts.hostname
        except ValueError:
            raise refused_value(self, "host", "is no address") from None
        if parts.scheme not in ("http", "https") or not name or "@" in parts.netloc:
            raise refused_value(self, "host", "must be an address like https://host:port, without user or password")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise refused_value(self, "host", "must not have a path: the path is part of what is signed")
        if parts.scheme == "http" and not _LOOPBACK.fullmatch(name):
            raise refused_value(self, "host", "must begin with https://; http:// is for this machine only")
        return f"{parts.scheme}://{parts.netloc}"

    @staticmethod
    def _plain(value: Secret | None) -> str:
        return value.get_secret_value() if value is not None else ""

    @property
    def address(self) -> str:
        """Where requests go, without a path."""
        return self.host or f"https://api-{self.cluster}.pusher.com"

    @property
    def signer(self) -> tuple[str, str]:
        """Key and secret, in clear."""
        return self._plain(self.key), self._plain(self.secret)
