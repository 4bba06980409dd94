"""The tests over the ranks of a study: the trend of each score and series, every rank against the best.

In: `Estimates`. Out: `RankTests` records, tests.csv, sentences. Pure: no files. Ranks are compared within one series,
on the seeds that all of them have. Where these have several learning rates, nothing is called a trend of the rank, and
the slopes over the ranks of one rate are given too. The sign of a score is set so that larger is better ("quality"),
except for motion, which has no better direction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.statistics.decision import seconds_a_seed
from analysis.statistics.differences import DIGITS
from analysis.statistics.intervals import LEVEL, Interval
from analysis.statistics.pairwise import Pairwise, against_best
from analysis.statistics.trend import ENOUGH_SEEDS, NOT_SHOWN, PEAKS, TREND_ALPHA, Trend, slopes_within, trend
from analysis.study.costs import work
from analysis.study.files import Array, csv_text
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, LOWER, NONE

HEAD = ["score", "series", "test", "rank", "against", "estimate", "low", "high", "p", "p_holm", "verdict"]
HEAD += ["seeds", "shots"]
BASE = "base"
OWN_RATES = "over ranks each at its own learning rate"


@dataclass(frozen=True)
class RankTests:
    """`trend` needs three ranks; `pairs` two, and a score with a better direction.

    `rates`: rank -> learning rate, {} where all ranks have one; `within`: rate -> slope over its ranks.
    """

    score: str
    series: str
    seeds: int
    shots: int
    trend: Trend | None
    pairs: Pairwise | None
    rates: Mapping[int, float] = field(default_factory=dict)
    within: Mapping[float, Interval] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """quality rises with rank; peaks at rank 8; no trend shown; "" without a trend test."""
        if self.trend is None:
            return ""
        if self.trend.word == NOT_SHOWN:
            return NOT_SHOWN
        subject = "score" if DIRECTIONS[self.score] == NONE else "quality"
        peak = self.trend.word.startswith(PEAKS)
        if self.rates:
            return f"{subject} {self.trend.word}{',' * peak} {OWN_RATES}"
        return f"{subject} {self.trend.word}" + ("" if peak else " with rank")

    @property
    def within_rates(self) -> str:
        """The slopes over the ranks of one learning rate; "" without."""
        parts = [
            f"{listed(rank for rank in sorted(self.rates) if self.rates[rank] == rate)} at {rate:g}: {own:+.{DIGITS}g}"
            for rate, own in self.within.items()
        ]
        return f"slope within one learning rate, ranks {'; '.join(parts)}" if parts else ""


def rank_tests(estimates: Estimates) -> tuple[RankTests, ...]:
    """One per score with values per clip and series of two or more ranks with a seed in common."""
    if len(estimates.scores.clips) < 3:
        return ()
    scorers, base, out = estimates.scorers, estimates.base, []
    for series in estimates.series:
        for score in estimates.clip_scores:
            values, rates = estimates.values_by_rank(series, score), estimates.rates(series)
            before = None if base is None else scorers[score](base)
            out.append(_tested(score, series, values, before, estimates.shots, estimates.study.share, rates))
    return tuple(each for each in out if each.trend is not None or each.pairs is not None)


def _tested(
    score: str,
    series: str,
    found: Mapping[int, Array],
    base: Array | None,
    shots: Sequence[str],
    share: float,
    rates: Mapping[int, float] | None = None,
) -> RankTests:
    """A rank with a value that is not finite is left out."""
    sign = -1.0 if DIRECTIONS[score] == LOWER else 1.0
    values = {rank: sign * each for rank, each in found.items() if np.isfinite(each).all()}
    before = sign * base if base is not None and np.isfinite(base).all() else None
    pairs = against_best(values, shots, before, share) if DIRECTIONS[score] != NONE and len(values) > 1 else None
    moved = trend(values, shots) if len(values) > 2 else None
    seeds = len(next(iter(values.values()), ()))
    own = {rank: (rates or {})[rank] for rank in values if rank in (rates or {})}
    own = own if len(set(own.values())) > 1 else {}
    return RankTests(score, series, seeds, len(set(shots)), moved, pairs, own, slopes_within(values, own, shots))


def rates_note(estimates: Estimates) -> str:
    """Which ranks were trained at which learning rate, and what a grid of both would take; "" where all have one."""
    by_text: dict[str, list[str]] = {}
    cells, seconds = 0, 0.0
    for series in estimates.series:
        rates = estimates.rates(series)
        if not rates:
            continue
        levels = sorted(set(rates.values()), reverse=True)
        parts = [(listed((rank for rank in sorted(rates) if rates[rank] == rate), " and "), rate) for rate in levels]
        by_text.setdefault("; ".join(f"{ranks} at {rate:g}" for ranks, rate in parts), []).append(series)
        seeds = max(row.done for row in estimates.finished(series))
        cells += (len(levels) - 1) * len(rates) * seeds
        seconds += (len(levels) - 1) * seeds * sum(seconds_a_seed(estimates, series).values())
    if not by_text:
        return ""
    texts = [text if len(by_text) == 1 else f"{', '.join(names)}: {text}" for text, names in by_text.items()]
    return (
        f"Ranks were trained at different learning rates ({'. '.join(texts)}): a difference between ranks of different "
        f"rates may come from the rate. Every rank at every rate would take {cells} trials more, "
        f"{work(seconds / 3600)}."
    )


def sentences(found: Iterable[RankTests], compared: Collection[str]) -> list[str]:
    """One line per series and score of `compared`."""
    return [_sentence(each) for each in found if each.score in compared]


def heading(found: Sequence[RankTests]) -> str:
    """The heading of the sentences: tests, levels, numbers of shots and seeds."""
    seeds = "/".join(dict.fromkeys(str(each.seeds) for each in found))
    few = f"; a trend needs {ENOUGH_SEEDS} seeds or more" if min(each.seeds for each in found) < ENOUGH_SEEDS else ""
    return (
        f"Over the ranks: change of quality (larger is better) per doubling of rank, {1 - TREND_ALPHA:.0%} interval; "
        f"every rank against the best, {LEVEL:.0%}, Holm-corrected; {found[0].shots} shots, {seeds} training seeds{few}"
    )


def listed(ranks: Iterable[int], last: str = ", ") -> str:
    *most, end = [*map(str, ranks)] or ["none"]
    return f"{', '.join(most)}{last}{end}" if most else end


def _sentence(each: RankTests) -> str:
    where = f"{each.score}, {each.series}" if each.series else each.score
    parts = [f"{each.word} ({each.trend.slope:+.{DIGITS}g} per doubling)"] if each.trend is not None else []
    parts += [each.within_rates] if each.within else []
    if each.pairs is not None:
        parts.append(f"best rank {each.pairs.best}")
        parts.append(f"no difference from it shown: {listed(each.pairs.tied)}")
        parts += [f"as good as it: {listed(each.pairs.equivalent)}"] if each.pairs.over_base else []
    return f"{where}: {'; '.join(parts)}"


def as_csv(found: Iterable[RankTests]) -> str:
    """One line per test, estimates in the direction that is better."""
    return csv_text(
        HEAD,
        (
            {"score": each.score, "series": each.series, "seeds": each.seeds, "shots": each.shots, **line}
            for each in found
            for line in (*_trend_lines(each), *_pair_lines(each.pairs))
        ),
    )


def _interval(found: Interval) -> dict[str, object]:
    return {"estimate": found.mean, "low": found.low, "high": found.high}


def _trend_lines(each: RankTests) -> list[dict[str, object]]:
    within = [
        {"test": "slope_within_rate", "against": f"learning rate {rate:g}", **_interval(slope)}
        for rate, slope in each.within.items()
    ]
    found = each.trend
    if found is None:
        return within
    verdict = f"{found.word} {OWN_RATES}" if each.rates and found.word != NOT_SHOWN else found.word
    lines: list[dict[str, object]] = [
        {"test": "slope", **_interval(found.slope), "p": found.slope_p, "verdict": verdict},
        {"test": "page_rising", "p": found.page_rising},
        {"test": "page_falling", "p": found.page_falling},
        {"test": "umbrella", "rank": found.peak, "p": found.umbrella_p},
    ]
    sides = (("slope_up_to", found.up), ("slope_from", found.down))
    lines += [{"test": test, "rank": found.peak, **_interval(side)} for test, side in sides if side is not None]
    return lines + within


def _pair_lines(pairs: Pairwise | None) -> list[dict[str, object]]:
    if pairs is None:
        return []
    lines: list[dict[str, object]] = []
    for each in pairs.others:
        pair = {"rank": each.rank, "against": pairs.best}
        verdict = "distinguishable" if each.distinct else "not distinguishable"
        tested = {"p": each.p, "p_holm": each.p_holm, "verdict": verdict}
        lines.append({"test": "difference", **pair, **_interval(each.difference), **tested})
        lines.append({"test": "wilcoxon", **pair, "p": each.wilcoxon, "p_holm": each.wilcoxon_holm})
        lines.append({"test": "improvement", **pair, "estimate": each.over_best})
        verdict = "equivalent" if each.equivalent else "not shown"
        sides = (("keeps_share_of_gain", each.keeps), ("best_keeps_share_of_gain", each.kept))
        lines += [{"test": test, **pair, **_interval(side), "verdict": verdict} for test, side in sides if side]
    over_base = pairs.over_base.items()
    return lines + [
        {"test": "improvement", "rank": rank, "against": BASE, "estimate": value} for rank, value in over_base
    ]
