"""Provenance: the code of a clone with and without changes, and the runs of a trial that was interrupted."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cinelora.core.config import Method, TrackingConfig, TrainConfig, TrialConfig
from cinelora.core.files import read_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec
from cinelora.training.checkpoint import Stopped
from cinelora.trial import provenance
from cinelora.trial.job import Job
from tests import tiny_study


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cinelora").mkdir()
    (tmp_path / "cinelora/flow.py").write_text("x = 1\n")
    (tmp_path / "notes.txt").write_text("a\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return tmp_path


def read_clone() -> tuple[dict[str, Any], bytes]:
    return provenance.code.__wrapped__()


def test_a_clean_clone_is_its_commit(clone: Path) -> None:
    found, diff = read_clone()
    assert found["commit"] == git(clone, "rev-parse", "HEAD").strip()
    assert found["diff_sha256"] is None and diff == b""
    (clone / "notes.txt").write_text("b\n")
    git(clone, "commit", "-qam", "words")
    later, _ = read_clone()
    assert later["commit"] != found["commit"] and later["tree"] == found["tree"], "no other file changes a number"


def test_changes_are_those_of_tracked_code_alone(clone: Path) -> None:
    (clone / "cinelora/flow.py").write_text("x = 2\n")
    (clone / "cinelora/untracked.py").write_text("key = 'secret'\n")
    (clone / "notes.txt").write_text("password\n")
    found, diff = read_clone()
    assert b"-x = 1\n+x = 2\n" in diff and b"secret" not in diff and b"password" not in diff
    assert found["diff_sha256"] == hashlib.sha256(diff).hexdigest()
    assert not (clone / ".git/index.lock").exists()


def test_without_git_or_clone_the_package_version_is_all(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        assert read_clone()[0]["commit"] is None
    shutil.rmtree(clone / ".git")
    found, diff = read_clone()
    assert found["version"] == provenance.version("cinelora") and diff == b""
    assert {found["commit"], found["tree"], found["diff_sha256"]} == {None}


def test_equal_workers_are_listed_once(tmp_path: Path) -> None:
    config = TrialConfig(train=TrainConfig(batch_size=12, micro_batch=4))
    job = Job(TrialSpec("t", config, {}), StudyFolder(tmp_path), "", tmp_path, TrackingConfig(), ("lost", "hang"))
    small, large = {"hardware": {"cores": 2}}, {"hardware": {"cores": 8}}
    run = provenance._run(job, {"backend": "_native_flash"}, [large, small, large])
    assert run["workers"] == [{"count": 2, **large}, {"count": 1, **small}]
    assert run["causes"] == ["lost", "hang"] and run["world_size"] == 3
    assert run["attention"] == {"backend": "_native_flash"}
    assert run["micro_batch"] == 4 and run["deepspeed"]["gradient_accumulation_steps"] == 1
    base = replace(job, spec=TrialSpec("t", replace(config, method=Method.base), {}))
    assert provenance._run(base, None, [small])["deepspeed"] is None, "no engine was built"


def test_a_trial_resumed_once_records_both_runs(study_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinelora.training.checkpoint.LOOK_SECONDS", 0.0)
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips", lora__rank=5))
    folder = job.study.trial(job.spec.trial_id)
    monkeypatch.setattr(provenance, "code", lambda: ({"commit": "c", "diff_sha256": "d"}, b"+changed\n"))

    def leave_at_three(what: str, done: int, total: int, loss: float | None) -> None:
        if (what, done) == ("train", 3):
            folder.stop.touch()  # the trial's own stop sign; the study has none

    with pytest.raises(Stopped, match="stopped after step"):
        tiny_study.run(job, report=leave_at_three)
    assert read_json(folder.provenance)["runs"][0]["finished"] is None
    folder.stop.unlink()
    result = tiny_study.run(replace(job, causes=("lost",)))
    steps = [float(row.split(",")[-1]) for row in folder.train_csv.read_text().splitlines()[1:]]
    assert result.seconds["train"] >= sum(steps), "the cost of both runs"
    assert result.seconds["overhead"] > 0
    record = read_json(folder.provenance)
    first, second = record["runs"]
    assert (first["finished"], first["causes"], second["causes"]) == (None, [], ["lost"]) and second["finished"]
    assert second["started"] <= second["finished"] and second["micro_batch"] == 2
    assert record["fingerprints"] == job.spec.fingerprints
    assert record["seeds"] == {"training": 0, "sampling": 0, "split": 0}
    assert read_json(folder.result)["versions"] == second["workers"][0]["versions"]
    assert [path.read_bytes() for path in folder.root.glob("code-*.diff")] == [b"+changed\n"]
