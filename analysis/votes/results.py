"""Ballots -> what people prefer, how far they agree, and which score sides with them.

In: `Estimates`, the votes in the study folder. Out: `Result`, its sentences, votes.csv and votes.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.study.files import csv_text
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, HIGHER, LOWER
from analysis.votes.answers import Ballots, Ranking, Vote, read_ballots
from analysis.votes.page import REAL, entries
from analysis.votes.worths import NOBODY, SAME, Votes, Whole, Worths, alpha, fit, share_interval

FEWEST = 10  # votes with a preference, for the agreement of a score


@dataclass(frozen=True)
class Preference:
    """One row. `rank` is 0 outside the sweep. `votes`: answers that it was part of. `worse`: shown to be worse than the
    rank with the highest worth."""

    row: str
    rank: int
    worth: float
    low: float
    high: float
    votes: int
    worse: bool


@dataclass(frozen=True)
class Agreement:
    """How often a score orders two clips as people do, of `votes` preferences."""

    score: str
    share: float
    low: float
    high: float
    votes: int


@dataclass(frozen=True)
class Result:
    preferences: tuple[Preference, ...]  # in the order of the rows; () where no answer counts
    scores: tuple[Agreement, ...]  # the best first
    primary: tuple[str, ...]  # the scores that decide the study
    raters: int
    ties: int
    alpha: float
    others: tuple[int, int]  # pairs of raters who preferred the same clip, of how many with a preference
    own: tuple[int, int]  # repeated pairs answered alike, of how many
    ballots: Ballots
    lost: int  # answers on trials that the study no longer has

    @property
    def smallest(self) -> int | None:
        """The smallest rank that people do not find worse than the best."""
        return min((each.rank for each in self.preferences if each.rank and not each.worse), default=None)

    @property
    def worths(self) -> dict[str, Preference]:
        """By row."""
        return {each.row: each for each in self.preferences}


def find_votes(estimates: Estimates) -> Result | None:
    """What the answers in the study folder say, of merged studies in all of them; None where nobody has answered."""
    study = estimates.study
    folders = dict.fromkeys(home.folder for home in (study.merged.values() or [study]))
    ballots = read_ballots(list(folders))
    return None if ballots is None else result(estimates, ballots)


def result(estimates: Estimates, ballots: Ballots) -> Result:
    found = entries(estimates)
    place = {trial: index for index, one in enumerate(found) for trial in one.trials}
    rankings = [each for each in ballots.rankings if place.keys() >= {*each.order, *each.rest}]
    # Of clips that a rater saw side by side twice, in different sets, the first answer counts for the agreement.
    pairs = {(v.alias, v.clip, v.first, v.second): v for each in reversed(rankings) for v in each.votes()}.values()
    votes = tuple(reversed(pairs))
    own = [(one.outcome, two.outcome) for one, two in ballots.repeats]
    units = _units(votes)
    sided = [(a, b) for unit in units for a, b in combinations(unit, 2) if a and b]
    return Result(
        preferences=_preferences(estimates, [one.name for one in found], place, rankings) if rankings else (),
        scores=_agreements(estimates, votes),
        primary=estimates.primary.answered,
        raters=len({each.alias for each in rankings}),
        ties=sum(len(each.rest) > 1 for each in rankings),
        alpha=alpha([each for unit in units for each in (unit, [-value for value in unit])]),
        others=(sum(a == b for a, b in sided), len(sided)),
        own=(sum(a == b for a, b in own), len(own)),
        ballots=ballots,
        lost=len(ballots.rankings) - len(rankings),
    )


def _numbered(names: list[str]) -> Whole:
    return np.unique(names, return_inverse=True)[1].ravel()


def _choices(rankings: list[Ranking], place: dict[str, int]) -> Votes:
    """Each answer as one choice after the other: the best of the set, the best of those left, ..., the rest alike."""
    whose, sets, chosen = [], [], []
    for each in rankings:
        rows = [place[trial] for trial in (*each.order, *each.rest)]
        stages = [(rows[at:], 0) for at in range(len(each.order))]
        for members, choice in stages + [(rows[len(each.order) :], SAME)] * (len(each.rest) > 1):
            whose.append(each)
            sets.append(members)
            chosen.append(choice)
    largest = max(map(len, sets))
    filled = np.array([members + [NOBODY] * (largest - len(members)) for members in sets])
    raters, clips = _numbered([each.alias for each in whose]), _numbered([each.clip for each in whose])
    return Votes(raters, clips, filled, np.array(chosen))


def _preferences(
    estimates: Estimates, names: list[str], place: dict[str, int], rankings: list[Ranking]
) -> tuple[Preference, ...]:
    used = sorted({place[trial] for each in rankings for trial in (*each.order, *each.rest)})
    votes = _choices(rankings, {trial: used.index(at) for trial, at in place.items() if at in used})
    worths: Worths = fit(votes, len(used))
    ranks = {row.full_name: row.key.rank for row in estimates.rows if row.in_grid}
    able = [index for index, at in enumerate(used) if ranks.get(names[at])]
    best = max(able, key=lambda index: worths.values[index]) if able else None
    return tuple(
        Preference(
            row=names[at],
            rank=ranks.get(names[at], 0),
            worth=float(worths.values[index]),
            low=worths.interval(index)[0],
            high=worths.interval(index)[1],
            votes=sum(at in {place[trial] for trial in (*each.order, *each.rest)} for each in rankings),
            worse=best is not None and worths.worse(index, best),
        )
        for index, at in enumerate(used)
    )


def _units(found: tuple[Vote, ...]) -> list[list[int]]:
    units: dict[tuple[str, str, str], list[int]] = {}
    for vote in found:
        units.setdefault((vote.clip, vote.first, vote.second), []).append(vote.outcome)
    return list(units.values())


def _agreements(estimates: Estimates, found: tuple[Vote, ...]) -> tuple[Agreement, ...]:
    """Over votes with a preference between two generated clips; a score that is equal counts a half."""
    at = {clip: index for index, clip in enumerate(estimates.scores.clips)}
    sided = [i for i, vote in enumerate(found) if vote.outcome and REAL not in (vote.first, vote.second)]
    raters, clips = _numbered([vote.alias for vote in found]), _numbered([vote.clip for vote in found])
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
            share = share_interval(np.array(right), raters[known], clips[known])
            agreements.append(Agreement(score, *share, len(right)))
    return tuple(sorted(agreements, key=lambda each: (-each.share, each.score)))


def heading() -> str:
    return "What people prefer"


def sentences(found: Result) -> list[str]:
    """What people say, in the order of importance."""
    answers, unsure = len(found.ballots.rankings) - found.lost, found.ballots.unsure
    counted = (
        f'Asked "{found.ballots.question}", {_count(found.raters, "person", "people")} gave '
        f"{_count(answers, 'answer')} on clips shown side by side, unnamed; "
        f'{found.ties} of them say "about the same". {unsure} more, "can\'t tell", are left out.'
    )
    lines = [counted, _smallest(found), *_scores(found), *_consistency(found)] if answers else ["No answer counts."]
    if found.lost:
        lines.append(f"Left out: {_count(found.lost, 'answer')} on trials that the study no longer has.")
    lines += [f"Left out: {alias}: {why}." for alias, why in found.ballots.excluded]
    return [line for line in lines if line] + [f"{remark}." for remark in found.ballots.remarks]


def _smallest(found: Result) -> str:
    best = max((each for each in found.preferences if each.rank), key=lambda each: each.worth, default=None)
    if best is None:
        return ""
    worse = ", ".join(each.row for each in found.preferences if each.worse and each.rank) or "none"
    return (
        f"The smallest rank that people do not find worse than the best, {best.row}, is rank {found.smallest}. "
        f"Ranks found worse (5 % over all pairs of rows): {worse}. Not found worse is not shown to be equal."
    )


def _scores(found: Result) -> list[str]:
    """Whether the scores that decide the study side with people, and which score does most often."""
    by_name = {each.score: each for each in found.scores}
    ceiling = f"; two raters agree in {found.others[0] / found.others[1]:.0%}" if found.others[1] else ""
    lines = []
    for name in found.primary:
        if each := by_name.get(name):
            word = "more often than chance" if each.low > 0.5 else "less often than chance" if each.high < 0.5 else ""
            word = word or "not shown to differ from chance"
            lines.append(f"The study's own score {_sides(each)} (chance: 50%{ceiling}): {word}.")
        else:
            lines.append(f"The study's own score {name} cannot be compared with people: too few clips have a value.")
    if found.scores and (top := found.scores[0]).score not in found.primary:
        lines.append(f"Most often of {len(found.scores)} scores, which flatters it: {_sides(top)}.")
    return lines


def _sides(each: Agreement) -> str:
    return (
        f"{each.score} orders clips as people do in {each.share:.0%} [{each.low:.0%}, {each.high:.0%}] of {each.votes} "
        "preferences"
    )


def _consistency(found: Result) -> list[str]:
    """Whether people agree among themselves."""
    lines = ["One rater: the intervals cover other clips, not other people."] if found.raters == 1 else []
    if found.alpha == found.alpha:
        lines.append(f"Agreement among raters: Krippendorff's alpha {found.alpha:.2f} (0: by chance, 1: full).")
    for (same, count), text in (
        (found.others, "Two raters with a preference agree"),
        (found.own, "Repeated pairs answered alike"),
    ):
        lines += [f"{text}: {same} of {count} ({same / count:.0%})."] if count else []
    return lines


def _count(number: int, name: str, several: str = "") -> str:
    return f"{number} {name if number == 1 else several or name + 's'}"


def as_markdown(found: Result, study: str) -> str:
    parts = [f"# {study}: what people prefer"]
    parts.append("\n".join(f"- {line}" for line in sentences(found)))
    rows = [f"| {p.row} | {p.worth:+.2f} [{p.low:+.2f}, {p.high:+.2f}] | {p.votes} |" for p in found.preferences]
    parts.append("\n".join(["| row | worth (log odds against the mean row) | answers |", "|---|---|---|", *rows]))
    scores = [f"| {s.score} | {s.share:.0%} [{s.low:.0%}, {s.high:.0%}] | {s.votes} |" for s in found.scores]
    if scores:
        parts.append("\n".join(["| score | orders clips as people do | preferences |", "|---|---|---|", *scores]))
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
