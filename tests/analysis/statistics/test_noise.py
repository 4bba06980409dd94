"""The noise floor: which trial is a redraw of the base, how far it moves, how true clips are halved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.statistics.answer import answers
from analysis.statistics.intervals import reach_about_zero
from analysis.statistics.noise import SPLITS, _splits, as_csv, halves, noise_trials, reseeds, sentence, within
from analysis.statistics.rank_tests import rank_tests
from analysis.study.load import load_study
from analysis.study.rows import Estimates, estimate
from cinelora.core.config import SampleConfig
from cinelora.core.files import write_json
from cinelora.core.records import TrialSpec
from cinelora.metrics.primary import primary_scores
from tests.analysis import paper_study
from tests.analysis.paper_study import SHIFTS, Builder

T3 = 3.182446  # 97.5 % of Student's t with 3 degrees of freedom


def loaded(root: Path) -> Estimates:
    return estimate(load_study(root))


def with_other_base(builder: Builder, monkeypatch: pytest.MonkeyPatch, sample: SampleConfig) -> Path:
    """The paper study and the base under another `sample`: shift 3 as the base, PSNR half a decibel above."""
    root = builder.build()
    base, plan = paper_study.spec("base"), [paper_study.spec(name).to_json() for name in SHIFTS]
    other = TrialSpec("other", replace(base.config, arm="base_other_noise", sample=sample), base.fingerprints)
    write_json(builder.folder.plan, {"trials": [other.to_json(), *plan]})
    values = {"SHIFTS": 3.0, "PSNR": 9.5, "MOTION": 0.2, "CONSISTENCY": 0.99, "HELDOUT": 0.9}
    for name, value in values.items():
        monkeypatch.setitem(getattr(paper_study, name), "other", value)
    builder.finish(other)
    return root


def test_a_redraw_moves_only_what_is_sampled(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clip gains 0.5 in PSNR: reach t(3) * sqrt(0.25 / 3). What is equal is left out, the losses among it."""
    estimates = loaded(with_other_base(builder, monkeypatch, SampleConfig(seed=1)))
    (found,) = reseeds(estimates)
    assert (found.score, found.value, found.draws, found.clips, found.by_clip) == ("psnr", 0.5, 1, 3, True)
    assert found.reach == pytest.approx(T3 * np.sqrt(0.25 / 3), rel=1e-6)
    assert as_csv((), (found,)).splitlines()[1].startswith("redraw,psnr,base,3,1,0.5,-0.9")


def test_a_redraw_is_never_the_base(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned first and without a rank, it stands beside the grid; every answer stays the same."""
    alone = answers(loaded(builder.build()))
    estimates = loaded(with_other_base(builder, monkeypatch, SampleConfig(seed=1)))
    assert estimates.study.trials[0].spec.trial_id == "base"
    assert [row.name for row in estimates.rows if row.is_base] == ["base"]
    assert [row.trial_ids for row in estimates.rows if row.name == "base_other_noise"] == [("other",)]
    assert answers(estimates) == alone


def test_other_settings_are_no_redraw(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(with_other_base(builder, monkeypatch, SampleConfig(seed=1, steps=4)))
    assert noise_trials(study, study.trials[0].spec) == []


def test_what_lies_within_is_told(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 4 has a PSNR of 12, rank 8 of 14.5: 2.5 apart and beyond the floor of 0.92; at a floor of 3 within."""
    estimates = loaded(with_other_base(builder, monkeypatch, SampleConfig(seed=1)))
    tests, (found,) = rank_tests(estimates), reseeds(estimates)
    pairs = next(each.pairs for each in tests if each.score == "psnr")
    assert pairs is not None
    assert (within(pairs, found), within(pairs, replace(found, reach=3.0))) == ([], [4])
    text = sentence((), (found,), tests, primary_scores(()))
    assert text.endswith("psnr ±0.92 (0 of 1 differences of a rank to the best lie within).")
    assert sentence((), (), tests, primary_scores(())) == ""


def test_few_clips_are_not_halved(study: Path) -> None:
    assert halves(loaded(study)) == ()


def test_halves_are_disjoint_and_split_at_most_one_shot() -> None:
    shots = ["a", "b", "a", "c", "b", "a", "d", "c", "b"]
    one, other = _splits(shots)
    assert one.shape == other.shape == (SPLITS, 9)
    assert (one.sum(1) == 4).all() and (other.sum(1) == 4).all() and not (one * other).any()
    names = np.array(shots)
    shared = [set(names[a > 0]) & set(names[b > 0]) for a, b in zip(one, other, strict=True)]
    assert max(map(len, shared)) == 1
    assert len({tuple(row) for row in one}) > 10


def test_reach_is_about_zero_and_not_about_the_mean() -> None:
    """Two shots of differences 1: they do not scatter, and are as far from zero as that."""
    assert reach_about_zero(np.ones((1, 4)), ["a", "a", "b", "b"]) == pytest.approx(4.302653 / np.sqrt(2), rel=1e-6)
