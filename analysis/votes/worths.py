"""What people prefer: a worth per row from votes on sets of clips, with intervals over other raters and clips.

In: `Votes`. Out: `Worths`. Pure NumPy and SciPy. V votes, K rows, sets of 2 to LARGEST rows.

With worths w (log scale) a row of a set is chosen with odds exp(w_i); "about the same" has the odds nu times the
geometric mean of the set, nu for each size of set. For two rows that is Davidson's model (1970), without ties
Plackett-Luce: an order of several clips is the choice of the best, then of the best of those left, and so on.
PENALTY / 2 times the squares of w and log nu is subtracted from the log-likelihood, so that a row that won or lost
every vote has a finite worth. The variance is the infinitesimal jackknife over raters plus that over clips less that
over both together (Cameron, Gelbach and Miller 2011), with Satterthwaite's degrees of freedom. A bootstrap over both at
once counts the noise of single votes three times (Owen 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.study.files import Array

PENALTY = 0.1
FLOOR = 0.9  # of intervals: at 1 they are too wide where raters and clips are alike; tests keep 1
LEVEL = 0.95
SAME, NOBODY = -1, -1  # in place of a choice, of a row
LARGEST = 4

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Votes:
    """Who chose on which clip, (V,); of which rows, (V, largest set), filled up with NOBODY; the place of the row that
    was chosen, or SAME, (V,)."""

    raters: Whole
    clips: Whole
    sets: Whole
    chosen: Whole


@dataclass(frozen=True)
class Spread:
    """Sums of squared influences over raters, clips, and both, as matrices (K, K), and how many there are of each."""

    parts: tuple[Array, Array, Array]
    counts: tuple[int, int, int]

    def of(self, contrast: Array, floor: float = 1.0) -> tuple[float, float]:
        """(variance, degrees of freedom) of contrast @ values; of one rater, over clips alone, and the reverse. `floor`
        is the smallest variance, as a share of that by single votes."""
        found = [float(contrast @ part @ contrast) for part in self.parts]
        raters, clips, both = self.counts
        own = [value for value, count in zip(found, self.counts[:2], strict=False) if count > 1]
        if not own:
            return found[2], max(1.0, both - 1.0)
        total = sum(own) - found[2] if len(own) == 2 else own[0]
        if total <= floor * found[2]:  # neither raters nor clips differ by more than single votes do
            return floor * found[2], max(1.0, both - 1.0)
        spread = sum(value**2 / max(1, count - 1) for value, count in zip(found, self.counts, strict=True) if count > 1)
        return total, max(1.0, total**2 / spread) if spread > 0 else 1.0


@dataclass(frozen=True)
class Worths:
    """`values` (K,), mean zero; `ties`: log nu of sets of 2, 3, ... rows."""

    values: Array
    ties: Array
    spread: Spread

    def interval(self, row: int) -> tuple[float, float]:
        """Of the worth of a row against the mean of all rows."""
        contrast = np.eye(len(self.values))[row] - 1 / len(self.values)
        variance, freedom = self.spread.of(contrast, FLOOR)
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
    if not len(votes.chosen):
        raise ValueError("no votes")
    options, open_ = _options(votes, rows)
    chosen = np.where(votes.chosen == SAME, options.shape[1] - 1, votes.chosen)
    found = np.zeros(options.shape[2])
    for _ in range(100):
        now, gradient, hessian, _ = _likelihood(found, options, open_, chosen)
        step = np.linalg.solve(hessian, gradient)
        while _likelihood(found + step, options, open_, chosen)[0] < now - 1e-12:
            step = step / 2
        found = found + step
        if abs(step).max() < 1e-10:
            break
    _, _, hessian, scores = _likelihood(found, options, open_, chosen)
    influence = np.asarray(np.linalg.solve(hessian, scores.T).T[:, :rows], dtype=np.float64)
    return Worths(found[:rows] - found[:rows].mean(), found[rows:], spread(influence, votes.raters, votes.clips))


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
    """Mean of `right` (V,), 0 to 1, and its interval over raters and clips, not below that of a proportion (Agresti
    and Coull 1998), so that it keeps a width where all agree."""
    mean, count = float(right.mean()), len(right)
    variance, freedom = spread((right - mean)[:, None] / count, raters, clips).of(np.ones(1))
    centred = (right.sum() + 2) / (count + 4)
    variance = max(variance, float(centred * (1 - centred)) / (count + 4))
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


def _options(votes: Votes, rows: int) -> tuple[Array, NDArray[np.bool_]]:
    """What each option of a vote, the last of them SAME, takes of worths and log nus, (V, options, P); which exist."""
    count, largest = votes.sets.shape
    there = votes.sets != NOBODY
    options: Array = np.zeros((count, largest + 1, rows + LARGEST - 1))
    vote, place = np.nonzero(there)
    options[vote, place, votes.sets[vote, place]] = 1
    sizes = there.sum(1)
    options[:, -1] = options[:, :-1].sum(1) / sizes[:, None]
    options[np.arange(count), -1, rows + sizes - 2] = 1
    return options, np.column_stack([there, np.full(count, True)])


def _likelihood(
    found: Array, options: Array, open_: NDArray[np.bool_], chosen: Whole
) -> tuple[float, Array, Array, Array]:
    """Penalised log-likelihood, its gradient, minus its Hessian, and the score of each vote (V, P)."""
    utility = np.where(open_, options @ found, -np.inf)
    scaled = np.exp(utility - utility.max(1, keepdims=True))
    chance = scaled / scaled.sum(1, keepdims=True)
    mean = np.einsum("vo,vop->vp", chance, options)
    lines = np.arange(len(chosen))
    scores = options[lines, chosen] - mean
    weighted = (options * np.sqrt(chance)[:, :, None]).reshape(-1, len(found))
    hessian = PENALTY * np.eye(len(found)) + weighted.T @ weighted - mean.T @ mean
    value = float(np.log(chance[lines, chosen]).sum() - PENALTY / 2 * found @ found)
    return value, scores.sum(0) - PENALTY * found, hessian, scores
