"""Intervals whose answers fit on paper, and differences to the base of the paper study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.differences import Difference, differences, differences_csv, heading, sentences
from analysis.statistics.intervals import Interval, crossed_interval, number
from analysis.study.clip_values import set_values
from analysis.study.load import load_study
from analysis.study.rows import estimate
from cinelora.metrics.primary import primary_scores
from tests.analysis.paper_study import CLIPS, Builder

COMPARED = primary_scores(()).compared


def found(root: Path) -> dict[tuple[str, str], Difference]:
    study = load_study(root)
    return {(each.row, each.score): each for each in differences(estimate(study))}


def test_an_interval_on_paper() -> None:
    # two seeds, two clips, no interaction: seeds 0 and 2, clips -1 and +1 around them
    found = crossed_interval(np.array([[-1.0, 1.0], [1.0, 3.0]]), ["a", "b"])
    # mean squares: seeds 2 * (1 + 1) = 4, clips 4, rest 0; variance 8 / 4; freedom 64 / (16 + 16) = 2
    half = 4.302652729749464 * np.sqrt(2)
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, 1 - half, 1 + half))
    assert (found.seeds, found.shots) == (2, 2)


def test_one_seed_is_the_paired_t_interval() -> None:
    values = np.random.default_rng(5).normal(size=(1, 9))
    found = crossed_interval(values, list("abcdefghi"))
    expected = stats.ttest_1samp(values[0], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_clips_of_a_shot_are_one_observation() -> None:
    values = np.array([[1.0, 3.0, 2.0, 6.0]])
    pairs = crossed_interval(values, ["a", "a", "b", "b"])
    assert pairs == crossed_interval(np.array([[2.0, 4.0]]), ["a", "b"])
    assert crossed_interval(values, ["a"] * 4).shots == 4
    uneven = crossed_interval(np.array([[0.0, 3.0, 3.0]]), ["a", "b", "b"])  # deviations from 2: -2 and +2
    assert uneven.mean == 2.0 and uneven.high - uneven.low == pytest.approx(2 * 12.706204736432095 * 4 / 3)


@pytest.mark.parametrize("spreads", [(0.0, 1.0, 0.5), (0.3, 1.0, 0.5), (1.0, 0.5, 0.5)])
def test_three_seeds_are_covered(spreads: tuple[float, float, float]) -> None:
    of_seed, of_clip, rest = spreads
    random, hits = np.random.default_rng(1), 0
    for _ in range(1000):
        values = (
            of_seed * random.normal(size=(3, 1)) + of_clip * random.normal(size=40) + rest * random.normal(size=(3, 40))
        )
        found = crossed_interval(values, [str(i) for i in range(40)])
        hits += found.low <= 0 <= found.high
    assert 930 <= hits <= 975


def test_nothing_varies_and_nothing_known() -> None:
    flat = crossed_interval(np.ones((2, 3)), ["a", "b", "c"])
    assert (flat.low, flat.high) == (1.0, 1.0)
    unknown = crossed_interval(np.array([[1.0, np.nan, 2.0]]), ["a", "b", "c"])
    assert np.isnan([unknown.mean, unknown.low, unknown.high]).all()
    with pytest.raises(ValueError, match="2 clips or more"):
        crossed_interval(np.ones((2, 1)), ["a"])


def test_jackknife_values_average_to_the_distance(builder: Builder) -> None:
    study = load_study(builder.build())
    trial = next(each for each in study.trials if each.spec.trial_id == "r4s1")
    values = set_values(study, CLIPS, trial, "kvd[tnv2]")
    assert values is not None and values.mean() == pytest.approx(136.0)


def test_a_shift_of_every_clip_leaves_only_the_seeds_uncertain(builder: Builder) -> None:
    each = found(builder.build())["rank 4", "psnr"]
    base, seeds = 9.0, (11.0, 13.0)
    interval = each.interval
    assert interval.mean == pytest.approx(np.mean(seeds) - base)
    half = 12.706204736432095 * 1.0  # one degree of freedom; standard error |13 - 11| / 2
    assert (interval.low, interval.high) == pytest.approx((interval.mean - half, interval.mean + half))
    assert (interval.seeds, interval.shots, each.verdict) == (2, 3, "undecided")


def test_verdicts_follow_the_direction_of_the_score() -> None:
    def verdict(score: str, low: float, high: float) -> str:
        return Difference("rank 4", score, Interval((low + high) / 2, low, high, 3, 96)).verdict

    assert verdict("kvd[tnv2]", -2, -1) == "better" and verdict("kvd[tnv2]", 1, 2) == "worse"
    assert verdict("psnr", 1, 2) == "better" and verdict("psnr", -1, 2) == "undecided"
    assert verdict("motion[absdiff]", 1, 2) == "higher"
    assert verdict("consistency[mnv2]", -2, -1) == "lower"  # a frozen clip would win
    assert verdict("psnr", float("nan"), float("nan")) == "undecided"


def test_without_a_base_there_is_nothing_to_compare_with(builder: Builder) -> None:
    assert found(builder.build(only=("r4s0", "r4s1"))) == {}


def test_words_and_digits() -> None:
    each = Difference("rank 4", "psnr", Interval(2.0, 1.5858, 4.41421356237, 2, 3))
    assert sentences((each,), COMPARED) == ["rank 4: psnr +2 [+1.59, +4.41] better"]
    assert differences_csv((each,)).splitlines()[1] == "rank 4,psnr,2,1.5858,4.41421356,better,2,3"


def test_heading_says_that_single_controls_ignore_seed_luck() -> None:
    def of(row: str, seeds: int) -> Difference:
        return Difference(row, "psnr", Interval(mean=1.0, low=0.5, high=1.5, seeds=seeds, shots=9))

    assert heading([of("rank 8", 3), of("full", 1)]).endswith(
        "over 9 shots and ranks 3 training seeds, controls 1: the controls ignore seed luck"
    )
    assert " and 3 training seeds (" in heading([of("rank 8", 3), of("full", 3)])
    assert " and 3/1 training seeds (" in heading([of("rank 8", 3), of("rank 4", 1)])


def test_thousands_are_written_out() -> None:
    assert [number(value) for value in (5323.7, 517.2, 0.0639, 1e-5)] == ["5320", "517", "0.0639", "1e-05"]
    assert number(-5323.7, "+.3g") == "-5320" and number(107.3, ".2g") == "110"
    assert f"{Interval(-0.2, -12100, 12100, 3, 3):+.3g}" == "-0.2 [-12100, +12100]"
