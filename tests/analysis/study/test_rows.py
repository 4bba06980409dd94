"""Scores per trial and rows per rank, against numbers worked out by hand (see paper_study)."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.study.load import load_study
from analysis.study.rows import Estimates, estimate
from analysis.study.scores import TrialScores, trial_scores
from analysis.tables.captions import caption
from analysis.tables.csv_files import rank_csv
from cinelora.core.cli import UserError
from cinelora.core.config import UNKNOWN_SEED, Method, Scaling, TargetSet
from cinelora.core.files import write_json
from cinelora.core.records import TrialSpec
from tests.analysis.paper_study import CLIPS, SHIFTS, Builder, spec


def scores(root: Path) -> TrialScores:
    return trial_scores(load_study(root))


def estimates(root: Path) -> Estimates:
    study = load_study(root)
    return estimate(study)


def test_set_scores_by_hand(study: Path) -> None:
    values = scores(study).values
    for name, shift in SHIFTS.items():
        assert values[name]["fvd[tnv2]"] == pytest.approx(shift**2)
    assert values["r4s0"]["kvd[tnv2]"] == pytest.approx(7)
    assert values["r4s1"]["kvd[tnv2]"] == pytest.approx(136)


def test_clip_means_and_real_values(study: Path) -> None:
    found = scores(study)
    assert found.values["r4s1"]["psnr"] == 13.0
    assert found.real == {"consistency[mnv2]": pytest.approx(0.97), "motion[absdiff]": pytest.approx(2.1)}
    assert found.clips == CLIPS and found.reference_clips == 3 and not found.gaps


def test_unavailable_scores_keep_their_reason(study: Path) -> None:
    assert scores(study).unavailable == {
        "fvd[i3d]": "needs I3D weights",
        "lpips": "needs LPIPS weights",
        "profile_gap[mnv2]": "made before this score; score again",
    }


def test_rows(study: Path) -> None:
    base, four, eight = estimates(study).rows
    assert (base.name, four.name, eight.name) == ("base", "rank 4", "rank 8")
    assert (four.done, four.planned, four.parameters, four.adapter_megabytes) == (2, 2, 12288, 0.05)
    assert four.seconds_per_step == 0.25 and base.seconds_per_step is None
    psnr = four.estimates["psnr"]
    assert (psnr.mean, psnr.low, psnr.high, psnr.seeds) == (12.0, 11.0, 13.0, (0, 1))
    assert four.estimates["fvd[tnv2]"].mean == pytest.approx(2.5)


def test_adopted_adapters_are_rows_by_rank_and_trainer(builder: Builder) -> None:
    root = builder.build()
    builder.adopt("r4s1", trainer="musubi-tuner", seed=UNKNOWN_SEED, training="steps 1600, learning rate 0.0002")
    builder.adopt("r8s0", seed=UNKNOWN_SEED)
    found = estimates(root)
    assert [row.full_name for row in found.rows] == [
        "base", "rank 4, trainer musubi-tuner", "rank 4, trained here", "rank 8, trainer unknown",
        "rank 8, trained here",
    ]  # fmt: skip
    assert all(row.done == 1 for row in found.rows)
    lines = csv.DictReader(rank_csv(found, {}).splitlines())
    assert [line["learning_rate"] for line in lines if line["row"] == "lora"] == ["", "0.0001", "", "0.0001"]
    text = caption(found)
    assert "2 adapters are files trained elsewhere, on clips that are unknown here. The metadata of" in text
    assert "musubi-tuner says: steps 1600, learning rate 0.0002. The files of 1 do not say how" in text
    assert "The training seed of 2 is not stated: intervals are over clips, and leave out" in text
    assert "Adapters trained here: alpha = rank" in text


def test_finished_clips_are_rows_by_rank_or_label(builder: Builder) -> None:
    root = builder.build()
    builder.adopt("r4s1", method="clips", clips_rank=4, seed=UNKNOWN_SEED)
    builder.adopt("r8s1", method="clips", label="another model", seed=UNKNOWN_SEED)
    found = estimates(root)
    assert [row.full_name for row in found.rows][0] == "base"
    assert {"rank 4, clips", "another model"} < {row.full_name for row in found.rows}
    assert "2 trials are clips that were generated elsewhere" in caption(found)


def test_a_trial_without_a_clip_is_told(builder: Builder) -> None:
    root = builder.build()
    builder.rewrite_scores("r8s1", lambda clip, metric: (clip, metric) != ("c0", "psnr"))
    found = scores(root)
    assert found.clips == ("c1", "c2")
    assert "trial r8s1 (rank 8, seed 1) lacks psnr of 1 of 3 clips (c0)" in found.gaps[0]
    assert found.values["r4s0"]["psnr"] == 11.0625  # (11 + 11.125) / 2: every trial on the same two clips


def test_a_trial_without_a_score_is_told(builder: Builder) -> None:
    root = builder.build()
    builder.rewrite_scores("r8s1", lambda clip, metric: metric != "psnr")
    assert any("r8s1 (rank 8, seed 1) has no psnr" in gap for gap in scores(root).gaps)
    assert estimates(root).rows[2].estimates["psnr"].seeds == (0,)


def test_no_common_clip_is_refused(builder: Builder) -> None:
    root = builder.build()
    builder.rewrite_scores("r4s0", lambda clip, metric: clip == "c0")
    builder.rewrite_scores("r4s1", lambda clip, metric: clip == "c1")
    with pytest.raises(UserError, match="no clip is scored in all 5"):
        scores(root)


def test_nothing_unlike_is_averaged(builder: Builder) -> None:
    """A trial with more steps is a row of its own, named by what differs; the base stays one row."""
    root = builder.build()
    longer = spec("r4s1")
    longer = TrialSpec(
        "long", replace(longer.config, train=replace(longer.config.train, steps=80)), longer.fingerprints
    )
    add(builder, longer)
    rows = estimates(root).rows
    assert [(row.name, row.series, row.done, row.planned) for row in rows] == [
        ("base", "", 1, 1),
        ("rank 4", "train.steps 40", 2, 2),
        ("rank 4", "train.steps 80", 0, 1),
        ("rank 8", "train.steps 40", 2, 2),
    ]


def test_controls_stand_beside_the_ranks(builder: Builder) -> None:
    root = builder.build()
    lora = spec("r8s0")
    add(builder, TrialSpec("full", replace(lora.config, method=Method.full), lora.fingerprints))
    add(builder, TrialSpec("arm", replace(lora.config, arm="source clips"), {**lora.fingerprints, "data": "cc"}))
    rows = estimates(root).rows
    assert [(row.name, row.in_grid, row.series) for row in rows] == [
        ("base", False, ""),
        ("rank 4", True, ""),
        ("rank 8", True, ""),
        ("full", False, ""),
        ("source clips, rank 8", False, ""),
    ]
    assert rows[2].planned == 2


def test_alpha_rules_are_series(builder: Builder) -> None:
    root = builder.build()
    other = spec("r8s0")
    lora = replace(other.config.lora, scaling=Scaling.rslora)
    add(builder, TrialSpec("rs", replace(other.config, lora=lora), other.fingerprints))
    rows = estimates(root).rows
    assert [row.series for row in rows] == ["", "alpha equals rank", "alpha equals rank", "rslora, alpha 16"]


def test_rates_tuned_per_rank_within_each_target_set_are_no_series(builder: Builder) -> None:
    root = builder.build()
    for name, rate in (("r4s0", 1e-3), ("r8s0", 3e-4)):  # the ranks of "cross" all have the default rate
        other = spec(name)
        lora = replace(other.config.lora, targets=TargetSet.block)
        train = replace(other.config.train, learning_rate=rate)
        add(builder, TrialSpec(f"b{name}", replace(other.config, lora=lora, train=train), other.fingerprints))
    assert [row.series for row in estimates(root).rows] == ["", "block", "cross", "block", "cross"]


def add(builder: Builder, trial: TrialSpec) -> None:
    """Plan one trial more; it does not run."""
    plan = json.loads(builder.folder.plan.read_text())
    write_json(builder.folder.plan, {"trials": [*plan["trials"], trial.to_json()]})


def test_a_broken_number_stays_in_sight(builder: Builder) -> None:
    root = builder.build()
    path = builder.folder.trial("r4s0").clip_scores
    path.write_text(path.read_text().replace("c0,psnr,10.875", "c0,psnr,nan"))
    found = scores(root)
    assert found.values["r4s0"]["psnr"] != found.values["r4s0"]["psnr"]
    assert any("psnr of 1 clips is not finite" in gap for gap in found.gaps)
