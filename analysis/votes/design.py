"""Who sees which rows side by side on which clip, and what so many votes can tell apart.

In: how often each pair of rows counts, numbers of clips, raters and trials. Out: a list of `Trial` per rater. Pure.

Every pair is shown about as often as its weight asks, to every rater about as often as to any other, on the clips seen
least; every row of a set stands about as often on each side. SHARED of ten trials are the same for all raters, for
their agreement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from analysis.study.files import Array
from analysis.votes.worths import LEVEL

SHARED = 2
POWER = 0.8
SHARES = (0.55, 0.6, 0.65, 0.7)
Pair = tuple[int, int]
Block = tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """Rows, side by side, on one clip."""

    rows: Block
    clip: int


def lists(
    weights: Mapping[Pair, int], clips: int, raters: int, each: int, rng: np.random.Generator, size: int = 2
) -> list[list[Trial]]:
    """`each` trials of `size` rows for every rater, in random order."""
    shared = each * SHARED // 10
    deck = _deck(weights, size, shared + raters * (each - shared), rng)
    seen = {pair: np.zeros(clips) for pair in weights}  # how often on each clip
    common = _on_clips(deck[:shared], [], seen, rng)
    found = []
    for rater in range(raters):
        start = shared + rater * (each - shared)  # next to each other in the deck: whole rounds
        cards = common + _on_clips(deck[start : start + each - shared], common, seen, rng)
        turns = rng.permutation(np.arange(each) % size)
        sided = [
            Trial(block[turn:] + block[:turn], clip) for (block, clip), turn in zip(cards, turns.tolist(), strict=True)
        ]
        found.append([sided[index] for index in rng.permutation(each)])
    return found


def _deck(weights: Mapping[Pair, int], size: int, count: int, rng: np.random.Generator) -> list[Block]:
    """Sets of rows, each begun with the pair that is most behind its weight, joined by the rows most behind with it."""
    rows = max(map(max, weights)) + 1
    shown: Array = np.zeros((rows, rows))
    weight: Array = np.full((rows, rows), 1e-9)  # a row is never paired with itself
    for (i, j), value in weights.items():
        weight[i, j] = weight[j, i] = value
    deck = []
    for _ in range(count):
        ahead = (shown + 1e-6 * rng.random(shown.shape)) / weight
        np.fill_diagonal(ahead, np.inf)
        block = [int(index) for index in np.unravel_index(ahead.argmin(), ahead.shape)]
        while len(block) < size:
            block.append(int(ahead[block].mean(0).argmin()))
        shown[np.ix_(block, block)] += 1
        deck.append(tuple(sorted(block)))
    return deck


def _on_clips(
    blocks: list[Block], before: list[tuple[Block, int]], seen: dict[Pair, Array], rng: np.random.Generator
) -> list[tuple[Block, int]]:
    """Each set on the clip that this rater has seen least, and of those where its pairs were shown least."""
    clips = len(next(iter(seen.values())))
    own = np.bincount([clip for _, clip in before], minlength=clips)
    found = []
    for block in blocks:
        pairs = list(combinations(block, 2))
        clip = int(np.lexsort((rng.random(clips), np.sum([seen[pair] for pair in pairs], axis=0), own))[0])
        own[clip] += 1
        for pair in pairs:
            seen[pair][clip] += 1
        found.append((block, clip))
    return found


def pair_votes(size: int) -> float:
    """Votes on pairs that an order of `size` equal clips is worth, by its information on the worths."""
    return 2 * sum((left - 1) / left for left in range(2, size + 1))


def votes_needed(share: float) -> int:
    """Votes on one pair so that a preference of `share` differs from a half at LEVEL with POWER (normal formula)."""
    reach = float(stats.norm.ppf((1 + LEVEL) / 2)) * 0.5 + float(stats.norm.ppf(POWER)) * math.sqrt(share * (1 - share))
    return math.ceil((reach / (share - 0.5)) ** 2)


def share_shown(votes: float) -> float:
    """The smallest share, in steps of 0.1 %, that so many votes can tell from a half; 1 where none can."""
    shares = (step / 1000 for step in range(501, 1000))
    return next((share for share in shares if votes_needed(share) <= votes), 1.0)


def effective_votes(weights: Mapping[Pair, int], rows: int, votes: float) -> tuple[float, float]:
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


def power_lines(weights: Mapping[Pair, int], rows: int, raters: int, each: int, size: int) -> list[str]:
    """What so many votes can tell apart, for the terminal."""
    direct, joint = effective_votes(weights, rows, raters * each * pair_votes(size))
    needed = ", ".join(f"{share:.0%} of votes need {votes_needed(share)}" for share in SHARES)
    return [
        f"{raters} raters x {each} answers on {size} clips each over {rows} rows: worth {direct:.0f} votes or more "
        f"on each pair, and {joint:.0f} through all rows together",
        f"a difference is shown with {POWER:.0%} power for a row that gets {share_shown(joint):.0%} of the votes "
        f"against another ({share_shown(direct):.0%} by that pair alone), without ties",
        f"on one pair, a preference of {needed}",
    ]
