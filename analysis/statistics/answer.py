"""The answer: the smallest rank that keeps most of the best rank's gain over the base, or that the data cannot tell.

In: `Estimates`, a score. Out: `Answer` records and sentences. Pure: no files.

A rank is sufficient if its gain over the base is at least `share` of every other rank's gain: for each rival the
contrast gain - share * rival's gain is taken clip by clip and seed by seed, and all must be clear of zero (one-sided
5 %; an intersection of tests, each at its level, needs no correction: Berger 1982). It is insufficient if one contrast
is clearly negative, corrected for the number of rivals. `share` is fixed when the study begins (answer.share).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.intervals import (
    Interval,
    clips_needed,
    crossed_interval,
    degrees_of_freedom,
    seeds_needed,
    shot_values,
    variance_of_mean,
)
from analysis.study.clip_values import Values, clip_values, rank_values
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, LOWER

# ~ With what confidence is a rank the smallest sufficient one? The study drawn again from its own means and spread.
# ~
# ~ In: gains over the base, (S seeds, N clips) of each rank, the shot of each clip. Out: the share of redraws in
# ~ which each
# ~ rank is the smallest that keeps the wanted share of the best one's gain. Pure NumPy.
# ~
# ~ Means of all ranks are drawn together, multivariate t around what was seen. Each varies as
# ~ `analysis/statistics/intervals.py` says;
# ~ they correlate as their deviations by seed and by shot do (A and B there, with products of two ranks for squares).
# ~ Drawing seeds and shots with replacement instead would know too little of seeds (docs/decisions.md, 16).
REDRAWS = 4000


def smallest_in_redraws(gains: Mapping[int, Array], shots: Sequence[str], share: float) -> dict[int, float]:
    """Rank -> share of redraws, 0..1, in which it is the smallest with gain >= share * the best gain, that being > 0.

    What is missing to 1 are redraws in which no rank gains. The same numbers each time.
    """
    ranks = sorted(gains)
    values = np.stack([shot_values(gains[rank], shots) for rank in ranks])
    means = values.mean((1, 2))
    random = np.random.default_rng(0)
    freedom = min(degrees_of_freedom(each) for each in values)
    scale = np.sqrt(freedom / random.chisquare(freedom, REDRAWS))
    drawn = means + scale[:, None] * (random.standard_normal((REDRAWS, len(ranks))) @ _root(_covariance(values)))
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
    wanted = np.sqrt([variance_of_mean(each) for each in values])
    scale = np.divide(wanted, spread, out=np.zeros_like(spread), where=spread > 0)
    return np.asarray(both * np.outer(scale, scale), dtype=np.float64)


def _products(deviations: Array) -> Array:
    flat = deviations.reshape(len(deviations), -1)
    return np.asarray(flat @ flat.T, dtype=np.float64)


def _root(covariance: Array) -> Array:
    """Symmetric square root; rounding below zero counts as zero."""
    levels, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.clip(levels, 0, None))) @ axes.T, dtype=np.float64)


Array = NDArray[np.float64]
SELDOM = 0.01  # shares of redraws below this are not told
LEVEL = 0.9  # two-sided, so one-sided 5 %
SCORES = ("kvd[tnv2]", "heldout_loss")
SUFFICIENT, INSUFFICIENT, UNDECIDED = "sufficient", "insufficient", "undecided"


@dataclass(frozen=True)
class RankVerdict:
    """`gain` over the base, in the direction that is better; `worst`: the contrast with its strongest rival."""

    rank: int
    gain: Interval
    worst: Interval
    verdict: str
    chance: float  # share of redraws in which it is the smallest sufficient rank, analysis/statistics/answer.py


@dataclass(frozen=True)
class Answer:
    """`more_clips` and `more_seeds`: what would show the rank that looks smallest; None where nothing would."""

    score: str
    series: str
    share: float
    ranks: tuple[RankVerdict, ...]
    more_clips: int | None
    more_seeds: int | None

    @property
    def smallest(self) -> RankVerdict | None:
        return next((each for each in self.ranks if each.verdict == SUFFICIENT), None)


def answers(estimates: Estimates) -> tuple[Answer, ...]:
    """One per score of SCORES and adapter series that has a base and two ranks of the same seeds."""
    study, clips = estimates.study, estimates.scores.clips
    if estimates.base is None or len(clips) < 3:
        return ()
    ways, out = clip_values(study, clips), []
    for series in estimates.series:
        for score in SCORES:
            gains = _gains(estimates, series, score, ways[score])
            if len(gains) > 1:
                out.append(_answer(score, series, gains, estimates.shots, study.share))
    return tuple(out)


def _gains(estimates: Estimates, series: str, score: str, of_score: Values) -> dict[int, Array]:
    """Rank -> gain over the base (S, N) on the seeds that every rank has; {} where there are none."""
    before = None if estimates.base is None else of_score(estimates.base)
    if before is None:
        return {}
    sign = -1.0 if DIRECTIONS[score] == LOWER else 1.0
    return {rank: sign * (values - before) for rank, values in rank_values(estimates, series, of_score).items()}


def _answer(score: str, series: str, gains: dict[int, Array], shots: list[str], share: float) -> Answer:
    chances = smallest_in_redraws(gains, shots, share)
    verdicts = tuple(_verdict(rank, gains, shots, share, chances[rank]) for rank in sorted(gains))
    more_clips = more_seeds = None
    hopeful = next((each for each in verdicts if each.verdict == UNDECIDED and each.worst.mean > 0), None)
    if hopeful is not None and all(each.verdict != SUFFICIENT for each in verdicts):
        rival = _strongest(hopeful.rank, gains, shots, share)
        contrast = gains[hopeful.rank] - share * gains[rival]
        more_clips, more_seeds = clips_needed(contrast, shots, LEVEL), seeds_needed(contrast, shots, LEVEL)
    return Answer(score, series, share, verdicts, more_clips, more_seeds)


def _contrasts(rank: int, gains: dict[int, Array], shots: list[str], share: float, level: float) -> dict[int, Interval]:
    return {rival: crossed_interval(gains[rank] - share * gains[rival], shots, level) for rival in gains}


def _strongest(rank: int, gains: dict[int, Array], shots: list[str], share: float) -> int:
    """The rival whose contrast is least clear of zero; the rank itself where it hardly gains on the base."""
    found = _contrasts(rank, gains, shots, share, LEVEL)
    return min(found, key=lambda rival: found[rival].low)


def _verdict(rank: int, gains: dict[int, Array], shots: list[str], share: float, chance: float) -> RankVerdict:
    worst = min(_contrasts(rank, gains, shots, share, LEVEL).values(), key=lambda each: each.low)
    corrected = 1 - (1 - LEVEL) / max(1, len(gains) - 1)
    beaten = any(each.high < 0 for each in _contrasts(rank, gains, shots, share, corrected).values())
    verdict = SUFFICIENT if worst.low > 0 else INSUFFICIENT if beaten else UNDECIDED
    return RankVerdict(rank, crossed_interval(gains[rank], shots), worst, verdict, chance)


def sentence(answer: Answer) -> str:
    """What a reader takes home, in one or two sentences."""
    where = f"{answer.score}, {answer.series}" if answer.series else answer.score
    gaining = [each for each in answer.ranks if each.gain.low > 0]
    if not gaining:
        return f"{where}: no rank is shown to gain on the base."
    best = max(answer.ranks, key=lambda each: each.gain.mean)
    smallest = answer.smallest
    if smallest is None:
        return (
            f"{where}: undecided; rank {best.rank} gains most ({_numbers(best.gain)}), but no rank is shown to keep "
            f"{answer.share:.0%} of every other's gain.{_more(answer)}{_redraws(answer)}"
        )
    lower = [each for each in answer.ranks if each.rank < smallest.rank]
    open_ones = [str(each.rank) for each in lower if each.verdict == UNDECIDED]
    told = (
        f"{where}: rank {smallest.rank} is enough: it gains {_numbers(smallest.gain)} on the base and keeps at least "
    )
    told += f"{answer.share:.0%} of every other rank's gain"
    if open_ones:
        return f"{told}; whether {_either(open_ones)} would do is undecided.{_redraws(answer)}"
    rest = f"; {_either([str(each.rank) for each in lower])} does not." if lower else "."
    return told + rest + _redraws(answer)


def _redraws(answer: Answer) -> str:
    """In how many redraws of the study each rank is the smallest sufficient one; nothing where it is always one."""
    seen = [f"{each.rank} in {each.chance:.0%}" for each in answer.ranks if each.chance >= SELDOM]
    return f" In redraws of the study the smallest such rank is {', '.join(seen)}." if len(seen) > 1 else ""


def _either(ranks: list[str]) -> str:
    return "rank " + " or ".join(filter(None, [", ".join(ranks[:-1]), ranks[-1]]))


def _numbers(found: Interval) -> str:
    return f"{found.mean:.3g} [{found.low:.3g}, {found.high:.3g}]"


def _more(answer: Answer) -> str:
    ways = [f"{answer.more_clips} held-out shots in all"] if answer.more_clips else []
    ways += [f"{answer.more_seeds} seeds in all"] if answer.more_seeds else []
    hopeful = next((each for each in answer.ranks if each.worst.mean > 0), None)
    if hopeful is None or not ways:
        return ""
    return f" By the variances seen, {' or '.join(ways)} would show it for rank {hopeful.rank}."
