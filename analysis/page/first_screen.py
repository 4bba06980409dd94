"""The first screen of the page: what to do, on which grounds, what that cost, what to buy next, what may be wrong.

In: `Findings`. Out: `FirstScreen`, text alone; `template.html` lays it out. Each line says what the tables below show.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis.statistics.answer import Answer, listed, percent
from analysis.statistics.decision import (
    IS_ENOUGH,
    SO_FAR,
    WINNER,
    Decision,
    decide,
    next_purchase,
    reason,
    seconds_a_seed,
)
from analysis.statistics.findings import Findings
from analysis.statistics.intervals import number
from analysis.statistics.plateau import marked
from analysis.statistics.rank_tests import rates_note
from analysis.study.rows import Row
from analysis.study.scores import DIRECTIONS, LOWER, NONE
from cinelora.metrics.primary import LOSS, MOTION, plain_name

WITH_THE_PROGRAM = "builtin:"  # before the name of a model
FEW_SHOTS = 10
MOST = 8  # ranks whose numbers are written out
SETS = "sets"  # folder of the clips that come with the program
NEEDS = "It needs the base and two ranks with a finished seed in common, on at least three clips."


@dataclass(frozen=True)
class Cell:
    """A rank's mean, and below it its share of the best gain and the confidence that it is enough, or ""."""

    mean: str
    kept: str = ""
    sure: str = ""
    verdict: str = ""  # of an answer: enough, worse, open


@dataclass(frozen=True)
class Ground:
    """One thing the decision rests on: a line of a table with the untrained model and each rank, and what is shown."""

    name: str
    code: str
    before: str
    cells: tuple[Cell, ...]
    text: str


@dataclass(frozen=True)
class FirstScreen:
    verdicts: tuple[str, ...]  # the shortest form, one per adapter series
    toy: str  # what the study is not, or ""
    reasons: tuple[str, ...]
    ranks: tuple[int, ...]  # the columns of the grounds
    grounds: tuple[Ground, ...]
    next: tuple[str, ...]
    risks: tuple[str, ...]


def first_screen(findings: Findings) -> FirstScreen:
    several = len(findings.decisions) > 1
    ranks = sorted({each.rank for answer in findings.answers for each in answer.ranks})[:MOST]
    return FirstScreen(
        verdicts=tuple(_verdict(each, several) for each in findings.decisions) or ("No answer yet",),
        toy=_toy(findings),
        reasons=tuple(reason(each) for each in findings.decisions) or (NEEDS,),
        ranks=tuple(ranks),
        grounds=(*(_ground(findings, each, ranks) for each in findings.answers), *_motion(findings, ranks)),
        next=tuple(_next(findings)),
        risks=tuple(_risks(findings)),
    )


def _verdict(found: Decision, several: bool) -> str:
    where = f"{capital(found.series)}: " if several and found.series else ""
    if found.word == WINNER:
        return f"{where}Rank {found.rank}"
    if found.word == IS_ENOUGH:
        return f"{where}Rank {found.rank} is enough; a smaller one may be, too"
    if found.provisional is None:
        return f"{where}No winner"
    yet = " yet" if found.seeds or found.clips else ""
    return f"{where}No winner{yet}. If you must choose: rank {found.provisional}"


def _next(findings: Findings) -> list[str]:
    """What would settle all scores; where nothing would, what would settle each alone."""
    out = []
    for found in findings.decisions:
        if not (line := next_purchase(found)):
            continue
        out.append(line)
        for answer in findings.answers if found.seeds is None and found.clips is None else ():
            if answer.series == found.series and answer.gained:
                alone = decide([answer], seconds_a_seed(findings.estimates, answer.series))
                text = next_purchase(alone).removeprefix(SO_FAR)
                text = text[0].lower() + text[1:] if text else f"rank {alone.rank} is the answer."
                out.append(f"By {_plain(answer.score)} alone: {text}")
    return out


def _toy(findings: Findings) -> str:
    """Whether this is the embedded study, whose ranks say nothing of other films."""
    specs = findings.study.specs
    models = [spec.config.model.path for spec in specs if spec.config.method.has_model]
    if not all(path.startswith(WITH_THE_PROGRAM) for path in models):
        return ""
    data = specs[0].config.data
    size = f"{data.width}x{data.height} pixels"
    drawn = Path(data.path).parent.name == SETS
    if not models:
        return f"The held-out clips are drawn shapes of {size}, which come with the program: a toy." * drawn
    if drawn:
        what = f"drawn shapes of {size} and a small model, both of which come with the program"
    else:
        what = f"a small model that comes with the program, {size}"
    return f"A toy: {what}. It shows how an answer is found; it is not Wan2.1-14B."


def _ground(findings: Findings, answer: Answer, ranks: list[int]) -> Ground:
    """The numbers of base and ranks, which ranks are shown to differ from the base, and which from the best rank."""
    estimates, score = findings.estimates, answer.score
    rows = [row for row in estimates.finished(answer.series) if score in row.estimates]
    before = next((row.estimates[score].mean for row in estimates.rows if row.is_base and score in row.estimates), None)
    verdicts = {each.row: each.verdict for each in findings.differences if each.score == score}
    words = {word: [row for row in rows if verdicts.get(row.full_name) == word] for word in ("better", "worse")}
    claims = [f"{_all(found, rows)} {word} than the untrained model" for word, found in words.items() if found]
    text = capital("; ".join(claims) or "no rank is shown to differ from the untrained model")
    pairs = next((each.pairs for each in findings.tests if each.score == score and each.series == answer.series), None)
    if pairs is not None:
        apart = listed([each.rank for each in pairs.others if each.distinct])
        text += f". Rank {pairs.best} has the best mean, "
        text += f"and is shown to be better than rank {apart}" if apart else "but is not shown to beat any other rank"
    best = max(each.gain.mean for each in answer.ranks)
    means = {row.key.rank: row.estimates[score].mean for row in rows}

    def cell(rank: int) -> Cell:
        found = answer.by_rank.get(rank)
        if rank not in means:
            return Cell("-")
        if found is None or not answer.gained:
            return Cell(number(means[rank]))
        sure = "" if found.confidence is None else f"sure {percent(found.confidence, 1 - answer.level)}"
        return Cell(number(means[rank]), f"{found.gain.mean / best:.0%}", sure, found.verdict)

    arrow = "lower is better" if DIRECTIONS[score] == LOWER else "higher is better"
    name = f"{_plain(score)}, {answer.series}" if answer.series else _plain(score)
    return Ground(
        capital(name),
        f"{score}, {arrow}",
        "-" if before is None else number(before),
        tuple(map(cell, ranks)),
        text + ".",
    )


def _plain(score: str) -> str:
    return plain_name(score).partition(" (")[0]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _all(found: list[Row], rows: list[Row]) -> str:
    if len(found) == len(rows):
        return "every rank" if len(rows) > 1 else found[0].name
    return f"rank {', '.join(str(row.key.rank) for row in found)}"


def _motion(findings: Findings, ranks: list[int]) -> list[Ground]:
    """How much moves, as a share of the real clips'; a steady clip that stands still is no gain."""
    estimates = findings.estimates
    real = estimates.scores.real.get(MOTION)
    rows = [row for row in estimates.rows if MOTION in row.estimates]
    if not rows or not real:
        return []
    of_rank: dict[int, list[float]] = {}
    for row in rows:
        if row.in_grid:
            of_rank.setdefault(row.key.rank, []).append(row.estimates[MOTION].mean / real)
    cells = [Cell(f"{sum(of_rank[rank]) / len(of_rank[rank]):.0%}" if rank in of_rank else "-") for rank in ranks]
    before = next((f"{row.estimates[MOTION].mean / real:.0%}" for row in rows if row.is_base), "-")
    text = "100% would be as much as the real clips; a nearly still clip only looks steady."
    return [Ground("Movement", f"{MOTION}, of the real clips'", before, tuple(cells), text)]


def _risks(findings: Findings) -> list[str]:
    estimates = findings.estimates
    rows = [row for row in estimates.rows if row.in_grid and row.done]
    out = [*_weakest(findings)]
    still = [row for row in rows if marked(row, findings.plateaus)]
    if still:
        who = "Every rank was" if len(still) == len(rows) else f"{len(still)} of {len(rows)} ranks were"
        out.append(f"{who} still improving when training ended: longer training may change the order.")
    out += filter(None, [rates_note(estimates)])
    seeds = sorted({row.done for row in rows})
    others = sorted({row.done for row in estimates.rows if row.done and not row.in_grid and not row.is_base})
    if 0 < (shots := len(set(estimates.shots))) < FEW_SHOTS:
        out.append(f"All clips come from {shots} shots, which say little of others.")
    if seeds and seeds[0] < 5:
        text = f"{seeds[0]} training seeds a rank" if seeds[0] > 1 else "One training seed a rank"
        text += " say little of how much seeds differ" if seeds[0] > 1 else " says nothing of the next"
        controls = "; the controls have one, so luck may explain them" if others[:1] == [1] and seeds[0] > 1 else ""
        out.append(f"{text}{controls}.")
    for each in findings.reseeds:
        if not each.by_clip or each.score == LOSS or each.score not in estimates.primary.answered:
            continue
        means = [row.estimates[each.score].mean for row in rows if each.score in row.estimates]
        if DIRECTIONS[each.score] != NONE and means and max(means) - min(means) < each.reach:
            apart = max(means) - min(means)
            out.append(
                f"{capital(_plain(each.score))}: other sampling noise moves the untrained model by up to "
                f"{number(each.reach, '.2g')}, more than all ranks differ ({number(apart, '.2g')}): do not trust "
                "their order."
            )
    return out


def _weakest(findings: Findings) -> list[str]:
    """Where the rank to take meanwhile gains least of all: it is chosen for its size."""
    out = []
    for found in findings.decisions:
        own = [each for each in findings.answers if each.series == found.series and each.gained]
        least = [each for each in own if min(each.ranks, key=lambda of: of.gain.mean).rank == found.provisional]
        if found.rank is None and least:
            many = f"{len(least)} of {len(own)} scores" if len(own) > 1 else _plain(own[0].score)
            out.append(f"Rank {found.provisional} has the smallest mean gain of all ranks in {many}.")
    return out
