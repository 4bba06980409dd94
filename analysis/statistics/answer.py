"""Per score: which ranks are shown to keep most of the best gain over the base, and which are shown to fall short.

In: `Estimates`. Out: `Answer` records, one per primary score and adapter series, answer.csv, and a sentence for each.
`analysis/statistics/decision.py` draws the conclusion from all scores. Pure: no files.

On a score on which some rank is shown to gain on the base (one-sided 5 %), the contrast gain - share * rival's gain is
taken clip by clip and seed by seed for every rival, the rank itself among them. A rank is ENOUGH if every contrast is
shown to be above zero (one-sided 5 %; an intersection-union test needs no correction: Berger 1982), and WORSE if one is
shown to be below zero, corrected for the number of rivals. Its confidence is 1 - the largest one-sided p of its
contrasts, from the same t intervals (`analysis/statistics/intervals.py`): it is above 95 % exactly where the rank is
ENOUGH. On a score on which no rank is shown to gain, a share of the gain means nothing: a rank is WORSE if it is shown
to differ from the best (`analysis/statistics/pairwise.py`), and none is ENOUGH. `share` is fixed when the study begins.

A study that looked several times (`analysis/power/rounds.py`) has the levels of its last look instead of 5 %, on the
seeds of that look. A rank that an earlier look dropped keeps what that look saw: of a score, that may be OPEN.
S seeds, N clips.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.statistics.intervals import Interval, clips_needed, crossed_interval, number, p_value, seeds_needed
from analysis.statistics.pairwise import against_best
from analysis.study.clip_values import without_values
from analysis.study.files import Array, csv_text
from analysis.study.load import Trial
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, LOWER
from cinelora.metrics.primary import plain_name
from sweeps.looks import Level

ALPHA = 0.05  # one-sided, of a study with one look
SURE = 1 - ALPHA
ENOUGH, WORSE, OPEN = "enough", "worse", "open"
HEAD = [
    "score",
    "series",
    "rank",
    "gain",
    "gain_low",
    "gain_high",
    "rival",
    "contrast",
    "contrast_low",
    "contrast_high",
]
HEAD += ["confidence", "verdict"]


@dataclass(frozen=True)
class RankVerdict:
    """`gain` over the base, positive is better; `worst`: the contrast with the rival that leaves most doubt.

    `seeds`, `clips`: how many in all would show an OPEN rank to be what its means say, all else as observed; None:
    unknown, or too many.
    """

    rank: int
    gain: Interval
    worst: Interval
    rival: int  # of `worst`; the rank itself where it hardly gains on the base
    confidence: float | None  # that it is ENOUGH; None on a score without a gain
    verdict: str
    promising: bool = False  # of an OPEN rank: by its means it is ENOUGH
    seeds: int | None = None
    clips: int | None = None
    keeps: tuple[int, ...] = ()  # rivals of which it is shown to keep the share
    look: int | None = None  # the index of the look that dropped it


@dataclass(frozen=True)
class Answer:
    score: str
    series: str
    share: float
    gained: bool  # whether some rank is shown to gain on the base
    ranks: tuple[RankVerdict, ...]
    level: float = ALPHA  # one-sided, that a rank is ENOUGH

    @property
    def smallest(self) -> RankVerdict | None:
        """The smallest rank that is ENOUGH."""
        return next((each for each in self.ranks if each.verdict == ENOUGH), None)

    @property
    def by_rank(self) -> Mapping[int, RankVerdict]:
        return {each.rank: each for each in self.ranks}

    def of(self, verdict: str) -> list[int]:
        return [each.rank for each in self.ranks if each.verdict == verdict]


def answers(estimates: Estimates) -> tuple[Answer, ...]:
    """One per primary score and adapter series that has a base and two ranks of the same seeds."""
    if estimates.base is None or len(estimates.scores.clips) < 3:
        return ()
    out = []
    for series in estimates.series:
        for score in estimates.primary.answered:
            found = _over_looks(estimates, estimates.base, series, score)
            out += [found] if found else []
    return tuple(out)


def _over_looks(estimates: Estimates, base: Trial, series: str, score: str) -> Answer | None:
    """The answer of the last look, with the ranks that earlier ones dropped; of a study without looks, of all seeds."""
    looks, study = estimates.study.looks, estimates.study

    def at(index: int, ranks: Collection[int]) -> Answer | None:
        seeds, level = (None, None) if looks is None else (looks.schedule[index], looks.levels[index])
        gains = _gains(estimates, base, series, score, ranks, seeds)
        least = 1 if dropped else 2
        return answer_of(score, series, gains, estimates.shots, study.share, level) if len(gains) >= least else None

    ranks, dropped = [row.key.rank for row in estimates.finished(series)], estimates.dropped(series)
    last = looks.last(estimates.row_ids(series).values()) if looks else 0
    found = at(last, [rank for rank in ranks if dropped.get(rank, last) >= last])
    kept = list(found.ranks) if found else []
    for index in sorted(set(dropped.values()) - {last}):
        then = at(index, [rank for rank in ranks if dropped.get(rank, last) >= index])
        kept += [replace(each, look=index) for each in (then.ranks if then else ()) if dropped.get(each.rank) == index]
    return found and replace(found, ranks=tuple(sorted(kept, key=lambda each: each.rank)))


def _gains(
    estimates: Estimates, base: Trial, series: str, score: str, ranks: Collection[int], seeds: int | None
) -> dict[int, Array]:
    """Rank -> gain over the base (S, N) on the first `seeds` that each of `ranks` has; {} where there are none. A rank
    with a value that is not finite is left out."""
    before = estimates.scorers[score](base) if score in estimates.scorers else None
    if before is None:
        return {}
    sign = -1.0 if DIRECTIONS[score] == LOWER else 1.0
    values = estimates.values_by_rank(series, score, ranks, seeds)
    gains = {rank: sign * (own - before) for rank, own in values.items()}
    return {rank: gains[rank] for rank in sorted(gains) if np.isfinite(gains[rank]).all()}


def answer_of(
    score: str,
    series: str,
    gains: Mapping[int, Array],
    shots: Sequence[str],
    share: float,
    level: Level | None = None,
) -> Answer:
    """`gains`: rank -> (S, N). `level`: of one look among several; None: 5 %."""
    level = level or Level(ALPHA, ALPHA / max(1, len(gains) - 1))
    gained = any(_confidence(gain, shots) > 1 - level.enough for gain in gains.values())
    if gained:
        ranks = [_verdict(rank, gains, shots, share, level) for rank in gains]
    else:
        best = max(gains, key=lambda rank: float(gains[rank].mean()))
        pairs = against_best(gains, shots, None, share).others if len(gains) > 1 else ()
        distinct = {each.rank for each in pairs if each.p_holm < level.enough}
        ranks = [
            RankVerdict(
                rank,
                gain=crossed_interval(gain, shots),
                worst=crossed_interval(gain - gains[best], shots, 1 - 2 * level.enough),
                rival=best,
                confidence=None,
                verdict=WORSE if rank in distinct else OPEN,
            )
            for rank, gain in gains.items()
        ]
    return Answer(score, series, share, gained, tuple(ranks), level.enough)


def _verdict(rank: int, gains: Mapping[int, Array], shots: Sequence[str], share: float, level: Level) -> RankVerdict:
    contrasts = {rival: gains[rank] - share * gains[rival] for rival in gains}
    sure = {rival: _confidence(each, shots) for rival, each in contrasts.items()}
    rival = min(contrasts, key=lambda each: sure[each])
    certain, corrected = 1 - 2 * level.enough, 1 - 2 * level.worse
    beaten = any(crossed_interval(each, shots, corrected).high < 0 for each in contrasts.values())
    found = RankVerdict(
        rank,
        gain=crossed_interval(gains[rank], shots),
        worst=crossed_interval(contrasts[rival], shots, certain),
        rival=rival,
        confidence=sure[rival],
        verdict=ENOUGH if sure[rival] > 1 - level.enough else WORSE if beaten else OPEN,
        keeps=tuple(each for each in gains if sure[each] > 1 - level.enough),
    )
    if found.verdict != OPEN:
        return found
    promising = all(each.mean() > 0 for each in contrasts.values())
    if promising:  # until the last contrast is shown to be above zero
        wanted = certain
        unsure = [each for rival, each in contrasts.items() if sure[rival] <= 1 - level.enough]
    else:  # until the first is shown to be below
        wanted, unsure = corrected, [each for each in contrasts.values() if each.mean() < 0]
    pick = most if promising else least
    seeds = pick([seeds_needed(each, shots, wanted) for each in unsure])
    clips = pick([clips_needed(each, shots, wanted) for each in unsure])
    return replace(found, promising=promising, seeds=seeds, clips=clips)


def _confidence(values: Array, shots: Sequence[str]) -> float:
    """1 - the one-sided p for a mean above zero of (S, N): above 95 % where its 90 % interval is."""
    half = p_value(values, shots) / 2
    return 1 - half if values.mean() > 0 else half


def most(counts: Sequence[int | None]) -> int | None:
    """The largest; None where one is unknown."""
    known = [each for each in counts if each is not None]
    return max(known) if known and len(known) == len(counts) else None


def least(counts: Sequence[int | None]) -> int | None:
    """The smallest that is known."""
    return min((each for each in counts if each is not None), default=None)


def lines(estimates: Estimates, found: Sequence[Answer]) -> list[str]:
    """A sentence per answer, and one for each primary score that can have none."""
    missing = {score: _reason(estimates, score) for score in estimates.primary.answered}
    return [sentence(each) for each in found] + [
        f"{plain_name(score)}: no answer: {why}." for score, why in missing.items() if why
    ]


def _reason(estimates: Estimates, score: str) -> str:
    """Why no trial has values per clip of this score, or ""."""
    scores = estimates.scores
    if not any(score in known for known in scores.values.values()):
        return f"no finished trial has it ({scores.unavailable.get(score, 'not recorded')})"
    return without_values(estimates.study, scores.clips, score)


def sentence(answer: Answer) -> str:
    """The answer in words: "score: what is shown, what is open, how certain that is"."""
    where = ", ".join(filter(None, (plain_name(answer.score), answer.series)))
    kept, worse, left = (answer.of(verdict) for verdict in (ENOUGH, WORSE, OPEN))
    if not answer.gained:
        fall = "every rank is worse than" if all(each.gain.high < 0 for each in answer.ranks) else "no rank improves on"
        apart = f"shown to be worse than rank {answer.ranks[0].rival}: rank {listed(worse)}" if worse else ""
        return f"{where}: {fall} the untrained model; {apart or 'no difference between ranks is shown'}."
    share = f"at least {answer.share:.0%} of the best gain over the untrained model"
    parts = [f"shown to keep {share}: rank {listed(kept)}" if kept else f"no rank is shown to keep {share}"]
    parts += [f"shown to keep less: rank {listed(worse)}{_earlier(answer, WORSE)}"] if worse else []
    parts += [f"open: rank {listed(left)}{_earlier(answer, OPEN)}"] if left else []
    sure = ", ".join(f"rank {each.rank} {percent(each.confidence, 1 - answer.level)}" for each in answer.ranks)
    return f"{where}: {'; '.join(parts)}. Confidence that a rank keeps it: {sure}.{_margin(answer)}"


def _margin(answer: Answer) -> str:
    """A clause where the gain that a rank may lose is wider than all that the ranks differ by."""
    means = [each.gain.mean for each in answer.ranks]
    margin, spread = (1 - answer.share) * max(means), max(means) - min(means)
    if margin <= spread:
        return ""
    lost = f"{1 - answer.share:.0%} that a rank may lose, {number(margin)}"
    return f" The {lost}, is more than the ranks differ by, {number(spread)}."


def _earlier(answer: Answer, verdict: str) -> str:
    """The ranks of this verdict that an earlier look dropped."""
    gone = [each for each in answer.ranks if each.look is not None and each.verdict == verdict]
    looks = [f"rank {each.rank} at look {(each.look or 0) + 1}, {each.gain.seeds} seeds" for each in gone]
    return f" (dropped: {'; '.join(looks)})" if looks else ""


def percent(confidence: float | None, sure: float = SURE) -> str:
    """Never rounded across `sure`, nor to 0 or 100 %."""
    if confidence is None:
        return "-"
    whole = 100 * confidence
    if whole > 99:
        return "over 99%"
    if whole < 1:
        return "under 1%"
    nearest, edge = np.round(whole), np.floor(100 * sure)
    return f"{max(nearest, edge + 1) if confidence > sure else min(nearest, edge):.0f}%"


def listed(ranks: Sequence[int], word: str = "and") -> str:
    """1, 4 and 8."""
    names = [str(rank) for rank in ranks]
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def as_csv(found: Iterable[Answer]) -> str:
    """One line per score, series and rank: gain with its 95 % interval, worst contrast with its 90 % interval."""
    rows = []
    for answer in found:
        for each in answer.ranks:
            gain, worst = each.gain, each.worst
            own: list[object] = [answer.score, answer.series, each.rank, gain.mean, gain.low, gain.high]
            own += [each.rival, worst.mean, worst.low, worst.high, each.confidence, each.verdict]
            rows.append(dict(zip(HEAD, own, strict=True)))
    return csv_text(HEAD, rows)
