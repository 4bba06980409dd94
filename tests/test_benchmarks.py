"""The benchmark for a GPU runs to its end without one, on the small base."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
