"""Overhead of a trial on a warm gang: all its time that is not training, generating or scoring.

    python -m benchmarks.overhead            (or `make bench`)

In: nothing; it runs 8 tiny trials through Hydra, Ray and DeepSpeed in a temporary study. Out: one line per
trial and the median over warm trials (the first on each gang pays for imports' first use). The time of a
trial is taken between the driver's `started` and `done` events, so placement, calls, polling, loading the
adapter, checkpoints, hashes, W&B and writing results all count.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cinelora.core.files import read_json
from cinelora.data.video import write_mp4


def clips(folder: Path) -> Path:
    """Three short real files of moving noise; what they show does not matter here."""
    import numpy as np

    rows = ["video,prompt"]
    for index in range(3):
        frames = np.random.default_rng(index).integers(0, 255, (18, 32, 32, 3), dtype=np.uint8)
        write_mp4(folder / f"clip{index}.mp4", frames, 16)
        rows.append(f"clip{index}.mp4,noise number {index}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def run(root: Path, stage: int) -> list[tuple[str, int, float, float]]:
    """[(trial id, pid, seconds between start and end, overhead)] of 7 adapters and the base."""
    study = root / f"stage{stage}"
    settings = [
        f"data.path={clips(root / 'clips')}", f"cache_dir={root}/cache", f"study_dir={study}", f"zero.stage={stage}",
        "model=tiny", "data.frames=9", "data.height=32", "data.width=32", "data.stride=9", "data.heldout_shots=1",
        "train.steps=20", "train.heldout_every=10", "sample.steps=2", "score.tnv2=", "score.mnv2=", "frozen_row=false",
        "lora.rank=1,2,4,8,16,32,64", "cluster.cpus_per_worker=2",
    ]  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "launch.sweep", *settings], check=True, stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    events = [json.loads(line) for line in (study / "events.jsonl").read_text().splitlines()]
    rows = []
    for event in events:
        if event["event"] == "started":
            end = next(e for e in events if e["event"] == "done" and e["trial_id"] == event["trial_id"])
            seconds = read_json(study / "trials" / event["trial_id"] / "result.json")["seconds"]
            whole = end["time"] - event["time"]
            work = sum(seconds[part] for part in ("train", "evaluate", "generate", "score"))
            rows.append((event["trial_id"], event["pids"][0], whole, whole - work))
    return rows


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        for stage in (0, 2):
            rows = run(Path(folder), stage)
            for trial_id, pid, whole, overhead in rows:
                print(f"  ZeRO {stage}  {trial_id}  pid {pid}  {whole:6.2f} s, of which overhead {overhead:5.2f} s")
            warm = [overhead for _, _, _, overhead in rows[1:]]
            print(f"ZeRO {stage}: warm trial overhead median {statistics.median(warm):.2f} s, max {max(warm):.2f} s")


if __name__ == "__main__":
    main()
