"""Confidence intervals for a mean over training seeds and clips, where every seed has values of the same clips.

In: values (S seeds, N clips) and the source shot of each clip. Out: mean and interval, 95 % unless said otherwise. Pure
NumPy and SciPy.

The model is crossed random effects, value = mean + seed + shot + residual: the interval covers other training seeds
and other shots. With S seeds, M shots and their mean squares A (seeds), B (shots), E (residual), the variance of the
mean is (A + B - E) / (S M), with Satterthwaite's degrees of freedom (1946; Searle, Casella, McCulloch: Variance
Components, 1992, chapter 5). A bootstrap over seeds and clips covers only 81 % at three seeds that differ
(docs/decisions.md): percentiles of three values understate their uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.study.files import Array

LEVEL = 0.95
MOST_SEEDS = 50  # nobody runs more
ONE_SEED = "with one seed, an interval does not cover variation between seeds"


def number(value: float, spec: str = ".3g") -> str:
    """f"{value:{spec}}" with thousands written out: 5320, not 5.32e+03."""
    text = f"{value:{spec}}"
    return f"{float(text):{'+' * spec.startswith('+')}.0f}" if "e+0" in text else text


@dataclass(frozen=True)
class Interval:
    """Of a mean over `seeds` and `shots`. From one seed it covers other shots only, not other seeds."""

    mean: float
    low: float
    high: float
    seeds: int
    shots: int

    @property
    def excludes_zero(self) -> bool:
        """False also where the ends are NaN."""
        return self.low > 0 or self.high < 0

    def __format__(self, spec: str) -> str:
        """f"{interval:+.3g}" is "+1.5 [+1.2, +1.8]"."""
        return f"{number(self.mean, spec)} [{number(self.low, spec)}, {number(self.high, spec)}]"


def crossed_interval(values: Array, shots: Sequence[str], level: float = LEVEL) -> Interval:
    """Mean of (S, N) and its interval. Clips of one shot are one observation; if all are of one shot, each clip is one.

    NaN where any value is NaN. ValueError: fewer than two clips, or not one shot per clip.
    """
    if values.ndim != 2 or values.shape[1] < 2 or values.shape[1] != len(shots):
        raise ValueError(f"values {values.shape} for {len(shots)} shots: give (seeds, clips), 2 clips or more")
    by_shot = shot_values(values, shots)
    seeds, columns = by_shot.shape
    mean = float(values.mean())
    variance, freedom = variance_of_mean(by_shot)
    half = float(stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance)) if variance > 0 else 0.0 * variance
    return Interval(mean, mean - half, mean + half, seeds, columns)


def p_value(values: Array, shots: Sequence[str]) -> float:
    """Two-sided p for a zero mean of (S, N): below 1 - level exactly where `crossed_interval` excludes zero."""
    variance, freedom = variance_of_mean(shot_values(values, shots))
    mean = float(values.mean())
    if variance > 0:
        return float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), freedom))
    return float("nan") if np.isnan(mean) else float(mean == 0)


def clips_needed(values: Array, shots: Sequence[str], level: float = LEVEL, most: int = 5000) -> int | None:
    """Number of shots at which the interval would exclude zero, with the observed mean, variances and number of seeds;
    None above `most`."""
    by_shot = shot_values(values, shots)
    return _first_clear(by_shot, level, [(len(values), count) for count in range(by_shot.shape[1], most + 1)], 1)


def seeds_needed(values: Array, shots: Sequence[str], level: float = LEVEL, most: int = MOST_SEEDS) -> int | None:
    """Number of training seeds, with the observed number of shots; None above `most`, and from one seed."""
    by_shot = shot_values(values, shots)
    if len(values) < 2:
        return None
    return _first_clear(by_shot, level, [(count, by_shot.shape[1]) for count in range(len(values), most + 1)], 0)


def _first_clear(values: Array, level: float, sizes: list[tuple[int, int]], axis: int) -> int | None:
    """The first of `sizes` (seeds, shots) whose expected interval around the mean of `values` excludes zero."""
    seeds, columns = values.shape
    of_seeds, of_columns, rest = _mean_squares(values)
    own = max(0.0, (of_seeds - rest) / columns), max(0.0, (of_columns - rest) / seeds)
    found = [_combined((m * own[0] + rest, s * own[1] + rest, rest), s, m) for s, m in sizes]
    variance, freedom = np.array(found).T
    half = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(
        variance
    )  # all sizes in one call: a call for each takes 0.2 s
    clear = np.flatnonzero((variance > 0) & (abs(values.mean()) > half))
    return sizes[clear[0]][axis] if len(clear) else None


def shot_values(values: Array, shots: Sequence[str]) -> Array:
    """Values by shot (S, M) whose mean is that of `values`: a shot's deviation is weighted by its number of clips."""
    names, member = np.unique(np.asarray(shots), return_inverse=True)
    if len(names) < 2:
        return values
    totals = (values - values.mean()) @ (member[:, None] == np.arange(len(names))).astype(np.float64)
    return np.asarray(values.mean() + totals * (len(names) / len(shots)), dtype=np.float64)


def variance_of_mean(by_shot: Array) -> tuple[float, float]:
    """(variance of the mean of (S, M) over other seeds and shots, its degrees of freedom)."""
    return _combined(_mean_squares(by_shot), *by_shot.shape)


def _mean_squares(values: Array) -> tuple[float, float, float]:
    """Mean squares of seeds, columns and residual of (S, M); with one seed all variation is that of the columns."""
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
    # the estimate may fall below that of either source alone; the larger of the two is then taken
    total = max(of_seeds + of_columns - rest, of_seeds, of_columns)
    spread = of_seeds**2 / (seeds - 1) + of_columns**2 / (columns - 1) + rest**2 / ((seeds - 1) * (columns - 1))
    return total / (seeds * columns), total**2 / spread if spread > 0 else 1.0


def reach_about_zero(values: Array, shots: Sequence[str], level: float = LEVEL) -> float:
    """Half-width around zero that contains the mean of values like (S, N) with probability `level` if its expectation
    is zero.

    For differences of two draws from one distribution: their mean square over shots about zero, not about their mean.
    """
    by_shot = shot_values(values, shots)
    shot_count = by_shot.shape[1]
    return float(stats.t.ppf((1 + level) / 2, shot_count) * np.sqrt(np.square(by_shot).mean() / shot_count))
