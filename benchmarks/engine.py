"""The same 12 small trials through us, through Ray Tune with a TorchTrainer, and through hydra-ray-launcher: one run.

    python -m benchmarks.engine [--trials 12]

In: nothing; what the others need comes from pip into a temporary folder for this run. Out: per launcher the wall time
from the start of its process to its end, and the overhead of a trial: the time that it holds its place, less what it
trains, evaluates, generates and scores. Ours goes first and pays for encoding the clips; the others find it done. All
run two trials at a time, one process each, W&B off. Targets: our overhead at most 1/15 of Tune's, our wall time at
most 0.4 of the better of the two. Exit status 1 where adapters differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.overhead import clips
from cinelora.core.files import read_json

PACKAGES = ("hydra-ray-launcher==1.2.2", "pyarrow==21.0.0", "tensorboardX==2.6.4")  # the last two: of ray[train]
WORK = ("train", "evaluate", "generate", "score")
SETTINGS = [
    "model=tiny", "data.frames=9", "data.height=32", "data.width=32", "data.stride=9", "data.heldout_shots=1",
    "train.steps=20", "train.heldout_every=10", "sample.steps=2", "score.tnv2=", "score.mnv2=", "tracking.wandb=off",
    "frozen_row=false",
]  # fmt: skip
Slots = dict[str, tuple[float, float]]  # trial: when it took its place, when it gave it back


def ours(root: Path, count: int) -> Slots:
    seeds = ",".join(map(str, range(count)))
    call(["-m", "launch.sweep", f"data.path={clips(root / 'clips')}", f"cache_dir={root}/cache",
          f"study_dir={root}/ours", *SETTINGS, "lora.rank=4", f"seed={seeds}"])  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    for line in (root / "ours" / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] in ("started", "done"):
            found.setdefault(event["trial_id"], {})[event["event"]] = event["time"]
    return {trial: (times["started"], times["done"]) for trial, times in found.items()}


def tune(root: Path, count: int) -> Slots:
    folders = copies(root, "tune")
    call(["-m", "benchmarks.peers", "tune", str(root / "cache"), *folders], packages(root))
    return slots(folders)


def hydra_ray(root: Path, count: int) -> Slots:
    folders = copies(root, "hydra_ray")
    settings = ("init.address=local", "init.num_cpus=2", "remote.num_cpus=1")
    launcher = ["hydra/launcher=ray", *(f"++hydra.launcher.ray.{setting}" for setting in settings)]
    trials = [f"hydra.sweep.dir={root}/hydra", f"+cache={root}/cache", f"+trial={','.join(folders)}"]
    call(["-m", "benchmarks.peers", "--multirun", *launcher, *trials], packages(root))
    return slots(folders)


def packages(root: Path) -> dict[str, str]:
    """A separate environment with the other launchers. Raises CalledProcessError if pip fails."""
    target = root / "packages"
    if not target.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), *PACKAGES]
        subprocess.run(pip, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"PYTHONPATH": f"{Path.cwd()}:{target}"}


def call(arguments: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])


def copies(root: Path, name: str) -> list[str]:
    """Our trials' specs in another study, without what came of them."""
    found = []
    for spec in sorted((root / "ours" / "trials").glob("*/spec.json")):
        folder = root / name / "trials" / spec.parent.name
        folder.mkdir(parents=True)
        shutil.copy(spec, folder)
        found.append(str(folder))
    return found


def slots(folders: list[str]) -> Slots:
    found = {Path(folder).name: read_json(Path(folder) / "slot.json") for folder in folders}
    return {trial: (slot["started"], slot["ended"]) for trial, slot in found.items()}


def overhead(study: Path, of_trials: Slots) -> list[float]:
    """Seconds of each trial that are not its work."""
    worked = {trial: read_json(study / "trials" / trial / "result.json")["seconds"] for trial in of_trials}
    return [end - start - sum(worked[trial][part] for part in WORK) for trial, (start, end) in of_trials.items()]


LAUNCHERS: dict[str, Callable[[Path, int], Slots]] = {"ours": ours, "tune": tune, "hydra_ray": hydra_ray}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine")
    parser.add_argument("--trials", type=int, default=12)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}")
    walls, costs, adapters = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, launch in LAUNCHERS.items():
            try:
                packages(root)
                started = time.monotonic()
                of_trials = launch(root, options.trials - 1)  # the base is one of ours
            except (RuntimeError, subprocess.CalledProcessError) as error:
                print(f"{name:10} n/a: {error}")
                continue
            walls[name], costs[name] = time.monotonic() - started, statistics.median(overhead(root / name, of_trials))
            results = (root / name).glob("trials/*/result.json")
            adapters[name] = {path.parent.name: read_json(path)["adapter_sha256"] for path in results}
            print(f"{name:10} {len(of_trials)} trials in {walls[name]:6.1f} s, overhead a trial {costs[name]:6.2f} s")
    same = all(found == adapters["ours"] for found in adapters.values())
    if "tune" in costs:
        print(f"overhead: ours is 1/{costs['tune'] / costs['ours']:.0f} of Tune's (target 1/15)")
    if len(walls) > 1:
        best = min(seconds for name, seconds in walls.items() if name != "ours")
        print(f"wall time: ours is {walls['ours'] / best:.2f} of the better of the others (target 0.4)")
    print("adapters equal byte for byte" if same else "ADAPTERS DIFFER")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
