"""The Frechet distance against 60 digits, stored moments and principal axes; what is unreliable warns."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import mpmath
import numpy as np
import pytest

from cinelora.metrics.distances import (
    UnreliableDistance,
    frechet_distance,
    principal_coordinates,
)

pytestmark = pytest.mark.filterwarnings("ignore::cinelora.metrics.distances.UnreliableDistance")


def _frechet_in_60_digits(x: np.ndarray, y: np.ndarray) -> float:
    """By the definition: D x D covariances and the symmetric root of R^(1/2) S R^(1/2)."""

    def moments(rows: np.ndarray) -> tuple[mpmath.matrix, mpmath.matrix]:
        exact = mpmath.matrix(rows.tolist())
        mean = mpmath.ones(1, exact.rows) * exact / exact.rows
        centred = exact - mpmath.ones(exact.rows, 1) * mean
        return mean, centred.T * centred / (exact.rows - 1)

    def root(matrix: mpmath.matrix) -> mpmath.matrix:
        values, vectors = mpmath.eigsy(matrix)
        return vectors * mpmath.diag([mpmath.sqrt(max(value, 0)) for value in values]) * vectors.T

    with mpmath.workdps(60):
        (mean_x, s), (mean_y, r) = moments(x), moments(y)
        half = root(r)
        rest = s + r - 2 * root(half * s * half)
        return float(mpmath.norm(mean_x - mean_y) ** 2 + sum(rest[i, i] for i in range(rest.rows)))


SPREADS: dict[str, Callable[[int], np.ndarray]] = {
    "even": lambda dims: np.ones(dims),
    "dead dimensions": lambda dims: np.arange(dims) % 2.0,
    "falling by a million": lambda dims: np.geomspace(1, 1e-6, dims),
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("shape", [(5, 7, 9), (4, 20, 8), (8, 9, 8), (15, 20, 6)])
def test_frechet_in_high_precision(shape: tuple[int, int, int], offset: float, spread: str) -> None:
    """Clips fewer, equal to and more than dimensions; roots of eigenvalues are off by 1e-8 to 1e-7 in some of these."""
    n, m, dims = shape
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, dims)) * SPREADS[spread](dims) + offset
    y = 1.5 * rng.normal(size=(m, dims)) * SPREADS[spread](dims) + offset + 0.3
    # features carry 16 digits, so an offset of 1e4 leaves fewer in what is squared
    assert frechet_distance(x, y) == pytest.approx(_frechet_in_60_digits(x, y), rel=1e-10 if offset else 1e-12)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.random.default_rng(0).normal(size=(4, 4)), "4 clips for 4 dimensions"),
        (np.full((9, 4), 0.1), "all equal"),
    ],
)
def test_unreliable_sets_warn(x: np.ndarray, message: str) -> None:
    with pytest.warns(UnreliableDistance, match=message) as caught:
        frechet_distance(x, np.random.default_rng(1).normal(size=(9, 4)))
    assert len(caught) == 1 and caught[0].filename == __file__


def test_enough_clips_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frechet_distance(*np.random.default_rng(1).normal(size=(2, 5, 4))) > 0


def test_principal_axes_on_paper() -> None:
    # spread 3 along (1, 1), 1 along (1, -1), none along the third
    reference = np.array([[3, 3, 5], [-3, -3, 5], [1, -1, 5], [-1, 1, 5]], dtype=float)
    (found,) = principal_coordinates(1, reference)
    np.testing.assert_allclose(np.abs(found[:, 0]), [np.sqrt(18), np.sqrt(18), 0, 0], atol=1e-12)
    with pytest.raises(ValueError, match="fewer than 3 directions"):
        principal_coordinates(3, reference)
    with pytest.raises(ValueError, match="1 to 3"):
        principal_coordinates(4, reference)
    with pytest.raises(ValueError, match="fewer than 1 directions"):
        principal_coordinates(1, np.full((4, 2), 0.1))


def test_all_principal_axes_keep_the_distance() -> None:
    rng = np.random.default_rng(13)
    x, y = rng.normal(size=(9, 4)) + 1, rng.normal(size=(9, 4))
    assert frechet_distance(*principal_coordinates(4, y, x)) == pytest.approx(frechet_distance(y, x), rel=1e-12)
    assert frechet_distance(*principal_coordinates(2, y, x)) < frechet_distance(y, x)
