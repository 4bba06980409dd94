"""Rank against rank: every rank against the best one, clip by clip and seed by seed.

In: rank -> values (S seeds, N clips), larger is better; the source shot of each clip. Out: `Pairwise`. Pure.

Differences go through `analysis.statistics.intervals`, corrected by Holm (1979) for all R (R - 1) / 2 pairs of ranks,
not only for those with the best, since the best is chosen from the same data. The truly best rank is the chosen one or
among those not distinguishable from it in at least 95 % of studies (the criterion of Hsu 1984). A difference that is
not shown is no equivalence; that needs two one-sided tests (Schuirmann 1987), here of the gains over the base: each of
the two keeps `share` of the other's, both at 5 % (Berger 1982).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.statistics.intervals import Interval, crossed_interval, p_value
from analysis.statistics.trend import shot_means
from analysis.study.files import Array

ALPHA = 0.05


@dataclass(frozen=True)
class AgainstBest:
    """A rank minus the best. `keeps`, `kept`: its gain - share * the best's, and the reverse; None without a base."""

    rank: int
    difference: Interval  # at the level of its step in Holm's procedure: it holds zero exactly where p_holm >= ALPHA
    p: float
    p_holm: float
    wilcoxon: float  # signed ranks over shots, two-sided; ignores seeds
    wilcoxon_holm: float
    over_best: float  # share of clips and seeds on which it is the better one, ties half
    keeps: Interval | None
    kept: Interval | None

    @property
    def distinct(self) -> bool:
        return self.p_holm < ALPHA

    @property
    def equivalent(self) -> bool:
        return self.keeps is not None and self.kept is not None and self.keeps.low > 0 and self.kept.low > 0


@dataclass(frozen=True)
class Pairwise:
    best: int
    share: float
    over_base: Mapping[int, float]  # share of clips and seeds on which a rank is better than the base; {} without one
    others: tuple[AgainstBest, ...]  # by rank

    @property
    def tied(self) -> tuple[int, ...]:
        """The ranks that are not distinguishable from the best."""
        return tuple(each.rank for each in self.others if not each.distinct)

    @property
    def equivalent(self) -> tuple[int, ...]:
        return tuple(each.rank for each in self.others if each.equivalent)


def against_best(values: Mapping[int, Array], shots: Sequence[str], base: Array | None, share: float) -> Pairwise:
    """All ranks of `values` against the one with the best mean; `base` (N,) is without adapter, 0 < share < 1.

    ValueError: fewer than two ranks.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} ranks: a comparison needs two")
    ranks = sorted(values)
    best = max(ranks, key=lambda rank: float(values[rank].mean()))
    pairs = [(rank, other) for rank in ranks for other in ranks if rank < other]
    differences = [values[low] - values[high] for low, high in pairs]
    found = [p_value(each, shots) for each in differences]
    signed = [signed_ranks(shot_means(each.mean(0), shots)) for each in differences]
    p_holm, signed_holm, levels = holm(found), holm(signed), holm_levels(found)
    records = []
    for index, pair in enumerate(pairs):
        if best in pair:
            own, top = values[sum(pair) - best], values[best]
            keeps, kept = (None, None) if base is None else equivalence(own - base, top - base, shots, share)
            records.append(
                AgainstBest(
                    rank=sum(pair) - best,
                    difference=crossed_interval(own - top, shots, levels[index]),
                    p=found[index],
                    p_holm=p_holm[index],
                    wilcoxon=signed[index],
                    wilcoxon_holm=signed_holm[index],
                    over_best=improvement(own, top),
                    keeps=keeps,
                    kept=kept,
                )
            )
    over_base = {} if base is None else {rank: improvement(values[rank], base) for rank in ranks}
    return Pairwise(best, share, over_base, tuple(records))


def equivalence(gain: Array, other: Array, shots: Sequence[str], share: float) -> tuple[Interval, Interval]:
    """gain - share * other and other - share * gain; equivalent where both intervals lie above zero, one-sided 5 %."""
    level = 1 - 2 * ALPHA
    return crossed_interval(gain - share * other, shots, level), crossed_interval(other - share * gain, shots, level)


def improvement(values: Array, others: Array) -> float:
    """P(value > other) over pairs, ties half (Agarwal et al. 2021, probability of improvement)."""
    return float(np.mean((np.sign(values - others) + 1) / 2))


def signed_ranks(differences: Array) -> float:
    """Wilcoxon's two-sided p; 1 where nothing differs."""
    return float(stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def holm(found: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given."""
    order = np.argsort(found, kind="stable")
    factors = np.arange(len(found), 0, -1)
    stepped = np.minimum(1.0, np.maximum.accumulate(np.asarray(found)[order] * factors))
    out = np.empty(len(found))
    out[order] = stepped
    return [float(each) for each in out]


def holm_levels(found: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """The level at which each interval leaves out zero exactly where Holm rejects: of its step, or of the step that
    stopped the procedure before it."""
    order, out, going = np.argsort(found, kind="stable"), [0.0] * len(found), True
    level = alpha
    for step, index in enumerate(order):
        level = alpha / (len(found) - step) if going else level
        going = going and found[index] < level
        out[index] = 1 - level
    return out
