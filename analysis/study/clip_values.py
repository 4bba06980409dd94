"""Every score as one value per clip, so that rows of the rank table can be compared clip by clip.

In: `Study`, clip ids. Out: score -> function of a trial that gives float64 (N,), in the order of the ids. No files.
A clip score is its own value. A distance between sets has one value per clip by the jackknife
(`cinelora/metrics/influence.py`). N clips, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

import numpy as np

from analysis.study.files import Array, Clips
from analysis.study.load import Study, Trial
from analysis.study.scores import CLIP_SCORES, METRICS, SET_SCORES
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.influence import too_few_clips
from cinelora.metrics.set_metrics import scaled

Scorer = Callable[[Trial], Array | None]  # (N,); None where a trial lacks the score


def clip_scorers(study: Study, clips: Clips) -> Mapping[str, Scorer]:
    """Score -> its values of a trial on `clips`; those of set scores are computed once per trial."""
    found: dict[str, Scorer] = {score: partial(_clip_score, score, clips) for score in CLIP_SCORES}
    return found | {score: cache(partial(set_values, study, clips, score=score)) for score in SET_SCORES}


def _clip_score(score: str, clips: Clips, trial: Trial) -> Array | None:
    return trial.scores[score].of(clips) if score in trial.scores else None


def set_values(study: Study, clips: Clips, trial: Trial, score: str) -> Array | None:
    """A distance between sets as one value per clip, (N,), N >= 3; their mean is the distance without bias in 1/N.

    None also where there are too few clips for such values (`too_few_clips`).
    """
    net, distance = SET_SCORES[score], METRICS[score].distance
    reference, generated = study.reference_of(trial).features.get(net), trial.features.get(net)
    if reference is None or generated is None or distance.clip_values is None:
        return None
    rows = (reference.of(clips), generated.of(clips))
    if not all(np.isfinite(each).all() for each in rows):
        return np.full(len(clips), np.nan)
    x, y = scaled(net, *rows)
    if distance.linear and too_few_clips(x):
        return None
    return distance.clip_values(x, y, WEIGHTS[net].standardised)


def without_values(study: Study, clips: Clips, score: str) -> str:
    """Why a distance has no value per clip of this study's first reference clips, or ""."""
    if score not in SET_SCORES or not METRICS[score].distance.linear:
        return ""
    net = SET_SCORES[score]
    real = study.reference.features.get(net)
    return "" if real is None else too_few_clips(scaled(net, real.of(clips))[0])
