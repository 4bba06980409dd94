"""What follows from the failure of a trial: retry, retry elsewhere or with less memory, wait, or give up.

In: the class of the failure, and the earlier failures of the trial. Out: a RetryDecision. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LOST, HANG, MEMORY, DISK = "lost", "hang", "out_of_memory", "disk_full"
FIRST = "first_failed"  # the trial whose adapter it needs
DISK_TRIES = 5  # of one trial


@dataclass(frozen=True)
class RetryDecision:
    """`retry`: back into the queue, from the last checkpoint; else the trial failed, and `remedy` says what helps."""

    retry: bool
    elsewhere: bool = False  # not on the nodes where it ran, if others can hold it
    micro_batch: int | None = None  # run it with this one
    pause: bool = False  # start nothing until there is room on the disk
    remedy: str = ""


@dataclass(frozen=True)
class History:
    """A trial at its failure: classes of its earlier failures, its micro-batch, the restarts that the sweep allows."""

    causes: tuple[str, ...]
    micro_batch: int
    max_restarts: int


def decide_retry(kind: str, history: History) -> RetryDecision:
    """The rule of this class; an error that no class knows is final."""
    return RULES.get(kind, _give_up)(history)


def _give_up(history: History) -> RetryDecision:
    return RetryDecision(False)


def _elsewhere(history: History) -> RetryDecision:
    """A process, a node or the connection went away: not the trial's fault."""
    suffered = sum(cause in (LOST, HANG) for cause in history.causes)
    if suffered < history.max_restarts:
        return RetryDecision(True, elsewhere=True)
    return RetryDecision(False, remedy=f"restarted {suffered} times already (cluster.max_restarts)")


def _halved(history: History) -> RetryDecision:
    """Once, with half the windows at a time and twice the accumulation: the same optimiser step."""
    if history.micro_batch > 1 and MEMORY not in history.causes:
        return RetryDecision(True, micro_batch=history.micro_batch // 2)
    return RetryDecision(
        False, remedy="take train.gradient_checkpointing=true, a smaller train.micro_batch, or more workers a trial"
    )


def _after_pause(history: History) -> RetryDecision:
    """Until there is free space again. The sweep does not see quotas or other disks, so the tries are limited."""
    again = history.causes.count(DISK) < DISK_TRIES
    return RetryDecision(again, pause=again, remedy="" if again else "free some space and run the same command again")


RULES: dict[str, Callable[[History], RetryDecision]] = {
    LOST: _elsewhere,
    HANG: _elsewhere,
    MEMORY: _halved,
    DISK: _after_pause,
}
