"""What follows from the failure of a trial: retry, retry elsewhere or with less memory, wait, or give up.

In: the class of the failure, and the earlier failures of the trial. Out: a RetryDecision. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def decide_retry(kind: str, causes: Sequence[str], micro_batch: int, max_restarts: int) -> RetryDecision:
    """What to do; a failure of another class is final. `causes`: classes of the trial's earlier failures."""
    if kind in (LOST, HANG):  # a process, a node or the connection went away: not the trial's fault
        lost = sum(cause in (LOST, HANG) for cause in causes)
        if lost < max_restarts:
            return RetryDecision(True, elsewhere=True)
        return RetryDecision(False, remedy=f"restarted {lost} times already (cluster.max_restarts)")
    if kind == MEMORY:  # once, with half the windows at a time and twice the accumulation: the same step
        if micro_batch > 1 and MEMORY not in causes:
            return RetryDecision(True, micro_batch=micro_batch // 2)
        remedy = "take train.gradient_checkpointing=true, a smaller train.micro_batch, or more workers a trial"
        return RetryDecision(False, remedy=remedy)
    if kind == DISK:  # the sweep does not see quotas or other disks, so the tries are limited
        if causes.count(DISK) < DISK_TRIES:
            return RetryDecision(True, pause=True)
        return RetryDecision(False, remedy="free some space and run the same command again")
    return RetryDecision(False)
