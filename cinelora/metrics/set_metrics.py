"""The set scores of many trials against the same true clips: what rests on the true clips alone is computed once.

In: features (N, D) of one net, float64, row i of made and true clips of the same clip. Out: score name -> value.
NumPy only, no device. Definitions: `cinelora/metrics/distances.py`. Kept in files by `cinelora/features/results.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from cinelora.core.files import content_hash
from cinelora.metrics.catalogue import PARAMETERS, directions, family
from cinelora.metrics.distances import (
    STD_FLOOR,
    fit_gaussian,
    frechet_between,
    kernel_distance,
    kernel_mean,
    polynomial_kernel,
    polynomial_mmd,
    resampled_mmd,
    standardise,
)
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.resampling import (
    GROUPS,
    SMALLEST_SHARE,
    Grams,
    Statistic,
    at_infinity,
    frechet_replicates,
    half_sampling,
    kernel_grams,
    linear_grams,
    mmd_replicates,
)

Array = NDArray[np.float64]
Distance = Callable[[Array], float]  # of made features (N, D)
REVISION = 1  # raised when a formula changes and its parameters in protocol.py do not


def _kvd(real: Array) -> Distance:
    """`polynomial_mmd(real, made, degree=3, matched=True)`."""
    within = kernel_mean(polynomial_kernel(real, real), unbiased=True)

    def distance(made: Array) -> float:
        both = within + kernel_mean(polynomial_kernel(made, made), unbiased=True)
        return both - 2.0 * kernel_mean(polynomial_kernel(real, made), unbiased=True)

    return distance


def _fvd(real: Array) -> Distance:
    law = fit_gaussian(real)
    return lambda made: frechet_between(law, fit_gaussian(made))


def _jedi(real: Array) -> Distance:
    return lambda made: kernel_distance(made, real, "jedi")


DISTANCES: Mapping[str, Callable[[Array], Distance]] = {"kvd": _kvd, "fvd": _fvd, "jedi": _jedi}


def set_scores(net: str) -> tuple[str, ...]:
    """The names of the set scores that rest on features of `net`: fvd[tnv2], kvd[tnv2]."""
    return tuple(name for name in directions((net,)) if family(name) in DISTANCES and name.endswith(f"[{net}]"))


def distances_to(net: str, real: Array) -> Callable[[Array], dict[str, float]]:
    """Made features (N, D) of `net` -> their set scores against those of the true clips (N, D); NaN in, NaN out."""
    scores = set_scores(net)
    if not np.isfinite(real).all():
        return lambda made: dict.fromkeys(scores, math.nan)
    scaled = WEIGHTS[net].standardised
    truth = standardise(real)[0] if scaled else real
    ways = {score: DISTANCES[family(score)](truth) for score in scores}

    def measure(made: Array) -> dict[str, float]:
        if not np.isfinite(made).all():
            return dict.fromkeys(scores, math.nan)
        rows = standardise(real, made)[1] if scaled else made
        return {score: way(rows) for score, way in ways.items()}

    return measure


@dataclass(frozen=True)
class SetScores:
    """Those of one trial and net on all its clips, and what they were computed from; equal basis, equal scores."""

    definition: str  # `definition(net)`
    made: str  # `feature_mark` of the trial's features
    real: str  # and of those of the true clips
    scores: Mapping[str, float]


@cache
def definition(net: str) -> str:
    """A hash of how this code computes the set scores of `net`."""
    facts = {name: PARAMETERS[family(name)] for name in set_scores(net)}
    scale = STD_FLOOR if WEIGHTS[net].standardised else None
    return content_hash({"revision": REVISION, "scores": facts, "std_floor": scale}, 12)


def feature_mark(archive: ZipFile) -> str:
    """CRC-32 of the clip ids and of the features in a feature file, 16 hex digits.

    As zip stores and checks them: read without reading the arrays, of which a large study has gigabytes.
    KeyError: one of them is not there.
    """
    return "".join(f"{archive.getinfo(f'{name}.npy').CRC:08x}" for name in ("ids", "features"))


# ~ Scores of a set of clips against another: Frechet and kernel distances with their standard errors.
# ~
# ~ In: features (N, D) of made clips and (M, D) of real ones, one row per clip. Out: `SetScore`. NumPy only, no files.
# ~ Definitions are those of `cinelora/metrics/distances.py`; errors those of `cinelora/metrics/resampling.py`.
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


def _jedi_score(made: Array, real: Array, paired: bool, draws: int) -> SetScore:
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
    "jedi": SetFamily(
        _jedi_score, {"kernel": {**_KERNEL, "degree": 2, "coef0": 0.0, "unbiased": False}, "factor": 100.0}
    ),
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
