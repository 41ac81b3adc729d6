"""What `get_cached_provider` tells apart of the arguments that it names itself, and what a provider is made with."""

from __future__ import annotations

from itertools import product

import pytest

from providers import APIType, StreamMode, clear_provider_cache, get_cached_provider

pytestmark = pytest.mark.usefixtures("house", "acme")

INTERFACES = ["chat_completion", "responses"]
MODES = ["disabled", "enabled", "auto"]


def test_interface_and_mode_are_in_the_fingerprint_and_reach_the_provider() -> None:
    """F-140: the two named arguments, each in each of its values, by position and by name."""
    found = {}
    for interface, mode in product(INTERFACES, MODES):
        provider = get_cached_provider("acme", "m", interface, mode)
        assert get_cached_provider(
            provider_type="acme", model_name="m", stream_mode=mode, api_type=interface
        ) is provider  # fmt: skip
        assert (provider.config.api_type, provider.config.stream_mode) == (APIType(interface), StreamMode(mode))
        found[interface, mode] = provider
    assert len({id(provider) for provider in found.values()}) == len(INTERFACES) * len(MODES)


def test_what_is_left_out_is_the_default_of_the_configuration() -> None:
    """F-140."""
    provider = get_cached_provider("acme", "m")
    assert (provider.config.api_type, provider.config.stream_mode) == (APIType.CHAT_COMPLETION, StreamMode.DISABLED)
    assert get_cached_provider("acme", "m", None, None) is provider
    clear_provider_cache()
    assert get_cached_provider("acme", "m") is not provider
