"""What small training sets do to a whole row or trial: the colours taken on, how far training seeds go apart.

In: saved features of trials, of the true clips and of the training clips. Out: numbers. Pure: no files.
Definitions: `cinelora/smalldata.py`. N clips, S training seeds, M training clips, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from analysis.study.files import Clips
from analysis.study.load import Study, Trial
from analysis.study.threads import threaded
from cinelora.core.records import reference_key
from cinelora.metrics.distances import standardise
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.few_clips import CHANNELS, LEVELS, style_distance

Array = NDArray[np.float64]


def style_to(train: Array) -> Callable[[Array], dict[str, float]]:
    """Colour histograms of clips (N, 3 x 256) -> how many levels their mean is off that of `train` (M, 3 x 256)."""
    target = train.reshape(-1, len(CHANNELS), LEVELS)

    def measure(made: Array) -> dict[str, float]:
        levels = style_distance(made.reshape(-1, len(CHANNELS), LEVELS).mean(axis=0), target)
        return {f"style_distance[{channel}]": float(each) for channel, each in zip(CHANNELS, levels, strict=True)}

    return measure


def diversities(study: Study, rows: Iterable[Sequence[Trial]], clips: Clips) -> dict[str, dict[str, float]]:
    """trial id -> diversity[net] -> mean distance of its clips to those of the other seeds of its row.

    The mean over the trials of a row is the mean over all pairs of its seeds. Rows of one trial have none.
    """

    def of_row(trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        shared = [net for net in WEIGHTS if all(net in trial.features for trial in trials)]
        for net in shared if len(trials) > 1 else []:
            apart = _apart(_features(study, trials, net, clips))
            for trial, value in zip(trials, apart.sum(axis=1) / (len(trials) - 1), strict=True):
                found.setdefault(trial.spec.trial_id, {})[f"diversity[{net}]"] = float(value)
        return found

    return {name: values for found in threaded(of_row, rows) for name, values in found.items()}


def _features(study: Study, trials: Sequence[Trial], net: str, clips: Clips) -> list[Array]:
    """Of every trial (N, D), in the scale of its distances to the true clips."""
    real = study.references[reference_key(trials[0].spec)].features.get(net)
    made = [trial.features[net].of(clips) for trial in trials]
    if real is None or not WEIGHTS[net].standardised or len(clips) < 2:
        return made
    return list(standardise(real.of(clips), *made)[1:])


def _apart(made: Sequence[Array]) -> Array:
    """Mean distance of the clips of each pair of seeds, (S, S); NaN where a feature is no number."""
    out, known = np.zeros((len(made), len(made))), [np.isfinite(each).all() for each in made]
    for i, j in combinations(range(len(made)), 2):  # `smalldata.diversity` of each pair
        out[i, j] = out[j, i] = np.linalg.norm(made[i] - made[j], axis=1).mean() if known[i] and known[j] else np.nan
    return out
