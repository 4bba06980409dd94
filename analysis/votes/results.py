"""Ballots -> what people prefer, how far they agree, and which score sides with them: votes.{csv,md,png} of a report.

In: `Estimates`, `Ballots`. Out: `Result` and its texts. Reads no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, STYLE, WIDTH
from analysis.study.files import csv_text
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, HIGHER, LOWER
from analysis.votes.answers import Ballots, Vote
from analysis.votes.page import REAL, entries
from analysis.votes.worths import Votes, Worths, alpha, fit, share_interval
from cinelora.core.cli import UserError

FEWEST = 10  # votes with a preference, for the agreement of a score


@dataclass(frozen=True)
class Preference:
    """One row. `rank` is 0 outside the sweep. `worse`: beyond doubt than the rank with the highest worth."""

    row: str
    rank: int
    worth: float
    low: float
    high: float
    votes: int
    worse: bool


@dataclass(frozen=True)
class Agreement:
    """How often a score orders two clips as people do, of `votes` votes with a preference."""

    score: str
    share: float
    low: float
    high: float
    votes: int


@dataclass(frozen=True)
class Result:
    preferences: tuple[Preference, ...]  # in the order of the rows
    scores: tuple[Agreement, ...]  # the best first
    raters: int
    ties: int
    alpha: float
    others: tuple[int, int]  # pairs of raters who preferred the same clip, of how many with a preference
    own: tuple[int, int]  # repeats answered alike, of how many
    ballots: Ballots

    @property
    def smallest(self) -> int | None:
        """The smallest rank that people do not find worse than the best."""
        return min((each.rank for each in self.preferences if each.rank and not each.worse), default=None)


def result(estimates: Estimates, ballots: Ballots) -> Result:
    if not ballots.votes:
        left = "; ".join(f"{alias}: {why}" for alias, why in ballots.excluded)
        raise UserError(f"no vote is left ({left or 'no pair was answered'}); collect answers of more people")
    found = entries(estimates)
    place = {trial: index for index, one in enumerate(found) for trial in one.trials}
    if lost := {each for vote in ballots.votes for each in (vote.first, vote.second)} - place.keys():
        raise UserError(f"votes are about trial {min(lost)}, which the study no longer has; restore its folder")
    votes = _indexed(ballots.votes, place)
    used = sorted({*votes.first.tolist(), *votes.second.tolist()})
    worths = fit(_compact(votes, used), len(used))
    own = [(one.outcome, two.outcome) for one, two in ballots.repeats]
    units = _units(ballots.votes)
    sided = [(a, b) for unit in units for a, b in combinations(unit, 2) if a and b]
    return Result(
        preferences=_preferences(estimates, [found[index].name for index in used], worths, votes, used),
        scores=_agreements(estimates, ballots.votes, votes),
        raters=len({vote.alias for vote in ballots.votes}),
        ties=sum(vote.outcome == 0 for vote in ballots.votes),
        alpha=alpha([each for unit in units for each in (unit, [-value for value in unit])]),
        others=(sum(a == b for a, b in sided), len(sided)),
        own=(sum(a == b for a, b in own), len(own)),
        ballots=ballots,
    )


def _indexed(found: tuple[Vote, ...], place: dict[str, int]) -> Votes:
    raters, clips = (
        np.unique(names, return_inverse=True)[1] for names in zip(*((v.alias, v.clip) for v in found), strict=True)
    )
    first, second = (
        np.array([place[name] for name in names]) for names in zip(*((v.first, v.second) for v in found), strict=True)
    )
    return Votes(raters, clips, first, second, np.array([vote.outcome for vote in found]))


def _compact(votes: Votes, used: list[int]) -> Votes:
    return Votes(
        votes.raters,
        votes.clips,
        np.searchsorted(used, votes.first),
        np.searchsorted(used, votes.second),
        votes.outcome,
    )


def _preferences(
    estimates: Estimates, names: list[str], worths: Worths, votes: Votes, used: list[int]
) -> tuple[Preference, ...]:
    ranks = {row.full_name: row.key.rank for row in estimates.rows if row.in_grid}
    able = [index for index, name in enumerate(names) if ranks.get(name)]
    best = max(able, key=lambda index: worths.values[index]) if able else None
    return tuple(
        Preference(
            row=name,
            rank=ranks.get(name, 0),
            worth=float(worths.values[index]),
            low=worths.interval(index)[0],
            high=worths.interval(index)[1],
            votes=int(((votes.first == used[index]) | (votes.second == used[index])).sum()),
            worse=best is not None and worths.worse(index, best),
        )
        for index, name in enumerate(names)
    )


def _units(found: tuple[Vote, ...]) -> list[list[int]]:
    units: dict[tuple[str, str, str], list[int]] = {}
    for vote in found:
        units.setdefault((vote.clip, vote.first, vote.second), []).append(vote.outcome)
    return list(units.values())


def _agreements(estimates: Estimates, found: tuple[Vote, ...], votes: Votes) -> tuple[Agreement, ...]:
    """Over votes with a preference between two generated clips; a score that is equal counts a half."""
    at = {clip: index for index, clip in enumerate(estimates.scores.clips)}
    sided = [i for i, vote in enumerate(found) if vote.outcome and REAL not in (vote.first, vote.second)]
    agreements = []
    for score in estimates.clip_scores:
        if (sign := {LOWER: -1, HIGHER: 1}.get(DIRECTIONS[score])) is None:
            continue
        right, known = [], []
        for index in sided:
            vote = found[index]
            pair = [estimates.scorers[score](estimates.study.by_id[name]) for name in (vote.first, vote.second)]
            if vote.clip not in at or pair[0] is None or pair[1] is None:
                continue
            apart = sign * vote.outcome * (pair[0][at[vote.clip]] - pair[1][at[vote.clip]])
            if np.isfinite(apart):
                right.append((np.sign(apart) + 1) / 2)
                known.append(index)
        if len(right) >= FEWEST:
            share = share_interval(np.array(right), votes.raters[known], votes.clips[known])
            agreements.append(Agreement(score, *share, len(right)))
    return tuple(sorted(agreements, key=lambda each: (-each.share, each.score)))


def sentences(found: Result) -> list[str]:
    """What people say, in the order of importance."""
    best = max((each for each in found.preferences if each.rank), key=lambda each: each.worth, default=None)
    lines = []
    if best is not None:
        worse = ", ".join(each.row for each in found.preferences if each.worse and each.rank) or "none"
        lines.append(
            f"The smallest rank that people do not find worse than the best ({best.row}): {found.smallest}. "
            f"Ranks found worse (5 % over all pairs of rows): {worse}. Not found worse is not shown equal."
        )
    votes = len(found.ballots.votes)
    lines.append(
        f'{found.raters} raters, {votes} votes on pairs, {found.ties} of them "about the same"; '
        f'{found.ballots.unsure} more answers "can\'t tell" are left out.'
    )
    if found.raters == 1:
        lines.append("One rater: the intervals cover other clips, not other people.")
    lines.append(f"Agreement among raters: Krippendorff's alpha {found.alpha:.2f} (0: by chance, 1: full agreement).")
    for (same, count), text in (
        (found.others, "Two raters with a preference agree"),
        (found.own, "Repeats answered alike"),
    ):
        lines.append(f"{text}: {same} of {count}" + (f" ({same / count:.0%})." if count else "."))
    if found.scores:
        top = found.scores[0]
        beyond = "more often than chance" if top.low > 0.5 else "which chance may explain"
        lines.append(
            f"Of {len(found.scores)} scores, {top.score} orders clips as people do most often: {top.share:.0%} "
            f"[{top.low:.0%}, {top.high:.0%}] of {top.votes} votes with a preference, {beyond} for a single score."
        )
    lines += [f"Left out: {alias}: {why}." for alias, why in found.ballots.excluded]
    return lines + [f"{remark}." for remark in found.ballots.remarks]


def as_markdown(found: Result, study: str) -> str:
    parts = [f"# {study}: what people prefer", f"Question: {found.ballots.question}"]
    parts.append("\n".join(f"- {line}" for line in sentences(found)))
    rows = [f"| {p.row} | {p.worth:+.2f} [{p.low:+.2f}, {p.high:+.2f}] | {p.votes} |" for p in found.preferences]
    parts.append("\n".join(["| row | worth (log odds against the mean row) | votes |", "|---|---|---|", *rows]))
    scores = [f"| {s.score} | {s.share:.0%} [{s.low:.0%}, {s.high:.0%}] | {s.votes} |" for s in found.scores]
    if scores:
        parts.append("\n".join(["| score | orders clips as people do | votes |", "|---|---|---|", *scores]))
    parts.append("![votes](votes.png)")
    return "\n\n".join(parts) + "\n"


def as_csv(found: Result) -> str:
    columns = ("kind", "name", "value", "low", "high", "votes", "worse_than_best")
    lines: list[dict[str, object]] = [
        {"kind": "worth", "name": p.row, "value": p.worth, "low": p.low, "high": p.high, "votes": p.votes,
         "worse_than_best": p.worse} for p in found.preferences
    ]  # fmt: skip
    lines += [
        {"kind": "agreement", "name": s.score, "value": s.share, "low": s.low, "high": s.high, "votes": s.votes,
         "worse_than_best": ""} for s in found.scores
    ]  # fmt: skip
    return csv_text(columns, lines)


def figure(found: Result) -> Figure:
    """Worths at the left; at the right the agreement of scores, chance dotted, two raters with each other dashed."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        most = max(len(found.preferences), len(found.scores))
        drawn = Figure(figsize=(WIDTH, 1.1 + 0.19 * most), layout="constrained")
        left, right = drawn.subplots(1, 2)
        for axes, names, values in (
            (left, [p.row for p in found.preferences], [(p.worth, p.low, p.high) for p in found.preferences]),
            (right, [s.score for s in found.scores], [(s.share, s.low, s.high) for s in found.scores]),
        ):
            for place, (value, low, high) in enumerate(values):
                axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=1.2)
                axes.plot(value, place, "o", color=COLOURS[0], markersize=4)
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
        left.axvline(0, color="0.6", linestyle=":")
        left.set_xlabel("worth, log odds against the mean row")
        left.set_title(f"What people prefer ({found.raters} raters, {len(found.ballots.votes)} votes)")
        right.axvline(0.5, color="0.6", linestyle=":")
        if found.others[1]:
            right.axvline(found.others[0] / found.others[1], color="0.4", linestyle="--")
        right.set_xlim(0, 1)
        right.set_xlabel("share of votes\n(dotted: chance; dashed: two raters)")
        right.set_title("How often scores order clips as people do")
    return drawn
