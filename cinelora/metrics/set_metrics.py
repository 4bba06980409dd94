"""The set scores of many trials against the same true clips: what rests on the true clips alone is computed once.

In: features (N, D) of one net, float64, row i of made and true clips of the same clip. Out: score name -> value.
NumPy only, no device. Definitions: `cinelora/distances.py`. Kept in files by `cinelora/recorded.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from cinelora.core.records import content_hash
from cinelora.metrics.catalogue import PARAMETERS, directions, family
from cinelora.metrics.distances import (
    STD_FLOOR,
    fit_gaussian,
    frechet_between,
    kernel_distance,
    kernel_mean,
    polynomial_kernel,
    standardise,
)
from cinelora.metrics.feature_nets import WEIGHTS

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
