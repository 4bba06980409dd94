"""W&B mirrors a trial offline, and its errors never stop one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cinelora.core.config import LoraConfig, Method, Scaling, TrackingConfig, TrialConfig, Wandb
from cinelora.core.records import TrialSpec
from cinelora.trial.tracking import UNREACHABLE, Tracker, flat_config, row_name, run_id, run_name, score_key
from sweeps.plan import trial_spec

SPEC = trial_spec(TrialConfig(), {"model": "m", "data": "d"})


def test_offline_run_carries_flat_config(tmp_path: Path) -> None:
    tracker = Tracker(SPEC, TrackingConfig(), "quick", tmp_path / "wandb", active=True)
    assert tracker._run is not None
    config = dict(tracker._run.config)
    assert (config["rank"], config["alpha"], config["seed"], config["trial_id"]) == (8, 8.0, 0, SPEC.trial_id)
    assert (tracker._run.group, tracker._run.id) == ("quick", f"{SPEC.trial_id}-quick")
    assert tracker._run.tags == ("quick", "rank 8")
    tracker.log({"loss": 1.0, "heldout_loss": None}, step=1)
    tracker.finish(None)
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_names_distinguish_runs_in_a_list() -> None:
    def names(**changed: Any) -> tuple[str, str, int]:
        trial = TrialSpec("4d980de35e73", TrialConfig(**changed), {})
        return run_name(trial), row_name(trial.config), flat_config(trial)["rank"]

    assert names(seed=2) == ("r8-cross-s2-4d980d", "rank 8", 8)
    assert names(method=Method.base) == ("base-4d980d", "base", 0)
    assert names(method=Method.full) == ("full-s0-4d980d", "full", 0), "a full fine-tune has no rank 8"
    assert names(arm="frozen") == ("frozen-r8-cross-s0-4d980d", "frozen, rank 8", 8)
    rule = LoraConfig(rank=4, scaling=Scaling.rslora, alpha=16)
    assert names(lora=rule) == ("r4-rslora16-cross-s0-4d980d", "rank 4", 4)


def test_keys_and_ids_that_wandb_takes() -> None:
    assert (score_key("kvd[tnv2]"), score_key("psnr")) == ("score/kvd_tnv2", "score/psnr")
    assert run_id("4d980de35e73", "my study/2") == "4d980de35e73-my-study-2"
    assert run_id("t", "a") != run_id("t", "b"), "two studies may hold the same trial"


def test_a_broken_tracker_is_switched_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wandb").write_text("a file where the folder should be")
    tracker = Tracker(SPEC, TrackingConfig(), "quick", tmp_path / "wandb", active=True)
    tracker.log({"loss": 1.0}, step=1)
    tracker.finish(None)
    assert "W&B switched off" in capsys.readouterr().err


def test_an_unreachable_server_costs_one_wait_and_the_runs_are_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    tried: list[str] = []

    def init(mode: str, **_: Any) -> str:
        tried.append(mode)
        if mode == "online":
            raise TimeoutError("no answer within 30 s")
        return "a run"

    monkeypatch.setattr(wandb, "init", init)
    for _ in range(2):
        tracker = Tracker(SPEC, TrackingConfig(wandb=Wandb.online), "quick", tmp_path / "wandb", active=True)
        assert tracker._run == "a run"
    assert tried == ["online", "offline", "offline"]
    assert (tmp_path / "wandb" / UNREACHABLE).read_text() == "TimeoutError: no answer within 30 s"


@pytest.mark.parametrize("project", ["team/film", "", "a" * 129, "50%"])
def test_a_project_that_wandb_refuses(project: str) -> None:
    with pytest.raises(ValueError, match="tracking.project"):
        TrackingConfig(project=project)
