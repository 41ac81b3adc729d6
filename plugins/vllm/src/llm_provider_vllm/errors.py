"""vLLM's errors as ours: what it says of a request, of a model that it cannot load, and of an engine that has died."""

from __future__ import annotations

import os
from typing import Any, Final

from providers.exceptions import (
    LLMProviderBadRequestError,
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderServerError,
    LLMProviderTokenLimitError,
    LLMProviderUnsupportedOperationError,
)

from .settings import NAME

# The `parameter` of vLLM's VLLMValidationError for a prompt that is too long; source: vllm/renderers/params.py, 0.32.
_TOO_LONG: Final = frozenset({"input_text", "input_tokens"})
_GRAMMAR: Final = ("grammar", "structured output", "schema", "guidance")
_MEMORY: Final = (
    *("out of memory", "available memory", "free memory", "memory for the cache", "kv cache memory", "cache blocks"),
    *("cannot allocate memory", "not enough memory", "memory utilization", "kv cache is needed", "max seq len"),
)
# Of vLLM, and of the socket library between it and its process.
_DEAD: Final = frozenset({"EngineDeadError", "ZMQError"})
_DEFAULT_LINES: Final = 2


def error_of_request(error: Exception, *, context: int, schema: str | None = None) -> LLMProviderError:
    """Our error for what vLLM raises when it takes a request in.

    Args:
        error: what it raised.
        context: tokens of prompt and answer together.
        schema: name of the schema that the answer has to fit, or `None`.
    """
    if isinstance(error, LLMProviderError):
        return error
    if is_dead(error):
        return error_of_engine(error)
    text = str(error) or type(error).__name__
    parameter, value = getattr(error, "parameter", None), getattr(error, "value", None)
    if parameter in _TOO_LONG:
        # vLLM reads one token more than fits, and no text that is certain not to fit.
        count = f"more than {context} tokens" if parameter == "input_tokens" else f"{value} characters"
        return LLMProviderTokenLimitError(
            f"the prompt has {count}, and prompt and answer together may have {context} tokens; shorten it, or raise "
            "max_model_len in llm_kwargs",
            provider=NAME,
            status_code=400,
            code="context_length_exceeded",
        )
    if schema is not None and any(word in text.lower() for word in _GRAMMAR):
        return LLMProviderUnsupportedOperationError(
            f"vLLM cannot enforce the schema {schema!r}: {_first_lines(text, 1)}", provider=NAME, status_code=400
        )
    return LLMProviderBadRequestError(
        f"vLLM refuses the request: {_first_lines(text)}", provider=NAME, status_code=400, code=parameter
    )


def is_dead(error: BaseException) -> bool:
    """Whether an error, or its cause, says that the engine's process is gone, so that it will take no request any more.

    Source: vllm/v1/engine/exceptions.py, and core_client.py for the socket to the process, 0.32: it is closed under a
    request that is on its way when the process ends.
    """
    return any(
        kind.__name__ in _DEAD for each in (error, getattr(error, "__cause__", None)) for kind in type(each).__mro__
    )


def error_of_engine(error: BaseException) -> LLMProviderError:
    """Our error for an engine that failed while it computed; it is loaded anew by the next call."""
    if isinstance(error, LLMProviderError):
        return error
    text = _first_lines(str(error) or type(error).__name__)
    hint = ""
    if _is_memory(text):
        hint = "; lower max_num_seqs or gpu_memory_utilization in llm_kwargs, so that more memory is left"
    return LLMProviderServerError(
        f"the engine failed, and all calls with it; the next call loads it anew: {text}{hint}",
        provider=NAME,
        retryable=not hint,
    )


def error_of_loading(error: BaseException, model: str, *, multiprocess: bool) -> LLMProviderError:
    """Our error for a model that vLLM does not load: what was wrong and what to do.

    Args:
        error: what vLLM raised.
        model: the model's name, or its folder.
        multiprocess: whether the engine was to live in a child process.
    """
    if isinstance(error, LLMProviderError):
        return error
    text = str(error) or type(error).__name__
    kind = type(error).__name__
    if "bootstrapping phase" in text or "freeze_support" in text:
        why = (
            'a child process was started before the main module was guarded; put the program under `if __name__ == "'
            '__main__":`, or set multiprocess=False'
        )
    elif _is_memory(text) or isinstance(error, MemoryError):
        why = (
            f"it does not fit into memory: {_first_lines(text)}; set gpu_memory_utilization (a share of the device's "
            "memory, 0 to 1, on a CPU too), kv_cache_memory_bytes, max_model_len or max_num_seqs in llm_kwargs, or "
            "take a smaller or quantized model"
        )
    elif "unexpected keyword argument" in text:
        why = f"llm_kwargs holds something that vllm.LLM does not take: {text.rpartition('unexpected keyword ')[2]}"
    elif _is_unknown(kind, text):
        why = (
            "there is no such folder, and it is no model of the Hugging Face hub that is on this machine or can be "
            f"fetched now; give a folder with config.json, or check the name and the network ({_first_lines(text, 1)})"
        )
    elif multiprocess and "initialization failed" in text:
        why = (
            "its child process ended; what it wrote on stderr tells why. Programs have to stand under `if __name__ == "
            '"__main__":`, and the model has to fit into memory (gpu_memory_utilization, max_model_len in llm_kwargs)'
        )
    elif "tokenizer" in text.lower() or kind in ("JSONDecodeError",) or "line 1 column" in text or "valid JSON" in text:
        why = f"a file of its tokenizer or configuration cannot be read; fetch it again: {kind}: {_first_lines(text)}"
    else:
        why = f"{kind}: {_first_lines(text)}"
    return LLMProviderConfigurationError(f"vLLM cannot load {model}: {why}", provider=NAME, model=_label(model))


def _is_memory(text: str) -> bool:
    return any(word in text.lower() for word in _MEMORY)


def _is_unknown(kind: str, text: str) -> bool:
    words = ("invalid repository id", "is not a local folder", "couldn't connect", "offline", "repository not found")
    return kind in ("RepositoryNotFoundError", "LocalEntryNotFoundError", "OfflineModeIsEnabled") or any(
        word in text.lower() for word in words
    )


def _first_lines(text: str, count: int = _DEFAULT_LINES) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return " ".join(lines[:count])[:600] or "no reason given"


def _label(model: Any) -> str:
    return os.path.basename(str(model).rstrip("/\\")) or str(model)
