"""Every score as one value per clip, so that rows of the rank table can be compared clip by clip.

In: `Study`, clip ids. Out: score -> function of a trial that gives float64 (N,), in the order of the ids. No files.
A clip score is its own value. A distance between sets has one value per clip by the jackknife.
N clips, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

import numpy as np

from analysis.study.files import Array, Clips
from analysis.study.load import Study, Trial
from analysis.study.scores import CLIP_SCORES, SET_SCORES
from cinelora.metrics.distances import polynomial_kernel, standardise
from cinelora.metrics.feature_nets import WEIGHTS

Scorer = Callable[[Trial], Array | None]  # (N,); None where a trial lacks the score


def clip_scorers(study: Study, clips: Clips) -> Mapping[str, Scorer]:
    """Score -> its values of a trial on `clips`; those of set scores are computed once per trial."""
    found: dict[str, Scorer] = {score: partial(_clip_score, score, clips) for score in CLIP_SCORES}
    kernels = (score for score in SET_SCORES if score.startswith("kvd["))
    return found | {score: cache(partial(kernel_values, study, clips, net=SET_SCORES[score])) for score in kernels}


def _clip_score(score: str, clips: Clips, trial: Trial) -> Array | None:
    return trial.scores[score].of(clips) if score in trial.scores else None


def kernel_values(study: Study, clips: Clips, trial: Trial, net: str) -> Array | None:
    """kvd[net] as one value per clip, (N,), N >= 3: jackknife pseudo-values, whose mean is the distance itself.

    N times the distance minus N - 1 times the distance without the clip (Efron and Stein 1981), from one kernel
    matrix: leaving out clip i removes its row and column. Where features are standardised by the reference, a clip
    also counts for its effect on that scale (`_scale_effects`).
    """
    reference, generated = study.reference_of(trial).features.get(net), trial.features.get(net)
    if reference is None or generated is None:
        return None
    rows = (reference.of(clips), generated.of(clips))
    if not all(np.isfinite(each).all() for each in rows):
        return np.full(len(clips), np.nan)
    if not WEIGHTS[net].standardised:
        return _pseudo_values(*rows)
    x, y = standardise(*rows)
    return _pseudo_values(x, y) + _scale_effects(x, y)


def _pseudo_values(x: Array, y: Array) -> Array:
    """(N,) of reference clips x and generated clips y, both (N, D), with the scale held fixed."""
    between = polynomial_kernel(x, y)
    pairs = polynomial_kernel(x, x) + polynomial_kernel(y, y) - between - between.T
    np.fill_diagonal(pairs, 0.0)
    count, total, row_sums = len(x), pairs.sum(), pairs.sum(1)
    without = (total - 2 * row_sums) / ((count - 1) * (count - 2))
    return np.asarray(total / (count - 1) - (count - 1) * without, dtype=np.float64)


def _scale_effects(x: Array, y: Array) -> Array:
    """The effect of each reference clip on the distance through the reference's mean and deviation, (N,), of sum 0.

    The gradient of the distance with respect to both, times a clip's influence on them: x on a mean of 0,
    (x^2 - 1) / 2 on the logarithm of a deviation of 1 (the infinitesimal jackknife: Jaeckel 1972). Without it,
    intervals cover 82 % instead of 95 % (`tests/analysis/statistics/test_planted.py`).
    """
    count, dimensions = x.shape

    def slopes(a: Array, b: Array) -> Array:
        found: Array = polynomial_kernel(a, b, degree=2) * (3 / dimensions)
        np.fill_diagonal(found, 0.0)
        return found

    between = slopes(x, y)
    by_x, by_y = slopes(x, x) @ x - between @ y, slopes(y, y) @ y - between.T @ x
    by_mean, by_scale = (by_x + by_y).sum(0), (by_x * x + by_y * y).sum(0)
    influence = x @ by_mean + (np.square(x) - np.square(x).mean(0)) @ by_scale / 2
    return np.asarray(-2 / (count * (count - 1)) * influence, dtype=np.float64)
