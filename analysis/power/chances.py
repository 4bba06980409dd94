"""The chance that a study will answer, before it is run: of naming the smallest sufficient rank, of telling neighbours.

In: `Spreads` of each score (of a finished study), the shares of the best gain that the ranks might have, a design of
seeds x clips. Out: chances, 0..1. Pure NumPy and SciPy.

The rule is that of `analysis/statistics/answer.py`, the model that of its intervals: gains are normal with crossed
effects of seeds and clips. All that the rule looks at is then the means of the ranks, which are normal, and three
matrices of mean products between ranks (of seeds, clips, residual), which are independent Wishart matrices (Searle,
Casella, McCulloch: Variance Components, 1992, chapter 4): these are drawn instead of clips, `DRAWS` times, in 0.1 s.
R ranks, S seeds, N clips, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.power.spreads import Spreads
from analysis.study.files import Array

DRAWS = 4000  # a share of 0.5 is known to 0.008
LEVEL, NEIGHBOURS = 0.95, 0.975  # one-sided 5 % of the rule; two-sided 5 % of a difference


@dataclass(frozen=True)
class Design:
    """`clips`: held-out clips, each of a shot of its own."""

    seeds: int
    clips: int


@dataclass(frozen=True)
class Chances:
    """Chances, 0..1, that the smallest sufficient rank is named (`named`), that a smaller one is (`wrong`), and that
    two neighbouring ranks are shown to differ (`told`, by pair)."""

    named: float
    wrong: float
    told: tuple[float, ...]  # of rank 1 and 2, 2 and 3, ...; where both gain alike, the share of false alarms


def shapes(count: int) -> Mapping[str, tuple[float, ...]]:
    """How the gain may depend on rank: name -> share of the best gain of each of `count` ranks, in ascending order."""
    middle = (count - 1) // 2
    rise = [0.5 + 0.5 * index / middle if middle else 1.0 for index in range(middle + 1)]
    after = count - 1 - middle
    fall = [1 - 0.6 * (index + 1) / after for index in range(after)]
    return {
        "flat after the middle rank": (*rise, *[1.0] * after),
        "peak at the middle rank": (*(0.6 + 0.8 * (each - 0.5) for each in rise), *fall),
        "rising to the largest": tuple(0.3 + 0.7 * index / (count - 1) for index in range(count)),
    }


def chances(
    spreads: Spreads, planted: Sequence[Sequence[float]], share: float, design: Design, draws: int = DRAWS
) -> list[Chances]:
    """For each of `planted`, the share of the best gain of every rank, R >= 2. The same numbers each time.

    With one seed the variation between seeds is there but is not seen, as in the intervals of such a study.
    """
    ranks, seeds, clips = len(planted[0]), design.seeds, design.clips
    random = np.random.default_rng([seeds, clips])
    products, noise = _drawn(spreads, ranks, design, random, draws)
    rule, pairs = margins(products, share, design, LEVEL), margins(products, 1.0, design, NEIGHBOURS)
    below = np.arange(ranks - 1)
    out = []
    for shares in planted:
        gains = spreads.gain * np.asarray(shares) + noise
        enough = np.asarray((gains[:, :, None] - share * gains[:, None, :] > rule).all(2))
        first = int(np.argmax(np.asarray(shares) >= share * max(shares)))
        wrong = enough[:, :first].any(1)
        apart = np.abs(np.diff(gains, axis=1)) > pairs[:, below, below + 1]
        out.append(Chances(float((enough[:, first] & ~wrong).mean()), float(wrong.mean()), tuple(apart.mean(0))))
    return out


def _drawn(
    spreads: Spreads, ranks: int, design: Design, random: np.random.Generator, draws: int
) -> tuple[tuple[Array, Array, Array], Array]:
    """(mean products (D, R, R) of seeds, clips, residual; deviations of the mean gains from the truth (D, R))."""
    alike, own, seeds, clips = np.ones((ranks, ranks)), np.eye(ranks), design.seeds, design.clips
    rest = spreads.seed_clip**2 * alike + spreads.rest**2 * own
    of_seeds = clips * (spreads.seed**2 * alike + spreads.rank_seed**2 * own) + rest
    of_clips = seeds * (spreads.clip**2 * alike + spreads.rank_clip**2 * own) + rest
    noise = random.standard_normal((draws, ranks)) @ _root((of_seeds + of_clips - rest) / (seeds * clips)).T
    freedom = (seeds - 1, clips - 1, (seeds - 1) * (clips - 1))
    found = [_wishart(each, n, random, draws) for each, n in zip((of_seeds, of_clips, rest), freedom, strict=True)]
    return (found[0], found[1], found[2]), noise


def _wishart(covariance: Array, freedom: int, random: np.random.Generator, draws: int) -> Array:
    """Mean products of `freedom` normal vectors, (D, R, R), zero for none; by Bartlett where that holds."""
    ranks, root = len(covariance), _root(covariance)
    if freedom < ranks:
        vectors = random.standard_normal((draws, freedom, ranks)) @ root.T
    else:
        triangle = np.tril(random.standard_normal((draws, ranks, ranks)), -1)
        diagonal = np.arange(ranks)
        triangle[:, diagonal, diagonal] = np.sqrt(random.chisquare(freedom - diagonal, (draws, ranks)))
        vectors = np.swapaxes(root @ triangle, 1, 2)
    return np.asarray(np.swapaxes(vectors, 1, 2) @ vectors / max(1, freedom), dtype=np.float64)


def _root(covariance: Array) -> Array:
    """L with L L' = covariance, also where that is singular."""
    levels, axes = np.linalg.eigh(covariance)
    return np.asarray(axes * np.sqrt(np.clip(levels, 0, None)), dtype=np.float64)


def margins(products: tuple[Array, Array, Array], share: float, design: Design, level: float) -> Array:
    """(D, R, R): what the mean of rank i's gain - share * rank j's gain must exceed to be shown above zero."""
    seeds, clips, rest = (_contrast(each, share) for each in products)
    if design.seeds == 1:
        total, freedom = clips, np.full_like(clips, design.clips - 1.0)
    else:
        total = np.maximum(np.maximum(seeds + clips - rest, seeds), clips)
        spread = seeds**2 / (design.seeds - 1) + clips**2 / (design.clips - 1)
        spread += rest**2 / ((design.seeds - 1) * (design.clips - 1))
        freedom = np.divide(total**2, spread, out=np.ones_like(total), where=spread > 0)
    steps = np.linspace(1e-4, 1.0, 2000)  # of 1 / freedom, in which the quantile is nearly straight
    quantile = np.interp(1 / freedom, steps, stats.t.ppf(level, 1 / steps))
    return np.asarray(quantile * np.sqrt(total / (design.seeds * design.clips)), dtype=np.float64)


def _contrast(products: Array, share: float) -> Array:
    own = np.einsum("dii->di", products)
    mixed = own[:, :, None] - 2 * share * products + share**2 * own[:, None, :]
    return np.asarray(np.clip(mixed, 0, None), dtype=np.float64)
