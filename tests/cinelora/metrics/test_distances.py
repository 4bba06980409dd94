"""Distances whose answers fit on paper or in 60 digits: known Gaussians, two-point sets, published values."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest

from cinelora.metrics import distances
from cinelora.metrics.distances import (
    KERNEL_PRESETS,
    STD_FLOOR,
    frechet_distance,
    kernel_distance,
    polynomial_mmd,
    standardise,
)
from cinelora.metrics.resampling import Grams, kernel_grams, matched_mmd_replicates

pytestmark = pytest.mark.filterwarnings("ignore::cinelora.metrics.distances.UnreliableDistance")


def _gaussian(mean: list[float], std: list[float]) -> np.ndarray:
    """2 D points with exactly this mean and this diagonal covariance (divisor N - 1)."""
    dims = len(std)
    step = np.sqrt((2 * dims - 1) / 2)
    corners = np.vstack([np.eye(dims), -np.eye(dims)]) * step
    return np.asarray(corners * np.array(std) + np.array(mean))


def test_frechet_in_one_dimension() -> None:
    # means 0 and 3, standard deviations sqrt(2) and 2 sqrt(2): 9 + (sqrt 2)^2
    assert frechet_distance([[-1.0], [1.0]], [[1.0], [5.0]]) == pytest.approx(11.0, abs=1e-12)


def test_frechet_between_diagonal_gaussians() -> None:
    x = _gaussian([0, 0, 0], [1, 2, 3])
    y = _gaussian([1, 2, 2], [2, 2, 1])
    assert frechet_distance(x, y) == pytest.approx(9 + (1 + 0 + 4), abs=1e-10)


def test_frechet_divides_by_n_minus_one() -> None:
    # the same two points twice over: variance 2 with one divisor, 4/3 with the other
    expected = (np.sqrt(2) - np.sqrt(4 / 3)) ** 2
    assert frechet_distance([[-1.0], [1.0]], [[-1.0], [1.0], [-1.0], [1.0]]) == pytest.approx(expected)


@pytest.mark.parametrize("rows", [8, 50])
def test_frechet_of_a_set_with_itself_is_zero(rows: int) -> None:
    x = np.random.default_rng(2).normal(size=(rows, 20))
    assert 0.0 <= frechet_distance(x, x) < 1e-8


def test_frechet_is_symmetric_and_ignores_order() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(7, 10)), rng.normal(1, 2, size=(9, 10))
    forward = frechet_distance(x, y)
    assert frechet_distance(y, x) == pytest.approx(forward, rel=1e-9)
    assert frechet_distance(x[::-1], rng.permutation(y)) == pytest.approx(forward, rel=1e-9)


def test_frechet_takes_float32_in_float64() -> None:
    x = np.array([[1e4], [1e4 + 1]], dtype=np.float32)
    assert frechet_distance(x, x + np.float32(1)) == pytest.approx(1.0, abs=1e-9)


def test_mmd_by_hand() -> None:
    # D 1, so k(a, b) = (a b + 1)^3. x = {0, 1}: k = [[1, 1], [1, 8]]; y = {1, 2}: [[8, 27], [27, 125]];
    # between: [[1, 1], [8, 27]].
    x, y = [[0.0], [1.0]], [[1.0], [2.0]]
    between = (1 + 1 + 8 + 27) / 4
    assert polynomial_mmd(x, y) == pytest.approx(1 + 27 - 2 * between)
    assert polynomial_mmd(x, y, unbiased=False) == pytest.approx(11 / 4 + 187 / 4 - 2 * between)
    assert polynomial_mmd(x, y, degree=1, gamma=2.0, coef0=0.0) == pytest.approx(0 + 4 - 2 * 1.5)


def test_mmd_gamma_defaults_to_one_over_dimension() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(5, 8)), rng.normal(size=(6, 8))
    assert polynomial_mmd(x, y) == polynomial_mmd(x, y, gamma=1 / 8)


def test_biased_mmd_of_a_set_with_itself_is_zero_and_unbiased_is_negative() -> None:
    x = np.random.default_rng(5).normal(size=(6, 3))
    assert polynomial_mmd(x, x, unbiased=False) == pytest.approx(0.0, abs=1e-12)
    assert polynomial_mmd(x, x) < 0


def test_unbiased_mmd_of_equal_laws_averages_to_zero() -> None:
    rng = np.random.default_rng(6)
    draws = [polynomial_mmd(*rng.normal(size=(2, 40, 4))) for _ in range(200)]
    assert min(draws) < 0 < max(draws)
    assert abs(np.mean(draws)) < 3 * np.std(draws, ddof=1) / np.sqrt(len(draws))


def test_kernel_distances_against_published_values() -> None:
    # printed in the released code of JEDi for these seven rows: gamma 1 / D, and gamma 1 as in what it adapts
    x = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    y = [[7, 6, 5], [4, 3, 2], [1, 1, 8], [0, 2, 5]]
    assert kernel_distance(x, y, "jedi") == pytest.approx(100 * 270.7, abs=5)
    assert polynomial_mmd(x, y, degree=2, gamma=1.0, coef0=0.0, unbiased=False) == pytest.approx(2436.5, rel=1e-12)


def test_kid_equals_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    published = pytest.importorskip("torchmetrics.image.kid").poly_mmd
    x, y = np.random.default_rng(9).normal(size=(2, 20, 7))
    theirs = float(published(torch.from_numpy(x), torch.from_numpy(y)))
    assert kernel_distance(x, y) == pytest.approx(theirs, rel=1e-12)


def test_kernel_presets_differ_by_their_data_alone() -> None:
    rng = np.random.default_rng(10)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(8, 3))
    for name, preset in KERNEL_PRESETS.items():
        by_hand = polynomial_mmd(x, y, preset.degree, 1 / 3, preset.coef0, preset.unbiased)
        assert kernel_distance(x, y, name) == pytest.approx(preset.factor * by_hand, rel=1e-14)
    with pytest.raises(ValueError, match="no kernel distance 'fid': kid, jedi"):
        kernel_distance(x, y, "fid")


def test_mmd_in_high_precision() -> None:
    x, y = np.random.default_rng(12).normal(size=(2, 6, 4)) + 5
    with mpmath.workdps(50):

        def mean(rows: np.ndarray, others: np.ndarray) -> mpmath.mpf:
            pairs = [(i, j) for i in range(6) for j in range(6) if rows is not others or i != j]
            dots = [mpmath.fdot(rows[i].tolist(), others[j].tolist()) for i, j in pairs]
            return mpmath.fsum((dot / 4 + 1) ** 3 for dot in dots) / len(pairs)

        exact = float(mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert polynomial_mmd(x, y) == pytest.approx(exact, rel=1e-10)


def test_standardise_uses_the_reference_alone() -> None:
    reference = np.array([[0.0, 10.0], [2.0, 30.0]])
    scaled, other = standardise(reference, [[1.0, 20.0], [1.0, 40.0]])
    half = 1 / np.sqrt(2)
    np.testing.assert_allclose(scaled, [[-half, -half], [half, half]])
    np.testing.assert_allclose(other, [[0.0, 0.0], [0.0, 2 * half]], atol=1e-15)


def test_standardise_floors_a_constant_dimension() -> None:
    reference = np.array([[0.0, 5.0], [2.0, 5.0]])  # deviations sqrt 2 and 0, root mean square 1
    scaled, other = standardise(reference, reference + 1)
    np.testing.assert_allclose(scaled[:, 1], 0.0)
    np.testing.assert_allclose(other[:, 1], 1 / STD_FLOOR)


def test_standardise_of_a_constant_reference_only_centres() -> None:
    reference, other = standardise(np.full((3, 2), 7.0), np.full((2, 2), 9.0))
    assert (reference == 0).all() and (other == 2).all()


@pytest.mark.parametrize("distance", [frechet_distance, polynomial_mmd, standardise])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3)), "at least 2"),
        (np.zeros(3), "give \\(clips, dimensions\\)"),
        (np.zeros((4, 2)), "cannot be compared"),
        (np.full((4, 3), np.nan), "NaN or infinity"),
    ],
)
def test_bad_input_is_refused(distance: Callable[..., object], x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distance(x, np.zeros((4, 3)))


def test_matched_pairs_bias_the_mmd_unless_left_out() -> None:
    """Same distribution on both sides, rows correlated by 0.9: the true value is 0."""
    random = np.random.default_rng(0)
    kept, left_out = [], []
    for _ in range(200):
        x = random.standard_normal((16, 8))
        y = 0.9 * x + np.sqrt(1 - 0.81) * random.standard_normal((16, 8))
        kept.append(polynomial_mmd(x, y))
        left_out.append(polynomial_mmd(x, y, matched=True))
    error = np.std(left_out) / np.sqrt(200)
    assert abs(np.mean(left_out)) < 3 * error
    assert np.mean(kept) < -10 * error
    with pytest.raises(ValueError, match="equal counts"):
        polynomial_mmd(np.zeros((3, 1)), np.zeros((2, 1)), matched=True)


def test_resamples_of_one_each_give_the_plain_distance() -> None:
    random = np.random.default_rng(11)
    x, y = random.normal(size=(6, 4)), random.normal(size=(6, 4)) + 0.5
    whole = matched_mmd_replicates(kernel_grams(x, y), np.ones((1, 6)))[0]
    assert whole == pytest.approx(polynomial_mmd(x, y, matched=True))


def test_a_resample_never_pairs_a_clip_with_its_copies() -> None:
    # clips 0 twice, 1 once, 2 once: pairs (0,1), (0,2) count twice, (1,2) once, in either order; 10 in all
    x, y = np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [1.0], [3.0]])
    k = [distances.polynomial_kernel(a, b, degree=1, coef0=0.0) for a, b in ((x, x), (y, y), (x, y))]
    total = sum(
        weight * (k[0][i, j] + k[1][i, j] - k[2][i, j] - k[2][j, i])
        for i, j, weight in ((0, 1, 4), (0, 2, 4), (1, 2, 2))
    )
    assert matched_mmd_replicates(Grams(*k), [[2, 1, 1]])[0] == pytest.approx(total / 10)
    with pytest.raises(ValueError, match="fewer than 2"):
        matched_mmd_replicates(Grams(*k), [[3, 0, 0]])
