"""Every score as one value a clip, so that rows of the table can be compared clip by clip.

In: `Study`, a trial, clip ids. Out: float64 (N,), in the order of the ids. Pure: no files.
A score of a clip is its own value. A distance between sets becomes one value a clip by the jackknife.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from analysis.study.load import Study, Trial
from analysis.study.rows import Estimates
from analysis.study.scores import CLIP_SCORES, SET_SCORES
from cinelora.metrics.distances import polynomial_kernel, standardise
from cinelora.metrics.feature_nets import WEIGHTS

Array = NDArray[np.float64]
Values = Callable[[Trial], Array | None]  # None where a trial lacks the score


@lru_cache(maxsize=2)  # two studies may be compared
def clip_values(study: Study, clips: tuple[str, ...]) -> Mapping[str, Values]:
    """Score -> its values of a trial on `clips`, computed once however often they are asked for."""
    found: dict[str, Values] = {score: partial(_of_clips, score, clips) for score in CLIP_SCORES}
    kernels = (score for score in SET_SCORES if score.startswith("kvd["))
    of_sets = {score: cache(partial(kernel_values, study, clips, net=SET_SCORES[score])) for score in kernels}
    return found | of_sets


def rank_values(estimates: Estimates, series: str, of_score: Values) -> dict[int, Array]:
    """Rank -> (S, N) on the seeds that all rows of the series have; without the ranks that lack the score."""
    by_rank = {
        row.key.rank: {trial.spec.config.seed: trial for trial in estimates.trials(row)}
        for row in estimates.finished(series)
    }
    common = sorted(set.intersection(*map(set, by_rank.values()))) if by_rank else []
    found: dict[int, Array] = {}
    for rank, by_seed in by_rank.items():
        values = [each for seed in common if (each := of_score(by_seed[seed])) is not None]
        if values and len(values) == len(common):
            found[rank] = np.stack(values)
    return found


def _of_clips(score: str, clips: tuple[str, ...], trial: Trial) -> Array | None:
    if score not in trial.scores:
        return None
    return trial.scores[score].of(clips)


def kernel_values(study: Study, clips: tuple[str, ...], trial: Trial, net: str = "tnv2") -> Array | None:
    """kvd[net] as one value a clip, (N,), N >= 3: jackknife pseudo-values, whose mean is the distance itself.

    N times the distance minus N - 1 times the distance without the clip (Efron and Stein 1981), from one kernel
    matrix: leaving out clip i takes its row and column away. Where the reference standardises, a clip also counts for
    what it does to that scale (`_of_scale`).
    """
    reference = study.reference_of(trial).features.get(net)
    made = trial.features.get(net)
    if reference is None or made is None:
        return None
    rows = (reference.of(clips), made.of(clips))
    if not all(np.isfinite(each).all() for each in rows):
        return np.full(len(clips), np.nan)
    if not WEIGHTS[net].standardised:
        return _pseudo_values(*rows)
    x, y = standardise(*rows)
    return _pseudo_values(x, y) + _of_scale(x, y)


def _pseudo_values(x: Array, y: Array) -> Array:
    """Of true clips (N, D) and made ones (N, D), their scale held fixed."""
    between = polynomial_kernel(x, y)
    pairs = polynomial_kernel(x, x) + polynomial_kernel(y, y) - between - between.T
    np.fill_diagonal(pairs, 0.0)
    count, total, row_sums = len(x), pairs.sum(), pairs.sum(1)
    without = (total - 2 * row_sums) / ((count - 1) * (count - 2))
    return np.asarray(total / (count - 1) - (count - 1) * without, dtype=np.float64)


def _of_scale(x: Array, y: Array) -> Array:
    """What each true clip adds through mean and deviation of the reference, (N,), of sum 0.

    The gradient of the distance by both, times a clip's influence on them: x on a mean of 0, (x^2 - 1) / 2 on the
    logarithm of a deviation of 1 (the infinitesimal jackknife: Jaeckel 1972). Held fixed instead, other clips seem to
    bring the same scale, and intervals cover 82 % instead of 95 % (`tests/analysis/test_planted.py`).
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
