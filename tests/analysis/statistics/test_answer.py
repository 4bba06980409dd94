"""Planted effects: the answer finds them, or says that it is undecided."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.statistics.answer import ENOUGH, OPEN, SURE, WORSE, Answer, answer_of, answers, as_csv, percent, sentence
from analysis.statistics.intervals import clips_needed, crossed_interval, seeds_needed
from analysis.study.load import load_study
from analysis.study.rows import estimate
from tests.analysis.paper_study import Builder

SHOTS = [f"s{i}" for i in range(60)]


def planted(gains: dict[int, float], noise: float, seed: int = 0) -> dict[int, NDArray[np.float64]]:
    """Gains of ranks over 3 seeds and 60 clips: a common clip effect, then noise of each cell."""
    random = np.random.default_rng(seed)
    of_clip = 0.1 * random.normal(size=60)
    return {rank: gain + of_clip + noise * random.normal(size=(3, 60)) for rank, gain in gains.items()}


def answered(gains: dict[int, float], noise: float, seed: int = 0) -> Answer:
    return answer_of("kvd[tnv2]", "", planted(gains, noise, seed), SHOTS, 0.9)


def test_the_smallest_of_equals_is_enough() -> None:
    found = answered({1: 0.5, 4: 1.0, 8: 1.0, 16: 1.0}, noise=0.05)
    assert [each.verdict for each in found.ranks] == [WORSE, ENOUGH, ENOUGH, ENOUGH]
    assert found.smallest is not None and found.smallest.rank == 4
    assert sentence(found) == (
        "distance to real clips (kvd[tnv2]): shown to keep at least 90% of the best gain over the untrained model: "
        "rank 4, 8 and 16; shown to keep less: rank 1. Confidence that a rank keeps it: rank 1 under 1%, rank 4 over "
        "99%, rank 8 over 99%, rank 16 over 99%."
    )


def test_noise_is_open_and_the_sizes_that_would_show_it_are_named() -> None:
    """With more than those sizes of the same means and variances the verdict is no longer open."""
    found = answered({4: 1.0, 8: 1.0}, noise=1.5)
    assert found.gained and {each.verdict for each in found.ranks} == {OPEN}
    assert "no rank is shown to keep at least 90%" in sentence(found) and "open: rank 4 and 8" in sentence(found)
    four = found.by_rank[4]
    assert four.promising and four.seeds is not None and four.seeds > 3 and four.clips is not None and four.clips > 60
    low = next(each for each in answered({1: 0.75, 4: 1.0, 8: 1.0}, noise=0.7, seed=2).ranks if each.rank == 1)
    assert low.verdict == OPEN and not low.promising and low.seeds is not None and low.seeds > 3


@pytest.mark.parametrize("noise", [0.05, 0.3, 0.8, 1.5])
def test_the_confidence_is_above_the_level_exactly_where_a_rank_is_enough(noise: float) -> None:
    for seed in range(10):
        found = answered({1: 0.9, 4: 0.95, 8: 1.0}, noise, seed)
        for each in found.ranks if found.gained else ():
            assert each.confidence is not None
            assert (each.verdict == ENOUGH) == (each.confidence > SURE) == (each.worst.low > 0)


def test_where_no_rank_gains_none_is_enough_and_ranks_are_told_apart_by_their_difference() -> None:
    found = answered({4: -1.0, 8: -2.0}, noise=0.05)
    assert not found.gained and [each.verdict for each in found.ranks] == [OPEN, WORSE]
    assert {each.confidence for each in found.ranks} == {None}
    where = "distance to real clips (kvd[tnv2]): every rank is worse than the untrained model; "
    assert sentence(found) == where + "shown to be worse than rank 4: rank 8."
    level = answered({4: -1.0, 8: -1.0}, noise=0.05)
    assert level.of(OPEN) == [4, 8] and sentence(level) == where + "no difference between ranks is shown."
    flat = answered({4: 0.0, 8: 0.0}, noise=0.5, seed=1)
    assert "no rank improves on the untrained model; no difference" in sentence(flat)


def test_a_margin_wider_than_the_differences_between_ranks_is_said() -> None:
    assert "The 10% that a rank may lose, 0.1" in sentence(answered({4: 1.0, 8: 1.01}, noise=0.05))
    assert "may lose" not in sentence(answered({4: 0.5, 8: 1.0}, noise=0.05))


def test_false_answers_are_rare() -> None:
    """Rank 1 gives 80 % of the others' gain: calling it enough is an error, at most one in twenty."""
    wrong = [answered({1: 0.8, 4: 1.0, 8: 1.0}, noise=0.6, seed=seed).smallest for seed in range(200)]
    assert sum(each is not None and each.rank == 1 for each in wrong) <= 10


def test_clips_needed_exclude_zero() -> None:
    values = np.random.default_rng(4).normal(size=(1, 60))
    values += 0.1 - values.mean()
    assert not crossed_interval(values, SHOTS).low > 0
    needed = clips_needed(values, SHOTS)
    assert needed is not None and 300 < needed < 500  # (1.96 * 1 / 0.1) squared
    assert clips_needed(values, SHOTS, most=needed - 1) is None
    assert seeds_needed(values, SHOTS) is None
    assert clips_needed(np.ones((3, 60)), SHOTS) is None  # nothing varies: no interval to shrink


def test_answers_of_a_study(builder: Builder) -> None:
    study = load_study(builder.build())
    found = {each.score: each for each in answers(estimate(study))}
    loss = found["heldout_loss"]
    assert [each.gain.mean for each in loss.ranks] == [pytest.approx(0.15), pytest.approx(0.3)]
    head, *rows = as_csv(found.values()).splitlines()
    assert head == (
        "score,series,rank,gain,gain_low,gain_high,rival,contrast,contrast_low,contrast_high,confidence,verdict"
    )
    assert len(rows) == 2 * len(found) and rows[-2].startswith("heldout_loss,,4,0.15,")


def test_without_a_base_there_is_no_answer(builder: Builder) -> None:
    study = load_study(builder.build(only=("r4s0", "r4s1", "r8s0", "r8s1")))
    assert answers(estimate(study)) == ()


@pytest.mark.parametrize(
    ("confidence", "text"),
    [
        (0.9613, "96%"),
        (0.9501, "96%"),
        (0.95, "95%"),
        (0.9499, "95%"),
        (0.774, "77%"),
        (0.002, "under 1%"),
        (0.9951, "over 99%"),
    ],
)
def test_a_confidence_is_rounded_to_the_nearest_on_its_side_of_the_level(confidence: float, text: str) -> None:
    assert percent(confidence, 0.95) == text
