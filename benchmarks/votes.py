"""Simulated raters: how often the intervals of the worths cover the planted ones, and how often equal rows differ.

Raters and clips may have tastes of their own (`--taste`, standard deviation of a rater's and of a clip's worths of the
rows); the worths to cover are then those of very many raters and clips, since tastes shrink them.

python -m benchmarks.votes --raters 6 --clips 30 --votes 60
"""

from __future__ import annotations

import argparse
from itertools import combinations

import numpy as np

from analysis.votes.worths import NOBODY, SAME, Votes, fit

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
    size: int = 2,
) -> Votes:
    """`each` sets of `size` rows for every rater, put in order until those left are about the same. The first
    `careless` raters choose blindly; `side`: log odds of the left clip against each other."""
    rows = len(worths)
    rater = np.repeat(np.arange(raters), each)
    clip = np.concatenate([rng.permutation(np.resize(np.arange(clips), each)) for _ in range(raters)])
    blocks = np.array(sorted(each[::-1] for each in combinations(range(rows), size)))
    sets = rng.permuted(blocks[rng.permutation(np.resize(np.arange(len(blocks)), len(rater)))], axis=1)
    own = worths + taste * (rng.normal(size=(raters, 1, rows)) + rng.normal(size=(1, clips, rows)))
    utility = own[rater[:, None], clip[:, None], sets]
    utility[:, 0] += side
    utility[rater < careless] = 0.0
    found, going = [], np.arange(len(rater))
    for left in range(size, 1, -1):
        weights = np.exp(np.insert(utility, 1, utility.mean(1) + TIE, axis=1))
        chance = weights.cumsum(1) / weights.sum(1, keepdims=True)
        option = (rng.random(len(going))[:, None] > chance).sum(1)
        chosen = np.where(option == 1, SAME, option - (option > 1))
        padded = np.pad(sets, ((0, 0), (0, size - left)), constant_values=NOBODY)
        found.append((rater[going], clip[going], padded, chosen))
        on = chosen != SAME
        keep = (np.arange(left) != chosen[:, None])[on]
        sets, utility = (each[on][keep].reshape(-1, left - 1) for each in (sets, utility))
        going = going[on]
    return Votes(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def coverage(
    worths: np.ndarray, runs: int, raters: int, clips: int, each: int, taste: float, seed: int = 0, size: int = 2
) -> tuple[float, float]:
    """(share of intervals that cover, share of runs in which some row is found worse than another equal or better)."""
    rng = np.random.default_rng(seed)
    true = worths
    if taste:
        draws = [fit(simulated(rng, worths, 200, 200, 400, taste, size=size), len(worths)).values for _ in range(10)]
        true = np.mean(draws, axis=0)
    true = true - true.mean()
    inside, wrong = [], 0
    for _ in range(runs):
        found = fit(simulated(rng, worths, raters, clips, each, taste, size=size), len(worths))
        ends = [found.interval(row) for row in range(len(worths))]
        inside += [low <= value <= high for (low, high), value in zip(ends, true, strict=True)]
        pairs = [(row, than) for row in range(len(worths)) for than in range(len(worths)) if row != than]
        wrong += any(found.worse(row, than) for row, than in pairs if true[row] >= true[than] - 1e-3)
    return float(np.mean(inside)), wrong / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, default=6)
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--votes", type=int, default=60, help="sets of clips, of each rater")
    parser.add_argument("--taste", type=float, default=0.0)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=2, help="clips in a set")
    options = parser.parse_args()
    sizes = (options.runs, options.raters, options.clips, options.votes, options.taste, options.seed, options.size)
    print(f"planted worths: {coverage(PLANTED, *sizes)[0]:.1%} of intervals cover")
    covered, wrong = coverage(np.zeros(len(PLANTED)), *sizes)
    print(f"equal rows: {covered:.1%} of intervals cover; some pair told apart in {wrong:.1%} of runs")


if __name__ == "__main__":
    main()
