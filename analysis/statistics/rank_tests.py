"""The tests over the ranks of a study: the trend of each score and series, every rank against the best.

In: `Estimates`. Out: `RankTests` records, as CSV (`tests.csv`) and
as lines to read. Pure: no files. Ranks are compared within one series and on the seeds that all of them have; values
are turned so that larger is better ("quality"), but for motion, which has no better.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.differences import COMPARED, DIGITS
from analysis.statistics.intervals import LEVEL, Interval
from analysis.statistics.pairwise import Pairwise, against_best
from analysis.statistics.trend import ENOUGH_SEEDS, NOT_SHOWN, PEAKS, TREND_ALPHA, Trend, trend
from analysis.study.rows import Estimates, near_frozen
from analysis.study.scores import CONSISTENCY, DIRECTIONS, LOWER, NONE

Array = NDArray[np.float64]
HEAD = ["score", "series", "test", "rank", "against", "estimate", "low", "high", "p", "p_holm", "verdict"]
HEAD += ["seeds", "shots"]
BASE = "base"


@dataclass(frozen=True)
class RankTests:
    """`trend` takes three ranks; `pairs` two, and a score that has a better."""

    score: str
    series: str
    seeds: int
    shots: int
    trend: Trend | None
    pairs: Pairwise | None

    @property
    def word(self) -> str:
        """quality rises with rank; peaks at rank 8; no trend shown; "" where none was asked for."""
        if self.trend is None:
            return ""
        if self.trend.word == NOT_SHOWN:
            return NOT_SHOWN
        subject = "score" if DIRECTIONS[self.score] == NONE else "quality"
        return f"{subject} {self.trend.word}" + ("" if self.trend.word.startswith(PEAKS) else " with rank")


@dataclass(frozen=True)
class Line:
    """One line of tests.csv between its series and its seeds."""

    test: str
    rank: int | None = None
    against: str = ""
    found: Interval | float | None = None
    p: float | None = None
    p_holm: float | None = None
    verdict: str = ""


def rank_tests(estimates: Estimates) -> tuple[RankTests, ...]:
    """One per score with a value a clip and series of two ranks or more with a seed in common."""
    if len(estimates.scores.clips) < 3:
        return ()
    scorers, base, out = estimates.scorers, estimates.base, []
    for series in estimates.series:
        frozen = {row.key.rank for row in estimates.finished(series) if near_frozen(row, estimates.scores.real)}
        for score in estimates.clip_scores:
            values = estimates.values_by_rank(series, score)
            before = None if base is None else scorers[score](base)
            barred = frozen if score in CONSISTENCY else set()
            out.append(_tested(score, series, values, before, estimates.shots, barred, estimates.study.share))
    return tuple(each for each in out if each.trend is not None or each.pairs is not None)


def _tested(
    score: str,
    series: str,
    found: Mapping[int, Array],
    base: Array | None,
    shots: Sequence[str],
    barred: Collection[int],
    share: float,
) -> RankTests:
    """`barred`: ranks that may win nothing here. A rank with a value that is no number is not compared."""
    sign = -1.0 if DIRECTIONS[score] == LOWER else 1.0
    values = {rank: sign * each for rank, each in found.items() if np.isfinite(each).all()}
    able = {rank: each for rank, each in values.items() if rank not in barred}
    before = sign * base if base is not None and np.isfinite(base).all() else None
    pairs = against_best(able, shots, before, share) if DIRECTIONS[score] != NONE and len(able) > 1 else None
    moved = trend(values, shots) if len(values) > 2 else None
    seeds = len(next(iter(values.values()), ()))
    return RankTests(score, series, seeds, len(set(shots)), moved, pairs)


def sentences(found: Iterable[RankTests]) -> list[str]:
    """One line per series and score of COMPARED."""
    return [_sentence(each) for each in found if each.score in COMPARED]


def heading(found: Sequence[RankTests]) -> str:
    """What the lines are, with what they rest on."""
    seeds = "/".join(dict.fromkeys(str(each.seeds) for each in found))
    few = f"; a trend needs {ENOUGH_SEEDS} seeds or more" if min(each.seeds for each in found) < ENOUGH_SEEDS else ""
    return (
        f"Over the ranks: slope of quality (larger is better) a doubling of the rank, {1 - TREND_ALPHA:.0%} interval; "
        f"every rank against the best, {LEVEL:.0%}, Holm-corrected; {found[0].shots} shots, {seeds} training seeds{few}"
    )


def numbers(found: Interval) -> str:
    return f"{found.mean:+.{DIGITS}g} [{found.low:+.{DIGITS}g}, {found.high:+.{DIGITS}g}]"


def listed(ranks: Iterable[int]) -> str:
    return ", ".join(map(str, ranks)) or "none"


def _sentence(each: RankTests) -> str:
    where = f"{each.score}, {each.series}" if each.series else each.score
    parts = [f"{each.word} ({numbers(each.trend.slope)} a doubling)"] if each.trend is not None else []
    if each.pairs is not None:
        parts.append(f"best rank {each.pairs.best}")
        parts.append(f"not distinguishable from it: {listed(each.pairs.tied)}")
        parts += [f"equivalent to it: {listed(each.pairs.equivalent)}"] if each.pairs.over_base else []
    return f"{where}: {'; '.join(parts)}"


def as_csv(found: Iterable[RankTests]) -> str:
    """One line a test; estimates in the direction that is better, nine digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEAD)
    for each in found:
        for line in (*_trend_lines(each), *_pair_lines(each.pairs)):
            middle = line.found.mean if isinstance(line.found, Interval) else line.found
            ends = (line.found.low, line.found.high) if isinstance(line.found, Interval) else (None, None)
            digits = [_plain(number) for number in (middle, *ends, line.p, line.p_holm)]
            rank = "" if line.rank is None else line.rank
            head = (each.score, each.series, line.test, rank, line.against)
            writer.writerow([*head, *digits, line.verdict, each.seeds, each.shots])
    return stream.getvalue()


def _trend_lines(each: RankTests) -> list[Line]:
    found = each.trend
    if found is None:
        return []
    lines = [
        Line("slope", found=found.slope, p=found.slope_p, verdict=found.word),
        Line("page_rising", p=found.page_rising),
        Line("page_falling", p=found.page_falling),
        Line("umbrella", found.peak, p=found.umbrella_p),
    ]
    sides = (("slope_up_to", found.up), ("slope_from", found.down))
    return lines + [Line(test, found.peak, found=side) for test, side in sides if side is not None]


def _pair_lines(pairs: Pairwise | None) -> list[Line]:
    if pairs is None:
        return []
    best, lines = str(pairs.best), []
    for each in pairs.others:
        verdict = "distinguishable" if each.distinct else "not distinguishable"
        lines.append(Line("difference", each.rank, best, each.difference, each.p, each.p_holm, verdict))
        lines.append(Line("wilcoxon", each.rank, best, None, each.wilcoxon, each.wilcoxon_holm))
        lines.append(Line("improvement", each.rank, best, each.over_best))
        verdict = "equivalent" if each.equivalent else "not shown"
        sides = (("keeps_share_of_gain", each.keeps), ("best_keeps_share_of_gain", each.kept))
        lines += [Line(test, each.rank, best, side, verdict=verdict) for test, side in sides if side is not None]
    return lines + [Line("improvement", rank, BASE, value) for rank, value in pairs.over_base.items()]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"
