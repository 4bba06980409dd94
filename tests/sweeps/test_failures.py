"""Which failures are retried, and how."""

from __future__ import annotations

import pytest

from cinelora.core.config import Checkpointing, TrainConfig
from sweeps.failures import DISK, DISK_TRIES, HANG, LOST, MEMORY, RetryDecision, decide_retry


def after(kind: str, *causes: str, micro_batch: int = 8, checkpointed: bool = True) -> RetryDecision:
    return decide_retry(kind, causes, micro_batch, checkpointed, max_restarts=3)


@pytest.mark.parametrize("kind", ["user", "diverged", "error", "of no known class"])
def test_what_would_fail_again_is_final(kind: str) -> None:
    assert not after(kind).retry


def test_lost_and_hung_trials_move_until_max_restarts() -> None:
    for kind in (LOST, HANG):
        assert after(kind, LOST, HANG).retry and after(kind).elsewhere
        last = after(kind, LOST, HANG, LOST)
        assert not last.retry and "cluster.max_restarts" in last.remedy
    assert after(LOST, MEMORY, DISK, LOST, LOST).retry, "only losses count against max_restarts"


def test_memory_is_halved_once() -> None:
    assert after(MEMORY).micro_batch == 4 and after(MEMORY, LOST).retry
    assert not after(MEMORY, MEMORY).retry and not after(MEMORY, micro_batch=1).retry
    assert "zero.stage=3" in after(MEMORY, micro_batch=1).remedy


def test_memory_is_then_saved_by_recomputing() -> None:
    last = after(MEMORY, MEMORY, checkpointed=False)
    assert last.retry and last.changes == {"checkpointing": Checkpointing.all, "checkpointed_blocks": 0}
    assert after(MEMORY, micro_batch=1, checkpointed=False).checkpointing
    assert after(MEMORY, checkpointed=False).changes == {"micro_batch": 4}


@pytest.mark.parametrize("groups, setting, used", [(2, 8, 4), (2, 4, 4), (2, 2, 2), (1, 8, 8), (8, 8, 1), (1, 3, 2)])
def test_what_is_halved_is_the_batch_in_use(groups: int, setting: int, used: int) -> None:
    assert TrainConfig(batch_size=8, micro_batch=setting).windows_at_once(groups) == used


def test_a_full_disk_pauses_a_limited_number_of_times() -> None:
    assert after(DISK).pause and after(DISK).retry
    last = after(DISK, *[DISK] * DISK_TRIES)
    assert not last.retry and not last.pause and "free some space" in last.remedy
