"""When to try again, after which wait, and who owns the decision."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, TypeVar

from ..exceptions import LLMProviderConnectionError, LLMProviderError
from ..types import RetryPolicy, usage_of_error

T = TypeVar("T")
logger = logging.getLogger("providers.retry")

_owned: ContextVar[bool] = ContextVar("llm_providers_retries_owned", default=False)


def retries_owned() -> bool:
    """Whether something further out already tries this call again; then nobody further in may do so too."""
    return _owned.get()


def take_retries() -> Token[bool]:
    """From here on retries belong to the caller (a bulk run, a fallback, an agent), and layers further in stand down.

    Not to be held across a `yield` of an async generator: the consumer would run inside it too.
    """
    return _owned.set(True)


def return_retries(token: Token[bool]) -> None:
    """Give back what `take_retries` took."""
    _owned.reset(token)


@contextmanager
def owning_retries() -> Iterator[None]:
    """`take_retries` and `return_retries` around a block."""
    token = take_retries()
    try:
        yield
    finally:
        return_retries(token)


def backoff(policy: RetryPolicy, attempt: int) -> float:
    """Seconds to wait after the given attempt (1, 2, ...) failed, when the backend gave no hint.

    With jitter the wait is spread evenly between half and the whole of the exponential one ("equal jitter"), so that
    callers that failed together do not come back together.
    """
    try:
        wait = min(policy.max_wait, policy.initial_wait * float(policy.exponential_base) ** (attempt - 1))
    except OverflowError:
        wait = policy.max_wait if policy.initial_wait else 0.0
    return wait * random.uniform(0.5, 1.0) if policy.jitter else wait


def next_wait(policy: RetryPolicy, attempt: int, error: LLMProviderError) -> float | None:
    """Seconds to wait before trying again, or `None` where the error is final.

    Args:
        policy: how often and how long.
        attempt: how many attempts were made, from 1.
        error: what the last one raised. A hint in `retry_after` goes before the policy's own backoff, with up to a
            tenth of jitter on top; a negative one is passed over, and so is a server's 0, which says no more than that
            it has no time to name: many callers that obeyed it would come back in step. One above `policy.max_wait` is
            final, for the caller to decide.
    """
    if not error.retryable or attempt >= policy.max_attempts:
        return None
    hint = error.retry_after
    # "Not at least 0" is true of NaN too, which asyncio would wait for in vain.
    if hint is None or not hint >= 0:
        return backoff(policy, attempt)
    # Where nobody answered, no server named the 0: the connection was lost while idle, and nothing is wrong with it.
    if hint == 0 and not isinstance(error, LLMProviderConnectionError):
        return backoff(policy, attempt)
    if hint > policy.max_wait:
        return None
    return hint * random.uniform(1.0, 1.1) if policy.jitter else hint


def wait_after(
    policy: RetryPolicy, attempt: int, error: LLMProviderError, owned: bool, failed: list[dict[str, Any]]
) -> float:
    """Note an attempt that failed, and give the seconds to wait before the next one.

    Args:
        policy: how often and how long.
        attempt: how many attempts were made, from 1; noted in `error.attempts`.
        error: what the last one raised; raised again from here where it is final.
        owned: whether another owner of retries is at work further out; then every error is final.
        failed: the attempts that failed before; this one is added where another one follows, after those that it says
            it was made of (a fallback's walk along its targets). Each is a dict of `error` (the name of its class),
            `status` (the HTTP status or `None`), `usage` (a `Usage`, or `None` where nothing is known) and `wait` (the
            seconds until the next one); after a walk `provider`, `model` and `target` too.

    Raises:
        LLMProviderError: the error itself, with the earlier ones in `failed_attempts`.
    """
    error.attempts = attempt
    wait = None if owned else next_wait(policy, attempt, error)
    if error.target is not None:  # a walk says what it was made of
        failed += error.failed_attempts or ()
    if wait is None:
        error.failed_attempts = failed or None
        try:
            raise error
        finally:
            del error  # or it and this frame would hold each other
    note = {"error": type(error).__name__, "status": error.status_code, "usage": usage_of_error(error), "wait": wait}
    if error.target is not None:
        note.update(provider=error.provider, model=error.model, target=error.target)
    failed.append(note)
    logger.debug(
        "attempt %d of %d failed (%s), next in %.2f s", attempt, policy.max_attempts, type(error).__name__, wait
    )
    return wait


async def retrying(
    policy: RetryPolicy,
    call: Callable[[], Awaitable[T]],
    tell: Callable[[T, list[dict[str, Any]]], T] | None = None,
) -> T:
    """Make a call that gives one value, again after passing failures; inside another owner of retries, once.

    Args:
        policy: how often and how long.
        call: makes one attempt.
        tell: is given the value and the attempts that failed before it, as `wait_after` notes them, where there were
            any; what it returns is the value then.

    Raises:
        LLMProviderError: the last failure, with the number of attempts in `attempts`.
    """
    owned = retries_owned()
    attempt = 0
    failed: list[dict[str, Any]] | None = None
    while True:
        attempt += 1
        # By hand, not by `with owning_retries()`: that would cost each call a microsecond.
        token = take_retries()
        try:
            value = await call()
            return value if failed is None or tell is None else tell(value, failed)
        except LLMProviderError as error:
            failed = [] if failed is None else failed
            wait = wait_after(policy, attempt, error, owned, failed)
        finally:
            return_retries(token)
        await asyncio.sleep(wait)
