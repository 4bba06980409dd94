"""The answer of a study: the smallest rank that keeps most of the best rank's gain over the base, or "undecided".

In: `Estimates`. Out: `Answer` records, one per score and adapter series, and a sentence for each. Pure: no files.

A rank is sufficient if its gain over the base is at least `share` of every other rank's gain. For each rival the
contrast gain - share * rival's gain is taken clip by clip and seed by seed, and every contrast must be significantly
above zero (one-sided 5 %; an intersection-union test needs no correction: Berger 1982). A rank is insufficient if one
contrast is significantly below zero, corrected for the number of rivals. `share` is fixed when the study begins.

How certain is the choice? The mean gains of all ranks are drawn together from a multivariate t distribution around the
observed means (a parametric bootstrap). Their variances are those of `analysis/statistics/intervals.py`; their
correlations are those of the ranks' deviations by seed and by shot (A and B there, with products of two ranks in place
of squares). Resampling seeds and shots would understate the variation between seeds (docs/decisions.md, 16).
S seeds, N clips, M shots, R ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.intervals import (
    Interval,
    clips_needed,
    crossed_interval,
    seeds_needed,
    shot_values,
    variance_of_mean,
)
from analysis.study.clip_values import without_values
from analysis.study.files import Array
from analysis.study.load import Trial
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, LOWER

LEVEL = 0.9  # two-sided, so one-sided 5 %
PARAMETRIC_DRAWS = 4000
LEAST_CHANCE = 0.01  # smaller shares of the draws are not listed
SUFFICIENT, INSUFFICIENT, UNDECIDED = "sufficient", "insufficient", "undecided"


@dataclass(frozen=True)
class RankVerdict:
    """`gain` over the base, positive is better; `worst`: the contrast with the strongest rival."""

    rank: int
    gain: Interval
    worst: Interval
    rival: int  # of `worst`; the rank itself where it hardly gains on the base
    verdict: str
    chance: float  # share of the parametric draws in which it is the smallest sufficient rank


@dataclass(frozen=True)
class Answer:
    """`more_clips` and `more_seeds`: how many in all would show that `candidate` is sufficient; None: unknown."""

    score: str
    series: str
    share: float
    ranks: tuple[RankVerdict, ...]
    candidate: int | None  # the smallest undecided rank whose means are sufficient, where no rank is shown to be
    more_clips: int | None
    more_seeds: int | None

    @property
    def smallest(self) -> RankVerdict | None:
        return next((each for each in self.ranks if each.verdict == SUFFICIENT), None)


def answers(estimates: Estimates) -> tuple[Answer, ...]:
    """One per primary score and adapter series that has a base and two ranks of the same seeds."""
    if estimates.base is None or len(estimates.scores.clips) < 3:
        return ()
    out = []
    for series in estimates.series:
        for score in estimates.primary.answered:
            gains = _gains(estimates, estimates.base, series, score)
            if len(gains) > 1:
                out.append(_answer(score, series, gains, estimates.shots, estimates.study.share))
    return tuple(out)


def lines(estimates: Estimates, found: Sequence[Answer]) -> list[str]:
    """A sentence per answer, and one for each primary score that can have none."""
    missing = {score: _reason(estimates, score) for score in estimates.primary.answered}
    return [sentence(each) for each in found] + [f"{score}: no answer: {why}." for score, why in missing.items() if why]


def _reason(estimates: Estimates, score: str) -> str:
    """Why no trial has values per clip of this score, or ""."""
    scores = estimates.scores
    if not any(score in known for known in scores.values.values()):
        return f"no finished trial has it ({scores.unavailable.get(score, 'not recorded')})"
    return without_values(estimates.study, scores.clips, score)


def _gains(estimates: Estimates, base: Trial, series: str, score: str) -> dict[int, Array]:
    """Rank -> gain over the base (S, N) on the seeds that every rank has; {} where there are none."""
    before = estimates.scorers[score](base) if score in estimates.scorers else None
    if before is None:
        return {}
    sign = -1.0 if DIRECTIONS[score] == LOWER else 1.0
    return {rank: sign * (values - before) for rank, values in estimates.values_by_rank(series, score).items()}


def _answer(score: str, series: str, gains: Mapping[int, Array], shots: Sequence[str], share: float) -> Answer:
    chances = smallest_in_parametric_draws(gains, shots, share)
    ranks = tuple(_verdict(rank, gains, shots, share, chances[rank]) for rank in sorted(gains))
    candidate = next((each for each in ranks if each.verdict == UNDECIDED and each.worst.mean > 0), None)
    if candidate is None or any(each.verdict == SUFFICIENT for each in ranks):
        return Answer(score, series, share, ranks, None, None, None)
    contrast = gains[candidate.rank] - share * gains[candidate.rival]
    more_clips, more_seeds = clips_needed(contrast, shots, LEVEL), seeds_needed(contrast, shots, LEVEL)
    return Answer(score, series, share, ranks, candidate.rank, more_clips, more_seeds)


def _verdict(rank: int, gains: Mapping[int, Array], shots: Sequence[str], share: float, chance: float) -> RankVerdict:
    def contrasts(level: float) -> dict[int, Interval]:
        return {rival: crossed_interval(gains[rank] - share * gains[rival], shots, level) for rival in gains}

    found = contrasts(LEVEL)
    rival = min(found, key=lambda each: found[each].low)
    corrected = 1 - (1 - LEVEL) / max(1, len(gains) - 1)
    beaten = any(each.high < 0 for each in contrasts(corrected).values())
    verdict = SUFFICIENT if found[rival].low > 0 else INSUFFICIENT if beaten else UNDECIDED
    return RankVerdict(rank, crossed_interval(gains[rank], shots), found[rival], rival, verdict, chance)


def smallest_in_parametric_draws(gains: Mapping[int, Array], shots: Sequence[str], share: float) -> dict[int, float]:
    """Rank -> share of the draws, 0..1, in which it is the smallest with gain >= share * the best gain > 0.

    The shares sum to less than 1 if in some draws no rank gains. `gains`: rank -> (S, N). The same numbers each time.
    """
    ranks = sorted(gains)
    values = np.stack([shot_values(gains[rank], shots) for rank in ranks])
    means = values.mean((1, 2))
    random = np.random.default_rng(0)
    freedom = min(variance_of_mean(each)[1] for each in values)
    scale = np.sqrt(freedom / random.chisquare(freedom, PARAMETRIC_DRAWS))
    normal = random.standard_normal((PARAMETRIC_DRAWS, len(ranks)))
    drawn = means + scale[:, None] * (normal @ _square_root(_covariance(values)))
    best = drawn.max(1)
    enough = (drawn >= share * best[:, None]) & (best[:, None] > 0)
    first = np.where(enough.any(1), enough.argmax(1), len(ranks))
    return {rank: float((first == index).mean()) for index, rank in enumerate(ranks)}


def _covariance(values: Array) -> Array:
    """Of the means of (R, S, M) over seeds and shots, (R, R): variances of the intervals, correlations of A + B."""
    _, seeds, shots = values.shape
    mean = values.mean((1, 2), keepdims=True)
    of_seeds, of_shots = values.mean(2, keepdims=True) - mean, values.mean(1, keepdims=True) - mean
    both = _products(of_shots) * seeds / (shots - 1) + _products(of_seeds) * shots / max(1, seeds - 1)
    spread = np.sqrt(np.diag(both))
    wanted = np.sqrt([variance_of_mean(each)[0] for each in values])
    scale = np.divide(wanted, spread, out=np.zeros_like(spread), where=spread > 0)
    return np.asarray(both * np.outer(scale, scale), dtype=np.float64)


def _products(deviations: Array) -> Array:
    flat = deviations.reshape(len(deviations), -1)
    return np.asarray(flat @ flat.T, dtype=np.float64)


def _square_root(covariance: Array) -> Array:
    """The symmetric one; eigenvalues that rounding made negative count as zero."""
    levels, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.clip(levels, 0, None))) @ axes.T, dtype=np.float64)


def sentence(answer: Answer) -> str:
    """The answer in words: what is sufficient, what is open, and how certain that is."""
    where = f"{answer.score}, {answer.series}" if answer.series else answer.score
    if not any(each.gain.low > 0 for each in answer.ranks):
        return f"{where}: no rank is shown to improve on the base."
    smallest = answer.smallest
    if smallest is None:
        best = max(answer.ranks, key=lambda each: each.gain.mean)
        return (
            f"{where}: undecided. Rank {best.rank} has the largest gain over the base, {best.gain:.3g}, but no rank "
            f"is shown to keep at least {answer.share:.0%} of every other rank's gain.{_more(answer)}{_draws(answer)}"
        )
    lower = [each for each in answer.ranks if each.rank < smallest.rank]
    undecided = [str(each.rank) for each in lower if each.verdict == UNDECIDED]
    if undecided:
        rest = f"; whether rank {_either(undecided)} is sufficient is undecided."
    else:
        rest = f"; rank {_either([str(each.rank) for each in lower])} does not." if lower else "."
    return (
        f"{where}: rank {smallest.rank} is sufficient: it gains {smallest.gain:.3g} over the base and keeps at least "
        f"{answer.share:.0%} of every other rank's gain{rest}{_draws(answer)}"
    )


def _draws(answer: Answer) -> str:
    """How often each rank is the smallest sufficient one; "" where it is always the same."""
    seen = [f"{each.rank} in {each.chance:.0%}" for each in answer.ranks if each.chance >= LEAST_CHANCE]
    if len(seen) < 2:
        return ""
    return f" In {PARAMETRIC_DRAWS} parametric draws of the gains, the smallest sufficient rank is {', '.join(seen)}."


def _either(ranks: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(ranks[:-1]), ranks[-1]]))


def _more(answer: Answer) -> str:
    sizes = [f"{answer.more_clips} held-out shots in all"] if answer.more_clips else []
    sizes += [f"{answer.more_seeds} training seeds in all"] if answer.more_seeds else []
    if not sizes:
        return ""
    return f" With the observed means and variances, {' or '.join(sizes)} would show it for rank {answer.candidate}."
