"""`make slurm-test`: docs/clusters/slurm.sh on a real Slurm of two nodes on this machine, with the tiny model.

In: Debian's slurm-wlm and munge, root, the clips of `make fetch`. Out: one line per check; exit status 1 if one fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "clusters" / "slurm.sh"
NO_GPU = ["--gpus-per-node=0", "--cpus-per-task=1"]
SMALL = [
    "model=tiny", "data.frames=9", "data.height=32", "data.width=32", "data.stride=9", "data.heldout_shots=1",
    "train.batch_size=4", "train.heldout_windows=2", "train.checkpoint_every=20", "sample.steps=2", "score.tnv2=",
    "score.mnv2=", "tracking.wandb=off", "frozen_row=false", "lora.rank=4,8", "seed=0", "cluster.workers_per_trial=2",
]  # fmt: skip


@dataclass
class Slurm:
    """Jobs of the script in a folder of their own."""

    folder: Path
    cache: Path
    failed: list[str] = field(default_factory=list)

    def settings(self, study: str, *more: str) -> list[str]:
        cache = self.folder / "cache"
        cache.mkdir(exist_ok=True)
        if not (cache / "clips").exists():
            (cache / "clips").symlink_to(self.cache / "clips")
        return [*SMALL, f"study_dir={self.folder / study}", f"cache_dir={cache}", *more]

    def submit(self, settings: list[str], options: tuple[str, ...] = (), cinelora: str = str(ROOT)) -> int:
        """Number of the submitted job; its output goes to <number>.out."""
        environment = {**os.environ, "CINELORA": cinelora}
        output = f"--output={self.folder}/%j.out"
        command = ["sbatch", "--parsable", output, "--open-mode=append", *NO_GPU, *options, str(SCRIPT), *settings]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, cwd=self.folder)
        return int(done.stdout)

    def state(self, job: int) -> str:
        shown = subprocess.run(["scontrol", "show", "job", "-o", str(job)], capture_output=True, text=True).stdout
        found = re.search(r"JobState=(\w+)", shown)
        return found[1] if found else "GONE"

    def wait(self, job: int, seconds: float = 240) -> str:
        """The job's final state."""
        self.until(lambda: self.state(job) not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), seconds)
        return self.state(job)

    def until(self, holds: Callable[[], bool], seconds: float = 150) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"nothing came of it within {seconds:.0f} s")
            time.sleep(0.3)

    def output(self, job: int) -> str:
        path = self.folder / f"{job}.out"
        return path.read_text() if path.exists() else ""

    def check(self, what: str, holds: bool, seen: str) -> None:
        print(f"{'ok  ' if holds else 'FAIL'} {what}: {seen}", flush=True)
        if not holds:
            self.failed.append(what)

    def trials(self, study: str) -> dict[str, dict[str, Any]]:
        """Results of the finished trials."""
        paths = (self.folder / study / "trials").glob("*/result.json")
        return {path.parent.name: json.loads(path.read_text()) for path in paths}

    def steps(self, study: str) -> int:
        """Largest training step that a running trial reports."""
        found = [json.loads(path.read_text()) for path in (self.folder / study / "trials").glob("*/progress.json")]
        return max((int(progress["done"]) for progress in found if progress.get("stage") == "train"), default=0)


def refusals(slurm: Slurm) -> None:
    """Each mistake ends the job with one line, before Ray starts."""
    locked = slurm.folder / "file"
    locked.write_text("")
    cases = {
        "no CINELORA": (slurm.settings("none"), "", "CINELORA is not set"),
        "CINELORA without .venv": (slurm.settings("none"), "/nowhere", "no .venv/bin/python"),
        "no study_dir": (SMALL, str(ROOT), "study_dir is not set"),
        "wrong study_dir": ([*SMALL, f"study_dir={locked}/study"], str(ROOT), "cannot be written"),
    }
    for what, (settings, cinelora, text) in cases.items():
        job = slurm.submit(settings, ("--nodes=1",), cinelora)
        state, lines = slurm.wait(job, 30), slurm.output(job).strip().splitlines()
        slurm.check(what, state == "FAILED" and len(lines) == 1 and text in lines[0], " / ".join(lines))


def no_gpus(slurm: Slurm) -> None:
    refused = subprocess.run(
        ["sbatch", "--gpus-per-node=8", str(SCRIPT), *slurm.settings("gpu")],
        capture_output=True,
        text=True,
        env={**os.environ, "CINELORA": str(ROOT)},
    )
    lines = refused.stderr.strip().splitlines()
    slurm.check("--gpus on a cluster without GPUs", refused.returncode != 0 and len(lines) == 1, " / ".join(lines))
    job = slurm.submit(slurm.settings("gpu", "cluster=gpu"), ("--nodes=1",))
    slurm.wait(job)
    lines = [line for line in slurm.output(job).splitlines() if line.startswith("cinelora:")]
    slurm.check("no --gpus for a study on GPUs", len(lines) == 1 and "0 GPU" in lines[0], " / ".join(lines))


def time_limit(slurm: Slurm) -> None:
    """The time limit comes in the middle; the same command finishes. A second job on the study meanwhile is refused."""
    settings = slurm.settings("limit", "train.steps=1000")
    first = slurm.submit(settings, ("--nodes=2", "--time=00:02:00", "--signal=B:TERM@30"))
    slurm.until(lambda: slurm.steps("limit") > 0)
    second = slurm.submit(settings, ("--nodes=1",))
    slurm.wait(second)
    lines = [line for line in slurm.output(second).splitlines() if "running here" in line]
    slurm.check("two jobs on one study", len(lines) == 1 and f"Slurm job {first}" in lines[0], " / ".join(lines))
    state = slurm.wait(first)
    done, step = slurm.trials("limit"), slurm.steps("limit")
    saved = [line for line in slurm.output(first).splitlines() if "the same command continues" in line]
    slurm.check(
        "time limit",
        bool(saved) and len(done) < 3,
        f"{state}, {len(done)} of 3 trials done, the next at step {step}, {saved}",
    )
    again = slurm.submit(settings, ("--nodes=2",))
    state = slurm.wait(again)
    runs = [
        json.loads(path.read_text())["runs"] for path in (slurm.folder / "limit" / "trials").glob("*/provenance.json")
    ]
    resumed = [each for each in runs if len(each) > 1]
    slurm.check(
        "submitted again",
        state == "COMPLETED" and len(slurm.trials("limit")) == 3 and bool(resumed),
        f"{state}, {len(slurm.trials('limit'))} of 3 trials done, {len(resumed)} continued from a checkpoint",
    )


def cancel_and_requeue(slurm: Slurm) -> None:
    """scancel, then the same command, then a requeue in the middle of it: all trials are done at the end."""
    settings = slurm.settings("cancel", "train.steps=400")
    first = slurm.submit(settings, ("--nodes=2",))
    slurm.until(lambda: slurm.steps("cancel") > 0)
    subprocess.run(["scancel", str(first)], check=True)
    state = slurm.wait(first)
    slurm.check("scancel", state == "CANCELLED", f"{state}, {len(slurm.trials('cancel'))} of 3 trials done")
    second = slurm.submit(settings, ("--nodes=2",))
    slurm.until(lambda: " train " in slurm.output(second))
    subprocess.run(["scontrol", "requeue", str(second)], check=True)
    state = slurm.wait(second)
    slurm.check(
        "requeue",
        state == "COMPLETED" and len(slurm.trials("cancel")) == 3,
        f"{state}, {len(slurm.trials('cancel'))} of 3 trials done",
    )


def one_trial(slurm: Slurm) -> None:
    """One trial on one node by plain sbatch, as docs/cluster.md shows it."""
    job = slurm.submit(
        slurm.settings("one", "train.steps=20", "lora.rank=4", "cluster.workers_per_trial=1"), ("--nodes=1",)
    )
    state = slurm.wait(job)
    slurm.check("one node", state == "COMPLETED", f"{state}, {len(slurm.trials('one'))} trials done")


CHECKS = {
    "refusals": refusals,
    "no_gpus": no_gpus,
    "one_trial": one_trial,
    "time_limit": time_limit,
    "cancel_and_requeue": cancel_and_requeue,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", default=str(ROOT / ".cache"), help="cache folder of `make fetch`")
    parser.add_argument("checks", nargs="*", choices=[[], *CHECKS], help="all of them without a name")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    two_nodes = str(Path(__file__).with_name("two_nodes.sh"))
    subprocess.run([two_nodes, "up", str(folder / "slurm")], check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm" / "slurm.conf")
    slurm = Slurm(folder, Path(options.cache).resolve())
    try:
        for name in options.checks or CHECKS:
            CHECKS[name](slurm)
    finally:
        subprocess.run(["scancel", "--user=root"], check=False)
        slurm.until(lambda: not subprocess.run(["squeue", "-h"], capture_output=True).stdout.strip(), 60)
        subprocess.run([two_nodes, "down", str(folder / "slurm")], check=False)
    if slurm.failed:
        print(f"{len(slurm.failed)} failed; outputs and logs: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print("the Slurm script holds")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
