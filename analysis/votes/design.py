"""Who sees which pair of rows on which clip, and what so many votes can tell apart.

In: how often each pair of rows counts, numbers of clips, raters and trials. Out: a list of `Trial` per rater. Pure.

Every pair is shown about as often as its weight asks, to every rater about as often as to any other, on the clips seen
least; in half of the trials of a list the sides are swapped. SHARED of ten trials are the same for all raters, for
their agreement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.study.files import Array
from analysis.votes.worths import LEVEL

SHARED = 2
POWER = 0.8
SHARES = (0.55, 0.6, 0.65, 0.7)
Pair = tuple[int, int]


@dataclass(frozen=True)
class Trial:
    """One pair of rows on one clip."""

    left: int
    right: int
    clip: int


def lists(
    weights: Mapping[Pair, int], clips: int, raters: int, each: int, rng: np.random.Generator
) -> list[list[Trial]]:
    """`each` trials of every rater, in random order."""
    shared = each * SHARED // 10
    rounds = [pair for turn in range(max(weights.values())) for pair, weight in weights.items() if weight > turn]
    deck: list[Pair] = []
    while len(deck) < shared + raters * (each - shared):
        deck += [rounds[index] for index in rng.permutation(len(rounds))]
    seen = {pair: np.zeros(clips) for pair in weights}  # how often on each clip
    common = _on_clips(deck[:shared], [], seen, rng)
    found = []
    for rater in range(raters):
        start = shared + rater * (each - shared)  # next to each other in the deck: whole rounds
        own = deck[start : start + each - shared]
        cards = common + _on_clips(own, common, seen, rng)
        swapped = rng.permutation(np.arange(each) % 2 == 0)
        sided = [
            Trial(*(pair[::-1] if swap else pair), clip) for (pair, clip), swap in zip(cards, swapped, strict=True)
        ]
        found.append([sided[index] for index in rng.permutation(each)])
    return found


def _on_clips(
    pairs: list[Pair], before: list[tuple[Pair, int]], seen: dict[Pair, Array], rng: np.random.Generator
) -> list[tuple[Pair, int]]:
    """Each pair on the clip that this rater has seen least, and of those where the pair was shown least."""
    clips = len(next(iter(seen.values())))
    own = np.bincount([clip for _, clip in before], minlength=clips)
    found = []
    for pair in pairs:
        clip = int(np.lexsort((rng.random(clips), seen[pair], own))[0])
        own[clip] += 1
        seen[pair][clip] += 1
        found.append((pair, clip))
    return found


def votes_needed(share: float) -> int:
    """Votes on one pair so that a preference of `share` differs from a half at LEVEL with POWER (normal formula)."""
    reach = float(stats.norm.ppf((1 + LEVEL) / 2)) * 0.5 + float(stats.norm.ppf(POWER)) * math.sqrt(share * (1 - share))
    return math.ceil((reach / (share - 0.5)) ** 2)


def share_told(votes: float) -> float:
    """The smallest share, in steps of 0.1 %, that so many votes can tell from a half; 1 where none can."""
    shares = (step / 1000 for step in range(501, 1000))
    return next((share for share in shares if votes_needed(share) <= votes), 1.0)


def effective_votes(weights: Mapping[Pair, int], rows: int, votes: int) -> tuple[float, float]:
    """(votes on a pair itself, votes that it is worth through all rows together), of the least sure pair."""
    laplacian: Array = np.zeros((rows, rows))
    total = sum(weights.values())
    own = []
    for (i, j), weight in weights.items():
        count = votes * weight / total
        own.append(count)
        laplacian[[i, j], [i, j]] += count
        laplacian[[i, j], [j, i]] -= count
    inverse = np.linalg.pinv(laplacian)
    return min(own), min(1 / float(inverse[i, i] + inverse[j, j] - 2 * inverse[i, j]) for i, j in weights)


def power_lines(weights: Mapping[Pair, int], rows: int, raters: int, each: int) -> list[str]:
    """What so many votes can tell apart, for the terminal."""
    direct, joint = effective_votes(weights, rows, raters * each)
    needed = ", ".join(f"{share:.0%} of votes need {votes_needed(share)}" for share in SHARES)
    return [
        f"{raters} raters x {each} votes over {rows} rows: {direct:.0f} votes or more on each pair, worth {joint:.0f} "
        "through all rows together",
        f"told apart with {POWER:.0%} power: a row that gets {share_told(joint):.0%} of the votes against another "
        f"({share_told(direct):.0%} by that pair alone), without ties",
        f"on one pair, a preference of {needed}",
    ]
