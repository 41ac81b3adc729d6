"""How a request to Pusher's HTTP API is signed.

Source: https://pusher.com/docs/channels/library_auth_reference/rest-api/ ("Authentication").
"""

from __future__ import annotations

import hashlib
import hmac


def signed_path(path: str, body: bytes, *, key: str, secret: str, timestamp: int) -> str:
    """The path of a POST request with the query that signs it.

    Args:
        path: such as `/apps/3/events`.
        body: what will be sent, byte for byte.
        key: the app's key, of characters that need no encoding.
        secret: the app's secret.
        timestamp: Unix time in seconds; the server takes none that is 600 s off.

    Returns:
        The path, `?`, and `auth_key`, `auth_timestamp`, `auth_version`, `body_md5`, `auth_signature`.
    """
    # MD5 is the protocol's own; what proves the sender is the HMAC.
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    query = f"auth_key={key}&auth_timestamp={timestamp}&auth_version=1.0&body_md5={digest}"
    signature = hmac.new(secret.encode(), f"POST\n{path}\n{query}".encode(), hashlib.sha256).hexdigest()
    return f"{path}?{query}&auth_signature={signature}"
