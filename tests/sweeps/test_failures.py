"""Which failures are retried, and how."""

from __future__ import annotations

import pytest

from sweeps.failures import DISK, DISK_TRIES, HANG, LOST, MEMORY, RetryDecision, decide_retry


def after(kind: str, *causes: str, micro_batch: int = 8) -> RetryDecision:
    return decide_retry(kind, causes, micro_batch, max_restarts=3)


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
    assert "gradient_checkpointing" in after(MEMORY, micro_batch=1).remedy


def test_a_full_disk_pauses_a_limited_number_of_times() -> None:
    assert after(DISK).pause and after(DISK).retry
    last = after(DISK, *[DISK] * DISK_TRIES)
    assert not last.retry and not last.pause and "free some space" in last.remedy
