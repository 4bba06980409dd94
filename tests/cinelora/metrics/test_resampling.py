"""Replicates from Gram matrices equal distances of the drawn rows; bias and standard errors hit simulated truths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cinelora.metrics.distances import frechet_distance, kernel_distance
from cinelora.metrics.resampling import (
    Grams,
    at_infinity,
    frechet_replicates,
    half_samples,
    half_sampling,
    kernel_grams,
    linear_grams,
    matched_mmd_replicates,
    mmd_replicates,
)

pytestmark = pytest.mark.filterwarnings("ignore::cinelora.metrics.distances.UnreliableDistance")


def _sets(n: int, m: int, dims: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, dims)) + 5, 1.3 * random.normal(size=(m, dims)) + 5.3


def with_replacement(clips: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """(R, N) counts of clips drawn with replacement, so that some have copies."""
    return random.multinomial(clips, np.full(clips, 1 / clips), draws).astype(float)


def _drawn(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.repeat(rows, counts.astype(int), axis=0)


@pytest.mark.parametrize("dims", [3, 50])
@pytest.mark.parametrize("plan", [half_samples, with_replacement])
def test_frechet_replicates_are_distances_of_the_drawn_rows(plan: Callable[..., np.ndarray], dims: int) -> None:
    x, y = _sets(12, 17, dims)
    random = np.random.default_rng(1)
    a, b = plan(12, 6, random), plan(17, 6, random)
    expected = [frechet_distance(_drawn(x, a[r]), _drawn(y, b[r])) for r in range(6)]
    np.testing.assert_allclose(frechet_replicates(linear_grams(x, y), a, b), expected, rtol=1e-11)


@pytest.mark.parametrize("smallest", [1e-1, 1e-5])
def test_eigenvalues_give_way_where_squares_lose_digits(smallest: float) -> None:
    x, y = _sets(12, 17, 14)
    scale = np.geomspace(1, smallest, 14)
    grams = linear_grams(x * scale, y * scale)
    a, b = half_samples(12, 6, np.random.default_rng(1)), np.ones((1, 17))
    expected = [frechet_distance(_drawn(x, each) * scale, y * scale) for each in a]
    np.testing.assert_allclose(frechet_replicates(grams, a, b), expected, rtol=1e-9)


def test_frechet_replicates_leave_one_out_and_hold_a_set_fixed() -> None:
    x, y = _sets(7, 9, 20)
    expected = [frechet_distance(np.delete(x, i, axis=0), y) for i in range(7)]
    got = frechet_replicates(linear_grams(x, y), 1.0 - np.eye(7), np.ones((1, 9)))
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def test_unbiased_mmd_replicates() -> None:
    x, y = _sets(8, 10, 4)
    a, b = half_samples(8, 5, np.random.default_rng(2)), half_samples(10, 5, np.random.default_rng(3))
    expected = [kernel_distance(_drawn(x, a[r]), _drawn(y, b[r])) for r in range(5)]
    np.testing.assert_allclose(mmd_replicates(kernel_grams(x, y), a, b), expected, rtol=1e-11)


def test_biased_mmd_replicates_count_copies() -> None:
    x, y = _sets(8, 10, 4)
    a, b = with_replacement(8, 5, np.random.default_rng(2)), with_replacement(10, 5, np.random.default_rng(3))
    expected = [kernel_distance(_drawn(x, a[r]), _drawn(y, b[r]), "jedi") for r in range(5)]
    got = mmd_replicates(kernel_grams(x, y, "jedi"), a, b, unbiased=False)
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def test_unbiased_mmd_pairs_no_clip_with_its_copy() -> None:
    # clips 0 twice and 1 once: pairs of different clips only, (0, 1) whatever the counts
    grams = Grams(np.array([[9.0, 2.0], [2.0, 9.0]]), np.array([[9.0, 4.0], [4.0, 9.0]]), np.eye(2))
    assert mmd_replicates(grams, [[2, 1]], [[1, 1]])[0] == pytest.approx(2 + 4 - 2 * (2 + 1) / 6)


def test_matched_mmd_agrees_with_the_pairs_counted_by_hand() -> None:
    x, y = _sets(9, 9, 4)
    grams = kernel_grams(x, y)
    counts = with_replacement(9, 4, np.random.default_rng(5))
    apart = Grams(grams.within_x, grams.within_y, np.zeros((9, 9)))
    cross = grams.between - np.diag(np.diag(grams.between))
    pairs = counts.sum(1) ** 2 - np.square(counts).sum(1)
    expected = mmd_replicates(apart, counts, counts) - 2 * ((counts @ cross) * counts).sum(1) / pairs
    np.testing.assert_allclose(matched_mmd_replicates(grams, counts), expected, rtol=1e-11)


def test_halves_hold_different_clips() -> None:
    random = np.random.default_rng(6)
    halves = half_samples(9, 50, random)
    assert set(np.unique(halves)) == {0.0, 1.0} and (halves.sum(1) == 4).all()
    assert len(np.unique(halves, axis=0)) > 20


def _mean_difference(grams: Grams, x_counts: np.ndarray, y_counts: np.ndarray) -> np.ndarray:
    """Of numbers on the diagonals: its bias is 0 and its variance known in closed form."""
    x, y = np.diag(grams.within_x), np.diag(grams.within_y)
    return np.asarray(x_counts @ x / x_counts.sum(1) - y_counts @ y / y_counts.sum(1))


def test_standard_errors_of_a_mean_in_closed_form() -> None:
    random = np.random.default_rng(7)
    x, y = random.normal(size=20), 2 * random.normal(size=31)
    grams = Grams(np.diag(x), np.diag(y), np.zeros((20, 31)))
    truth = np.sqrt(x.var(ddof=1) / 20 + y.var(ddof=1) / 31)
    whole = x.mean() - y.mean()
    found = half_sampling(grams, _mean_difference, np.random.default_rng(8), 4000)
    assert found.value == pytest.approx(whole)
    assert found.standard_error == pytest.approx(truth, rel=0.06)
    assert abs(found.bias) < 5 * truth / np.sqrt(4000)


def test_paired_clips_are_drawn_together() -> None:
    x = np.random.default_rng(9).normal(size=12)
    grams = Grams(np.diag(x), np.diag(x + 1), np.zeros((12, 12)))
    found = half_sampling(grams, _mean_difference, np.random.default_rng(0), 20, paired=True)
    assert found.standard_error == pytest.approx(0.0, abs=1e-12) and found.value == pytest.approx(-1.0)


def test_frechet_bias_and_standard_error_hit_the_truth() -> None:
    """30 pairs of normal sets, 0.3 and a factor 1.3 apart in each of 8 dimensions: truth 8 (0.09 + 0.09)."""
    truth, values, found = 8 * 0.18, [], []
    for seed in range(30):
        grams = linear_grams(*_sets(80, 80, 8, seed))
        random = np.random.default_rng(seed)
        halves = half_sampling(grams, frechet_replicates, random, 100)
        line = at_infinity(grams, frechet_replicates, random, 5, 4)
        values.append(halves.value)
        found.append([halves.value - halves.bias, line.value, halves.standard_error, line.standard_error])
    spread = np.std(values, ddof=1)
    error = spread / np.sqrt(30)
    means = np.mean(found, axis=0)
    assert np.mean(values) - truth > 5 * error, "the plain value is biased upward, or this test shows nothing"
    np.testing.assert_allclose(means[:2], truth, atol=3 * error)
    np.testing.assert_allclose(means[2:], spread, rtol=0.35)


def test_a_straight_line_is_found_exactly() -> None:
    def line(grams: Grams, x_counts: np.ndarray, y_counts: np.ndarray) -> np.ndarray:
        return np.asarray(7 + 3 / x_counts.sum(1) + 3 / y_counts.sum(1))  # 7 + 6 / harmonic mean

    grams = Grams(np.zeros((40, 40)), np.zeros((55, 55)), np.zeros((40, 55)))
    found = at_infinity(grams, line, np.random.default_rng(0))
    assert (found.value, found.slope) == (pytest.approx(7), pytest.approx(6))
    assert found.standard_error == pytest.approx(0.0, abs=1e-10)
    assert found.sizes[0] == pytest.approx(2 / (1 / 10 + 1 / 14)) and found.sizes[-1] == pytest.approx(
        2 / (1 / 40 + 1 / 55)
    )


def test_the_last_score_is_that_of_all_clips() -> None:
    x, y = _sets(40, 40, 3)
    found = at_infinity(linear_grams(x, y), frechet_replicates, np.random.default_rng(0), 4, 3)
    assert found.scores[-1] == pytest.approx(frechet_distance(x, y), rel=1e-11)
    assert found.value < found.scores[-1] < found.scores[0]


def test_one_generator_one_result() -> None:
    x, y = _sets(24, 24, 3)
    grams = linear_grams(x, y)
    for resampled in (half_sampling, at_infinity):
        first, again, other = (resampled(grams, frechet_replicates, np.random.default_rng(s), 9) for s in (1, 1, 2))
        assert first.standard_error == again.standard_error != other.standard_error


GRAMS, FOUR = linear_grams(*_sets(3, 5, 2)), linear_grams(*_sets(4, 5, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda random: linear_grams(np.full((3, 2), np.nan), np.ones((3, 2))), "NaN or infinity"),
        (lambda random: linear_grams(np.ones((1, 2)), np.ones((3, 2))), "at least 2"),
        (lambda random: kernel_grams(np.ones((2, 3)), np.ones((3, 2))), "cannot be compared"),
        (lambda random: kernel_grams(np.ones((3, 2)), np.ones((3, 2)), "fid"), "no kernel distance"),
        (lambda random: frechet_replicates(GRAMS, np.ones((1, 4)), np.ones((1, 5))), "do not fit 3 and 5"),
        (lambda random: frechet_replicates(GRAMS, np.ones((2, 3)), np.ones((3, 5))), "do not fit 3 and 5"),
        (lambda random: frechet_replicates(GRAMS, [[1, 0, 0]], np.ones((1, 5))), "fewer than 2 clips"),
        (lambda random: mmd_replicates(GRAMS, [[4, -1, 0]], np.ones((1, 5))), "negative counts"),
        (lambda random: mmd_replicates(GRAMS, [[3, 0, 0]], np.ones((1, 5))), "fewer than 2 different"),
        (lambda random: half_sampling(GRAMS, frechet_replicates, random), "needs 4"),
        (lambda random: half_sampling(GRAMS, frechet_replicates, random, 1), "at least 2"),
        (lambda random: half_sampling(FOUR, frechet_replicates, random, paired=True), "equal counts, not 4 and 5"),
        (lambda random: at_infinity(GRAMS, frechet_replicates, random), "needs 20"),
        (lambda random: at_infinity(linear_grams(*_sets(20, 20, 2)), frechet_replicates, random, 1), "1 sizes"),
    ],
)
def test_bad_input_is_refused(call: Callable[[np.random.Generator], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
