"""W&B mirrors a trial offline, and its breaking never stops one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinelora.config import TrialConfig
from cinelora.studyconfig import TrackingConfig
from cinelora.tracking import Tracker
from sweeps.identity import trial_spec

SPEC = trial_spec(TrialConfig(), {"model": "m", "data": "d"})


def test_offline_run_carries_flat_config(tmp_path: Path) -> None:
    tracker = Tracker(SPEC, TrackingConfig(), "quick", tmp_path / "wandb", active=True)
    assert tracker._run is not None
    config = dict(tracker._run.config)
    assert (config["rank"], config["alpha"], config["seed"], config["trial_id"]) == (8, 8.0, 0, SPEC.trial_id)
    assert (tracker._run.group, tracker._run.id) == ("quick", SPEC.trial_id)
    tracker.log({"loss": 1.0, "heldout_loss": None}, step=1)
    tracker.finish(None)
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_a_broken_tracker_is_switched_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wandb").write_text("a file where the folder should be")
    tracker = Tracker(SPEC, TrackingConfig(), "quick", tmp_path / "wandb", active=True)
    tracker.log({"loss": 1.0}, step=1)
    tracker.finish(None)
    assert "W&B switched off" in capsys.readouterr().err
