"""A distance at infinitely many clips: FVD-infinity. NumPy only, float64.

In: `Grams` of two sets, a statistic, a generator. Out: `Extrapolated`: the intercept of a line through scores of
random subsets against 1 / N, with its standard error. A Frechet distance is biased upward by about b / N, and b
depends on the model, so equal N is not yet fair (Chong and Forsyth 2020, arXiv 1911.07023).
The line is one only where subsets have clearly more clips than dimensions: project first (`fit_principal_axes`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinelora.metrics.distances import UnreliableDistance
from cinelora.metrics.resampling import Grams, Statistic, frechet_replicates, linear_grams

Array = NDArray[np.float64]
Orders = NDArray[np.intp]  # (orders, N): the clips of a set, shuffled
SMALLEST_SHARE = 0.25  # of the clips, in the smallest subset
GROUPS = 10  # of clips, left out in turn for the standard error


@dataclass(frozen=True)
class Extrapolated:
    """score(N) = value + slope / N. All but `sizes` in the unit of the distance."""

    value: float  # at infinitely many clips
    standard_error: float  # of `value` over other clips of the same two laws
    slope: float  # times one clip
    sizes: Array  # (S,) clips of a subset; where the sets differ in size, the harmonic mean of both
    scores: Array  # (S,) mean over the subsets of that size


def frechet_at_infinity(
    x: ArrayLike, y: ArrayLike, random: np.random.Generator, sizes: int = 8, orders: int = 8
) -> Extrapolated:
    """`frechet_distance` of `x` (N, D) and `y` (M, D) at infinitely many clips of both (FVD-infinity).

    Arguments as `at_infinity`. Warns `UnreliableDistance` where the smallest subset has at most D clips: below, the
    distance does not follow a line in 1 / N. ValueError: as `frechet_distance` and `at_infinity`.
    """
    grams = linear_grams(x, y)
    smallest, dimensions = int(SMALLEST_SHARE * min(grams.between.shape)), np.shape(x)[1]
    if smallest <= dimensions:
        text = f"subsets of {smallest} clips for {dimensions} dimensions: no line in 1 / N, project to fewer axes"
        warnings.warn(text, UnreliableDistance, stacklevel=2)
    return at_infinity(grams, frechet_replicates, random, sizes, orders)


def at_infinity(
    grams: Grams, statistic: Statistic, random: np.random.Generator, sizes: int = 8, orders: int = 8
) -> Extrapolated:
    """The intercept of a weighted line through scores of subsets against 1 / N.

    The clips are shuffled `orders` times; the first 1/4 to all of each order, in `sizes` even steps, are scored.
    Weights are N, since the variance of a score falls like 1 / N. Sets of equal size are shuffled alike, as suits
    rows that belong together and does not matter to others.
    The standard error is a jackknife over GROUPS groups of clips, the same orders without the group: overlapping
    subsets are no independent draws, and the error of the fit alone would know only how they scatter about each other.
    ValueError: fewer than 2 GROUPS clips in a set, fewer than 2 sizes, no order.
    """
    n, m = grams.between.shape
    if min(n, m) < 2 * GROUPS:
        raise ValueError(f"{min(n, m)} clips: a line in 1 / N needs {2 * GROUPS}")
    if sizes < 2 or orders < 1:
        raise ValueError(f"{sizes} sizes and {orders} orders: give at least 2 and 1")
    shares = np.linspace(SMALLEST_SHARE, 1.0, sizes)
    x_orders = np.array([random.permutation(n) for _ in range(orders)])
    y_orders = x_orders if n == m else np.array([random.permutation(m) for _ in range(orders)])
    x_group = random.permutation(n) % GROUPS
    y_group = x_group if n == m else random.permutation(m) % GROUPS
    value, slope, subset_sizes, scores = _line(grams, statistic, shares, x_orders, y_orders)
    left_out = np.array([
        _line(grams, statistic, shares, _without(x_orders, x_group, g), _without(y_orders, y_group, g))[0]
        for g in range(GROUPS)
    ])  # fmt: skip
    error = float(np.sqrt((GROUPS - 1) * left_out.var()))
    return Extrapolated(value, error, slope, subset_sizes, scores)


def _without(orders: Orders, groups: Orders, left_out: int) -> Orders:
    """The same orders without the clips of a group, (orders, N - its size)."""
    kept = groups[orders] != left_out
    return np.asarray(orders[kept].reshape(len(orders), -1))


def _line(
    grams: Grams, statistic: Statistic, shares: Array, x_orders: Orders, y_orders: Orders
) -> tuple[float, float, Array, Array]:
    """Intercept, slope, sizes (S,) and mean scores (S,)."""
    sizes, scores = [], []
    for share in shares:
        i, j = (max(2, round(share * orders.shape[1])) for orders in (x_orders, y_orders))
        same = 1 if share == 1.0 else len(x_orders)  # all clips are all clips in any order
        x_counts = _first(x_orders[:same], i, grams.between.shape[0])
        y_counts = _first(y_orders[:same], j, grams.between.shape[1])
        scores.append(float(statistic(grams, x_counts, y_counts).mean()))
        sizes.append(2.0 / (1.0 / i + 1.0 / j))
    slope, value = np.polyfit(1.0 / np.array(sizes), scores, 1, w=np.sqrt(sizes))  # polyfit squares its weights
    return float(value), float(slope), np.array(sizes), np.array(scores)


def _first(orders: Orders, count: int, clips: int) -> Array:
    """(R, N) counts: 1 for the first `count` clips of each order."""
    counts = np.zeros((len(orders), clips))
    np.put_along_axis(counts, orders[:, :count], 1.0, axis=1)
    return counts
