"""Signatures are those of the vendor's own library, byte for byte."""

from __future__ import annotations

import pytest

from llm_provider_pusher.signing import signed_path

# Made by the package pusher 3.3.4 from PyPI (`PusherClient(...).trigger.make_request`, `.trigger_batch.make_request`),
# with its clock held still. Its query stands in another order, which the signature does not know: it is over the
# sorted one.
VECTORS = [
    (
        (1353088179, "278d425bdf160c739803", "7ad3773142a6692b25b8", "/apps/3/events"),
        b'{"name": "foo", "channels": ["project-3"], "data": "{\\"some\\": \\"data\\"}"}',
        "e99c7bd443c2257b30f72ae568153d4f",
        "d550b5c3df185aa94a2c76c7c3ca5bdec16c5dbef2f7eccdb68886384e05c06a",
    ),
    (
        (1700000000, "app-key", "s3cr3t with blank/ü", "/apps/1234/events"),
        b'{"name": "llm.token", "channels": ["private-chat-1"], "data": '
        b'"{\\"type\\":\\"token\\",\\"data\\":\\"Gr\\u00fc\\u00dfe\\",\\"seq\\":1}"}',
        "104a4fdcd619cd0cac73f41a6fb3bbde",
        "ca240b953e5950bf58cc87403cc40aa3faa007a5f83db6bd7c294950034e732d",
    ),
    (
        (1763640000, "key_9", "sécret", "/apps/42/batch_events"),
        b'{"batch": [{"channel": "private-chat-1", "name": "llm.token", "data": "a"}, '
        b'{"channel": "private-chat-1", "name": "llm.done", "data": "{\\"x\\":1}"}]}',
        "fe96cf30cb82043e6ffcb3d143cf330e",
        "982c24bbc9fd3cf670a7e62316f6996cbc6dfac22267ccac06c2a77de6ce82b7",
    ),
]


@pytest.mark.parametrize(("given", "body", "digest", "signature"), VECTORS)
def test_a_signature_is_the_vendors(given: tuple[int, str, str, str], body: bytes, digest: str, signature: str) -> None:
    """F-105."""
    timestamp, key, secret, path = given
    assert signed_path(path, body, key=key, secret=secret, timestamp=timestamp) == (
        f"{path}?auth_key={key}&auth_timestamp={timestamp}&auth_version=1.0&body_md5={digest}"
        f"&auth_signature={signature}"
    )


def test_a_secret_and_a_byte_change_it() -> None:
    words = {"key": "k", "secret": "s", "timestamp": 1}
    first = signed_path("/apps/1/events", b"{}", **words)  # type: ignore[arg-type]
    assert first != signed_path("/apps/1/events", b"{ }", **words)  # type: ignore[arg-type]
    assert first != signed_path("/apps/1/events", b"{}", **{**words, "secret": "t"})  # type: ignore[arg-type]
