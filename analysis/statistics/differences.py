"""Each row of the rank table against the base: paired differences with 95 % intervals.

In: `Estimates`. Out: `Difference` records, as CSV and as lines to read. Pure: no files.
Row and base are compared clip by clip: same first frame, caption, starting noise; `analysis/statistics/intervals.py`
says what
another training seed and other shots would have given. The base has no seed.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np

from analysis.statistics.intervals import LEVEL, crossed_interval
from analysis.study.clip_values import clip_values
from analysis.study.load import Trial
from analysis.study.rows import Estimates, Row
from analysis.study.scores import DIRECTIONS, HIGHER, LOWER

COMPARED = ("heldout_loss", "kvd[tnv2]", "psnr")  # scores told in words; the CSV has all
DIGITS = 3  # significant, of a difference


@dataclass(frozen=True)
class Difference:
    """Row minus base. `verdict` is "better" or "worse" where the interval is clear of zero, else "undecided"."""

    row: str
    score: str
    value: float
    low: float
    high: float
    seeds: int
    shots: int

    @property
    def verdict(self) -> str:
        if not (self.low > 0 or self.high < 0):
            return "undecided"
        if DIRECTIONS[self.score] not in (LOWER, HIGHER):
            return "different"
        return "better" if (self.value > 0) == (DIRECTIONS[self.score] == HIGHER) else "worse"


def differences(estimates: Estimates) -> tuple[Difference, ...]:
    """Every row with finished trials against the base, every score that has a value per clip; () without a base."""
    if estimates.base is None or len(estimates.scores.clips) < 3:
        return ()
    rows = [row for row in estimates.rows if row.done and not row.is_base]
    return tuple(each for row in rows for each in _of_row(estimates, row, estimates.base))


def _of_row(estimates: Estimates, row: Row, base: Trial) -> list[Difference]:
    ways, own = clip_values(estimates.study, estimates.scores.clips), estimates.trials(row)
    out = []
    for score in (name for name in DIRECTIONS if name in ways):
        before, after = ways[score](base), [ways[score](trial) for trial in own]
        known = [each for each in after if each is not None]
        if before is not None and len(known) == len(own):
            found = crossed_interval(np.stack(known) - before, estimates.shots)
            out.append(Difference(row.full_name, score, found.mean, found.low, found.high, found.seeds, found.shots))
    return out


def differences_csv(found: tuple[Difference, ...]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", "score", "difference", "low", "high", "verdict", "seeds", "shots"])
    for each in found:
        numbers = [f"{number:.9g}" for number in (each.value, each.low, each.high)]
        writer.writerow([each.row, each.score, *numbers, each.verdict, each.seeds, each.shots])
    return stream.getvalue()


def sentences(found: tuple[Difference, ...]) -> list[str]:
    """One line per row: its COMPARED scores against the base."""
    by_row: dict[str, list[Difference]] = {}
    for each in found:
        if each.score in COMPARED:
            by_row.setdefault(each.row, []).append(each)
    return [f"{row}: " + "; ".join(_words(each) for each in of_row) for row, of_row in by_row.items()]


def heading(found: tuple[Difference, ...]) -> str:
    """What the lines are, with what they rest on."""
    seeds = "/".join(dict.fromkeys(str(each.seeds) for each in found))
    return (
        f"Against the base: paired difference, {LEVEL:.0%} interval over {found[0].shots} shots and {seeds} training "
        "seeds (from one seed it knows nothing of the next)"
    )


def _words(each: Difference) -> str:
    return f"{each.score} {each.value:+.{DIGITS}g} [{each.low:+.{DIGITS}g}, {each.high:+.{DIGITS}g}] {each.verdict}"
