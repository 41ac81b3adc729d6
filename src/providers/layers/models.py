"""What layers know of models, looked up at most once a second."""

from __future__ import annotations

from time import monotonic
from typing import Final

from ..exceptions import LLMProviderError
from ..profiles import ModelProfile, ProfileTable

_FRESH: Final = 1.0  # seconds
_MOST: Final = 256


class Models:
    """What is known of models: by a provider's table, or by those of all that are installed.

    It is asked anew every second: the tables look at the user's file each time, which is most of what a layer costs.
    """

    def __init__(self, profiles: ProfileTable | None) -> None:
        self._profiles = profiles
        self._found: dict[str, tuple[float, ModelProfile]] = {}

    def get(self, model: str) -> ModelProfile:
        """The profile of a model; any name is accepted.

        Raises:
            LLMProviderConfigurationError: the user's file is wrong.
        """
        known = self._found.get(model)
        if known is not None and known[0] > monotonic():
            return known[1]
        if self._profiles is not None:
            found = self._profiles.get(model)
        else:
            try:
                found = ModelProfile.get(model)
            except LLMProviderError:
                found = ModelProfile(model)
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[model] = (monotonic() + _FRESH, found)
        return found
