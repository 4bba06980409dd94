"""Does a process grow from trial to trial? Fifty tiny trials on one worker, ranks in turn, for each ZeRO stage.

    python -m benchmarks.leak [--trials 50] [--stages 0,1,2,3]

In: nothing; trials, encodings and clips are made in a temporary folder. Out: per stage the resident memory after the
first and the last trial, and the slope over all but the first five, after garbage collection and with the allocator's
free pages given back. Target: below 2 MB a trial in stages 0 to 2.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

RANKS = (4, 8, 16, 32, 64)
SETTLED = 5  # trials until caches and allocators have found their size
TARGET_MB = 2.0


def resident_mb() -> float:
    """Of this process, after it has given back what it can."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope(values: list[float]) -> float:
    """Growth a trial by least squares, without the first SETTLED."""
    settled = values[SETTLED:]
    return float(np.polyfit(np.arange(len(settled)), settled, 1)[0])


def grow(root: Path, stage: int, trials: int) -> list[float]:
    """Resident memory after each trial on one base."""
    from cinelora.trial.resident import load_resident_model
    from tests import tiny_study

    clips = tiny_study.write_clips(root / "clips")
    base, found = None, []
    for index in range(trials):
        rank, seed = RANKS[index % len(RANKS)], index
        config = tiny_study.tiny_config(clips, zero__stage=stage, lora__rank=rank, seed=seed)
        job = tiny_study.make_job(root, config, encode=index == 0)
        base = base or load_resident_model(job)
        tiny_study.run(job, base)
        shutil.rmtree(job.study.root)
        found.append(resident_mb())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leak")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--stages", default="0,1,2,3")
    parser.add_argument("--alone", action="store_true", help="one stage, in this process")
    options = parser.parse_args()
    stages = [int(stage) for stage in options.stages.split(",")]
    if not options.alone:  # a process a stage: what one leaves behind must not count for the next
        print(
            f"{platform.machine()}, Python {platform.python_version()}, {options.trials} trials, ranks {RANKS} in turn"
        )
        command = [sys.executable, "-m", "benchmarks.leak", "--alone", "--trials", str(options.trials), "--stages"]
        return max(subprocess.run([*command, str(stage)]).returncode for stage in stages)
    with tempfile.TemporaryDirectory() as folder:
        found = grow(Path(folder), stages[0], options.trials)
    growth = slope(found)
    ok = stages[0] == 3 or growth < TARGET_MB
    ends = f"{found[0]:.0f} MB after the first trial, {found[-1]:.0f} after the last"
    print(f"ZeRO {stages[0]}: {ends}, {growth:+.2f} MB a trial")
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
