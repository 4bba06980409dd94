"""The benchmark for a GPU runs to its end without one, on the small base; simulated rounds have the rule."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.power.rounds import look_levels
from analysis.statistics.answer import ENOUGH, OPEN, WORSE, answer_of
from benchmarks import rounds
from sweeps.ledger import SHARE
from sweeps.looks import Level

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_gpu_benchmark_at_small_size() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--frames", "5", "--ranks", "2", "4", "--steps", "1", "--rounds", "1"],
        capture_output=True, text=True, cwd=ROOT, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| 5 ")]
    assert [row[:2] for row in rows[:2]] == [[" 5 ", " 2 "], [" 5 ", " 4 "]] and len(rows) == 6
    assert [row[:2] for row in rows[3:5]] == [row[:2] for row in rows[:2]], "eager, then fast"
    assert all(float(row[2]) > 0 for row in rows[:2]), "a step was timed"
    assert rows[0][6].strip() == "-", "no device, no device memory"
    pairs = [line.split("|")[1:-1] for line in done.stdout.splitlines() if "5 frames" in line]
    assert [row[0].strip() for row in pairs] == ["eager, 5 frames", "fast, 5 frames"]
    assert all(float(row[3].strip(" *")) > 0 for row in pairs), "a ratio to the plain loop"


def test_simulated_rounds_have_the_rule_of_the_answer() -> None:
    """The verdicts that `benchmarks.rounds` computes for all studies at once are those of the analysis."""
    shares, level = rounds.KINDS["flat after 16"], Level(0.02, 0.004)
    values = rounds.gains(rounds.QUICK, shares, 6, 3, rounds.CLIPS)
    above, below = rounds.contrasts(values, level)
    shots, verdicts = [str(clip) for clip in range(rounds.CLIPS)], set()
    for study, found in zip(values, zip(above, below, strict=True), strict=True):
        gains = dict(zip(rounds.RANKS, study, strict=True))
        answer = answer_of(rounds.SCORE, "", gains, shots, SHARE, level)
        for rank, up, down in zip(answer.ranks, *found, strict=True):
            assert rank.verdict == (ENOUGH if up.all() else WORSE if down.any() else OPEN)
            verdicts.add(rank.verdict)
    assert {WORSE, OPEN} <= verdicts
    ended = rounds.ended("peak at 16", (3, 4), look_levels((3, 4), 6), 40)
    assert ended.found > 0.9 and 18 < ended.runs < 24 and ended.false == 0
