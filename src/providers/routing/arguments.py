"""The arguments of a fallback, checked."""

from __future__ import annotations

from collections.abc import Iterable

from ..base import LLMProvider
from ..exceptions import LLMProviderConfigurationError
from ..types.checks import Number, check_fields


def wrong(message: str) -> LLMProviderConfigurationError:
    """The error for an argument of a fallback."""
    return LLMProviderConfigurationError(message, provider="fallback")


def providers_of(targets: Iterable[LLMProvider]) -> tuple[LLMProvider, ...]:
    """The targets that were given.

    Raises:
        LLMProviderConfigurationError: there is none, or one is no provider.
    """
    if isinstance(targets, str | LLMProvider) or not isinstance(targets, Iterable):
        raise wrong("targets must be a list of providers")
    found = tuple(targets)
    if not found:
        raise wrong("a fallback needs at least one provider in targets=[...]")
    for place, target in enumerate(found):
        if not isinstance(target, LLMProvider):
            raise wrong(
                f"target {place} must be a provider, not {type(target).__name__}; names are taken by "
                "create_llm_provider('fallback', targets=[...])"
            )
    return found


def owned_of(providers: tuple[LLMProvider, ...], own: bool | Iterable[LLMProvider]) -> tuple[LLMProvider, ...]:
    """Those of the targets that are closed with the fallback.

    Raises:
        LLMProviderConfigurationError: `own` names something else.
    """
    if isinstance(own, bool):
        return providers if own else ()
    owned = tuple(own) if isinstance(own, Iterable) and not isinstance(own, str) else (None,)
    if not all(any(one is provider for provider in providers) for one in owned):
        raise wrong("own must be true, false or a list of some of the targets")
    return tuple(provider for provider in providers if any(provider is one for one in owned))


def labels_of(providers: tuple[LLMProvider, ...], given: Iterable[str | None] | None) -> list[str]:
    """A name for each target; equal ones are numbered.

    Raises:
        LLMProviderConfigurationError: the names that were given do not fit.
    """
    names = [None] * len(providers) if given is None else list(given)
    if len(names) != len(providers) or not all(name is None or (isinstance(name, str) and name) for name in names):
        raise wrong("labels must have a text, or None, for each target")
    found: list[str] = []
    for provider, name in zip(providers, names, strict=True):
        label = name or f"{provider.name}/{provider.config.model_name}"
        number, told = 1, label
        while told in found:
            number += 1
            told = f"{label} #{number}"
        found.append(told)
    return found


def weights_of(given: Iterable[float] | None, count: int) -> list[float]:
    """A weight for each target.

    Raises:
        LLMProviderConfigurationError: those that were given do not fit.
    """
    weights = [1.0] * count if given is None else list(given)
    if len(weights) != count:
        raise wrong(f"weights must have one figure for each target, {count}, not {len(weights)}")
    for weight in weights:
        check_fields({"weights": weight}, {"weights": Number(0, optional=False)}, "fallback")
    if not sum(weights) > 0:
        raise wrong("weights must not all be 0")
    return [float(weight) for weight in weights]
