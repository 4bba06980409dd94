"""How much the gains of a study vary with clips and training seeds: what its power follows from.

In: gains over the base (R ranks, S seeds, N clips). Out: `Spreads`, standard deviations of the crossed factors. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.study.files import Array


@dataclass(frozen=True)
class Spreads:
    """Of one score: the largest mean gain over the base, and the standard deviations of what moves a gain.

    `clip`: how much a clip gains, whatever the rank; `rank_clip`, `seed_clip`: what a rank or a seed adds to a clip;
    `rest`: what is left; `seed`: what a training seed adds to all ranks alike; `rank_seed`: to one rank.
    """

    gain: float
    clip: float
    rank_clip: float
    seed_clip: float
    rest: float
    seed: float
    rank_seed: float


def of_pilot() -> dict[str, Spreads]:
    """Score -> as measured in the pilot that is shipped: pilot.csv, beside this file.

    It is study `quick` (ranks 1 to 16, three seeds, 96 clips) on its first, harder film: docs/decisions.md, 52.
    """
    table = pd.read_csv(Path(__file__).with_name("pilot.csv"), index_col="score", dtype={"score": str})
    return {str(score): Spreads(*map(float, row)) for score, row in zip(table.index, table.to_numpy(), strict=True)}


def spreads(gains: Array) -> Spreads:
    """Of (R, S, N), R, S, N >= 2; a variance whose estimate is below zero is zero."""
    return Spreads(float(gains.mean((1, 2)).max()), *np.sqrt(np.maximum(variances(gains), 0)).tolist())


def variances(gains: Array) -> Array:
    """Of the factors, in the order of `Spreads`, (6,), without bias, so that they may be below 0; of (R, S, N).

    Three crossed random factors, ranks fixed; from mean squares (Searle, Casella, McCulloch: Variance Components, 1992,
    chapter 4). A rank that gains less often gains less by the same factor on every clip: that factor is taken out
    first, or it would pass for a rank x clip effect.
    """
    if gains.ndim != 3 or min(gains.shape) < 2:
        raise ValueError(f"gains {gains.shape}: give (ranks, seeds, clips), 2 or more of each")
    common = gains.mean((0, 1)) - gains.mean()
    if (power := float(np.square(common).sum())) > 0:
        slopes = (gains.mean(1) - gains.mean((1, 2))[:, None]) @ common / power
        gains = gains - (slopes - 1)[:, None, None] * common
    ranks, seeds, clips = gains.shape

    def mean_square(*kept: int) -> float:
        effect = gains
        for axis in range(3):
            mean = effect.mean(axis, keepdims=True)
            effect = effect - mean if axis in kept else mean
        return float(np.square(effect).mean() * gains.size / np.prod([gains.shape[axis] - 1 for axis in kept]))

    rest, rank_clip, seed_clip, rank_seed = (mean_square(*kept) for kept in ((0, 1, 2), (0, 2), (1, 2), (0, 1)))
    clip = (mean_square(2) - rank_clip - seed_clip + rest) / (ranks * seeds)
    seed = (mean_square(1) - rank_seed - seed_clip + rest) / (ranks * clips)
    return np.array(
        [clip, (rank_clip - rest) / seeds, (seed_clip - rest) / ranks, rest, seed, (rank_seed - rest) / clips]
    )
