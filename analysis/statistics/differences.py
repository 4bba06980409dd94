"""Each row of the rank table against the base: paired differences with 95 % intervals.

In: `Estimates`. Out: `Difference` records, as CSV (differences.csv) and as lines to read. Pure: no files.
Row and base are compared clip by clip: same first frame, caption and starting noise. The intervals of
`analysis/statistics/intervals.py` cover other training seeds and other shots. The base has no seed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.intervals import LEVEL, ONE_SEED, Interval, crossed_interval
from analysis.study.files import csv_text
from analysis.study.load import Trial
from analysis.study.rows import Estimates, Row
from analysis.study.scores import DIRECTIONS, FROZEN_WINS, HIGHER, LOWER

DIGITS = 3  # significant, of a difference
COLUMNS = ("row", "score", "difference", "low", "high", "verdict", "seeds", "shots")
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Difference:
    """A score of a row minus that of the base."""

    row: str
    score: str
    interval: Interval

    @property
    def verdict(self) -> str:
        """better or worse where the interval excludes zero, or UNDECIDED.

        "higher" or "lower" of a score without direction, and of one that a frozen clip would win.
        """
        if not self.interval.excludes_zero:
            return UNDECIDED
        rises = self.interval.mean > 0
        if DIRECTIONS[self.score] not in (LOWER, HIGHER) or self.score in FROZEN_WINS:
            return "higher" if rises else "lower"
        return "better" if rises == (DIRECTIONS[self.score] == HIGHER) else "worse"

    def __str__(self) -> str:
        return f"{self.interval:+.{DIGITS}g} {self.verdict}"


def differences(estimates: Estimates) -> tuple[Difference, ...]:
    """Every row with finished trials against the base, every score that has a value per clip; () without a base."""
    if estimates.base is None or len(estimates.scores.clips) < 3:
        return ()
    rows = [row for row in estimates.rows if row.done and not row.is_base]
    return tuple(each for row in rows for each in _of_row(estimates, row, estimates.base))


def _of_row(estimates: Estimates, row: Row, base: Trial) -> list[Difference]:
    out, trials = [], estimates.trials(row)
    for score in estimates.clip_scores:
        scorer = estimates.scorers[score]
        before, after = scorer(base), [values for trial in trials if (values := scorer(trial)) is not None]
        if before is not None and len(after) == len(trials):
            interval = crossed_interval(np.stack(after) - before, estimates.shots)
            out.append(Difference(row.full_name, score, interval))
    return out


def differences_csv(found: Iterable[Difference]) -> str:
    """One line per difference, nine digits."""

    def values(each: Difference) -> tuple[object, ...]:
        own = each.interval
        return each.row, each.score, own.mean, own.low, own.high, each.verdict, own.seeds, own.shots

    return csv_text(COLUMNS, (dict(zip(COLUMNS, values(each), strict=True)) for each in found))


def sentences(found: Iterable[Difference], compared: Collection[str]) -> list[str]:
    """One line per row: its `compared` scores against the base."""
    by_row: dict[str, list[str]] = {}
    for each in found:
        if each.score in compared:
            by_row.setdefault(each.row, []).append(f"{each.score} {each}")
    return [f"{row}: {'; '.join(texts)}" for row, texts in by_row.items()]


def heading(found: Sequence[Difference]) -> str:
    """What the lines show, and from how many shots and seeds."""
    return (
        f"Against the base: paired differences with {LEVEL:.0%} intervals over {found[0].interval.shots} shots and "
        f"{_seeds(found)}"
    )


def _seeds(found: Sequence[Difference]) -> str:
    """Ranks 3 training seeds, controls 1: ...; one number where all rows have as many."""
    numbers: dict[str, set[int]] = {}
    for each in found:
        kind = "ranks" if each.row.startswith("rank ") else "controls"
        numbers.setdefault(kind, set()).add(each.interval.seeds)
    if len(numbers) < 2 or len(set.union(*numbers.values())) == 1:
        seeds = "/".join(map(str, sorted(set.union(*numbers.values()), reverse=True)))
        return f"{seeds} training seeds ({ONE_SEED})"
    texts = {kind: "/".join(map(str, sorted(known, reverse=True))) for kind, known in numbers.items()}
    luck = ": the controls ignore seed luck" if numbers["controls"] == {1} else f" ({ONE_SEED})"
    return f"ranks {texts['ranks']} training seeds, controls {texts['controls']}{luck}"
