"""Does quality rise or fall with the rank, or peak at one? Tests over the ordered ranks, and one verdict.

In: rank -> values (S seeds, N clips), larger is better, and the source shot of each clip. Out: `Trend`. Pure.

Two tests must agree, since each alone is misled. Page's L (1963) and the umbrella test of Mack and Wolfe (1981) compare
the ranks within each of M shots, averaged over seeds; they assume no distribution, but mistake the effect of a training
seed, which all shots share, for one of the rank. The slope on log2(rank), one number per seed and clip, has an interval
by `analysis.statistics.intervals`, which covers the variation between seeds. A trend is shown if that interval excludes
zero and Page's test agrees, both at TREND_ALPHA. A peak is shown if the umbrella's p is below ALPHA and the slopes on
both sides exclude zero at ALPHA / (R - 2), for the R - 2 ranks that may be the peak (both slopes must hold, so neither
is corrected further: Berger 1982). A peak is false in about 1 % of tables, which leaves 4 % for the trend: the verdict
is false in 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.intervals import Interval, crossed_interval, p_value
from analysis.study.files import Array

ALPHA = 0.05
TREND_ALPHA = 0.04
ENOUGH_SEEDS = 3  # with two, the verdict is false in up to 12 % of tables where seeds vary as much as shots
RISES, FALLS, PEAKS, NOT_SHOWN = "rises", "falls", "peaks at rank", "no trend shown"
DRAWS = 1999  # permutations: a p of 0.05 is known to 0.005
CHUNK = 4_000_000  # values permuted at a time


@dataclass(frozen=True)
class Trend:
    """Slopes are per doubling of the rank; `up` and `down`: those on both sides of `peak`, None at an end."""

    word: str
    slope: Interval
    slope_p: float
    page_rising: float
    page_falling: float
    peak: int  # where the umbrella fits best, shown or not
    umbrella_p: float
    up: Interval | None
    down: Interval | None


def trend(values: Mapping[int, Array], shots: Sequence[str], seed: int = 0) -> Trend:
    """The verdict and the tests behind it. ValueError: fewer than three ranks.

    With fewer than ENOUGH_SEEDS it is always NOT_SHOWN: the effects of rank and seed cannot be separated.
    """
    if len(values) < 3:
        raise ValueError(f"{len(values)} ranks: a trend needs three")
    ranks = sorted(values)
    stacked = np.stack([values[rank] for rank in ranks])  # (R, S, N)
    blocks = shot_means(stacked.mean(1), shots).T  # (M, R)
    place, umbrella_p = umbrella(blocks, np.random.default_rng(seed), DRAWS)
    up = down = None
    if 0 < place < len(ranks) - 1:
        level = 1 - 2 * ALPHA / (len(ranks) - 2)
        up = crossed_interval(slope(ranks[: place + 1], stacked[: place + 1]), shots, level)
        down = crossed_interval(slope(ranks[place:], stacked[place:]), shots, level)
    whole = slope(ranks, stacked)
    found = Trend(
        word=NOT_SHOWN,
        slope=crossed_interval(whole, shots, 1 - TREND_ALPHA),
        slope_p=p_value(whole, shots),
        page_rising=float(stats.page_trend_test(blocks).pvalue),
        page_falling=float(stats.page_trend_test(-blocks).pvalue),
        peak=ranks[place],
        umbrella_p=umbrella_p,
        up=up,
        down=down,
    )
    return found if stacked.shape[1] < ENOUGH_SEEDS else replace(found, word=_word(found))


def slope(ranks: Sequence[int], values: Array) -> Array:
    """Least-squares slope on log2(rank) of (R, S, N), for each seed and clip: (S, N)."""
    doublings = np.log2(np.asarray(ranks, dtype=np.float64))
    centred = doublings - doublings.mean()
    return np.asarray(np.tensordot(centred / np.square(centred).sum(), values, axes=1), dtype=np.float64)


def slopes_within(
    values: Mapping[int, Array], rates: Mapping[int, float], shots: Sequence[str]
) -> dict[float, Interval]:
    """Learning rate -> the slope over the ranks trained at it, of rates that two ranks or more have."""
    found: dict[float, Interval] = {}
    for rate in sorted(set(rates.values())):
        ranks = sorted(rank for rank in values if rates.get(rank) == rate)
        if len(ranks) > 1:
            found[rate] = crossed_interval(
                slope(ranks, np.stack([values[each] for each in ranks])), shots, 1 - TREND_ALPHA
            )
    return found


def shot_means(values: Array, shots: Sequence[str]) -> Array:
    """Means of (..., N) over the clips of each shot, (..., M); a single shot counts by its clips."""
    names, member = np.unique(np.asarray(shots), return_inverse=True)
    if len(names) < 2:
        return values
    return np.stack([values[..., member == index].mean(-1) for index in range(len(names))], axis=-1)


def umbrella(blocks: Array, random: np.random.Generator, draws: int) -> tuple[int, float]:
    """(index of the peak, p) for (M, R): Mack and Wolfe (1981), peak unknown, ranks compared within blocks only.

    The statistic is the largest over peaks p of A_p less its mean, over its standard deviation, where A_p counts the
    pairs of ranks that are ordered up to p and reversed from p on. Peaks at the ends are the two trends. Its p is that
    of `draws` permutations of the ranks within each block.
    """
    places = np.rint(2 * stats.rankdata(blocks, axis=1)).astype(np.int16)  # ties keep their half
    observed = _standardised(places[None])[0]
    at_least, left = 0, draws
    while left:
        count = min(left, max(1, CHUNK // places.size))
        drawn = random.permuted(np.broadcast_to(places, (count, *places.shape)), axis=2)
        at_least += int(np.sum(_standardised(drawn).max(1) >= observed.max() - 1e-9))
        left -= count
    return int(np.argmax(observed)), (1 + at_least) / (1 + draws)


def _standardised(blocks: NDArray[np.int16]) -> Array:
    """A_p of (B, M, R) for each peak, (B, R), less its mean and over its standard deviation under no effect."""
    many, count, ranks = blocks.shape
    ordered = np.zeros((many, ranks, ranks))  # blocks in which i < j, a tie counts half
    for low in range(ranks):
        for high in range(low + 1, ranks):
            signs = np.sign(blocks[:, :, high] - blocks[:, :, low])
            ordered[:, low, high] = (count + signs.sum(1)) / 2
    out = np.empty((many, ranks))
    for peak in range(ranks):
        rising, falling = ordered[:, : peak + 1, : peak + 1], ordered[:, peak:, peak:]
        pairs = [side * (side - 1) / 2 for side in (peak + 1, ranks - peak)]
        total = rising.sum((1, 2)) + count * pairs[1] - falling.sum((1, 2))
        out[:, peak] = (total - count * sum(pairs) / 2) / np.sqrt(count * _variance(peak + 1, ranks - peak))
    return out


def _variance(up: int, down: int) -> float:
    """Of A_p in one block without ties: the formula of Mack and Wolfe with one observation a group."""
    ranks = up + down - 1
    return (2 * (up**3 + down**3) + 3 * (up**2 + down**2) - 5 * (ranks + 1) + 12 * up * down - 12 * ranks) / 72


def _word(found: Trend) -> str:
    both = found.up is not None and found.down is not None and found.up.low > 0 and found.down.high < 0
    if both and found.umbrella_p < ALPHA:
        return f"{PEAKS} {found.peak}"
    if found.slope.low > 0 and found.page_rising < TREND_ALPHA / 2:
        return RISES
    if found.slope.high < 0 and found.page_falling < TREND_ALPHA / 2:
        return FALLS
    return NOT_SHOWN
