"""What people prefer: a worth per row from votes on pairs of clips, with intervals over other raters and clips.

In: `Votes`. Out: `Worths`. Pure NumPy and SciPy. V votes, K rows.

Davidson's model (1970): with worths w (log scale), row i is preferred to j with odds exp((w_i - w_j) / 2), the same has
the weight nu. PENALTY / 2 times the squares of w and log nu is subtracted from the log-likelihood, so that a row that
won or lost every vote has a finite worth. The variance is the infinitesimal jackknife over raters plus that over clips
less that over both together (Cameron, Gelbach and Miller 2011), with Satterthwaite's degrees of freedom. A bootstrap
over both at once counts the noise of single votes three times (Owen 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.study.files import Array

PENALTY = 0.1
LEVEL = 0.95
FIRST, SAME, SECOND = 1, 0, -1  # outcomes

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Votes:
    """Indices, each (V,): who voted on which clip of which two rows, and the outcome for the first of them."""

    raters: Whole
    clips: Whole
    first: Whole
    second: Whole
    outcome: Whole


@dataclass(frozen=True)
class Spread:
    """Sums of squared influences over raters, clips, and both, as matrices (K, K), and how many there are of each."""

    parts: tuple[Array, Array, Array]
    counts: tuple[int, int, int]

    def of(self, contrast: Array) -> tuple[float, float]:
        """(variance, degrees of freedom) of contrast @ values; of one rater, over clips alone, and the reverse."""
        found = [float(contrast @ part @ contrast) for part in self.parts]
        raters, clips, both = self.counts
        own = [value for value, count in zip(found, self.counts[:2], strict=False) if count > 1]
        if not own:
            return found[2], max(1.0, both - 1.0)
        total = sum(own) - found[2] if len(own) == 2 else own[0]
        if total <= found[2]:  # neither raters nor clips differ by more than single votes do
            return found[2], max(1.0, both - 1.0)
        spread = sum(value**2 / max(1, count - 1) for value, count in zip(found, self.counts, strict=True) if count > 1)
        return total, max(1.0, total**2 / spread) if spread > 0 else 1.0


@dataclass(frozen=True)
class Worths:
    """`values` (K,), mean zero; `tie`: log nu."""

    values: Array
    tie: float
    spread: Spread

    def interval(self, row: int) -> tuple[float, float]:
        """Of the worth of a row against the mean of all rows."""
        contrast = np.eye(len(self.values))[row] - 1 / len(self.values)
        variance, freedom = self.spread.of(contrast)
        half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
        return float(self.values[row]) - half, float(self.values[row]) + half

    def worse(self, row: int, than: int) -> bool:
        """Whether `row` is below `than` at a level of 5 % for all pairs of rows together (Bonferroni)."""
        count = len(self.values)
        contrast = np.eye(count)[than] - np.eye(count)[row]
        variance, freedom = self.spread.of(contrast)
        reach = float(stats.t.isf((1 - LEVEL) / (count * (count - 1)), freedom)) * variance**0.5
        return bool(float(contrast @ self.values) > reach)


def fit(votes: Votes, rows: int) -> Worths:
    """Worths of `rows` rows; ValueError without a vote."""
    if not len(votes.outcome):
        raise ValueError("no votes")
    design, same = _design(votes, rows), (votes.outcome == SAME).astype(np.float64)
    found = np.zeros(rows + 1)
    for _ in range(100):
        _, gradient, hessian, _ = _likelihood(found, design, votes.outcome, same)
        step = np.linalg.solve(hessian, gradient)
        now = _likelihood(found, design, votes.outcome, same)[0]
        while _likelihood(found + step, design, votes.outcome, same)[0] < now - 1e-12:
            step = step / 2
        found = found + step
        if abs(step).max() < 1e-10:
            break
    _, _, hessian, scores = _likelihood(found, design, votes.outcome, same)
    influence = np.asarray(np.linalg.solve(hessian, scores.T).T[:, :rows], dtype=np.float64)
    return Worths(found[:rows] - found[:rows].mean(), float(found[rows]), spread(influence, votes.raters, votes.clips))


def spread(influence: Array, raters: Whole, clips: Whole) -> Spread:
    """Of statistics whose change by each vote is a line of `influence` (V, K)."""
    both = np.unique(np.stack([raters, clips]), axis=1, return_inverse=True)[1].ravel()
    found, counts = [], []
    for groups in (raters, clips, both):
        names, member = np.unique(groups, return_inverse=True)
        sums = np.zeros((len(names), influence.shape[1]))
        np.add.at(sums, member.ravel(), influence)
        found.append(sums.T @ sums * len(names) / max(1, len(names) - 1))
        counts.append(len(names))
    return Spread((found[0], found[1], found[2]), (counts[0], counts[1], counts[2]))


def share_interval(right: Array, raters: Whole, clips: Whole) -> tuple[float, float, float]:
    """Mean of `right` (V,), 0 to 1, and its interval over raters and clips."""
    mean = float(right.mean())
    variance, freedom = spread((right - mean)[:, None] / len(right), raters, clips).of(np.ones(1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def alpha(units: Sequence[Sequence[float]]) -> float:
    """Krippendorff's alpha with squared differences, of units with the ratings of each; NaN without two in one unit.

    Which row of a pair is the first is arbitrary: give each unit twice, once with the signs changed.
    """
    rated = [np.asarray(unit, dtype=np.float64) for unit in units if len(unit) > 1]
    if not rated:
        return float("nan")
    values = np.concatenate(rated)
    total = len(values)
    observed = sum(2 * len(unit) * np.square(unit - unit.mean()).sum() / (len(unit) - 1) for unit in rated) / total
    expected = 2 * total * np.square(values - values.mean()).sum() / (total * (total - 1))
    return float(1 - observed / expected) if expected > 0 else float("nan")


def _design(votes: Votes, rows: int) -> Array:
    design = np.zeros((len(votes.outcome), rows))
    lines = np.arange(len(design))
    design[lines, votes.first] += 0.5
    design[lines, votes.second] -= 0.5
    return design


def _likelihood(found: Array, design: Array, outcome: Whole, same: Array) -> tuple[float, Array, Array, Array]:
    """Penalised log-likelihood, its gradient, minus its Hessian, and the score of each vote (V, K + 1)."""
    half, tie = design @ found[:-1], found[-1]
    weights = np.stack([half, -half, np.full_like(half, tie)])
    top = weights.max(0)
    scaled = np.exp(weights - top)
    p_first, p_second, p_same = scaled / scaled.sum(0)
    value = half * outcome + tie * same - top - np.log(scaled.sum(0))
    mean = p_first - p_second
    scores = np.column_stack([design * (outcome - mean)[:, None], same - p_same])
    hessian = PENALTY * np.eye(len(found))
    hessian[:-1, :-1] += design.T @ (design * (p_first + p_second - mean**2)[:, None])
    hessian[:-1, -1] -= design.T @ (mean * p_same)
    hessian[-1, :-1] = hessian[:-1, -1]
    hessian[-1, -1] += (p_same * (1 - p_same)).sum()
    return (
        float(value.sum() - PENALTY / 2 * found @ found),
        scores.sum(0) - PENALTY * found,
        hessian,
        scores,
    )
