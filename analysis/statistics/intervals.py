"""Intervals for a mean over training seeds and clips, where every seed was asked for the same clips.

In: values (S seeds, N clips), the source shot of each clip. Out: mean and 95 % interval. Pure NumPy and SciPy.

The model is crossed random effects, value = mean + seed + shot + rest: what another training seed and other shots
would have given. With S seeds and M shots and their mean squares A (seeds), B (shots), E (rest), the variance of the
mean is (A + B - E) / (S M), its degrees of freedom Satterthwaite's (1946; Searle, Casella, McCulloch: Variance
Components, 1992, chapter 5). Resampling seeds and clips instead covers 81 % instead of 95 % at three seeds that
differ (docs/decisions.md), since no percentile of three numbers can know how little three numbers say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """`seeds` and `shots` are what it rests on; from one seed it knows nothing of the next."""

    mean: float
    low: float
    high: float
    seeds: int
    shots: int


def crossed_interval(values: Array, shots: Sequence[str], level: float = LEVEL) -> Interval:
    """Mean of (S, N) and its interval. Clips of one shot are one observation; a single shot counts by its clips.

    NaN where any value is NaN. ValueError: fewer than two clips, or not one shot per clip.
    """
    if values.ndim != 2 or values.shape[1] < 2 or values.shape[1] != len(shots):
        raise ValueError(f"values {values.shape} for {len(shots)} shots: give (seeds, clips), 2 clips or more")
    by_shot = shot_values(values, shots)
    seeds, columns = by_shot.shape
    mean = float(values.mean())
    variance, freedom = _variance(by_shot)
    half = float(stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance)) if variance > 0 else 0.0 * variance
    return Interval(mean, mean - half, mean + half, seeds, columns)


def p_value(values: Array, shots: Sequence[str]) -> float:
    """Two-sided p of a mean of zero, (S, N): below 1 - level exactly where `crossed_interval` leaves zero out."""
    variance, freedom = _variance(shot_values(values, shots))
    mean = float(values.mean())
    if variance > 0:
        return float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), freedom))
    return float("nan") if np.isnan(mean) else float(mean == 0)


def clips_needed(values: Array, shots: Sequence[str], level: float = LEVEL, most: int = 5000) -> int | None:
    """How many shots, seeds as they are, would clear the mean of zero at the variances seen; None above `most`."""
    by_shot = shot_values(values, shots)
    return _first_clear(by_shot, level, [(len(values), count) for count in range(by_shot.shape[1], most + 1)], 1)


def seeds_needed(values: Array, shots: Sequence[str], level: float = LEVEL, most: int = 50) -> int | None:
    """How many training seeds, shots as they are, would do it; None above `most`, and from one seed."""
    by_shot = shot_values(values, shots)
    if len(values) < 2:
        return None
    return _first_clear(by_shot, level, [(count, by_shot.shape[1]) for count in range(len(values), most + 1)], 0)


def _first_clear(values: Array, level: float, sizes: list[tuple[int, int]], axis: int) -> int | None:
    """The first size whose expected interval around the mean of `values` leaves zero out."""
    seeds, columns = values.shape
    of_seeds, of_columns, rest = _mean_squares(values)
    own = max(0.0, (of_seeds - rest) / columns), max(0.0, (of_columns - rest) / seeds)
    found = [_combined((m * own[0] + rest, s * own[1] + rest, rest), s, m) for s, m in sizes]
    variance, freedom = np.array(found).T
    half = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance)  # of all sizes at once: a call each takes 0.2 s
    clear = np.flatnonzero((variance > 0) & (abs(values.mean()) > half))
    return sizes[clear[0]][axis] if len(clear) else None


def shot_values(values: Array, shots: Sequence[str]) -> Array:
    """(S, M) with the mean of `values` as their mean: a shot's deviation counts by its number of clips."""
    names, member = np.unique(np.asarray(shots), return_inverse=True)
    if len(names) < 2:
        return values
    totals = (values - values.mean()) @ (member[:, None] == np.arange(len(names))).astype(np.float64)
    return np.asarray(values.mean() + totals * (len(names) / len(shots)), dtype=np.float64)


def variance_of_mean(by_shot: Array) -> float:
    """Of (S, M): over other seeds and other shots."""
    return _variance(by_shot)[0]


def degrees_of_freedom(by_shot: Array) -> float:
    """Of the variance of the mean of (S, M)."""
    return _variance(by_shot)[1]


def _variance(values: Array) -> tuple[float, float]:
    """(variance of the mean of (S, M), its degrees of freedom)."""
    return _combined(_mean_squares(values), *values.shape)


def _mean_squares(values: Array) -> tuple[float, float, float]:
    """Mean squares of seeds, columns and rest of (S, M); from one seed all is of the columns."""
    seeds, columns = values.shape
    mean, rows, cols = values.mean(), values.mean(1), values.mean(0)
    of_columns = seeds * np.square(cols - mean).sum() / (columns - 1)
    if seeds == 1:
        return 0.0, float(of_columns), 0.0
    of_seeds = columns * np.square(rows - mean).sum() / (seeds - 1)
    rest = np.square(values - rows[:, None] - cols + mean).sum() / ((seeds - 1) * (columns - 1))
    return float(of_seeds), float(of_columns), float(rest)


def _combined(squares: tuple[float, float, float], seeds: int, columns: int) -> tuple[float, float]:
    of_seeds, of_columns, rest = squares
    if seeds == 1:
        return of_columns / columns, columns - 1.0
    # the estimate may fall below what either source alone says; it is then taken at that
    total = max(of_seeds + of_columns - rest, of_seeds, of_columns)
    spread = of_seeds**2 / (seeds - 1) + of_columns**2 / (columns - 1) + rest**2 / ((seeds - 1) * (columns - 1))
    return total / (seeds * columns), total**2 / spread if spread > 0 else 1.0


def reach_about_zero(values: Array, shots: Sequence[str], level: float = LEVEL) -> float:
    """How far from zero a mean like that of `values` (S, N) falls in `level` of cases where its expectation is zero.

    For differences of two draws of one thing: their mean square about zero, over shots, and not about their own mean.
    """
    by_shot = shot_values(values, shots)
    shot_count = by_shot.shape[1]
    return float(stats.t.ppf((1 + level) / 2, shot_count) * np.sqrt(np.square(by_shot).mean() / shot_count))
