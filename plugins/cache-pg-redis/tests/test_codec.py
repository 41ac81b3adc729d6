"""The bytes of an answer: whatever goes in comes out, and nothing that was not put in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_provider_cache_pg_redis.codec import pack, safe, unpack

ANY = st.text(st.characters(codec=None, categories=None)) | st.text("ab\0\ud800\udc00*:%~/", max_size=300)
TIMES = st.floats(allow_nan=False, allow_infinity=False)


@given(ANY, TIMES, st.booleans())
def test_what_is_packed_is_unpacked(text: str, created: float, compress: bool) -> None:
    entry = unpack(pack(text * 3, created, compress))
    assert entry is not None
    assert (entry.text, entry.created) == (text * 3, created)


@given(st.text("abc{}", max_size=900), st.booleans(), st.data())
def test_a_byte_that_is_lost_or_changed_is_noticed(text: str, compress: bool, data: st.DataObject) -> None:
    blob = pack(text, 1e9, compress)
    at = data.draw(st.integers(0, len(blob) - 1))
    assert unpack(blob[:at]) is None
    changed = bytearray(blob)
    changed[at] ^= data.draw(st.integers(1, 255))
    entry = unpack(bytes(changed))
    # The last digits of the check may be written in capitals; nothing else may differ.
    assert entry is None or (entry.text, entry.created) == (text, 1e9)


@given(st.binary(max_size=200))
def test_other_peoples_bytes_are_a_miss(junk: bytes) -> None:
    assert unpack(junk) is None
    assert unpack(b"llm1 " + junk) is None


@pytest.mark.parametrize("junk", [None, "llm1 - 1.0 0\n", 3, [], b"llm1 q 1.0 e4ae1c9a\nx"])
def test_values_of_other_types_are_a_miss(junk: object) -> None:
    assert unpack(junk) is None


def test_it_pays_or_it_is_left() -> None:
    assert pack("x" * 10_000, 1.0, True)[:6] == b"llm1 z"
    assert len(pack("x" * 10_000, 1.0, True)) < 200
    assert pack("x" * 10_000, 1.0, False)[:6] == b"llm1 -"
    assert pack("short", 1.0, True)[:6] == b"llm1 -"


@given(ANY, ANY)
def test_two_names_stay_two(one: str, other: str) -> None:
    assert (safe(one) == safe(other)) == (one == other)
    assert len(safe(one)) <= 125
    assert set(safe(one)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~%")
