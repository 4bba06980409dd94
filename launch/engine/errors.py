"""Classify what `ray.get` raises when a call fails.

In: an exception of `ray.get`. Out: the class of the failure (`sweeps/failures.py`) and one line with its cause.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from cinelora.core.files import is_disk_full
from sweeps.failures import DISK, LOST, MEMORY

LOST_ERRORS = (
    RayActorError,  # died, or unavailable
    ActorUnschedulableError,
    NodeDiedError,
    WorkerCrashedError,
    GetTimeoutError,
)
STOPPED = "stopped"
SETTLE_SECONDS = 5.0  # for the peers of a dead worker to fail too, so that the first cause is seen
KINDS = {"UserError": "user", "NonFiniteLoss": "diverged", "Stopped": STOPPED, "TrialTaken": LOST}


def failure_kind(error: Exception) -> str:
    """lost, out_of_memory, disk_full, stopped, user, diverged, or error."""
    cause = root_cause(error)
    if is_disk_full(cause):
        return DISK
    if isinstance(cause, OutOfMemoryError) or "memory" in str(cause) and "killed" in str(cause).lower():
        return MEMORY  # Ray's own monitor ended the process before the system did
    if isinstance(cause, MemoryError) or "out of memory" in str(cause).lower():
        return MEMORY
    return LOST if isinstance(error, LOST_ERRORS) else KINDS.get(type(cause).__name__, "error")


def root_cause(error: Exception) -> Exception:
    """What was raised in the worker, without Ray's wrapping."""
    return error.cause if isinstance(error, RayTaskError) else error


def first_cause(error: Exception) -> str:
    """One line: the class and the message of what was raised."""
    cause = root_cause(error)
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[-1] if isinstance(error, LOST_ERRORS) else lines[0]}"


def all_stopped(calls: list[Any], seconds: float) -> bool:
    """Wait for the workers of a stopped trial. True if each of them left in order, so that the gang can be reused."""
    ended = _failures(calls, seconds)
    return len(ended) == len(calls) and all(error and failure_kind(error) == STOPPED for error in ended)


def is_lost(error: Exception, others: list[Any]) -> bool:
    """True if a process or node is gone: a peer of a dead worker only sees its connection break."""
    if isinstance(error, LOST_ERRORS):
        return True
    if not others or not isinstance(error, RayTaskError):
        return False
    return any(isinstance(each, LOST_ERRORS) for each in _failures(others, SETTLE_SECONDS))


def _failures(calls: list[Any], seconds: float) -> list[Exception | None]:
    """What the calls that end within these seconds raised; None for a call that returned."""
    found: list[Exception | None] = []
    for call in ray.wait(calls, num_returns=len(calls), timeout=seconds)[0]:
        try:
            ray.get(call)
            found.append(None)
        except Exception as error:
            found.append(error)
    return found
