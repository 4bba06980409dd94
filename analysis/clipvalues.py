"""Every score as one value a clip, so that rows of the table can be compared clip by clip.

In: `Study`, a trial, clip ids. Out: float64 (N,), in the order of the ids. Pure: no files.
A score of a clip is its own value. A distance between sets becomes one value a clip by the jackknife.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.load import Study, Trial
from analysis.scores import CLIP_SCORES, SET_SCORES
from cinelora.distances import polynomial_kernel, standardise
from cinelora.records import reference_key
from cinelora.weights import WEIGHTS

Array = NDArray[np.float64]
Values = Callable[[Trial], Array | None]  # None where a trial lacks the score


def clip_values(study: Study, clips: tuple[str, ...]) -> Mapping[str, Values]:
    """Score -> its values of a trial on `clips`."""
    found: dict[str, Values] = {score: partial(_of_clips, score, clips) for score in CLIP_SCORES}
    kernels = (score for score in SET_SCORES if score.startswith("kvd["))
    return found | {score: partial(kernel_values, study, clips, net=SET_SCORES[score][0]) for score in kernels}


def _of_clips(score: str, clips: tuple[str, ...], trial: Trial) -> Array | None:
    if score not in trial.scores:
        return None
    return np.array([trial.scores[score][clip] for clip in clips], dtype=np.float64)


def kernel_values(study: Study, clips: tuple[str, ...], trial: Trial, net: str = "tnv2") -> Array | None:
    """kvd[net] as one value a clip, (N,), N >= 3: jackknife pseudo-values, whose mean is the distance itself.

    N times the distance minus N - 1 times the distance without the clip (Efron and Stein 1981), from one kernel
    matrix: leaving out clip i takes its row and column away. The reference that standardises is held fixed.
    """
    reference = study.references[reference_key(trial.spec)].features.get(net)
    made = trial.features.get(net)
    if reference is None or made is None:
        return None
    rows = (reference.of(clips), made.of(clips))
    if not all(np.isfinite(each).all() for each in rows):
        return np.full(len(clips), np.nan)
    x, y = standardise(*rows) if WEIGHTS[net].standardised else rows
    between = polynomial_kernel(x, y)
    pairs = polynomial_kernel(x, x) + polynomial_kernel(y, y) - between - between.T
    np.fill_diagonal(pairs, 0.0)
    count, total, row_sums = len(clips), pairs.sum(), pairs.sum(1)
    without = (total - 2 * row_sums) / ((count - 1) * (count - 2))
    return np.asarray(total / (count - 1) - (count - 1) * without, dtype=np.float64)
