"""Scores of a set of clips against another: Frechet and kernel distances with their standard errors.

In: features (N, D) of made clips and (M, D) of real ones, one row per clip. Out: `SetScore`. NumPy only, no files.
Definitions are those of `cinelora/distances.py`; errors those of `cinelora/resampling.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinelora.metrics.distances import (
    fit_gaussian,
    frechet_between,
    kernel_distance,
    polynomial_mmd,
    resampled_mmd,
    standardise,
)
from cinelora.metrics.extrapolation import GROUPS, SMALLEST_SHARE, at_infinity
from cinelora.metrics.resampling import (
    Grams,
    Statistic,
    frechet_replicates,
    half_sampling,
    kernel_grams,
    linear_grams,
    mmd_replicates,
)

Array = NDArray[np.float64]
SEED = 0  # of the halves and of the subsets
LEAST_FOR_ERROR = 4  # clips in the smaller set


@dataclass(frozen=True)
class SetScore:
    """`value` on all clips; `standard_error` over other clips of the same two laws, None where not worked out."""

    value: float
    standard_error: float | None = None
    bias: float | None = None  # how far a biased `value` lies above that of infinitely many clips, as halves tell


@dataclass(frozen=True)
class SetFamily:
    """A kind of distance: `compute(made, real, paired, draws)`, and its protocol."""

    compute: Callable[[Array, Array, bool, int], SetScore]
    facts: Mapping[str, Any]
    least_clips: int = 2


def set_score(family: str, made: Array, real: Array, paired: bool, standardised: bool, draws: int) -> SetScore:
    """The distance `family` of `made` (N, D) to `real` (M, D).

    `paired`: row i of both belong together (N = M); halves then draw them together and kvd leaves out k(x_i, y_i),
    which is unbiased whether or not they resemble each other. `standardised` divides by the deviation of `real`.
    `draws` random halves give the standard error; 0: none. The same input gives the same numbers.
    ValueError: fewer rows than the family needs, unequal D, NaN or infinity. KeyError: no such family.
    """
    if standardised:
        real, made = standardise(real, made)
    return SET_FAMILIES[family].compute(made, real, paired, draws)


def _frechet(made: Array, real: Array, paired: bool, draws: int) -> SetScore:
    value = frechet_between(fit_gaussian(real), fit_gaussian(made))
    return _with_error(value, linear_grams, frechet_replicates, made, real, paired, draws)


def _unbiased_kernel(made: Array, real: Array, paired: bool, draws: int) -> SetScore:
    if not paired:
        value = kernel_distance(made, real, "kid")
        found = _with_error(value, kernel_grams, mmd_replicates, made, real, paired, draws)
    else:
        value = polynomial_mmd(made, real, matched=True)
        found = _with_error(value, kernel_grams, _matched, made, real, paired, draws)
    return replace(found, bias=None)  # it has none: what halves show is their own noise


def _jedi(made: Array, real: Array, paired: bool, draws: int) -> SetScore:
    value = kernel_distance(made, real, "jedi")
    grams, statistic = partial(kernel_grams, preset="jedi"), partial(mmd_replicates, unbiased=False)
    return _with_error(value, grams, statistic, made, real, paired, draws)


def _frechet_at_infinity(made: Array, real: Array, paired: bool, draws: int) -> SetScore:
    # equal counts are shuffled alike by `at_infinity`, paired or not; its error is a jackknife and needs no draws
    found = at_infinity(linear_grams(made, real), frechet_replicates, np.random.default_rng(SEED))
    return SetScore(found.value, found.standard_error)


def _matched(grams: Grams, made_counts: Any, real_counts: Any) -> Array:
    """The matched MMD of resamples that draw both rows of a pair, (R,)."""
    return resampled_mmd(grams.within_x, grams.within_y, grams.between, made_counts)


def _with_error(
    value: float,
    products: Callable[[Array, Array], Grams],
    statistic: Statistic,
    made: Array,
    real: Array,
    paired: bool,
    draws: int,
) -> SetScore:
    if draws < 2 or min(len(made), len(real)) < LEAST_FOR_ERROR:
        return SetScore(value)
    halves = half_sampling(products(made, real), statistic, np.random.default_rng(SEED), draws, paired)
    return SetScore(value, halves.standard_error, halves.bias)


_KERNEL = {"form": "polynomial", "gamma": "1/D"}
SET_FAMILIES: dict[str, SetFamily] = {
    "fvd": SetFamily(_frechet, {"covariance": "N-1"}),
    "kvd": SetFamily(_unbiased_kernel, {"kernel": {**_KERNEL, "degree": 3, "coef0": 1.0, "unbiased": True}}),
    "jedi": SetFamily(_jedi, {"kernel": {**_KERNEL, "degree": 2, "coef0": 0.0, "unbiased": False}, "factor": 100.0}),
    "fvd_inf": SetFamily(
        _frechet_at_infinity,
        {"covariance": "N-1", "line": "in 1/N, 8 sizes from N/4 to N, 8 orders", "seed": SEED},
        2 * GROUPS,
    ),
}


def unreliable(family: str, count: int, dimension: int) -> str:
    """Why a distance on `count` clips (of the smaller set) in `dimension` dimensions says little, or ""."""
    if family == "fvd" and count <= dimension:
        return f"{count} clips for {dimension} dimensions: a Frechet distance is mostly bias up to n = d"
    if family == "fvd_inf" and int(SMALLEST_SHARE * count) <= dimension:
        share = int(SMALLEST_SHARE * count)
        return f"subsets of {share} clips for {dimension} dimensions: the distance follows no line in 1/N"
    return ""
