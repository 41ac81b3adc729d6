"""Rarer powers: asked for by `isinstance`, listed by `capabilities`, refused clearly where they are missing."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from providers import (
    EmbeddingRequest,
    EmbeddingResult,
    Embeddings,
    LLMProvider,
    LLMProviderConfigurationError,
    LLMProviderResponseError,
    LLMProviderServerError,
    LLMProviderUnsupportedOperationError,
    ProviderClosedError,
    TokenCounting,
    UnknownOptionError,
    Usage,
)
from providers.capabilities import decode_vector


class Vectors(Embeddings, LLMProvider):
    name = "vectors"

    def __init__(self, *args: Any, failures: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.failures = failures
        self.requests: list[EmbeddingRequest] = []

    async def create_embeddings(self, request: EmbeddingRequest) -> EmbeddingResult:
        self.requests.append(request)
        if len(self.requests) <= self.failures:
            raise LLMProviderServerError("no", status_code=503)
        return EmbeddingResult([[float(len(text))] for text in request.inputs], Usage(1), request.model)


async def test_vectors_in_the_order_of_the_texts() -> None:
    """F-076."""
    provider = Vectors("m")
    result = await provider.embed(["a", "bbb", "cc"])
    assert (result.ok, result.embeddings, result.embedding) == (True, [[1.0], [3.0], [2.0]], [1.0])
    assert (await provider.embed("abcd")).embedding == [4.0]


async def test_what_is_asked_for_reaches_the_author() -> None:
    """F-076."""
    provider = Vectors("m", timeout=7, extra_params={"a": 1})
    await provider.embed(["x"], encoding_format="base64", dimensions=3, extra={"user": "u"}, timeout=5)
    assert provider.requests == [EmbeddingRequest("m", ("x",), "base64", 3, {"a": 1, "user": "u"}, 5)]
    await provider.embed("x")
    assert provider.requests[1].timeout == 7


async def test_passing_failures_are_tried_again_and_final_ones_are_a_value() -> None:
    """F-069, F-070, F-144."""
    provider = Vectors("m", failures=2, retry_delay=0.001)
    assert (await provider.embed("x")).ok
    assert len(provider.requests) == 3
    provider = Vectors("m", failures=99)
    result = await provider.embed("x", attempts=2, backoff=0.0)
    assert (result.ok, result.status, len(provider.requests)) == (False, 503, 2)
    assert "no" in (result.error or "")
    assert result.embedding == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"inputs": ""}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": ["a", ""]}, "inputs"),
        ({"inputs": ["a", 5]}, "inputs"),
        ({"inputs": 5}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"inputs": "a", "dimensions": 0}, "dimensions"),
        ({"inputs": "a", "dimensions": 1.5}, "dimensions"),
        ({"inputs": "a", "timeout": 0}, "timeout"),
        ({"inputs": "a", "extra": []}, "extra"),
        ({"inputs": "a", "attempts": 0}, "max_attempts"),
    ],
    ids=str,
)
async def test_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    provider = Vectors("m")
    with pytest.raises(LLMProviderConfigurationError, match=said):
        await provider.embed(**arguments)
    assert provider.requests == []
    assert provider.calls_under_way == 0


async def test_an_unknown_option_is_named() -> None:
    """Bad input 7."""
    with pytest.raises(UnknownOptionError, match=r"dimension.*did you mean 'dimensions'"):
        await Vectors("m").embed("a", dimension=5)


async def test_no_model_and_a_closed_provider() -> None:
    with pytest.raises(LLMProviderConfigurationError, match="no model"):
        await Vectors().embed("a")
    provider = Vectors("m")
    await provider.close()
    with pytest.raises(ProviderClosedError):
        await provider.embed("a")


async def test_a_provider_without_the_power_says_so() -> None:
    """F-076: NotImplementedError-compatible."""
    with pytest.raises(NotImplementedError, match="embeddings"):
        await LLMProvider("m").embed("x")
    with pytest.raises(LLMProviderUnsupportedOperationError):
        await LLMProvider("m").embed("x")


def test_powers_are_listed_and_asked_for_by_isinstance() -> None:
    class Both(TokenCounting, Vectors):
        understands = frozenset({"tools"})

        async def count_tokens(self, messages: Any, **options: Any) -> int:
            return 1

    assert Vectors("m").capabilities == {"embeddings"}
    assert Both("m").capabilities == {"embeddings", "token_counting", "tools"}
    assert Both("m").get_model_info()["capabilities"] == ["embeddings", "token_counting", "tools"]
    assert isinstance(Both("m"), Embeddings)
    assert isinstance(Both("m"), TokenCounting)
    assert LLMProvider("m").capabilities == frozenset()


def test_vectors_are_floats_either_way() -> None:
    """F-076."""
    packed = base64.b64encode(struct.pack("<3f", 0.5, -1.0, 2.0)).decode()
    assert decode_vector(packed) == decode_vector([0.5, -1, 2]) == [0.5, -1.0, 2.0]
    assert all(type(number) is float for number in decode_vector([1, 2]))
    assert decode_vector("") == []


@pytest.mark.parametrize("value", ["%%%", "AAA=", "AA==", 5, None, {"a": 1}, ["x"], [None], [[1.0]]], ids=str)
def test_what_is_no_vector(value: Any) -> None:
    """Bad input 32, 42."""
    with pytest.raises(LLMProviderResponseError, match="vector"):
        decode_vector(value)
