"""Disturb a sweep in every way we know, at random moments, and see that its tables come out as if nothing had happened.

    python -m benchmarks.chaos --faults 60 --seed 0            (or `make chaos`; half an hour on 2 cores)

In: nothing; a Ray of two nodes is started here, with real trials of the tiny model, alone and in gangs of two.
Out: a line per fault, then what was checked; exit status 1 if a finished result was lost or made twice, or a table
differs.
When a sweep ends before all faults are spent, seeds are added to the same study.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from benchmarks.overhead import clips
from cinelora.core.files import file_sha256
from cinelora.core.paths import StudyFolder
from sweeps.ledger import Ledger
from sweeps.status import RUNNING, TrialStatus, study_status

SETTINGS = [
    "model=tiny", "data.frames=9", "data.height=32", "data.width=32", "data.stride=9", "data.heldout_shots=1",
    "train.steps=250", "train.batch_size=4", "train.checkpoint_every=20", "train.heldout_every=50", "sample.steps=4",
    "sample.batch_size=1", "score.tnv2=", "score.mnv2=", "tracking.wandb=off", "frozen_row=false", "lora.rank=2,4",
    "+cluster.workers_by_rank={4:2}", "cluster.max_restarts=1000", "cluster.hang_seconds=30",
]  # fmt: skip
TABLES = ("scores.csv", "differences.csv")
MEASURED = ("s_per_step", "seconds", "memory")  # columns that no two runs share
PAUSE = (2.0, 8.0)  # seconds between faults


@dataclass
class Chaos:
    """The sweep under attack. `seen`: content of every finished result when it was first seen."""

    root: Path
    cluster: Any
    dice: random.Random
    seeds: int = 1
    driver: subprocess.Popen[bytes] | None = None
    nodes: list[Any] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        return Ledger(StudyFolder(self.root / "study"))

    def command(self, study: str, address: str) -> list[str]:
        places = [f"data.path={self.root}/clips", f"cache_dir={self.root}/cache", f"study_dir={self.root}/{study}"]
        seeds = ",".join(map(str, range(self.seeds)))
        return [sys.executable, "-m", "launch.sweep", *places, *SETTINGS, f"seed={seeds}", f"cluster.address={address}"]

    def start(self) -> None:
        """A driver, in its own process group so that a signal to it reaches nobody else."""
        with open(self.root / "driver.log", "ab") as log:
            self.driver = subprocess.Popen(
                self.command("study", self.cluster.address), stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def running(self) -> list[tuple[TrialStatus, list[int]]]:
        """Trials that run now, with the processes of their gangs."""
        folder = self.ledger.folder
        if not folder.plan.exists():
            return []
        pids = {e["trial_id"]: e["pids"] for e in events(folder) if e["event"] == "started"}
        found = [trial for trial in study_status(self.ledger).trials if trial.state == RUNNING]
        return [(trial, pids[trial.spec.trial_id]) for trial in found if trial.progress]

    def watch(self) -> None:
        """Remember each finished result, and that it never changes."""
        for path in (self.root / "study" / "trials").glob("*/result.json"):
            digest = file_sha256(path)
            if self.seen.setdefault(path.parent.name, digest) != digest:
                self.broken.append(f"{path.parent.name}: its result was made twice")
                self.seen[path.parent.name] = digest


def events(folder: StudyFolder) -> list[dict[str, Any]]:
    found = []
    for line in folder.events.read_text().splitlines() if folder.events.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # a driver was killed in the middle of it
    return found


def send(pids: list[int], number: signal.Signals) -> bool:
    hit = False
    for pid in pids:
        try:
            os.kill(pid, number)
            hit = True
        except ProcessLookupError:
            continue
    return hit


def kill_rank(chaos: Chaos) -> bool:
    running = chaos.running()
    return bool(running) and send([chaos.dice.choice(chaos.dice.choice(running)[1])], signal.SIGKILL)


def kill_gang(chaos: Chaos) -> bool:
    running = chaos.running()
    return bool(running) and send(chaos.dice.choice(running)[1], signal.SIGKILL)


def freeze_rank(chaos: Chaos) -> bool:
    """It stays in its collective, alive and silent."""
    running = chaos.running()
    return bool(running) and send([chaos.dice.choice(chaos.dice.choice(running)[1])], signal.SIGSTOP)


def lose_node(chaos: Chaos) -> bool:
    """kill -9 of its raylet and all that hangs on it; another node comes later."""
    if not chaos.running():
        return False
    chaos.cluster.remove_node(chaos.nodes.pop(chaos.dice.randrange(len(chaos.nodes))), allow_graceful=False)
    time.sleep(chaos.dice.uniform(0, 6))
    chaos.nodes.append(chaos.cluster.add_node(num_cpus=1))
    return True


def kill_driver(chaos: Chaos) -> bool:
    """Mostly while trials run: else half of the faults would hit drivers that only just begin."""
    if chaos.driver is None or chaos.driver.poll() is not None or not (chaos.running() or chaos.dice.random() < 0.2):
        return False
    return send([chaos.driver.pid], signal.SIGKILL)


def interrupt(chaos: Chaos) -> bool:
    """Ctrl-C, once or twice."""
    if chaos.driver is None or not chaos.running() or not send([chaos.driver.pid], signal.SIGINT):
        return False
    if chaos.dice.random() < 0.3:
        time.sleep(0.5)
        send([chaos.driver.pid], signal.SIGINT)
    return True


def leave_rubbish(chaos: Chaos) -> bool:
    """What a killed writer leaves: temporary files with half a content."""
    running = chaos.running()
    if not running:
        return False
    folder = chaos.ledger.folder.trial(chaos.dice.choice(running)[0].spec.trial_id)
    for path in (folder.result, folder.checkpoints / "step-0000249.safetensors", folder.part(0), folder.clip_scores):
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / f".{path.stem}.zz.tmp{path.suffix}").write_bytes(b'{"trial_id": "')
    return True


def fill_disk(chaos: Chaos) -> bool:
    """A training trial's log goes to a device without room until the trial has failed on it."""
    training = [t for t, _ in chaos.running() if t.progress and t.progress["stage"] == "train"]
    training = [trial for trial in training if trial.progress and 20 < trial.progress["done"] < 150]
    if not training:
        return False
    folder, before = chaos.ledger.folder, count(chaos, "disk_full")
    log = folder.trial(chaos.dice.choice(training).spec.trial_id).train_csv
    kept, link = shutil.copy(log, log.with_name("kept")), log.with_name("full")
    link.unlink(missing_ok=True)
    link.symlink_to("/dev/full")
    link.replace(log)
    deadline = time.monotonic() + 10
    while count(chaos, "disk_full") == before and time.monotonic() < deadline:
        time.sleep(0.05)
    Path(kept).replace(log)
    return count(chaos, "disk_full") > before


def count(chaos: Chaos, name: str) -> int:
    return sum(event["event"] == name for event in events(chaos.ledger.folder))


FAULTS: dict[str, Callable[[Chaos], bool]] = {
    "rank killed": kill_rank,
    "gang killed": kill_gang,
    "rank frozen": freeze_rank,
    "node lost": lose_node,
    "driver killed": kill_driver,
    "Ctrl-C": interrupt,
    "half-written files": leave_rubbish,
    "disk full": fill_disk,
}


def attack(chaos: Chaos, faults: int, minutes: float) -> Counter[str]:
    """Spend the faults while drivers come and go; the last driver ends undisturbed."""
    spent, deadline = Counter[str](), time.monotonic() + 60 * minutes
    names = list(FAULTS)
    chaos.start()
    while True:
        assert chaos.driver is not None
        if chaos.driver.poll() is not None:
            if chaos.driver.returncode == 0 and spent.total() >= faults:
                return spent
            chaos.seeds += chaos.driver.returncode == 0
            chaos.start()
        if time.monotonic() > deadline:
            raise SystemExit(f"not done within {minutes:g} minutes; {spent.total()} faults; {chaos.root}/driver.log")
        time.sleep(chaos.dice.uniform(*PAUSE) if spent.total() < faults else 1.0)
        if spent.total() < faults:
            name = chaos.dice.choice(names)
            if FAULTS[name](chaos):
                spent[name] += 1
                print(f"{spent.total():3}  {name}", flush=True)


def compare(chaos: Chaos) -> list[str]:
    """The same grid in peace, in another study; every difference, one line each."""
    peace = chaos.command("peace", "")
    subprocess.run(peace, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = list(chaos.broken)
    for study in ("study", "peace"):
        command = [sys.executable, "-m", "analysis.report", str(chaos.root / study)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    one, other = chaos.root / "study", chaos.root / "peace"
    for path in sorted(other.glob("trials/*/*")):
        twin = one / path.relative_to(other)
        if path.name in ("clip_scores.csv", "adapter") and not alike(path, twin):
            found.append(f"{path.relative_to(other)} differs")
    found += [f"report/{name} differs" for name in TABLES if not alike(one / "report" / name, other / "report" / name)]
    if table(one / "report/rank_table.csv") != table(other / "report/rank_table.csv"):
        found.append("report/rank_table.csv differs")
    again = [e["trial_id"] for e in events(chaos.ledger.folder) if e["event"] == "done"]
    found += [f"{trial}: done {n} times" for trial, n in Counter(again).items() if n > 1]
    return found


def alike(path: Path, twin: Path) -> bool:
    if path.is_dir():
        return all(alike(item, twin / item.name) for item in path.iterdir())
    return twin.exists() and path.read_bytes() == twin.read_bytes()


def table(path: Path) -> list[dict[str, str]]:
    """The rank table without what a clock or a memory gauge measured."""
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{k: v for k, v in row.items() if not any(word in k for word in MEASURED)} for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        chaos = Chaos(Path(folder), cluster, random.Random(options.seed))
        chaos.nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        clips(chaos.root / "clips")
        over = threading.Event()
        watcher = threading.Thread(target=watch_until, args=(chaos, over))
        watcher.start()
        started = time.monotonic()
        try:
            spent = attack(chaos, options.faults, options.minutes)
        finally:
            over.set()
            watcher.join()
            if chaos.driver is not None and chaos.driver.poll() is None:
                chaos.driver.kill()
            cluster.shutdown()
        took = time.monotonic() - started
        found = compare(chaos)
        named = ", ".join(f"{n} {name}" for name, n in sorted(spent.items()))
        print(f"{spent.total()} faults in {took / 60:.1f} minutes ({named}), seed {options.seed}")
        print(f"{len(chaos.seen)} trials finished, each result as it was first seen: {'no' if chaos.broken else 'yes'}")
        print(*(found or ["adapters, scores and tables equal byte for byte to the undisturbed study"]), sep="\n")
    return 1 if found else 0


def watch_until(chaos: Chaos, over: threading.Event) -> None:
    while not over.wait(0.2):
        chaos.watch()


if __name__ == "__main__":
    raise SystemExit(main())
