"""Tests over the ordered rank: statistics known on paper, planted shapes, and how often the word is false."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import trend as ordered
from analysis.statistics.trend import FALLS, NOT_SHOWN, RISES, _standardised, shot_means, slope, trend, umbrella
from analysis.study.files import Array

SHOTS = [f"s{i}" for i in range(40)]


def tables(
    means: list[float], of_seed: float, random: np.random.Generator, seeds: int = 3, of_shot: float = 0.5
) -> dict[int, Array]:
    """Ranks 1, 2, 4, ... with these means: luck of each rank's seeds, of its shots, and of each cell (0.5)."""
    cells = (len(means), seeds, 40)
    values = np.asarray(means)[:, None, None] + random.normal(size=40) + 0.5 * random.normal(size=cells)
    values += of_seed * random.normal(size=(*cells[:2], 1)) + of_shot * random.normal(size=(len(means), 1, 40))
    return {2**index: each for index, each in enumerate(values)}


def word(means: list[float], of_seed: float = 0.05, seed: int = 0) -> str:
    return trend(tables(means, of_seed, np.random.default_rng(seed)), SHOTS).word


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([0, 1, 2, 3], RISES),
        ([3, 2, 1, 0], FALLS),
        ([0, 1, 1, 1], RISES),
        ([0, 1, 3, 1], "peaks at rank 4"),
        ([0, 3, 2, 1], "peaks at rank 2"),
        ([3, 1, 1, 3], NOT_SHOWN),
        ([0, 0, 0, 0], NOT_SHOWN),
    ],
)
def test_planted_shapes_get_their_word(means: list[float], expected: str) -> None:
    assert word(means) == expected


@pytest.mark.parametrize(("of_seed", "of_shot"), [(0.0, 1.0), (0.2, 0.3), (1.0, 0.3)])
def test_without_effect_the_word_is_false_in_one_of_twenty(
    of_seed: float, of_shot: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds that do not differ, that differ as much as shots, and that are nearly all there is."""
    monkeypatch.setattr(ordered, "DRAWS", 99)
    random = np.random.default_rng(1)
    made = [trend(tables([0] * 4, of_seed, random, of_shot=of_shot), SHOTS) for _ in range(400)]
    assert sum(each.word != NOT_SHOWN for each in made) <= 28  # 7 %
    if of_seed == 1.0:  # what the seeds are there for: over shots alone, ranks "differ" in most tables
        assert sum(min(each.page_rising, each.page_falling) < 0.025 for each in made) > 200


def test_a_plateau_is_seldom_a_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "DRAWS", 99)
    random = np.random.default_rng(2)
    words = [trend(tables([0, 1, 1, 1, 1], 0.1, random), SHOTS).word for _ in range(200)]
    assert sum(each.startswith("peaks") for each in words) <= 10 and words.count(RISES) > 150


def test_two_seeds_are_too_few_for_a_word() -> None:
    values = tables([0, 1, 2, 3], 0.0, np.random.default_rng(3), seeds=2)
    found = trend(values, SHOTS)
    assert found.word == NOT_SHOWN and found.page_rising < 1e-6 and found.slope.low > 0
    with pytest.raises(ValueError, match="a trend needs three"):
        trend({1: values[1], 2: values[2]}, SHOTS)


def test_the_slope_is_per_doubling() -> None:
    values = np.array([5.0, 7.0, 11.0])[:, None, None] * np.ones((3, 1, 2))  # on log2: 0, 1, 3
    assert slope([1, 2, 8], values) == pytest.approx(np.full((1, 2), 2.0))


def test_clips_of_a_shot_are_one_block() -> None:
    values = np.array([[1.0, 3.0, 5.0]])
    assert shot_means(values, ["a", "b", "a"]).tolist() == [[3.0, 3.0]]
    assert shot_means(values, ["a"] * 3).tolist() == values.tolist()


def test_page_is_of_the_seed_means_of_shots() -> None:
    values = tables([0, 0.1, 0.2], 0.1, np.random.default_rng(4))
    blocks = np.stack([each.mean(0) for each in values.values()], axis=1)
    shots = sorted(SHOTS)  # numpy sorts names; the values below follow
    expected = stats.page_trend_test(blocks[np.argsort(SHOTS)]).pvalue
    assert shots != SHOTS and trend(values, SHOTS).page_rising == pytest.approx(expected)


@pytest.mark.parametrize("ranks", [2, 3, 4, 5])
def test_moments_of_the_umbrella_statistic(ranks: int) -> None:
    """Over all orders of one block each peak's statistic has mean 0 and variance 1."""
    orders = 2 * np.array(list(permutations(range(ranks))), dtype=np.int16)[:, None, :]
    found = _standardised(orders)
    assert found.mean(0) == pytest.approx(np.zeros(ranks)) and np.square(found).mean(0) == pytest.approx(np.ones(ranks))


def test_an_umbrella_on_paper() -> None:
    # two blocks 0 2 1: at the middle both pairs are as they should be in both, 4 of 4 where 2 are expected;
    # variance 2 / 3 a block, so (4 - 2) / sqrt(4 / 3); of 36 pairs of orders 4 put the largest twice in the middle, and
    # 1 each of rising and falling twice reaches (6 - 3) / sqrt(2 * 11 / 12), which is more
    place, p = umbrella(np.array([[0.0, 2.0, 1.0]] * 2), np.random.default_rng(5), draws=20000)
    assert place == 1 and p == pytest.approx(6 / 36, abs=0.01)
    assert umbrella(np.zeros((5, 3)), np.random.default_rng(5), 99) == (0, 1.0)


def test_the_same_generator_gives_the_same_p_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = np.random.default_rng(6).normal(size=(10, 4))
    once = umbrella(blocks, np.random.default_rng(7), 999)
    assert once == umbrella(blocks, np.random.default_rng(7), 999)
    monkeypatch.setattr(ordered, "CHUNK", 100)
    assert once == umbrella(blocks, np.random.default_rng(7), 999)
