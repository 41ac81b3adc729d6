"""Waiting and trying again: the arithmetic, without the call around it."""

from .retry import backoff, next_wait, owning_retries, retries_owned, retrying, return_retries, take_retries, wait_after

__all__ = [
    "backoff",
    "next_wait",
    "owning_retries",
    "retries_owned",
    "retrying",
    "return_retries",
    "take_retries",
    "wait_after",
]
