"""Resampling whose answers fit on paper, and differences to the base of the paper study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.differences import Difference, differences, differences_csv, sentences
from analysis.estimates import estimate
from analysis.load import load_study
from analysis.resample import clip_counts, interval, seed_weights
from analysis.scores import trial_scores
from tests.analysis.paper_study import Builder


def found(root: Path) -> dict[tuple[str, str], Difference]:
    study = load_study(root)
    return {(each.row, each.score): each for each in differences(study, estimate(study, trial_scores(study)))}


def test_seed_weights_give_the_variance_of_a_mean_of_seeds() -> None:
    weights = seed_weights(3)
    assert np.allclose(weights.sum(1), 1.0)
    means = weights @ np.array([0.0, 1.0, 2.0])  # variance 1 with divisor 2, of their mean 1/3
    assert means.mean() == pytest.approx(1.0, abs=0.03)
    assert means.var() == pytest.approx(1 / 3, rel=0.05)
    assert np.array_equal(seed_weights(1, 5), np.ones((5, 1)))


def test_clips_are_drawn_within_drawn_shots() -> None:
    counts = clip_counts(["a", "b", "b", "b"])
    assert np.array_equal(counts, clip_counts(["a", "b", "b", "b"]))
    of_a, of_b = counts[:, 0], counts[:, 1:].sum(1)
    assert set(zip(of_a, of_b, strict=True)) == {(2, 0), (1, 3), (0, 6)}
    assert (of_b == 3).mean() == pytest.approx(0.5, abs=0.03)
    alone = clip_counts(["a", "b", "c"])
    assert (alone.sum(1) == 3).all() and alone.mean() == pytest.approx(1.0)


def test_interval_is_the_middle() -> None:
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
    assert np.isnan(interval(np.array([0.0, np.nan]))).all()


def test_a_shift_of_every_clip_leaves_only_the_seeds_uncertain(builder: Builder) -> None:
    each = found(builder.build())["rank 4", "psnr"]
    base, seeds = 9.0, (11.0, 13.0)
    assert each.value == pytest.approx(np.mean(seeds) - base)
    spread = (seeds[1] - seeds[0]) / 2 * np.sqrt(2)  # both draws of the same seed, stretched
    assert (each.low, each.high) == pytest.approx((each.value - spread, each.value + spread))
    assert (each.seeds, each.clips, each.verdict) == (2, 3, "better")


def test_verdicts_follow_the_direction_of_the_score() -> None:
    def verdict(score: str, low: float, high: float) -> str:
        return Difference("rank 4", score, (low + high) / 2, low, high, 3, 96).verdict

    assert verdict("kvd[tnv2]", -2, -1) == "better" and verdict("kvd[tnv2]", 1, 2) == "worse"
    assert verdict("psnr", 1, 2) == "better" and verdict("psnr", -1, 2) == "undecided"
    assert verdict("motion[absdiff]", 1, 2) == "different"
    assert verdict("psnr", float("nan"), float("nan")) == "undecided"


def test_without_a_base_there_is_nothing_to_compare_with(builder: Builder) -> None:
    assert found(builder.build(only=("r4s0", "r4s1"))) == {}


def test_words_and_digits(builder: Builder) -> None:
    rows = found(builder.build())
    assert sentences((rows["rank 4", "psnr"],)) == ["rank 4: psnr +3 [+1.59, +4.41] better"]
    line = differences_csv((rows["rank 4", "psnr"],)).splitlines()[1]
    assert line == "rank 4,psnr,3,1.58578644,4.41421356,better,2,3"
