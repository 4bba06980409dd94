"""With what confidence is a rank the smallest sufficient one? The study drawn again from its own means and spread.

In: gains over the base, (S seeds, N clips) of each rank, the shot of each clip. Out: the share of redraws in which each
rank is the smallest that keeps the wanted share of the best one's gain. Pure NumPy.

Means of all ranks are drawn together, multivariate t around what was seen. Each varies as `analysis/intervals.py` says;
they correlate as their deviations by seed and by shot do (A and B there, with products of two ranks for squares).
Drawing seeds and shots with replacement instead would know too little of seeds (docs/decisions.md, 16).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.intervals import degrees_of_freedom, shot_values, variance_of_mean

Array = NDArray[np.float64]
REDRAWS = 4000


def smallest_in_redraws(gains: Mapping[int, Array], shots: Sequence[str], share: float) -> dict[int, float]:
    """Rank -> share of redraws, 0..1, in which it is the smallest with gain >= share * the best gain, that being > 0.

    What is missing to 1 are redraws in which no rank gains. The same numbers each time.
    """
    ranks = sorted(gains)
    values = np.stack([shot_values(gains[rank], shots) for rank in ranks])
    means = values.mean((1, 2))
    random = np.random.default_rng(0)
    freedom = min(degrees_of_freedom(each) for each in values)
    scale = np.sqrt(freedom / random.chisquare(freedom, REDRAWS))
    drawn = means + scale[:, None] * (random.standard_normal((REDRAWS, len(ranks))) @ _root(_covariance(values)))
    best = drawn.max(1)
    enough = (drawn >= share * best[:, None]) & (best[:, None] > 0)
    first = np.where(enough.any(1), enough.argmax(1), len(ranks))
    return {rank: float((first == index).mean()) for index, rank in enumerate(ranks)}


def _covariance(values: Array) -> Array:
    """Of the means of (R, S, M) over seeds and shots, (R, R): variances of the intervals, correlations of A + B."""
    _, seeds, shots = values.shape
    mean = values.mean((1, 2), keepdims=True)
    of_seeds, of_shots = values.mean(2, keepdims=True) - mean, values.mean(1, keepdims=True) - mean
    both = _products(of_shots) * seeds / (shots - 1) + _products(of_seeds) * shots / max(1, seeds - 1)
    spread = np.sqrt(np.diag(both))
    wanted = np.sqrt([variance_of_mean(each) for each in values])
    scale = np.divide(wanted, spread, out=np.zeros_like(spread), where=spread > 0)
    return np.asarray(both * np.outer(scale, scale), dtype=np.float64)


def _products(deviations: Array) -> Array:
    flat = deviations.reshape(len(deviations), -1)
    return np.asarray(flat @ flat.T, dtype=np.float64)


def _root(covariance: Array) -> Array:
    """Symmetric square root; rounding below zero counts as zero."""
    levels, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.clip(levels, 0, None))) @ axes.T, dtype=np.float64)
