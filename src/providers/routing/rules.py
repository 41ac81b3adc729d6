"""Which errors of a target move a call on to the next one, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ..exceptions import (
    BudgetExceededError,
    LLMProviderAuthenticationError,
    LLMProviderBadRequestError,
    LLMProviderConfigurationError,
    LLMProviderConnectionError,
    LLMProviderContentFilterError,
    LLMProviderError,
    LLMProviderNotFoundError,
    LLMProviderPermissionError,
    LLMProviderQuotaError,
    LLMProviderRateLimitError,
    LLMProviderResponseError,
    LLMProviderServerError,
    LLMProviderStreamError,
    LLMProviderTimeoutError,
    LLMProviderTokenLimitError,
    LLMProviderUnsupportedOperationError,
    MissingCredentialsError,
    PluginError,
    ProviderClosedError,
    StructuredOutputError,
)

Sign = Literal["answers", "outage", "pause", "broken", "nothing"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What one kind of error means.

    Attributes:
        kind: its name.
        errors: its classes.
        moves_on: whether the next target is asked.
        sign: what it says of the target: `"answers"`, it is there; `"outage"`, one more failure for its circuit
            breaker; `"pause"`, it is left alone as long as it asks for, or a second; `"broken"`, it is left alone for
            the breaker's cooldown and a warning is given once; `"nothing"`.
        why: the reason.
    """

    kind: str
    errors: tuple[type[LLMProviderError], ...]
    moves_on: bool
    sign: Sign
    why: str


RULES: Final[tuple[Rule, ...]] = (
    Rule("context", (LLMProviderTokenLimitError,), True, "answers", "a larger window may hold the prompt"),
    Rule("content", (LLMProviderContentFilterError,), False, "answers", "what one backend refuses is not offered on"),
    Rule("unsupported", (LLMProviderUnsupportedOperationError,), True, "nothing", "another one may be able to"),
    Rule("budget", (BudgetExceededError,), False, "nothing", "a cap is a cap"),
    Rule("credentials", (MissingCredentialsError,), True, "broken", "this target lacks its key"),
    Rule("plugin", (PluginError,), True, "broken", "this target's code or its packages are broken"),
    Rule("closed", (ProviderClosedError,), True, "broken", "somebody has closed this target"),
    Rule("mistake", (LLMProviderConfigurationError,), False, "nothing", "the call is wrong, whoever answers it"),
    Rule("quota", (LLMProviderQuotaError,), True, "broken", "this account has nothing left"),
    Rule("throttled", (LLMProviderRateLimitError,), True, "pause", "another backend has room"),
    Rule(
        "sign-in",
        (LLMProviderAuthenticationError, LLMProviderPermissionError),
        True,
        "broken",
        "this target's key is refused",
    ),
    Rule("not found", (LLMProviderNotFoundError,), True, "broken", "this target's model or address does not exist"),
    Rule("outage", (LLMProviderServerError, LLMProviderConnectionError), True, "outage", "this backend is down"),
    Rule("late", (LLMProviderTimeoutError,), True, "outage", "this backend is too slow"),
    Rule("cut", (LLMProviderStreamError,), True, "outage", "this backend broke off"),
    Rule("structure", (StructuredOutputError,), False, "answers", "the answer is there and paid for"),
    Rule("nonsense", (LLMProviderResponseError,), True, "outage", "whatever answers there is not the backend"),
    Rule("refused", (LLMProviderBadRequestError,), False, "answers", "the request is wrong, whoever answers it"),
)
"""The first rule that has an error's class holds. What none names moves on where the error is retryable."""

OPENING: Final = Rule("opening", (LLMProviderError,), True, "broken", "this target cannot be opened as it is set up")
"""Whatever a target's `open` raises: no call has a part in it."""

_PASSING: Final = Rule("other", (LLMProviderError,), True, "outage", "it may pass")
_FINAL: Final = Rule("other", (LLMProviderError,), False, "nothing", "nothing is known of it")


def rule_of(error: LLMProviderError) -> Rule:
    """The rule that an error falls under."""
    for rule in RULES:
        if isinstance(error, rule.errors):
            return rule
    return _PASSING if error.retryable else _FINAL
