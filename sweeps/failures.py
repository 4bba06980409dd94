"""What follows from the failure of a trial: retry, retry elsewhere or with less memory, wait, or give up.

In: the class of the failure, and the earlier failures of the trial. Out: a RetryDecision. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cinelora.core.config import Checkpointing

LOST, HANG, MEMORY, DISK = "lost", "hang", "out_of_memory", "disk_full"
FIRST = "first_failed"  # the trial whose adapter it needs
DISK_TRIES = 5  # of one trial


@dataclass(frozen=True)
class RetryDecision:
    """`retry`: back into the queue, from the last checkpoint; else the trial failed, and `remedy` says what helps."""

    retry: bool
    elsewhere: bool = False  # not on the nodes where it ran, if others can hold it
    micro_batch: int | None = None  # run it with this one
    checkpointing: bool = False  # run it with all blocks checkpointed
    pause: bool = False  # start nothing until there is room on the disk
    remedy: str = ""

    @property
    def changes(self) -> dict[str, Any]:
        """Settings of `train` for the next try; they need less memory and leave the step as it is."""
        if self.checkpointing:
            return {"checkpointing": Checkpointing.all, "checkpointed_blocks": 0}
        return {"micro_batch": self.micro_batch} if self.micro_batch else {}


def decide_retry(
    kind: str, causes: Sequence[str], micro_batch: int, checkpointed: bool, max_restarts: int
) -> RetryDecision:
    """What to do; a failure of another class is final. `causes`: classes of the trial's earlier failures.

    `micro_batch`: windows that a worker had in memory at once. `checkpointed`: nothing is left to be recomputed.
    """
    if kind in (LOST, HANG):  # a process, a node or the connection went away: not the trial's fault
        lost = sum(cause in (LOST, HANG) for cause in causes)
        if lost < max_restarts:
            return RetryDecision(True, elsewhere=True)
        return RetryDecision(False, remedy=f"restarted {lost} times already (cluster.max_restarts)")
    if kind == MEMORY:  # with half the windows at a time and twice the accumulation, then by recomputing: the same step
        if micro_batch > 1 and MEMORY not in causes:
            return RetryDecision(True, micro_batch=micro_batch // 2)
        if not checkpointed:
            return RetryDecision(True, checkpointing=True)
        remedy = "take shorter or smaller windows (data.frames, data.height), zero.stage=3, or more workers a trial"
        return RetryDecision(False, remedy=remedy)
    if kind == DISK:  # the sweep does not see quotas or other disks, so the tries are limited
        if causes.count(DISK) < DISK_TRIES:
            return RetryDecision(True, pause=True)
        return RetryDecision(False, remedy="free some space and run the same command again")
    return RetryDecision(False)
