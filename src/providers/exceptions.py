"""Every error that this house raises, as one tree under `LLMProviderError`.

    LLMProviderError
    +-- LLMProviderConfigurationError (ValueError)       a wrong argument, variable or file
    |   +-- MissingCredentialsError                       no key where one is needed
    |   +-- UnknownProviderError                          no provider of that name
    |   +-- UnknownOptionError (TypeError)                an option that nothing reads
    +-- PluginError                                       a plugin is quarantined
    |   +-- MissingDependencyError (ImportError)          a package has to be installed first
    +-- LLMProviderUnsupportedOperationError (NotImplementedError)
    |   +-- UnsupportedParameterError (ValueError)        a parameter that the model cannot honour
    +-- LLMProviderAPIError                               the backend answered: no
    |   +-- LLMProviderBadRequestError                    400, 409, 413, 422
    |   |   +-- LLMProviderTokenLimitError                the prompt does not fit
    |   |   +-- LLMProviderContentFilterError             refused for what it says
    |   +-- LLMProviderAuthenticationError                401
    |   +-- LLMProviderPermissionError                    402, 403
    |   +-- LLMProviderNotFoundError                      404
    |   +-- LLMProviderRateLimitError                     429, wait and ask again
    |   |   +-- LLMProviderQuotaError                     429, but waiting does not help
    |   +-- LLMProviderServerError                        5xx
    |       +-- LLMProviderOverloadedError                503, 529
    +-- LLMProviderConnectionError (ConnectionError)      nobody answered
    +-- LLMProviderTimeoutError (TimeoutError)            not in time; also named ResponseTimeoutError
    +-- LLMProviderResponseError                          an answer that makes no sense
    |   +-- LLMProviderStreamError                        a stream that ended before its end
    |   +-- StructuredOutputError (ValueError)            an answer that does not fit its schema
    |       +-- OutputTruncatedError                      cut off before it was whole
    +-- ProviderClosedError (RuntimeError)                used after close()
    +-- BatchFailedError (RuntimeError)                   a batch that did not complete
    +-- BudgetExceededError (RuntimeError)                a call that does not fit what is left to spend

Members also inherit the builtin that the founding documents promise, so `except ImportError`,
`except ValueError` and `except TimeoutError` keep working. Each carries what a caller needs in order to decide, so
that nobody has to read the text: `provider`, `model`, `status_code`, `code`, `request_id`, `retryable`, `retry_after`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar


class LLMProviderError(Exception):
    """Base of every error of this package.

    Args:
        message: one sentence that says what was wrong and what to do.
        provider: name of the provider, where one is known.
        model: name of the model, where one is known.
        status_code: HTTP status of the reply, or `None`.
        code: the backend's own short word for the error, or `None`.
        request_id: the backend's id of the request, for its support, or `None`.
        retryable: whether the same call may succeed later; the class's `default_retryable` where left out.
        retry_after: seconds that the backend asked to wait, or `None`.
        response: what had arrived until then (an `LLMResponse`), or `None`.

    Attributes:
        attempts: how many attempts were made in all, or `None`.
        usage: what the last of them is known to have used (a `Usage`), or `None`.
        failed_attempts: those before it, as in `response.metadata["attempts"]`, or `None` where there were none.
        target: name of the fallback's target that failed, or `None` where no fallback was at work.
    """

    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        provider: str | None = None,
        model: str | None = None,
        status_code: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        response: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.model = model
        self.status_code = status_code
        self.code = code
        self.request_id = request_id
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after = retry_after
        self.response = response
        self.attempts: int | None = None
        self.usage: Any = None
        self.failed_attempts: list[dict[str, Any]] | None = None
        self.target: str | None = None

    def __str__(self) -> str:
        where = self.provider or ""
        if self.model:
            where = f"{where}/{self.model}" if where else self.model
        details = [f"status {self.status_code}"] if self.status_code is not None else []
        if self.request_id:
            details.append(f"request id {self.request_id}")
        if self.attempts and self.attempts > 1:
            details.append(f"after {self.attempts} attempts")
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} ({', '.join(details)})" if details else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive Exception's own pickling; errors cross processes in bulk runs.
        return _rebuild, (type(self), self.message, self.__dict__.copy())


def _rebuild(cls: type[LLMProviderError], message: str, state: dict[str, Any]) -> LLMProviderError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class LLMProviderConfigurationError(LLMProviderError, ValueError):
    """An argument, an environment variable or a line of a file is wrong; the message names which."""


class MissingCredentialsError(LLMProviderConfigurationError):
    """A provider needs a key and none was found; the message names the variable and the files searched."""


class UnknownProviderError(LLMProviderConfigurationError):
    """No provider has that name; the message lists those that are installed."""


class UnknownOptionError(LLMProviderConfigurationError, TypeError):
    """An option that neither the configuration nor the provider's settings know."""


class PluginError(LLMProviderError):
    """A plugin cannot be used: it failed to import, has no provider, or two claim one name."""


class MissingDependencyError(PluginError, ImportError):
    """A package that the provider needs is not installed; the message says what to install."""


class LLMProviderUnsupportedOperationError(LLMProviderError, NotImplementedError):
    """The provider or model cannot do this at all."""


class UnsupportedParameterError(LLMProviderUnsupportedOperationError, ValueError):
    """A parameter that was given cannot be honoured, and `on_unsupported` is `"error"`."""


class LLMProviderAPIError(LLMProviderError):
    """The backend answered with an error."""


class LLMProviderBadRequestError(LLMProviderAPIError):
    """The backend refused the request as it stands; sending it again does not help."""


class LLMProviderTokenLimitError(LLMProviderBadRequestError):
    """Prompt and answer together do not fit the model's context window."""


class LLMProviderContentFilterError(LLMProviderBadRequestError):
    """The backend refused the request, or its own answer, for its content."""


class LLMProviderAuthenticationError(LLMProviderAPIError):
    """The key was refused."""


class LLMProviderPermissionError(LLMProviderAPIError):
    """The key is good, but it may not do this."""


class LLMProviderNotFoundError(LLMProviderAPIError):
    """The model or the address does not exist."""


class LLMProviderRateLimitError(LLMProviderAPIError):
    """Too many requests or tokens in a window; `retry_after` holds the backend's hint in seconds."""

    default_retryable = True


class LLMProviderQuotaError(LLMProviderRateLimitError):
    """The account has nothing left to spend; waiting does not help, so it is not retried."""

    default_retryable = False


class LLMProviderServerError(LLMProviderAPIError):
    """The backend failed on its own side."""

    default_retryable = True


class LLMProviderOverloadedError(LLMProviderServerError):
    """The backend has no capacity at the moment."""


class LLMProviderConnectionError(LLMProviderError, ConnectionError):
    """No connection, or one that broke before the reply began."""

    default_retryable = True


class LLMProviderTimeoutError(LLMProviderError, TimeoutError):
    """No answer, or no next piece of a stream, within the timeout."""

    default_retryable = True


ResponseTimeoutError = LLMProviderTimeoutError


class LLMProviderResponseError(LLMProviderError):
    """A reply that is not what the protocol says: not JSON, empty, of another shape."""


class LLMProviderStreamError(LLMProviderResponseError):
    """A stream that was cut before its last event; `response` holds what had arrived."""

    default_retryable = True


class StructuredOutputError(LLMProviderResponseError, ValueError):
    """The answer does not fit its schema; `response.content` is the raw text."""


class OutputTruncatedError(StructuredOutputError):
    """The answer was cut off at a token limit, so it was not parsed; `response.content` is what there is."""


class ProviderClosedError(LLMProviderError, RuntimeError):
    """The provider was closed; create a new one."""


class BatchFailedError(LLMProviderError, RuntimeError):
    """A batch failed, was cancelled or expired, or was asked for its results too early."""


class BudgetExceededError(LLMProviderError, RuntimeError):
    """A call was not made, or was ended, since a budget has not enough left for it.

    Attributes:
        cap: which limit it is: `"max_cost"`, `"max_tokens"`, `"max_requests"` or `"max_seconds"`.
        used: what was used until then (a `providers.Amounts`).
        left: what was left for new calls, without what calls under way have reserved (a `providers.Amounts`).
        needed: the same of what the call might have used, or `None` where it was ended by `max_seconds`.
    """

    cap: str = ""
    used: Any = None
    left: Any = None
    needed: Any = None


@contextmanager
def translating(
    table: Mapping[type[BaseException], type[LLMProviderError]],
    *,
    provider: str | None = None,
    model: str | None = None,
) -> Iterator[None]:
    """Turn a dependency's exceptions into ours at the border, keeping the original as `__cause__`.

    Args:
        table: foreign class to one of ours; the first entry that matches by `isinstance` wins.
        provider: name of the provider for the message.
        model: name of the model for the message.

    Raises:
        LLMProviderError: of the class that the table names. What the table does not name passes through untouched.
    """
    try:
        yield
    except LLMProviderError:
        raise
    except BaseException as error:
        for foreign, ours in table.items():
            if isinstance(error, foreign):
                text = str(error) or type(error).__name__
                raise ours(f"{type(error).__name__}: {text}", provider=provider, model=model) from error
        raise
