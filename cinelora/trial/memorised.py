"""Has a model copied its training clips? Made clips against those and against the other held-out clips, net by net.

In: features of some clips, and on disk those of the true held-out clips and of the training clips. Out: clip scores.
How it is measured: `cinelora/smalldata.py`; which features are standardised: `cinelora/weights.py`.
"""

from __future__ import annotations

import numpy as np

from cinelora.core.paths import SampleFolder
from cinelora.features.clip_scores import ClipScore, read_features
from cinelora.features.results import Scored
from cinelora.metrics.distances import standardise
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.few_clips import memorisation


def memorised(reference: SampleFolder, made: Scored) -> list[ClipScore]:
    """Two scores a clip by each video net: its ratio, and whether it is nearer to a training clip (1, 0.5, 0).

    A clip's own held-out clip, left out for it, is the one of its id. None for fewer than 2 held-out or training clips,
    and none where the features of the training clips are missing, as in a study that an older version began.
    """
    rows: list[ClipScore] = []
    for net in (name for name in made.features if name in WEIGHTS and WEIGHTS[name].kind == "video"):
        if not reference.train.features(net).exists():
            continue
        (_, train), (ids, heldout) = (
            read_features(reference.train.features(net)),
            read_features(reference.features(net)),
        )
        if min(len(train), len(heldout)) < 2:
            continue
        sets = (train, np.stack(made.features[net]), heldout)
        seen, new, unseen = standardise(*sets) if WEIGHTS[net].standardised else sets
        found = memorisation(new, seen, unseen, [ids.index(clip) for clip in made.clip_ids])
        for clip, ratio, nearer in zip(made.clip_ids, found.ratios, found.nearer, strict=True):
            rows.append(ClipScore(clip, f"memorisation_ratio[{net}]", float(ratio)))
            rows.append(ClipScore(clip, f"memorisation_share[{net}]", float(nearer)))
    return rows
