"""Distances between two sets of feature vectors. NumPy only, float64 throughout.

In: arrays (N, D) and (M, D), one row per clip; any real dtype. Out: one float per pair of sets.
N, M count clips, D counts feature dimensions. No file, no device, no random number is touched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# A reference dimension that hardly varies must not be blown up by its own tiny standard deviation:
# with few clips it would outvote all others. Relative to the root mean square of all deviations;
# real TransNetV2 features stay above it (lowest 0.31 with 41 reference clips), so it binds on dead ones only.
STD_FLOOR = 0.05


def standardise(reference: ArrayLike, *others: ArrayLike) -> tuple[Array, ...]:
    """Subtract the reference mean and divide by the reference standard deviation, per dimension.

    `reference` (M, D) sets mean and deviation (divisor M - 1); `others` (N_i, D) share them.
    A deviation below `STD_FLOOR` times the root mean square deviation is raised to that floor, so a
    constant dimension stays finite; if every dimension is constant the divisor is 1.
    Returns (reference, *others) in float64, same shapes. ValueError: fewer than 2 reference rows,
    unequal D, not 2-D, NaN or infinity.
    """
    base = _features(reference, "reference")
    rows = [_features(other, "features") for other in others]
    for row in rows:
        _same_dimension(base, row)
    mean = base.mean(axis=0)
    scale = _floored(base.std(axis=0, ddof=1))
    return tuple((row - mean) / scale for row in (base, *rows))


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Frechet distance of the Gaussians fitted to `x` (N, D) and `y` (M, D); 0 or more.

    |mean x - mean y|^2 + tr(S) + tr(R) - 2 tr((S R)^(1/2)), covariances S and R with divisor N - 1
    and M - 1 (Dowson and Landau 1982; Heusel et al. 2017, arXiv 1706.08500, eq. 6). Both ways to the
    last term are exact; the cheaper one is taken. Rounding below 0 is returned as 0.
    ValueError: fewer than 2 rows in either, unequal D, not 2-D, NaN or infinity.
    """
    a, b = _features(x, "x"), _features(y, "y")
    _same_dimension(a, b)
    shift = a.mean(axis=0) - b.mean(axis=0)
    a_centred, b_centred = _scaled_deviations(a), _scaled_deviations(b)
    cross = _cross_low_rank if min(len(a), len(b)) < a.shape[1] else _cross_eigh
    spread = float(np.square(a_centred).sum() + np.square(b_centred).sum())
    return max(0.0, float(shift @ shift) + spread - 2.0 * cross(a_centred, b_centred))


def polynomial_mmd(
    x: ArrayLike,
    y: ArrayLike,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    unbiased: bool = True,
    matched: bool = False,
) -> float:
    """Squared maximum mean discrepancy under k(a, b) = (gamma a.b + coef0)^degree.

    `x` (N, D), `y` (M, D); `gamma` None means 1 / D. `unbiased` leaves out the diagonal of k(x, x)
    and k(y, y) (Gretton et al. 2012, eq. 3; Binkowski et al. 2018, arXiv 1801.01401); such an
    estimate may be negative and is never clipped. Biased (diagonal kept) is 0 or more.
    `matched` says that row i of x and of y belong together (a clip and its true continuation) and leaves
    k(x_i, y_i) out as well (Gretton et al. 2012, eq. 4): kept, it pulls the estimate below its expectation,
    the more the better a model copies. Needs N = M and `unbiased`.
    ValueError: fewer than 2 rows in either, unequal D, not 2-D, NaN or infinity.
    """
    a, b = _features(x, "x"), _features(y, "y")
    _same_dimension(a, b)

    def kernel(left: Array, right: Array) -> Array:
        return polynomial_kernel(left, right, degree, gamma, coef0)

    if matched and (not unbiased or len(a) != len(b)):
        raise ValueError(f"matched rows need an unbiased estimate and equal counts, not {len(a)} and {len(b)}")
    within = _self_mean(kernel(a, a), unbiased) + _self_mean(kernel(b, b), unbiased)
    return within - 2.0 * _self_mean(kernel(a, b), unbiased=matched)


def polynomial_kernel(x: Array, y: Array, degree: int = 3, gamma: float | None = None, coef0: float = 1.0) -> Array:
    """(gamma x.y + coef0)^degree of all pairs, (N, M), for float64 rows (N, D) and (M, D); `gamma` None: 1 / D."""
    scale = 1.0 / x.shape[1] if gamma is None else gamma
    return np.asarray((scale * (x @ y.T) + coef0) ** degree, dtype=np.float64)


def resampled_mmd(within_x: Array, within_y: Array, between: Array, counts: ArrayLike) -> Array:
    """The unbiased matched MMD of R resamples from its three kernel matrices (N, N); returns (R,).

    `counts` (R, N), 0 or more, says how often each clip is drawn, the same draw for x and y, whose rows belong
    together. A clip is never paired with itself or its copies: copies agree perfectly, and counted they would
    bias every resample upwards. Counts of one give `polynomial_mmd(..., matched=True)`.
    ValueError: a resample holds fewer than two different clips.
    """
    weights = np.asarray(counts, dtype=np.float64)
    pairs = weights.sum(1) ** 2 - np.square(weights).sum(1)
    if (pairs <= 0).any():
        raise ValueError("a resample holds fewer than 2 different clips")
    combined = within_x + within_y - between - between.T
    combined = combined - np.diag(np.diag(combined))
    return np.asarray(((weights @ combined) * weights).sum(1) / pairs, dtype=np.float64)


def _features(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} has shape {array.shape}: give (clips, dimensions)")
    if len(array) < 2:
        raise ValueError(f"{name} has {len(array)} clip(s): a spread needs at least 2")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity: {np.count_nonzero(~np.isfinite(array))} values")
    return array


def _same_dimension(a: Array, b: Array) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of {a.shape[1]} and {b.shape[1]} dimensions cannot be compared")


def _floored(deviation: Array) -> Array:
    floor = STD_FLOOR * float(np.sqrt(np.square(deviation).mean()))
    return np.maximum(deviation, floor) if floor > 0 else np.ones_like(deviation)


def _scaled_deviations(x: Array) -> Array:
    """Rows minus their mean, over sqrt(N - 1): the product A^T A is the covariance."""
    return np.asarray((x - x.mean(axis=0)) / np.sqrt(len(x) - 1), dtype=np.float64)


def _cross_low_rank(a: Array, b: Array) -> float:
    """tr((S R)^(1/2)) as the nuclear norm of A B^T (N, M): no D x D matrix, no rounding in null spaces."""
    return float(np.linalg.svd(a @ b.T, compute_uv=False).sum())


def _cross_eigh(a: Array, b: Array) -> float:
    """tr((S R)^(1/2)) = tr((R^(1/2) S R^(1/2))^(1/2)) by two symmetric eigendecompositions (D, D)."""
    values, vectors = np.linalg.eigh(b.T @ b)
    root = vectors * np.sqrt(np.maximum(values, 0.0))  # R = root root^T; R^(1/2) up to a rotation
    half = a @ root
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(half.T @ half), 0.0)).sum())


def _self_mean(gram: Array, unbiased: bool) -> float:
    """Mean of a kernel matrix, its diagonal left out if `unbiased`."""
    count = len(gram)
    if not unbiased:
        return float(gram.mean())
    return float((gram.sum() - np.trace(gram)) / (count * (count - 1)))
