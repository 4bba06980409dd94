"""Rank against rank: corrections on paper, marks that keep the best, equivalence that is shown."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.intervals import crossed_interval, p_value
from analysis.statistics.pairwise import against_best, holm, holm_levels, improvement, signed_ranks

SHOTS = [f"s{i}" for i in range(60)]


def test_holm_on_paper() -> None:
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0] and holm([]) == []
    # steps 5 % / 3, / 2, / 1; the second stops it, and what follows stays at its level
    assert holm_levels([0.03, 0.01, 0.04]) == pytest.approx([1 - 0.025, 1 - 0.05 / 3, 1 - 0.025])


def test_p_and_interval_agree() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        values = random.normal(0.15, 1, size=(3, 60))
        found = crossed_interval(values, SHOTS)
        assert (p_value(values, SHOTS) < 0.05) == (found.low > 0 or found.high < 0)
    assert p_value(np.ones((2, 60)), SHOTS) == 0.0 and p_value(np.zeros((2, 60)), SHOTS) == 1.0
    assert np.isnan(p_value(np.full((2, 60), np.nan), SHOTS))


def test_p_is_the_paired_t_test_of_one_seed() -> None:
    values = np.random.default_rng(1).normal(size=(1, 60))
    assert p_value(values, SHOTS) == pytest.approx(stats.ttest_1samp(values[0], 0).pvalue)


def test_the_interval_holds_zero_exactly_where_holm_does_not_reject() -> None:
    random, both = np.random.default_rng(2), set()
    for _ in range(30):
        values = {2**i: 0.1 * i + random.normal(size=(3, 60)) for i in range(5)}
        for each in against_best(values, SHOTS, None, 0.9).others:
            assert each.distinct == (each.difference.low > 0 or each.difference.high < 0)
            both.add(each.distinct)
    assert both == {True, False}


def test_best_tied_and_equivalent() -> None:
    random = np.random.default_rng(3)
    clip = random.normal(size=60)
    means = {1: 0.5, 2: 0.96, 4: 1.0, 8: 0.995}
    values = {rank: clip + mean + 0.02 * random.normal(size=(3, 60)) for rank, mean in means.items()}
    found = against_best(values, SHOTS, clip, 0.9)
    assert (found.best, found.tied, found.equivalent) == (4, (8,), (2, 8))  # 2: worse, but by less than a tenth
    assert [each.rank for each in found.others] == [1, 2, 8]
    assert found.over_base == {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0} and found.others[0].over_best == 0.0
    assert against_best(values, SHOTS, clip, 0.98).equivalent == (8,)
    assert against_best(values, SHOTS, None, 0.9).equivalent == ()


def test_not_told_apart_is_no_equivalence() -> None:
    random = np.random.default_rng(4)
    values = {rank: 1 + 3 * random.normal(size=(3, 60)) for rank in (1, 2)}
    found = against_best(values, SHOTS, np.zeros(60), 0.9)
    assert len(found.tied) == 1 and found.equivalent == ()


@pytest.mark.parametrize("of_seed", [0.0, 0.1])
def test_a_rank_of_the_share_itself_is_equivalent_in_one_of_twenty(of_seed: float) -> None:
    random, wrong = np.random.default_rng(5), 0
    for _ in range(200):
        values = {
            rank: mean + of_seed * random.normal(size=(3, 1)) + 0.3 * random.normal(size=(3, 60))
            for rank, mean in ((1, 2.7), (2, 3.0))
        }
        wrong += bool(against_best(values, SHOTS, np.zeros(60), 0.9).equivalent)
    assert wrong <= 14


def test_the_truly_best_rank_stays_among_those_not_told_apart() -> None:
    random, kept = np.random.default_rng(6), 0
    for _ in range(100):
        values = {
            rank: mean + 0.3 * random.normal(size=(3, 1)) + random.normal(size=(3, 60))
            for rank, mean in ((1, 0.0), (2, 0.3), (4, 0.3), (8, 0.31))
        }
        found = against_best(values, SHOTS, None, 0.9)
        kept += 8 in (found.best, *found.tied)
    assert kept >= 95


def test_signed_ranks_and_improvement_on_paper() -> None:
    assert signed_ranks(np.array([1.0, 2.0, 3.0])) == pytest.approx(0.25)  # 2 of the 8 signs
    assert signed_ranks(np.zeros(3)) == 1.0
    assert improvement(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([1.0, 1.0])) == pytest.approx(2.5 / 4)
    with pytest.raises(ValueError, match="a comparison needs two"):
        against_best({1: np.zeros((1, 60))}, SHOTS, None, 0.9)
