"""What a study that goes on until it is decided costs, and what it decides, before it is run: simulated.

In: `Spreads` of the scores that decide, the shares of the best gain that the ranks might have, the looks and their
levels. Out: `Ended`, by shape. Pure NumPy and SciPy.

The rule is that of `analysis/statistics/answer.py`, `decision.py` and `analysis/power/rounds.py`, for all studies at
once. Gains are normal with crossed effects of ranks, seeds and clips; scores are drawn independently.
D studies, R ranks, S seeds, N clips. A run is one seed of one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.power.chances import Design, margins
from analysis.power.spreads import Spreads
from analysis.study.files import Array
from sweeps.looks import Level

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Ended:
    """How often, 0..1: the smallest sufficient rank is named; it is the winner, so that all smaller ones are shown to
    be worse; a smaller one is named, or a larger one wins; none is named."""

    found: float
    won: float
    false: float
    undecided: float
    runs: float  # mean of a study


@dataclass(frozen=True)
class Seen:
    """Of one score at one look, (D, R, R): what gain i - share * gain j is without the true gains, and how far above
    zero it must be for i to keep the share of j, or below it for i to be worse."""

    apart: Array
    above: Array
    below: Array


def ended(
    scores: Sequence[Spreads],
    planted: Sequence[Sequence[float]],
    looks: Sequence[int],
    levels: Sequence[Level],
    share: float,
    clips: int,
    count: int,
) -> list[Ended]:
    """For each of `planted`, `count` studies that drop ranks and add seeds look by look; with one look, a fixed design.
    The same numbers each time."""
    draw = np.random.default_rng([looks[-1], clips])
    values = [noise(own, len(planted[0]), looks[-1], clips, count, draw) for own in scores]
    seen = [
        [_seen(each[:, :, :seeds], level, share) for each in values] for seeds, level in zip(looks, levels, strict=True)
    ]
    return [_course([own.gain for own in scores], shares, looks, seen, share) for shares in planted]


def noise(own: Spreads, ranks: int, seeds: int, clips: int, count: int, random: np.random.Generator) -> Array:
    """What is added to the true gains, (D, R, S, N)."""
    draw = random.standard_normal
    found = own.clip * draw((count, 1, 1, clips)) + own.rank_clip * draw((count, ranks, 1, clips))
    found = found + own.seed_clip * draw((count, 1, seeds, clips))
    found = found + own.seed * draw((count, 1, seeds, 1)) + own.rank_seed * draw((count, ranks, seeds, 1))
    return np.asarray(found + own.rest * draw((count, ranks, seeds, clips)), dtype=np.float64)


def _seen(values: Array, level: Level, share: float) -> Seen:
    count, ranks, seeds, clips = values.shape
    mean = values.mean((2, 3))
    of_seeds = values.mean(3) - mean[..., None]
    of_clips = values.mean(2) - mean[..., None]
    rest = values - of_seeds[..., None] - of_clips[:, :, None] - mean[..., None, None]
    parts = (
        of_seeds * np.sqrt(clips / (seeds - 1)),
        of_clips * np.sqrt(seeds / (clips - 1)),
        rest.reshape(count, ranks, -1) / np.sqrt((seeds - 1) * (clips - 1)),
    )
    products = [each @ np.swapaxes(each, 1, 2) for each in parts]
    above, below = (
        margins((products[0], products[1], products[2]), share, Design(seeds, clips), 1 - one)
        for one in (level.enough, level.worse)
    )
    return Seen(mean[:, :, None] - share * mean[:, None, :], above, below)


def contrasts(values: Array, level: Level, share: float) -> tuple[Flags, Flags]:
    """Of gains (D, R, S, N): whether gain i - share * gain j is shown to be above zero, and below, (D, R, R) each."""
    found = _seen(values, level, share)
    return found.apart > found.above, found.apart < -found.below


def _course(
    gains: Sequence[float], shares: Sequence[float], looks: Sequence[int], seen: Sequence[Sequence[Seen]], share: float
) -> Ended:
    """`seen`: by look and score."""
    count, ranks = len(seen[0][0].apart), len(shares)
    truth = next(index for index, each in enumerate(shares) if each >= share * max(shares))
    steps = np.subtract.outer(shares, share * np.asarray(shares))
    live, going = np.ones((count, ranks), bool), np.ones(count, bool)
    named, won, runs, before = np.full(count, ranks), np.zeros(count, bool), np.zeros(count), 0
    for seeds, by_score in zip(looks, seen, strict=True):
        runs += np.where(going, live.sum(1) * (seeds - before), 0)
        before = seeds
        able, gone, enough = live.copy(), np.ones_like(live), live.copy()
        found, shown = [], np.zeros_like(live)
        for gain, own in zip(gains, by_score, strict=True):
            apart = gain * steps + own.apart
            above, below = apart > own.above, apart < -own.below
            gained = np.any(live & np.einsum("dii->di", above), axis=1)[:, None]  # over the base
            worse = gained & live & np.any(below & live[:, None, :], axis=2)
            found.append((above, worse, gained))
            able &= ~worse
            shown |= worse
            enough &= ~gained | np.all(above | ~live[:, None, :], axis=2)
        for above, worse, gained in found:
            gone &= ~gained | worse | np.all(np.swapaxes(above, 1, 2) | ~able[:, None, :], axis=2)
        enough &= able & np.any([gained for *_, gained in found], axis=0)
        first = np.where(enough.any(1), np.argmax(enough, axis=1), ranks)
        smaller = np.any(able & (np.arange(ranks) < first[:, None]), axis=1)
        named, won = np.where(going, first, named), np.where(going, (first < ranks) & ~smaller, won)
        live = np.where(going[:, None], live & ~(shown & gone), live)
        going &= ~won & np.any(able, axis=1)
    false = (named < truth) | (won & (named > truth))
    parts = (named == truth, won & (named == truth), false, named == ranks, runs)
    return Ended(*(float(each.mean()) for each in parts))
