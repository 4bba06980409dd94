"""What an error of a trial means, and what follows: try again, try again otherwise, wait, or give up.

In: the class of a failure and what happened to the trial before. Out: a RetryDecision. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LOST, HANG, MEMORY, DISK = "lost", "hang", "out_of_memory", "disk_full"
FIRST = "first_failed"  # the trial that it was to start from
DISK_TRIES = 5  # of one trial


@dataclass(frozen=True)
class RetryDecision:
    """`again`: back into the queue, from the last checkpoint; else the trial failed, and `remedy` says what helps."""

    again: bool
    elsewhere: bool = False  # not on the nodes where it ran, if there is another way
    micro_batch: int | None = None  # run it with this one
    pause: bool = False  # start nothing until there is room on the disk
    remedy: str = ""


@dataclass(frozen=True)
class History:
    """What is known of a trial when it fails: the classes of its earlier failures, its sizes, the sweep's patience."""

    causes: tuple[str, ...]
    micro_batch: int
    max_restarts: int


def decide_retry(kind: str, history: History) -> RetryDecision:
    """The rule of this class; an error that no class knows is final."""
    return RULES.get(kind, _give_up)(history)


def _give_up(history: History) -> RetryDecision:
    return RetryDecision(False)


def _moved(history: History) -> RetryDecision:
    """A process, a node or the connection went away: not the trial's fault."""
    suffered = sum(cause in (LOST, HANG) for cause in history.causes)
    if suffered < history.max_restarts:
        return RetryDecision(True, elsewhere=True)
    return RetryDecision(False, remedy=f"restarted {suffered} times already (cluster.max_restarts)")


def _smaller(history: History) -> RetryDecision:
    """Once, with half the windows at a time and twice the accumulation: the same optimiser step."""
    if history.micro_batch > 1 and MEMORY not in history.causes:
        return RetryDecision(True, micro_batch=history.micro_batch // 2)
    return RetryDecision(
        False, remedy="take train.gradient_checkpointing=true, a smaller train.micro_batch, or more workers a trial"
    )


def _wait(history: History) -> RetryDecision:
    """Until the driver sees room again. A quota, or another disk, it does not see: so not for ever."""
    again = history.causes.count(DISK) < DISK_TRIES
    return RetryDecision(again, pause=again, remedy="" if again else "free some space and run the same command again")


RULES: dict[str, Callable[[History], RetryDecision]] = {LOST: _moved, HANG: _moved, MEMORY: _smaller, DISK: _wait}
