"""Which cells of the rank table are the best of their series, not distinguishable from it, or equivalent to it.

In: `Estimates`, `RankTests`. Out: a `CellStyle` per row, and a legend that says what the styles mean. Pure: no files.
Ranks are compared within one series. The base does not compete, but is set in bold too where no rank prints better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.statistics.intervals import LEVEL
from analysis.statistics.rank_tests import RankTests
from analysis.study.rows import Estimates, Row, RowKey
from analysis.study.scores import DIRECTIONS, FROZEN_WINS, HIGHER, NONE


@dataclass(frozen=True)
class CellStyle:
    best: bool = False
    tied: bool = False  # not distinguishable from the best
    equivalent: bool = False


PLAIN = CellStyle()


def cell_styles(
    score: str, estimates: Estimates, tests: Sequence[RankTests], digits: int
) -> Mapping[RowKey, CellStyle]:
    """The styled rows of a score printed with `digits`; none where it has no better, where a frozen clip would win, or
    where a series has only one rank.

    Rows that print the best number share it. A test counts only where its best rank is best by the printed means too:
    they may rest on other seeds while a study is half finished.
    """
    if DIRECTIONS[score] == NONE or score in FROZEN_WINS:
        return {}
    rows = [row for row in estimates.rows if _competes(row, score)]
    styles: dict[RowKey, CellStyle] = {}
    for series in estimates.series:
        ranks = [row for row in rows if row.in_grid and row.series == series]
        if len(ranks) < 2:
            continue
        best = _best(score, ranks, digits)
        styles |= dict.fromkeys(best, CellStyle(best=True))
        pairs = next((each.pairs for each in tests if (each.score, each.series) == (score, series)), None)
        if pairs is not None and pairs.best in {key.rank for key in best}:
            for key in (row.key for row in ranks if row.key not in best):
                styles[key] = CellStyle(tied=key.rank in pairs.tied, equivalent=key.rank in pairs.equivalent)
    compared = [row for row in rows if row.key in styles]
    bases = [row for row in rows if row.is_base]
    winners = _best(score, [*bases, *compared], digits) if compared else set()
    return styles | {row.key: CellStyle(best=True) for row in bases if row.key in winners}


def legend(estimates: Estimates, tests: Sequence[RankTests], styled: Mapping[str, str]) -> str:
    """What bold, underline and dagger mean, and which of the `styled` scores (score -> column) are not tested."""
    of_series = " of its series" if len(estimates.series) > 1 else ""
    parts = [f"Bold: the best rank{of_series}, or the base where no rank is better."]
    compared = [each for each in tests if each.pairs is not None and each.score in styled]
    if compared:
        alone = "; from one seed it knows nothing of the next" if min(each.seeds for each in compared) < 2 else ""
        parts.append(
            f"Underlined: no difference from the best shown (the {LEVEL:.0%} interval of the paired difference, "
            f"Holm-corrected, holds zero{alone})."
        )
    share = next((each.pairs.share for each in compared if each.pairs is not None and each.pairs.over_base), None)
    if share is not None:
        parts.append(
            f"†: as good as the best (gain over the base {share:.0%} to {1 / share:.0%} of its gain, two one-sided 5% "
            "tests)."
        )
    untested = [column for score, column in styled.items() if score not in {each.score for each in compared}]
    if tests and untested:
        parts.append(f"No test possible, since a clip has no value of its own; bold only: {', '.join(untested)}.")
    return " ".join(parts)


def fixed(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}"  # z: no minus sign before a rounded zero


def _competes(row: Row, score: str) -> bool:
    """Base or rank with a number."""
    return (row.is_base or row.in_grid) and score in row.estimates and math.isfinite(row.estimates[score].mean)


def _best(score: str, rows: Sequence[Row], digits: int) -> set[RowKey]:
    """The rows that print the best number."""
    means = {row.key: row.estimates[score].mean for row in rows}
    wins = fixed(max(means.values()) if DIRECTIONS[score] == HIGHER else min(means.values()), digits)
    return {key for key, mean in means.items() if fixed(mean, digits) == wins}
