"""Study folder -> Study: order, what is missing, what is refused. In: the paper study."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.study.load import _first_stage_remark, load_study
from cinelora.core.cli import UserError
from tests.analysis.paper_study import CLIPS, Builder


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_study(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_trials_are_sorted_base_first(study: Path) -> None:
    loaded = load_study(study)
    assert [spec.trial_id for spec in loaded.specs] == ["base", "r4s0", "r4s1", "r8s0", "r8s1"]
    assert loaded.trained and not loaded.missing


def test_features_are_sorted_by_clip(builder: Builder) -> None:
    root = builder.build()
    path = builder.folder.trial("r4s0").features("tnv2")
    np.savez(path, ids=np.array(["c2", "c0", "c1"]), features=np.array([[2.0], [0.0], [1.0]], np.float32))
    trial = next(each for each in load_study(root).trials if each.spec.trial_id == "r4s0")
    assert trial.features["tnv2"].ids == CLIPS
    assert trial.features["tnv2"].of(("c2", "c0")).tolist() == [[2.0], [0.0]]


def test_curve_keeps_the_last_run_of_a_step(builder: Builder) -> None:
    root = builder.build()
    with open(builder.folder.trial("r4s0").train_csv, "a") as stream:
        stream.write("2,77.0,,1.0,0.0001,0.25\n")
    curve = next(each for each in load_study(root).trials if each.spec.trial_id == "r4s0").curve
    assert curve["step"].tolist() == list(range(1, 41))
    assert curve["loss"][1] == 77.0 and np.isnan(curve["heldout_loss"][1])


def test_a_first_stage_without_its_log_is_described_without_its_start(builder: Builder) -> None:
    root = builder.build()

    def remark() -> str:
        return _first_stage_remark(next(each for each in load_study(root).trials if each.spec.trial_id == "r4s0"))

    assert "on its own windows from 0.8000 to 0.8000" in remark()
    builder.folder.trial("r4s0").train_csv.unlink()
    assert "on its own windows to 0.8000" in remark()


def test_clips_that_are_scored_and_not_described_are_refused(builder: Builder) -> None:
    root = builder.build()
    (path,) = (root / "reference").glob("*/clips.csv")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert f"clips.csv: lacks {CLIPS[-1]} of clip_scores.csv" in refusal(root)


def test_missing_and_failed_trials(builder: Builder) -> None:
    root = builder.build(only=("base", "r4s0"))
    builder.fail("r8s1", "Traceback ...\ntorch.OutOfMemoryError: 2 GiB")
    reasons = {each.spec.trial_id: each.reason for each in load_study(root).missing}
    assert reasons["r4s1"] == reasons["r8s0"] == "queued or running"
    assert reasons["r8s1"] == "failed (out_of_memory): torch.OutOfMemoryError: 2 GiB"


def test_a_result_outlives_an_old_failure(builder: Builder) -> None:
    root = builder.build()
    (builder.folder.trial("r8s1").failed).write_text(json.dumps({"trial_id": "r8s1", "error": "x", "kind": "lost"}))
    assert not load_study(root).missing


def test_refuses_what_is_no_study(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "not a study folder" in refusal(tmp_path)


def test_refuses_another_schema(builder: Builder) -> None:
    root = builder.build()
    builder.edit_json(builder.folder.study, schema=99)
    assert "schema" in refusal(root) and "99" in refusal(root)


def test_refuses_when_nothing_has_finished(builder: Builder) -> None:
    root = builder.build(only=())
    builder.fail("r4s0", "boom")
    assert "none of 5 planned trials has finished (1 failed)" in refusal(root)


def test_refuses_mixed_protocols(builder: Builder) -> None:
    root = builder.build()
    path = builder.folder.trial("r8s0").result
    protocol = json.loads(path.read_text())["protocol"]
    protocol["kvd[tnv2]"]["fps"] = 8.0
    builder.edit_json(path, protocol=protocol)
    message = refusal(root)
    assert "protocol of kvd[tnv2] differs: fps is 16.0 in trial base and 8.0 in trial r8s0" in message


def test_refuses_a_damaged_trial(builder: Builder) -> None:
    root = builder.build()
    builder.folder.trial("r4s0").clip_scores.unlink()
    assert "clip_scores.csv: missing" in refusal(root)


def test_refuses_a_renamed_trial(builder: Builder) -> None:
    root = builder.build()
    builder.edit_json(builder.folder.trial("r4s0").result, trial_id="other")
    assert "belongs to trial other" in refusal(root)


def test_refuses_json_cut_short(builder: Builder) -> None:
    root = builder.build()
    builder.folder.trial("r4s0").result.write_text('{"trial_id": ')
    assert "result.json: not JSON" in refusal(root)
