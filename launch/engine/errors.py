"""Classify what `ray.get` raises when a call fails.

In: an exception of `ray.get`. Out: the class of the failure (`sweeps/failures.py`) and one line with its cause.
"""

from __future__ import annotations

from ray.exceptions import (
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from launch.messages import is_disk_full
from sweeps.failures import DISK, LOST, MEMORY

LOST_ERRORS = (
    RayActorError,  # died, or unavailable
    ActorUnschedulableError,
    NodeDiedError,
    WorkerCrashedError,
    GetTimeoutError,
)
STOPPED = "stopped"
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
