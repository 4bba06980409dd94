"""One sweep through everything that can happen to it: stopped, out of disk, killed, hung; it ends as if nothing had."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from cinelora.core.files import read_json
from tests.launch.test_sweep import checkpoint_step, command, events, results, sweep, wait_for_step

SETTINGS = [
    "lora.rank=4", "+cluster.workers_by_rank={4:2}", "train.steps=220", "train.heldout_every=220",
    "cluster.hang_seconds=15",
]  # fmt: skip


def start(root: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(root, *SETTINGS, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip


def fill_the_disk_under(root: Path, csv: Path) -> None:
    """The log goes to a device without room, until the trial has failed on it."""
    link = csv.with_name("full")
    link.symlink_to("/dev/full")
    kept = shutil.copy(csv, csv.with_name("kept"))
    link.replace(csv)
    wait_for_event(root, "disk_full")
    Path(kept).replace(csv)


def wait_for_event(root: Path, name: str) -> None:
    deadline = time.monotonic() + 200
    while not any(event["event"] == name for event in events(root)):
        assert time.monotonic() < deadline, f"nobody noticed: {name}"
        time.sleep(0.02)


def of_trial(root: Path, trial_id: str) -> list[str]:
    return [event["event"] for event in events(root) if event.get("trial_id") == trial_id]


def test_a_disturbed_sweep_ends_as_if_nothing_had_happened(sweep_root: Path) -> None:
    with start(sweep_root) as driver:  # the largest first: rank 4 on both workers
        step, running = wait_for_step(sweep_root, 30)
        assert len(running["pids"]) == 2
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to everybody
        output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 130, output[-3000:]
    assert "save a checkpoint and leave" in output and "the same command continues" in output
    assert "nothing left to do" not in output
    stopped = running["trial_id"]
    assert checkpoint_step(sweep_root, stopped) >= step, "it saved where it was, not where its interval ended"
    assert of_trial(sweep_root, stopped) == ["started", "stopped"]
    assert not (sweep_root / "sweep/stop").exists()

    csv = sweep_root / "sweep/trials" / stopped / "train.csv"
    with start(sweep_root, "train.checkpoint_every=10") as driver:
        wait_for_step(sweep_root, 60)
        fill_the_disk_under(sweep_root, csv)
        step, running = wait_for_step(sweep_root, 90)
        os.kill(running["pids"][0], signal.SIGKILL)
        assert checkpoint_step(sweep_root, stopped) >= step - 10, "only the steps since its checkpoint are lost"
        wait_for_event(sweep_root, "lost")
        _, running = wait_for_step(sweep_root, 120)
        os.kill(running["pids"][1], signal.SIGSTOP)  # rank 1 of 2: rank 0 waits for it in a collective
        output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output[-3000:]
    faults = ["started", "disk_full", "started", "lost", "started", "hang", "started", "done"]
    assert of_trial(sweep_root, stopped)[2:] == faults
    steps = [int(row.split(",")[0]) for row in csv.read_text().splitlines()[1:]]
    assert steps == list(range(221)), "each step once, none missing"
    found = results(sweep_root)
    assert {key: result["world_size"] for key, result in found.items()} == {(0, 0): 1, (4, 0): 2}
    assert found[4, 0]["restarts"] == 3 and found[4, 0]["steps"] == 220

    quiet = sweep(sweep_root, *SETTINGS, f"study_dir={sweep_root}/quiet")
    assert quiet.returncode == 0, quiet.stderr[-3000:]
    for path in (sweep_root / "quiet/trials").glob("*/result.json"):
        assert_equal(path.parent, sweep_root / "sweep/trials" / path.parent.name)


def assert_equal(trial: Path, other: Path) -> None:
    assert read_json(trial / "result.json")["adapter_sha256"] == read_json(other / "result.json")["adapter_sha256"]
    files = [trial / "clip_scores.csv", *trial.glob("adapter/*"), *trial.glob("samples/*")]
    assert len(files) > 1
    for path in files:
        assert path.read_bytes() == (other / path.relative_to(trial)).read_bytes(), path
