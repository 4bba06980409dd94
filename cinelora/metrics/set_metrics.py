"""Set metrics of features: one with its standard error, or all of a net for many trials and one reference.

In: features (N, D) of generated and (M, D) of reference clips. Out: metric name -> value; `SetScores`, the
record in `set_scores.json` (`cinelora/features/results.py` writes it, `analysis/study` reads it). NumPy only, float64.
Which metrics there are, and their formulas: `cinelora/metrics/catalogue.py`, `cinelora/metrics/distances.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from zipfile import ZipFile

import numpy as np
from numpy.typing import ArrayLike

from cinelora.core.files import content_hash
from cinelora.metrics.catalogue import SEED, Metric, study_metrics
from cinelora.metrics.distances import STD_FLOOR, Array, comparable, mostly_bias, standardise
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.resampling import SMALLEST_SHARE, at_infinity, half_sampling

REVISION = 1  # raised when a formula changes and its facts in the catalogue do not
LEAST_FOR_ERROR = 4  # clips in the smaller set


def scaled(net: str, reference: ArrayLike, *others: ArrayLike) -> tuple[Array, ...]:
    """(reference, *others) as distances take features of `net`: standardised by the reference, or as given."""
    if WEIGHTS[net].standardised:
        return standardise(reference, *others)
    return tuple(np.asarray(each, np.float64) for each in (reference, *others))


def set_score(
    metric: Metric, generated: ArrayLike, reference: ArrayLike, paired: bool, draws: int
) -> Mapping[str, float | None]:
    """The set metric of `generated` (N, D) against `reference` (M, D), features of its net.

    `paired`: row i of both belong together (N = M); halves then draw them together and kvd leaves out k(x_i, y_i),
    which is unbiased whether or not they resemble each other. `draws` random halves give the standard error; 0: none.
    Out: "value" on all clips; "standard_error" over other clips of the same two distributions, None: not computed; of
    a biased value also "bias", how far it lies above that of infinitely many clips, as halves show.
    Equal input gives equal numbers. ValueError: fewer rows than the metric needs, unequal D, NaN or infinity.
    """
    real, own = scaled(metric.net, *comparable(reference, generated))
    distance, random = metric.distance, np.random.default_rng(SEED)
    if distance.extrapolated:  # sets of equal size are shuffled alike, paired or not; its error needs no halves
        found = at_infinity(distance.grams(own, real), distance.statistic, random)
        return {"value": found.value, "standard_error": found.standard_error}
    value = distance.value(own, real, paired)
    if draws < 2 or min(len(own), len(real)) < LEAST_FOR_ERROR:
        return {"value": value, "standard_error": None}
    statistic = distance.matched_statistic if paired and distance.matched_statistic else distance.statistic
    halves = half_sampling(distance.grams(own, real), statistic, random, draws, paired)
    score = {"value": value, "standard_error": halves.standard_error}
    return score if distance.unbiased else score | {"bias": halves.bias}


def unreliable(family: str, count: int, dimension: int) -> str:
    """Why a distance on `count` clips (of the smaller set) in `dimension` dimensions means little, or ""."""
    share = int(SMALLEST_SHARE * count)
    if family == "fvd":
        return mostly_bias(count, dimension)
    if family == "fvd_inf" and share <= dimension:
        return f"subsets of {share} clips for {dimension} dimensions: the distance follows no line in 1/N"
    return ""


@cache
def of_net(net: str) -> tuple[Metric, ...]:
    """The set metrics of a trial that rest on features of `net`: fvd[tnv2], kvd[tnv2]."""
    return tuple(each for each in study_metrics((net,)) if each.net == net and each.kind == "set")


def scores_of_net(net: str, generated: Array, reference: Array) -> dict[str, float]:
    """The set metrics of generated features (N, D) of `net` whose row i belongs to row i of `reference` (N, D).

    NaN where a feature is not finite.
    """
    if not (np.isfinite(generated).all() and np.isfinite(reference).all()):
        return {each.name: math.nan for each in of_net(net)}
    real, own = scaled(net, reference, generated)
    return {each.name: each.distance.value(own, real, True) for each in of_net(net)}


@dataclass(frozen=True)
class SetScores:
    """Those of one trial and net on all its clips, and what they were computed from: equal basis, equal scores.

    The field names are keys on disk.
    """

    definition: str  # `definition(net)`
    made: str  # `features_fingerprint` of the trial's features
    real: str  # and of those of the reference clips
    scores: Mapping[str, float]


@cache
def definition(net: str) -> str:
    """A hash of how this code computes the set metrics of `net`."""
    facts = {each.name: dict(each.entry.facts) for each in of_net(net)}
    scale = STD_FLOOR if WEIGHTS[net].standardised else None
    return content_hash({"revision": REVISION, "scores": facts, "std_floor": scale}, 12)


def features_fingerprint(archive: ZipFile) -> str:
    """CRC-32 of the clip ids and of the features in a feature file, 16 hex digits.

    As zip stores and checks them: read without reading the arrays, of which a large study has gigabytes.
    KeyError: one of them is not there.
    """
    return "".join(f"{archive.getinfo(f'{name}.npy').CRC:08x}" for name in ("ids", "features"))
