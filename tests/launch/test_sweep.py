"""Real sweeps through the command line: Hydra, Ray, DeepSpeed, the ledger. Small, on this machine alone."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from cinelora.core.files import read_json
from cinelora.core.paths import StudyFolder
from launch.launcher import report
from sweeps.ledger import Ledger
from sweeps.plan import Plan
from tests import tiny_study

SMALL = [
    "model=tiny",
    "data.frames=9", "data.height=32", "data.width=32", "data.stride=9", "data.heldout_shots=1", "data.split_seed=0",
    "train.steps=6", "train.batch_size=4", "train.heldout_every=3", "train.heldout_windows=2", "sample.steps=2",
    "score.tnv2=", "score.mnv2=", "tracking.wandb=off", "frozen_row=false",
]  # fmt: skip


def command(root: Path, *overrides: str) -> list[str]:
    places = [f"cache_dir={root}/cache", f"study_dir={root}/sweep", f"data.path={root}/clips"]
    return [sys.executable, "-m", "launch.sweep", "--multirun", *places, *SMALL, *overrides]


def sweep(root: Path, *overrides: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command(root, *overrides), capture_output=True, text=True, timeout=timeout, env=environment)


def results(root: Path) -> dict[tuple[int, int], dict[str, Any]]:
    found = [read_json(path) for path in (root / "sweep" / "trials").glob("*/result.json")]
    return {(r["rank"], r["seed"]): r for r in found}


def events(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "sweep" / "events.jsonl").read_text().splitlines()]


def test_sweep_resumes_equals_fresh_processes_and_a_failed_trial_leaves_the_others_alone(tmp_path: Path) -> None:
    tiny_study.write_clips(tmp_path / "clips")
    first = sweep(tmp_path, "lora.rank=2,4", "seed=0", "cluster.cpus_per_worker=2")  # one gang: the last trial is warm
    assert first.returncode == 0, first.stderr[-3000:]
    assert set(results(tmp_path)) == {(0, 0), (2, 0), (4, 0)}
    pids = {tuple(e["pids"]) for e in events(tmp_path) if e["event"] == "started"}
    assert len(pids) == 1, "all three trials ran on one warm gang"

    warm = results(tmp_path)[4, 0]
    fresh = tmp_path / "fresh" / "trials" / warm["trial_id"]
    fresh.mkdir(parents=True)
    (fresh / "spec.json").write_bytes((tmp_path / "sweep" / "trials" / warm["trial_id"] / "spec.json").read_bytes())
    alone = subprocess.run(
        [sys.executable, "-m", "cinelora.trial", str(fresh), "--cache", str(tmp_path / "cache")],
        capture_output=True, text=True, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr[-3000:]
    other = read_json(fresh / "result.json")
    assert other["adapter_sha256"] == warm["adapter_sha256"] and other["heldout_loss"] == warm["heldout_loss"]
    for clip in (fresh / "samples").iterdir():
        twin = tmp_path / "sweep/trials" / warm["trial_id"] / "samples" / clip.name
        assert clip.read_bytes() == twin.read_bytes()

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep/trials").glob("*/result.json")}
    fails = 'extra=["arm=too_fast lora.rank=2 seed=0 train.learning_rate=1e30"]'
    again = sweep(tmp_path, "lora.rank=2,4", "seed=0,1", "cluster.cpus_per_worker=2", fails)
    assert again.returncode == 1, again.stdout[-2000:] + again.stderr[-2000:]
    assert "6 trials: 3 done, 3 to run" in again.stdout
    assert_one_failed(tmp_path, again)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()), "a finished trial was run again"
    assert set(results(tmp_path)) == {(0, 0), (2, 0), (4, 0), (2, 1), (4, 1)}
    assert results(tmp_path)[2, 0]["adapter_sha256"] != results(tmp_path)[2, 1]["adapter_sha256"]
    nothing = sweep(tmp_path, "lora.rank=2,4", "seed=0,1")
    assert "nothing left to do: 5 of 5" in nothing.stdout and "encoding" not in nothing.stdout


def assert_one_failed(root: Path, done: subprocess.CompletedProcess[str]) -> None:
    """The sweep names the trial and its reason, and how to mend it; the traceback is in the trial's log alone."""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert "lr 1e+30" in line and "NonFiniteLoss: step" in line and "lower train.learning_rate" in line
    (failed,) = (root / "sweep" / "trials").glob("*/failed.json")
    assert read_json(failed)["kind"] == "diverged"
    assert "NonFiniteLoss" in (failed.parent / "logs" / "worker-0.log").read_text()


def wait_for_step(root: Path, wanted: int) -> tuple[int, dict[str, Any]]:
    """(step, start event) of the adapter's trial once it has trained `wanted` steps."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if not (root / "sweep" / "events.jsonl").exists():
            continue
        last = {event["trial_id"]: event for event in events(root) if "trial_id" in event}
        for trial_id, event in last.items():
            path = root / "sweep" / "trials" / trial_id / "progress.json"
            # Neither a trial that was lost nor what it had written before it started again.
            if event["event"] == "started" and path.exists() and path.stat().st_mtime > event["time"]:
                note = read_json(path)
                if note["stage"] == "train" and note["done"] >= wanted:
                    return note["done"], event
    raise AssertionError("the trial did not start training")


def checkpoint_step(root: Path, trial_id: str) -> int:
    (path,) = (root / "sweep" / "trials" / trial_id / "checkpoints").glob("step-*.safetensors")
    return int(path.stem.removeprefix("step-"))


BAD = {
    "lora.rank=0": "lora.rank=0: must be 1 or more",
    "lora.rank=-4": "lora.rank=-4: must be 1 or more",
    "lora.targets=everything": "everything",
    "lora.rnk=4": "lora.rnk: unknown setting; did you mean lora.rank?",
    "data.height=40": "data.height=40: must be a multiple of 16; nearest is 32",
    "data.frames=10": "data.frames=10: must be 4n+1; nearest is 9",
    "data.heldout_shots=4": "data.heldout_shots=4",
    "data.frames=401": "data.frames",
    "data.frames=1": "data.frames=1: must be 4n+1; nearest is 5",
    "train.learning_rate=inf": "train.learning_rate=inf: must be greater than 0 and finite",
    "train.betas=[0.9,2]": "train.betas=[0.9, 2.0]: give two numbers in 0..1",
    "+study=nope": "no such option; there are",
    "lora=nope": "no such option; there are attn, attn_text, block",
    "data.path=/nowhere": "/nowhere",
    "cluster.workers_by_rank={4:2}": "to fill it write +cluster.workers_by_rank={...}",
    "cluster.workers_per_trial=3": "train.batch_size=4: must be a multiple of cluster.workers_per_trial=3",
    "model.path=/nowhere": "model.path=/nowhere",
    "score.flow=raft": "score.flow=raft: no such optical flow; take dis or farneback",
    "score.tnv2=/nowhere": "score.tnv2=/nowhere: no such file",
    "cluster.address=head": "cluster.address=head: give HOST:PORT of `ray start`, e.g. head:6379",
    "cluster.address=http\\://head\\:6379": "cluster.address=http://head:6379: give HOST:PORT",
    "cluster.address=head\\:99999": "cluster.address=head:99999: give HOST:PORT",
    "tracking.project=a/b": "tracking.project=a/b: W&B takes",
    "tracking.wandb=online": "no W&B key for nowhere.invalid on this machine",
    "++lora.rnk=4": "lora.rnk: unknown setting; did you mean lora.rank?",
    "+trian.steps=4": "trian: unknown setting; did you mean train?",
    'extra=["+lora.rnk=4 seed=0"]': "lora.rnk: unknown setting; did you mean lora.rank?",
    'extra=["arm=x lora.rank=\\"4"]': "No closing quotation; close the quote",
    "lora.rank=range(4,4)": "no trial, since one of these choices is empty",
    "seed=glob(*)": "no trial, since one of these choices is empty",
    "hydra.sweeper.params={seed:1}": "hydra.sweeper.params: is for study files",
    "data.path=~/clips": "data.path=~/clips: this value cannot be read; write $HOME/clips",
    "name=\u00fcn\u00ef": "quote it for Hydra: 'name=\"\u00fcn\u00ef\"'",
    "study_dir=caf\udce9": "study_dir=caf\\udce9: not in UTF-8, as Ray needs it; rename the folder",
    "answer.share=0.8,0.9": "answer: a sweep cannot vary it",
    "answer.scores=[kvd[tnv2],psnr]": "quote it for Hydra: 'answer.scores=[\"kvd[tnv2]\",psnr]'",
    "answer.scores=psnr": "answer.scores=psnr: is auto, or a list of names",
    "answer.scores=[heldout_los]": "a value per clip and a better direction; did you mean heldout_loss?",
    'answer.scores=["motion[absdiff]"]': "answer.scores=motion[absdiff]: no score that has a value per clip",
    'answer.scores=[psnr,"fvd[i3d]"]': "fvd[i3d]: this study does not measure it; set score.i3d, or take of",
    "fail_fast=true,false": "fail_fast: a sweep cannot vary it",
}


@pytest.mark.parametrize("override", list(BAD))
def test_bad_input_is_one_line_and_starts_nothing(
    study_root: Path, override: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_refused(study_root, override, BAD[override], capsys, monkeypatch)


def assert_refused(root: Path, override: str, message: str, capsys: Any, monkeypatch: Any, *options: str) -> None:
    from hydra.core.global_hydra import GlobalHydra

    from launch.sweep import main

    GlobalHydra.instance().clear()
    arguments = [item for item in command(root) if not item.startswith(override.split("=")[0] + "=")]
    monkeypatch.setattr(sys, "argv", ["sweep", *options, *arguments[3:], override])
    monkeypatch.setenv("WANDB_BASE_URL", "https://nowhere.invalid")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("launch.engine.pool.connect", lambda address: pytest.fail("Ray was started"))
    assert main() == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("cinelora: ") and len(error.splitlines()) == 1, error
    assert message in error, error
    assert not (root / "sweep").exists()


def plan_of(root: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    from hydra.core.global_hydra import GlobalHydra

    from launch.sweep import main

    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["sweep", *command(root)[3:], "plan_only=true", *overrides])
    return main()


def test_a_plan_writes_nothing_where_it_must_not(study_root: Path, capsys: Any, monkeypatch: Any) -> None:
    assert plan_of(study_root, monkeypatch, "cache_dir=/proc/nowhere") == 0
    assert "2 trials: 0 done, 2 to run" in capsys.readouterr().out


def test_the_plan_says_which_gpus_it_takes_and_ids_stay(study_root: Path, capsys: Any, monkeypatch: Any) -> None:
    printed = []
    for there in (0, 1):
        monkeypatch.setattr("launch.estimate.local_gpus", lambda there=there: there)
        assert plan_of(study_root, monkeypatch, "cluster.gpus_per_worker=auto") == 0
        printed.append(capsys.readouterr().out.splitlines())
    line = "cluster.gpus_per_worker=auto: 0.25, since trials of a small built-in model share a GPU"
    line += "; GPUs of this machine: 1"
    assert line in printed[1] and [each for each in printed[1] if each != line] == printed[0]


class Adaptive(Sweeper):
    """As Optuna's: every batch of trials follows from the results of the one before."""

    def __init__(self, **_: Any) -> None:
        pass

    def setup(self, **given: Any) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(**given)

    def sweep(self, arguments: list[str]) -> None:
        (only,) = self.launcher.launch([[*arguments, "lora.rank=2"]], initial_job_idx=0)
        float(only.return_value)


def test_a_sweeper_that_needs_results_shows_its_first_trials(study_root: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(Adaptive, "__module__", "hydra_plugins.adaptive")
    monkeypatch.setitem(sys.modules, Adaptive.__module__, sys.modules[__name__])
    Plugins.instance().register(Adaptive)
    assert plan_of(study_root, monkeypatch, "hydra.sweeper._target_=hydra_plugins.adaptive.Adaptive") == 0
    printed = capsys.readouterr()
    assert "2 trials: 0 done, 2 to run" in printed.out and printed.err == ""
    assert "Adaptive chooses further trials by the results of these" in printed.out


def test_commands_are_printed_as_they_are_typed(tmp_path: Path, capsys: Any) -> None:
    report(Plan(()), Ledger(StudyFolder(tmp_path / "caf\u00e9 'one'")), {})
    line = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(line)[-1] == f"STUDY={tmp_path}/caf\u00e9 'one'"


STUDY_FILES = {
    "# @package _global_\ntrian: {steps: 5}": "study/mine.yaml: trian: unknown setting; did you mean train?",
    "# @package _global_\ntrain:\n\tsteps: 5": "mine.yaml line 3: found character",
    "seed: 1": "study/mine.yaml: its first line must be `# @package _global_`",
    "# @package _global_\nhydra: {sweeper: {params: {seed: [0, 1]}}}": "write a grid as text: 0,1",
}


@pytest.mark.parametrize("content", list(STUDY_FILES))
def test_a_mistake_in_a_study_file_is_one_line(
    study_root: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text(content)
    assert_refused(study_root, "+study=mine", STUDY_FILES[content], capsys, monkeypatch, f"--config-dir={tmp_path}")


def test_wrong_weight_file(study_root: Path, capsys: Any, monkeypatch: Any) -> None:
    wrong = study_root / "wrong.safetensors"
    wrong.write_bytes(b"not these")
    assert_refused(study_root, f"score.mnv2={wrong}", "SHA-256", capsys, monkeypatch)


def test_study_of_another_schema(study_root: Path, capsys: Any, monkeypatch: Any) -> None:
    from hydra.core.global_hydra import GlobalHydra

    from launch.sweep import main

    folder = study_root / "older"
    folder.mkdir()
    (folder / "study.json").write_text('{"schema": 0, "name": "older"}')
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["sweep", *command(study_root)[3:], f"study_dir={folder}"])
    assert main() == 2
    error = capsys.readouterr().err.strip()
    assert "schema 0" in error and len(error.splitlines()) == 1
