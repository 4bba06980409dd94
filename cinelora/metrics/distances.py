"""Distances between two sets of feature vectors. NumPy only, float64 throughout.

In: arrays (N, D) and (M, D), one row per clip; any real dtype. Out: one float per pair of sets.
N, M count clips, D counts feature dimensions, K counts axes. No file, no device, no random number is touched.
Spread and bias of these distances: `cinelora/metrics/resampling.py`; as streaming metrics:
`cinelora/metrics/torchmetrics.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

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
    rows = comparable(reference, *others)
    mean = rows[0].mean(axis=0)
    scale = _floored(rows[0].std(axis=0, ddof=1))
    centred = [row - mean for row in rows]
    return tuple(np.divide(row, scale, out=row) for row in centred)


class UnreliableDistance(UserWarning):
    """The number follows its definition, but the sets are too small or too flat for it to mean much."""


@dataclass(frozen=True)
class Gaussian:
    """A fitted normal distribution. `factor.T @ factor` is the covariance (D, D), which is never formed.

    Keeping the factor and not the covariance keeps the accuracy: singular values of a product of factors have an error
    of one rounding, square roots of eigenvalues of a product of covariances one of the root of a rounding.
    """

    count: int  # clips behind it, 2 or more
    mean: Array  # (D,)
    factor: Array  # (K, D)


def fit_gaussian(x: ArrayLike) -> Gaussian:
    """Mean and covariance (divisor N - 1) of `x` (N, D), the covariance as a factor of at most min(N, D) rows.

    ValueError: fewer than 2 rows, not 2-D, NaN or infinity.
    """
    (rows,) = comparable(x)
    factor = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    if len(rows) > rows.shape[1]:
        factor = np.linalg.qr(factor, mode="r")  # the same covariance in D rows
    return Gaussian(len(rows), rows.mean(axis=0), np.asarray(factor, dtype=np.float64))


def frechet_between(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance of two normal distributions; 0 or more, rounding below 0 is returned as 0.

    |mean a - mean b|^2 + tr(S) + tr(R) - 2 tr((S R)^(1/2)) for covariances S = A^T A and R = B^T B (Dowson and
    Landau 1982; Heusel et al. 2017, arXiv 1706.08500, eq. 6). The eigenvalues of S R are the squared singular
    values of A B^T, so the last trace is the sum of those: exact for any number of clips, no matrix root.
    """
    shift = a.mean - b.mean
    spread = float(np.square(a.factor).sum() + np.square(b.factor).sum())
    cross = float(np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum())
    return max(0.0, float(shift @ shift) + spread - 2.0 * cross)


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Frechet distance of the Gaussians fitted to `x` (N, D) and `y` (M, D); 0 or more.

    `frechet_between` of `fit_gaussian`: FVD when features come from I3D (Unterthiner et al. 2018, arXiv 1812.01717).
    Warns `UnreliableDistance` where N or M is at most D (a covariance without full rank: mostly bias) and where
    the rows of a set are all equal.
    ValueError: fewer than 2 rows in either, unequal D, not 2-D, NaN or infinity.
    """
    fitted = tuple(map(fit_gaussian, comparable(x, y)))
    warn_if_unreliable(*fitted)
    return frechet_between(*fitted)


def mostly_bias(count: int, dimensions: int) -> str:
    """Why a Frechet distance means little on `count` clips (of the smaller set), or ""."""
    if count > dimensions:
        return ""
    return f"{count} clips for {dimensions} dimensions: a Frechet distance is mostly bias up to n = d"


def warn_if_unreliable(*fitted: Gaussian, stacklevel: int = 3) -> None:
    """One `UnreliableDistance` for too few clips, one for clips without spread, at the line of the caller's caller."""
    if text := mostly_bias(min(each.count for each in fitted), len(fitted[0].mean)):
        warnings.warn(text, UnreliableDistance, stacklevel=stacklevel)
    if any(_is_flat(each) for each in fitted):
        text = "the features of a set are all equal: its covariance is 0, look at the feature net"
        warnings.warn(text, UnreliableDistance, stacklevel=stacklevel)


def _is_flat(fitted: Gaussian) -> bool:
    """No spread beyond what rounding leaves of equal rows."""
    return float(np.abs(fitted.factor).max(initial=0.0)) <= 1e-13 * float(np.abs(fitted.mean).max())


def principal_coordinates(count: int, reference: ArrayLike, *others: ArrayLike) -> tuple[Array, ...]:
    """All sets along the `count` directions in which `reference` (M, D) varies most, about its mean.

    For sets with too few clips for D dimensions. Returns (reference, *others), each (N_i, count). Fitted on the
    reference alone: axes that saw the generated clips would adapt to what is to be measured.
    ValueError: `count` not in 1..min(M - 1, D), a reference without that many directions; as `standardise`.
    """
    rows = comparable(reference, *others)
    most = min(len(rows[0]) - 1, rows[0].shape[1])
    if not 1 <= count <= most:
        raise ValueError(f"{count} axes for {len(rows[0])} clips in {rows[0].shape[1]} dimensions: give 1 to {most}")
    mean = rows[0].mean(axis=0)
    _, spread, axes = np.linalg.svd(rows[0] - mean, full_matrices=False)
    if spread[count - 1] <= max(rows[0].shape) * np.finfo(np.float64).eps * max(spread[0], np.abs(mean).max()):
        raise ValueError(f"the reference varies along fewer than {count} directions")
    return tuple(np.asarray((each - mean) @ axes[:count].T, np.float64) for each in rows)


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
    a, b = comparable(x, y)

    def kernel(left: Array, right: Array) -> Array:
        return polynomial_kernel(left, right, degree, gamma, coef0)

    if matched and (not unbiased or len(a) != len(b)):
        raise ValueError(f"matched rows need an unbiased estimate and equal counts, not {len(a)} and {len(b)}")
    within = kernel_mean(kernel(a, a), unbiased) + kernel_mean(kernel(b, b), unbiased)
    return within - 2.0 * kernel_mean(kernel(a, b), unbiased=matched)


@dataclass(frozen=True)
class KernelPreset:
    """A published kernel distance: `factor` times the MMD under (a.b / D + coef0)^degree."""

    degree: int
    coef0: float
    unbiased: bool
    factor: float = 1.0


KERNEL_PRESETS: Mapping[str, KernelPreset] = {
    "kid": KernelPreset(degree=3, coef0=1.0, unbiased=True),  # Binkowski et al. 2018, arXiv 1801.01401, section 4
    # Luo et al. 2025, arXiv 2410.05203, as released: the diagonals stay in, the result is times 100
    "jedi": KernelPreset(degree=2, coef0=0.0, unbiased=False, factor=100.0),
}


def kernel_preset(name: str) -> KernelPreset:
    """The preset of that name. ValueError: there is none."""
    if name not in KERNEL_PRESETS:
        raise ValueError(f"no kernel distance {name!r}: {', '.join(KERNEL_PRESETS)}")
    return KERNEL_PRESETS[name]


def kernel_distance(x: ArrayLike, y: ArrayLike, preset: str = "kid") -> float:
    """A published kernel distance of `x` (N, D) and `y` (M, D), over all clips and not over random subsets.

    Unbiased ones may be negative. ValueError: unknown preset; as `polynomial_mmd`.
    """
    chosen = kernel_preset(preset)
    return chosen.factor * polynomial_mmd(x, y, chosen.degree, None, chosen.coef0, chosen.unbiased)


def polynomial_kernel(x: Array, y: Array, degree: int = 3, gamma: float | None = None, coef0: float = 1.0) -> Array:
    """(gamma x.y + coef0)^degree of all pairs, (N, M), for float64 rows (N, D) and (M, D); `gamma` None: 1 / D."""
    scale = 1.0 / x.shape[1] if gamma is None else gamma
    return np.asarray((scale * (x @ y.T) + coef0) ** degree, dtype=np.float64)


def comparable(*sets: ArrayLike) -> tuple[Array, ...]:
    """Each set as float64 (N_i, D). ValueError: fewer than 2 rows in one, unequal D, not 2-D, NaN or infinity."""
    arrays = tuple(np.asarray(each, dtype=np.float64) for each in sets)
    for array in arrays:
        if array.ndim != 2 or array.shape[1] == 0:
            raise ValueError(f"features have shape {array.shape}: give (clips, dimensions)")
        if len(array) < 2:
            raise ValueError(f"features of {len(array)} clip(s): a spread needs at least 2")
        if not np.isfinite(array).all():
            raise ValueError(f"features hold NaN or infinity: {np.count_nonzero(~np.isfinite(array))} values")
        if array.shape[1] != arrays[0].shape[1]:
            raise ValueError(f"features of {arrays[0].shape[1]} and {array.shape[1]} dimensions cannot be compared")
    return arrays


def _floored(deviation: Array) -> Array:
    floor = STD_FLOOR * float(np.sqrt(np.square(deviation).mean()))
    return np.maximum(deviation, floor) if floor > 0 else np.ones_like(deviation)


def kernel_mean(gram: Array, unbiased: bool) -> float:
    """Mean of a kernel matrix, its diagonal left out if `unbiased`."""
    count = len(gram)
    if not unbiased:
        return float(gram.mean())
    return float((gram.sum() - np.trace(gram)) / (count * (count - 1)))
