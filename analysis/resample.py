"""Random draws of what could have come out otherwise: training seeds on top, then source shots, then clips.

In: how many seeds, the shot of each clip. Out: weights of every draw, the same for all ranks, so that a difference
is resampled as a difference. A generator keyed by purpose: the same study gives the same intervals.
R draws, S seeds, N clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cinelora.records import content_hash

Array = NDArray[np.float64]
DRAWS = 4000
LEVEL = 0.95


def seed_weights(seeds: int, draws: int = DRAWS) -> Array:
    """(R, S) weights that sum to 1, from drawing S seeds with replacement.

    Deviations from 1 / S are stretched by sqrt(S / (S - 1)): drawing from S seeds has a variance (S - 1) / S
    times the variance of their mean, which at three seeds would make intervals a fifth too short. The mean over
    seeds is linear in the weights, so stretched ones, though some are negative, are as good as any.
    """
    if seeds == 1:
        return np.ones((draws, 1))
    random = _random("seeds", seeds)
    drawn = random.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds
    return np.asarray(1 / seeds + (drawn - 1 / seeds) * np.sqrt(seeds / (seeds - 1)), dtype=np.float64)


def clip_counts(shots: Sequence[str], draws: int = DRAWS) -> Array:
    """(R, N) how often each clip is drawn: shots with replacement, then within a drawn shot its clips."""
    names, member = np.unique(np.asarray(shots), return_inverse=True)
    random = _random("clips", len(names), len(shots))
    times = random.multinomial(len(names), np.full(len(names), 1 / len(names)), draws)
    counts = np.zeros((draws, len(shots)))
    for index in range(len(names)):
        mine = np.flatnonzero(member == index)
        counts[:, mine] = random.multinomial(times[:, index] * len(mine), np.full(len(mine), 1 / len(mine)))
    return counts


def interval(draws: Array, level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of the draws; NaN stays NaN."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _random(*purpose: str | int) -> np.random.Generator:
    return np.random.default_rng(int(content_hash(["resample", *purpose], 16), 16))
