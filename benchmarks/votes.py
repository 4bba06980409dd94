"""Simulated raters: how often the intervals of the worths cover the planted ones, and how often equal rows differ.

Raters and clips may have tastes of their own (`--taste`, standard deviation of a rater's and of a clip's worths of the
rows); the worths to cover are then those of very many raters and clips, since tastes shrink them.

python -m benchmarks.votes --raters 6 --clips 30 --votes 60
"""

from __future__ import annotations

import argparse

import numpy as np

from analysis.votes.worths import Votes, fit

PLANTED = np.array([0.9, 0.4, 0.0, -0.3, -1.0])
TIE = 0.0  # log nu: a third of the votes between equal rows


def simulated(
    rng: np.random.Generator,
    worths: np.ndarray,
    raters: int,
    clips: int,
    each: int,
    taste: float = 0.0,
    careless: int = 0,
    side: float = 0.0,
) -> Votes:
    """`each` votes of every rater. The first `careless` raters choose blindly; `side`: log odds of the left clip."""
    rows = len(worths)
    rater = np.repeat(np.arange(raters), each)
    clip = np.concatenate([rng.permutation(np.resize(np.arange(clips), each)) for _ in range(raters)])
    pairs = np.array([(i, j) for i in range(rows) for j in range(i)])
    first, second = rng.permuted(pairs[rng.permutation(np.resize(np.arange(len(pairs)), len(rater)))], axis=1).T
    own = worths + taste * (rng.normal(size=(raters, 1, rows)) + rng.normal(size=(1, clips, rows)))
    half = (own[rater, clip, first] - own[rater, clip, second] + side) / 2
    weights = np.exp(np.stack([half, np.full_like(half, TIE), -half]))
    weights[:, rater < careless] = 1.0
    chance = weights.cumsum(0) / weights.sum(0)
    outcome = 1 - (rng.random(len(rater)) > chance).sum(0)
    return Votes(rater, clip, first, second, outcome)


def coverage(worths: np.ndarray, runs: int, raters: int, clips: int, each: int, taste: float) -> tuple[float, float]:
    """(share of intervals that cover, share of runs in which some row is found worse than another equal or better)."""
    rng = np.random.default_rng(0)
    true = worths
    if taste:
        draws = [fit(simulated(rng, worths, 200, 200, 400, taste), len(worths)).values for _ in range(10)]
        true = np.mean(draws, axis=0)
    true = true - true.mean()
    inside, wrong = [], 0
    for _ in range(runs):
        found = fit(simulated(rng, worths, raters, clips, each, taste), len(worths))
        ends = [found.interval(row) for row in range(len(worths))]
        inside += [low <= value <= high for (low, high), value in zip(ends, true, strict=True)]
        pairs = [(row, than) for row in range(len(worths)) for than in range(len(worths)) if row != than]
        wrong += any(found.worse(row, than) for row, than in pairs if true[row] >= true[than] - 1e-3)
    return float(np.mean(inside)), wrong / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, default=6)
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--votes", type=int, default=60, help="of each rater")
    parser.add_argument("--taste", type=float, default=0.0)
    parser.add_argument("--runs", type=int, default=400)
    options = parser.parse_args()
    sizes = (options.runs, options.raters, options.clips, options.votes, options.taste)
    print(f"planted worths: {coverage(PLANTED, *sizes)[0]:.1%} of intervals cover")
    covered, wrong = coverage(np.zeros(len(PLANTED)), *sizes)
    print(f"equal rows: {covered:.1%} of intervals cover; some pair told apart in {wrong:.1%} of runs")


if __name__ == "__main__":
    main()
