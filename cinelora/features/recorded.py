"""The set scores of a trial, written when it is scored, so that reading a study computes none of them again.

In: the feature files of the trial and of the true clips. Out: `set_scores.json`: net -> `SetScores`.
It holds no more than the features do: where it is missing or of other features, analysis computes the same numbers
by the same functions (`cinelora/setdistances.py`).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from cinelora.core.paths import SampleFolder, TrialFolder
from cinelora.core.records import write_json
from cinelora.features.clip_scores import read_features
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.set_metrics import SetScores, definition, distances_to, feature_mark


def write_set_scores(place: TrialFolder, reference: SampleFolder) -> None:
    """Of every video net with features of both. Scores that are no finite number are left to analysis."""
    nets = [name for name, net in WEIGHTS.items() if net.kind == "video"]
    both = {net: (place.features(net), reference.features(net)) for net in nets}
    found = {net: _of_net(net, *paths) for net, paths in both.items() if all(path.exists() for path in paths)}
    write_json(place.set_scores, {net: asdict(scores) for net, scores in found.items() if scores is not None})


def _of_net(net: str, made_path: Path, real_path: Path) -> SetScores | None:
    """On the clips of the trial in the order of their ids, as in analysis; None for fewer than 2."""
    (ids, made), (real_ids, real) = read_features(made_path), read_features(real_path)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    rows = {clip: row for row, clip in enumerate(real_ids)}
    if len(ids) < 2 or not set(ids) <= set(rows):
        return None
    truth = real[[rows[ids[row]] for row in order]].astype(np.float64)
    scores = distances_to(net, truth)(made[order].astype(np.float64))
    if not np.isfinite(list(scores.values())).all():
        return None
    return SetScores(definition(net), _mark(made_path), _mark(real_path), scores)


def _mark(path: Path) -> str:
    with ZipFile(path) as archive:
        return feature_mark(archive)
