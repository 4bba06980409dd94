"""The state of a study, read from its folder: while a sweep runs, after it died, with failures."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from cinelora.core.cli import UserError
from cinelora.core.config import LoraConfig, TrialConfig
from cinelora.core.files import read_json, write_json
from cinelora.core.paths import StudyFolder
from launch.engine.worker import ProgressFile
from launch.status import activity, main
from sweeps.ledger import Ledger
from sweeps.plan import Plan, build_plan
from sweeps.status import DONE, FAILED, RUNNING, WAITING, _fraction, study_status


@pytest.fixture
def study(tmp_path: Path) -> tuple[Ledger, Plan]:
    """base done, rank 4 started and half trained, rank 8 failed, rank 16 waiting."""
    ledger = Ledger(StudyFolder(tmp_path / "study"))
    plan = build_plan([(TrialConfig(lora=LoraConfig(rank=rank)), {"model": "m" * 64}) for rank in (4, 8, 16)])
    ledger.open("test")
    ledger.write_plan(plan)
    base, four, eight, _ = (spec.trial_id for spec in plan.trials)
    ledger.event("sweep")
    for trial_id in (base, four, eight):
        ledger.event("started", trial_id=trial_id, pids=[1], restarts=0)
    write_json(ledger.folder.trial(base).result, {})
    ledger.event("done", trial_id=base)
    ledger.event("lost", trial_id=four)
    ledger.event("started", trial_id=four, pids=[2], restarts=1)
    write_json(ledger.folder.trial(four).progress, {"stage": "train", "done": 3, "total": 6, "loss": 0.25})
    ledger.fail(eight, "diverged", "NonFiniteLoss: step 2")
    return ledger, plan


def test_compiling_interrupts_a_stage_and_is_shown_at_once(tmp_path: Path) -> None:
    report, seen = ProgressFile(tmp_path / "progress.json", active=True), []
    for stage, done, total in (("compiling", 0, 0), ("train", 1, 4), ("compiling", 0, 0), ("train", 1, 4)):
        report(stage, done, total, None)
        progress = read_json(tmp_path / "progress.json")
        seen.append((activity(progress, 0), round(_fraction(progress), 3)))
    training = (["train 1/4"], 0.175)
    assert seen == [(["compiling"], 0.0), training, (["compiling 1/4"], 0.175), training]


def test_a_trial_without_clips_is_over_after_its_loss() -> None:
    progress = {"stage": "evaluate", "done": 2, "total": 2}
    assert (_fraction(progress), _fraction(progress, clips=False)) == (0.7, 1.0)


def test_with_a_driver(study: tuple[Ledger, Plan], capsys: pytest.CaptureFixture[str]) -> None:
    ledger, plan = study
    with ledger.locked():
        status = study_status(ledger)
        assert main([str(ledger.folder.root)]) == 1, "a trial has failed"
        assert main([str(ledger.folder.root), "--stop"]) == 1 and ledger.folder.stop.exists()
    assert [trial.state for trial in status.trials] == [DONE, RUNNING, FAILED, WAITING]
    running = status.trials[1]
    assert running.restarts == 1 and running.progress is not None and running.progress["done"] == 3
    assert status.trials[2].reason == "NonFiniteLoss: step 2"
    assert status.seconds_left is not None and status.to_json()["running"] == 1
    out = capsys.readouterr().out
    assert "1 done, 1 running, 1 waiting, 1 failed; a sweep is running" in out
    assert "train 3/6, loss 0.2500" in out and "restart 1" in out


def test_a_terminal_without_unicode_shows_the_rest(study: tuple[Ledger, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, plan = study
    ledger.fail(plan.trials[2].trial_id, "diverged", "caf\u00e9 \u00b1 1")
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert main([str(ledger.folder.root)]) == 1
    ascii_only.seek(0)
    assert "caf\\xe9 \\xb1 1" in ascii_only.read()


def test_a_stopped_trial_waits(study: tuple[Ledger, Plan]) -> None:
    ledger, plan = study
    ledger.event("stopped", trial_id=plan.trials[1].trial_id, error="stopped after step 3")
    with ledger.locked():
        status = study_status(ledger)
    assert [trial.state for trial in status.trials] == [DONE, WAITING, FAILED, WAITING]


def test_after_the_driver_died_nothing_runs(study: tuple[Ledger, Plan], capsys: pytest.CaptureFixture[str]) -> None:
    ledger, _ = study
    with ledger.locked():
        pass
    with open(ledger.folder.events, "a") as stream:
        stream.write('{"time": 1, "event": "do')  # killed in the middle of a line
    status = study_status(ledger)
    assert not status.driver and status.count(RUNNING) == 0 and status.count(WAITING) == 2
    assert status.seconds_left is None
    main([str(ledger.folder.root), "--stop"])
    assert "no sweep is running here" in capsys.readouterr().out and not ledger.folder.stop.exists()


def test_time_left_is_by_the_pace_of_this_sweep(study: tuple[Ledger, Plan]) -> None:
    ledger, _ = study
    with ledger.locked():
        first = study_status(ledger, now=0.0).seconds_left
        later = study_status(ledger, now=1e9).seconds_left
    assert first is not None and later is not None
    assert later - first == pytest.approx(1e9 * (2 - 0.35) / (1 + 0.35), rel=1e-6), (
        "two open trials, one done, one half trained"
    )


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study.json"):
        study_status(Ledger(StudyFolder(tmp_path)))
    assert main([str(tmp_path)]) == 2


@pytest.mark.parametrize("name", ["study.json", "plan.json"])
def test_a_damaged_record_is_one_line(
    study: tuple[Ledger, Plan], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study[0].folder.root / name
    path.write_text(path.read_text()[:20])
    assert main([str(study[0].folder.root)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cinelora: {path}: not JSON (") and error.count("\n") == 1
