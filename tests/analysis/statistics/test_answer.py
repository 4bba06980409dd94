"""Planted effects: the answer finds them, or says that it is undecided."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.answer import (
    INSUFFICIENT,
    SUFFICIENT,
    UNDECIDED,
    Answer,
    _answer,
    _covariance,
    answers,
    sentence,
    smallest_in_parametric_draws,
)
from analysis.statistics.intervals import clips_needed, crossed_interval, seeds_needed, variance_of_mean
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
    return _answer("kvd[tnv2]", "", planted(gains, noise, seed), SHOTS, 0.9)


def test_the_smallest_of_equals_is_enough() -> None:
    found = answered({1: 0.5, 4: 1.0, 8: 1.0, 16: 1.0}, noise=0.05)
    assert [each.verdict for each in found.ranks] == [INSUFFICIENT, SUFFICIENT, SUFFICIENT, SUFFICIENT]
    assert found.smallest is not None and found.smallest.rank == 4
    assert sentence(found).startswith("kvd[tnv2]: rank 4 is sufficient: it gains ")
    assert sentence(found).endswith("rank 1 does not.")


def test_noise_is_undecided_and_the_sizes_that_would_decide_are_named() -> None:
    found = answered({4: 1.0, 8: 1.0}, noise=1.5)
    assert found.smallest is None and {each.verdict for each in found.ranks} == {UNDECIDED}
    assert "undecided" in sentence(found)
    assert found.more_clips is None or found.more_clips > 60


def test_the_candidate_is_the_smallest_undecided_rank_with_sufficient_means() -> None:
    """A smaller rank is undecided too, but its mean falls short of the share: rank 1, and rank 4 in the second case."""
    for seed, rank in ((9, 4), (0, 8)):
        found = answered({1: 0.2, 4: 1.0, 8: 1.0}, noise=1.5, seed=seed)
        means = {each.rank: each.worst.mean for each in found.ranks if each.verdict == UNDECIDED}
        assert found.candidate == rank == min(each for each, mean in means.items() if mean > 0)
        assert min(means) < rank
        assert found.smallest is None and found.more_clips is not None and found.more_clips > 60
        assert f"would show it for rank {rank}." in sentence(found)
    sure = answered({1: 0.5, 4: 1.0, 8: 1.0}, noise=0.05)
    assert (sure.candidate, sure.more_clips, sure.more_seeds) == (None, None, None), "rank 4 is shown to be sufficient"


def test_no_gain_is_no_answer() -> None:
    found = answered({4: -1.0, 8: -2.0}, noise=0.05)
    assert found.smallest is None and sentence(found) == "kvd[tnv2]: no rank is shown to improve on the base."


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


def test_without_a_base_there_is_no_answer(builder: Builder) -> None:
    study = load_study(builder.build(only=("r4s0", "r4s1", "r8s0", "r8s1")))
    assert answers(estimate(study)) == ()


def test_parametric_draws_reflect_means_and_variances() -> None:
    sure = answered({1: 0.5, 4: 1.0, 8: 1.0}, noise=0.05)
    assert [each.chance for each in sure.ranks] == [0, 1, 0] and "draws" not in sentence(sure)
    level = answered({1: 0.9, 4: 1.0}, noise=0.05, seed=3)  # rank 1 keeps just 90 %: a coin
    assert 0.02 < level.ranks[0].chance < 0.98
    assert sum(each.chance for each in level.ranks) == pytest.approx(1)
    assert "In 4000 parametric draws of the gains, the smallest sufficient rank is 1 in" in sentence(level)
    none = answered({4: -1.0, 8: -1.0}, noise=0.05)
    assert [each.chance for each in none.ranks] == [0, 0], "no rank gains"
    assert answered({1: 0.9, 4: 1.0}, 0.05, seed=3) == level, "the same numbers each time"


def test_draws_have_the_variances_of_the_intervals() -> None:
    """A rank's variance is that of its interval; a rank against a shifted copy of itself is certain."""
    values = planted({1: 1.0, 2: 1.0}, noise=0.3)
    cov = _covariance(np.stack([values[1], values[2]]))
    for index, rank in enumerate((1, 2)):
        found = crossed_interval(values[rank], SHOTS, 0.95)
        half = stats.t.ppf(0.975, variance_of_mean(values[rank])[1]) * np.sqrt(cov[index, index])
        assert found.high - found.mean == pytest.approx(half)
    assert cov[0, 1] == pytest.approx(cov[1, 0])
    shifted = {1: values[1], 2: values[1] + 0.01}
    assert smallest_in_parametric_draws(shifted, SHOTS, 0.9)[1] == 1
