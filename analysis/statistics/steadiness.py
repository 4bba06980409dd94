"""Which rows are nearer to the real clips than the base in consistency over time, also where motion is alike.

In: `Estimates`, its differences to the base and its tests over ranks. Out: `Matched` records and sentences. No files.
A clip's consistency depends on how much moves. So each row is compared with the base once more, on those clips alone
whose motion in both is within a factor WITHIN. Such clips are chosen by what the models made of them: read it beside
the comparison on all clips, not in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.differences import Difference
from analysis.statistics.intervals import crossed_interval
from analysis.statistics.rank_tests import RankTests, listed
from analysis.study.load import Trial
from analysis.study.rows import Estimates, Row
from cinelora.metrics.primary import MOTION

WITHIN = 1.25  # larger motion over smaller; two training seeds of one row differ by as much
FEWEST_CLIPS = 20  # for an interval


@dataclass(frozen=True)
class Matched:
    """The consistency gap of a row minus that of the base on the `clips` of `of` whose motion is alike in both."""

    clips: int
    of: int
    difference: Difference | None  # None: too few clips
    row: str


def motion_matched(estimates: Estimates) -> tuple[Matched, ...]:
    """One per row with finished trials; () without a base, a gap in consistency or motion."""
    score, base = estimates.primary.gap, estimates.base
    if not score or base is None:
        return ()
    rows = [row for row in estimates.rows if row.done and not row.is_base]
    return tuple(found for row in rows if (found := _matched(estimates, row, base, score)) is not None)


def _matched(estimates: Estimates, row: Row, base: Trial, score: str) -> Matched | None:
    trials = estimates.trials(row)
    gaps, motions = (
        [values for trial in (base, *trials) if (values := estimates.scorers[name](trial)) is not None]
        for name in (score, MOTION)
    )
    if min(len(gaps), len(motions)) <= len(trials):
        return None
    own, other = np.mean(motions[1:], axis=0), motions[0]
    alike = np.flatnonzero(np.maximum(own, other) <= WITHIN * np.minimum(own, other))
    difference = None
    if len(alike) >= FEWEST_CLIPS:
        shots = [estimates.shots[index] for index in alike]
        values = (np.stack(gaps[1:]) - gaps[0])[:, alike]
        difference = Difference(row.full_name, score, crossed_interval(values, shots))
    return Matched(len(alike), len(own), difference, row.full_name)


def heading(estimates: Estimates) -> str:
    return f"Consistency over time, against the same real clips ({', '.join(estimates.primary.against_real)})"


def sentences(
    estimates: Estimates, found: Iterable[Difference], tests: Sequence[RankTests], matched: Sequence[Matched]
) -> list[str]:
    """A sentence per score, and one on the clips of matched motion; [] where there is nothing to compare."""
    of_score = {score: [each for each in found if each.score == score] for score in estimates.primary.against_real}
    lines = [
        " ".join((_nearer(score, own), *(_ranks(each) for each in tests if each.score == score and each.pairs)))
        for score, own in of_score.items()
        if own
    ]
    return [*lines, *([_of_matched(matched)] if matched else [])]


def _nearer(score: str, found: Sequence[Difference]) -> str:
    rows = {verdict: [each.row for each in found if each.verdict == verdict] for verdict in ("better", "worse")}
    rest = [each.row for each in found if each.verdict not in rows]
    parts = [f"nearer to the real clips than the base: {_listed(rows['better'])}"]
    parts += [f"farther: {_listed(rows['worse'])}"] if rows["worse"] else []
    parts += [f"no difference shown: {_listed(rest)}"] if rest else []
    return f"{score}: {'; '.join(parts)}."


def _ranks(each: RankTests) -> str:
    """Whether the ranks of a series differ."""
    assert each.pairs is not None
    where = f" ({each.series})" if each.series else ""
    apart = [other.rank for other in each.pairs.others if other.distinct]
    if not apart:
        return f"No difference between the best rank and another is shown{where}."
    return f"Rank {each.pairs.best} is nearer than rank {listed(apart)}{where}."


def _of_matched(matched: Sequence[Matched]) -> str:
    parts = [
        f"{each.row} {f'{each.difference}' if each.difference else 'too few clips'} ({each.clips} of {each.of} clips)"
        for each in matched
    ]
    return f"Where a clip's motion is within {WITHIN - 1:.0%} of the base's, against the base: {'; '.join(parts)}."


def _listed(rows: Sequence[str]) -> str:
    return "; ".join(rows) or "none"
