"""Consistency against the same real clips: differences, where motion is alike, and the sentences, on paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.statistics import steadiness
from analysis.statistics.differences import differences
from analysis.statistics.rank_tests import rank_tests
from analysis.statistics.steadiness import FEWEST_CLIPS, motion_matched, sentences
from analysis.study.load import load_study
from analysis.study.rows import Estimates, estimate
from cinelora.metrics.primary import MOTION
from tests.analysis.paper_study import Builder

GAP = "consistency_gap[mnv2]"


def test_the_gap_is_that_to_the_same_real_clip_in_studies_made_before_it(builder: Builder) -> None:
    root = builder.build()
    assert GAP not in (builder.folder.trial("r4s0").clip_scores).read_text()
    builder.rewrite_scores("r4s0", lambda clip, _: clip != "c1")
    trials = load_study(root).by_id
    assert dict(trials["r8s0"].scores[GAP]) == pytest.approx({"c0": 0.03, "c1": 0.03, "c2": 0.03})
    assert dict(trials["r4s0"].scores[GAP]) == pytest.approx({"c0": 0.07, "c2": 0.07})  # 0.90 against 0.97


def test_without_real_values_there_is_no_gap_and_a_reason(builder: Builder) -> None:
    root = builder.build()
    text = builder.reference.clip_scores.read_text().splitlines()
    builder.reference.clip_scores.write_text("\n".join(line for line in text if "consistency" not in line) + "\n")
    found = estimate(load_study(root))
    assert found.scores.unavailable[GAP] == "needs consistency of the generated and of the real clips"
    assert found.primary.gap == "" and motion_matched(found) == ()


def planted(study: Path, ratio: float, alike: int) -> Estimates:
    """The paper study with 30 clips; motion of the ranks is `ratio` times the base's on all but the first `alike`."""
    found, count = estimate(load_study(study)), 30
    own = {"base": 0.05, "r4s0": 0.02, "r4s1": 0.03, "r8s0": 0.06, "r8s1": 0.06}
    noise = np.random.default_rng(0).normal(size=count) / 1000
    motions = np.where(np.arange(count) < alike, 1.2, ratio)
    found.__dict__["scorers"] = {
        GAP: lambda trial: own[trial.spec.trial_id] + noise * len(trial.spec.trial_id) * (1 + trial.spec.config.seed),
        MOTION: lambda trial: np.ones(count) if trial.spec.trial_id == "base" else motions,
    }
    found.__dict__["shots"] = [f"s{index}" for index in range(count)]
    return found


def test_clips_of_matched_motion_and_of_too_few(study: Path) -> None:
    four, eight = motion_matched(planted(study, ratio=1.3, alike=FEWEST_CLIPS))
    assert (four.clips, four.of, four.row) == (FEWEST_CLIPS, 30, "rank 4")
    assert four.difference is not None and four.difference.interval.mean == pytest.approx(-0.025, abs=1e-3)
    assert eight.difference is not None and eight.difference.verdict == "worse"
    few = motion_matched(planted(study, ratio=0.7, alike=FEWEST_CLIPS - 1))
    assert [(each.clips, each.difference) for each in few] == [(FEWEST_CLIPS - 1, None)] * 2
    text = sentences(planted(study, 1.3, 20), (), (), few)
    assert text == [
        "Where a clip's motion is within 25% of the base's, against the base: rank 4 too few clips (19 of 30 clips); "
        "rank 8 too few clips (19 of 30 clips)."
    ]


def test_the_sentences_of_the_paper_study(study: Path) -> None:
    found = estimate(load_study(study))
    against, tests = differences(found), rank_tests(found)
    (line,) = sentences(found, against, tests, ())
    assert line == (
        f"{GAP}: nearer to the real clips than the base: none; no difference shown: rank 4; rank 8. "
        "No difference between the best rank and another is shown."
    )
    nearer = [replace(each, interval=replace(each.interval, low=-2.0, high=-1.0, mean=-1.5)) for each in against[:]]
    assert "nearer to the real clips than the base: rank 4; rank 8." in sentences(found, nearer, (), ())[0]
    assert steadiness.heading(found).endswith(f"({GAP})")
