"""The first screen of the page: what to do, on which grounds, what that cost, what to buy next, what may be wrong.

In: `Findings`. Out: `FirstScreen`, text alone; `template.html` lays it out. Each line says what the tables below show.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis.statistics.answer import Answer
from analysis.statistics.decision import IS_ENOUGH, WINNER, Decision, decide, next_purchase, reason, seconds_a_seed
from analysis.statistics.findings import Findings
from analysis.statistics.plateau import marked
from analysis.statistics.rank_tests import rates_note
from analysis.study.rows import Row
from analysis.study.scores import DIRECTIONS, LOWER, NONE
from cinelora.metrics.primary import LOSS, MOTION, plain_name

WITH_THE_PROGRAM = "builtin:"  # before the name of a model
MOST = 8  # ranks whose numbers are written out
SETS = "sets"  # folder of the clips that come with the program
NEEDS = "It needs the base and two ranks with a finished seed in common, on at least three clips."


@dataclass(frozen=True)
class Ground:
    """One thing the decision rests on: its plain name, and a sentence."""

    name: str
    text: str


@dataclass(frozen=True)
class FirstScreen:
    verdicts: tuple[str, ...]  # the shortest form, one per adapter series
    toy: str  # what the study is not, or ""
    reasons: tuple[str, ...]
    grounds: tuple[Ground, ...]
    next: tuple[str, ...]
    risks: tuple[str, ...]


def first_screen(findings: Findings) -> FirstScreen:
    several = len(findings.decisions) > 1
    return FirstScreen(
        verdicts=tuple(_verdict(each, several) for each in findings.decisions) or ("No answer yet",),
        toy=_toy(findings),
        reasons=tuple(reason(each) for each in findings.decisions) or (NEEDS,),
        grounds=(*(_ground(findings, each) for each in findings.answers), *_motion(findings)),
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
    return f"{where}No winner yet. If you must choose: rank {found.provisional}"


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
                text = next_purchase(alone)
                out.append(
                    f"By {plain_name(answer.score)} alone: {text[0].lower() + text[1:] if text else 'nothing is open.'}"
                )
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


def _ground(findings: Findings, answer: Answer) -> Ground:
    """The numbers of base and ranks, which ranks are shown to differ from the base, and which from the best rank."""
    estimates, score = findings.estimates, answer.score
    rows = [row for row in estimates.finished(answer.series) if score in row.estimates]
    before = next((row.estimates[score].mean for row in estimates.rows if row.is_base and score in row.estimates), None)
    verdicts = {each.row: each.verdict for each in findings.differences if each.score == score}
    words = {word: [row for row in rows if verdicts.get(row.full_name) == word] for word in ("better", "worse")}
    arrow = "lower is better" if DIRECTIONS[score] == LOWER else "higher is better"
    numbers = [*([] if before is None else [f"untrained {before:.3g}"]), *(_number(row, score) for row in rows[:MOST])]
    left = ", ..." if len(rows) > MOST else ""
    text = f"{', '.join(numbers)}{left} ({arrow}). "
    claims = [f"{_all(found, rows)} {word} than the untrained model" for word, found in words.items() if found]
    text += capital("; ".join(claims) or "no rank is shown to differ from the untrained model")
    pairs = next((each.pairs for each in findings.tests if each.score == score and each.series == answer.series), None)
    if pairs is not None:
        apart = [str(each.rank) for each in pairs.others if each.distinct]
        text += f"; rank {pairs.best} has the best mean, "
        text += f"shown to be better than rank {', '.join(apart)}" if apart else "shown to be better than no other rank"
    name = plain_name(score)
    name = f"{name}, {answer.series}" if answer.series else name
    return Ground(capital(name), text + ".")


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(row: Row, score: str) -> str:
    return f"rank {row.key.rank} {row.estimates[score].mean:.3g}"


def _all(found: list[Row], rows: list[Row]) -> str:
    if len(found) == len(rows):
        return "every rank" if len(rows) > 1 else found[0].name
    return f"rank {', '.join(str(row.key.rank) for row in found)}"


def _motion(findings: Findings) -> list[Ground]:
    """How much moves, as a share of the real clips'; a steady clip that stands still is no gain."""
    estimates = findings.estimates
    real = estimates.scores.real.get(MOTION)
    known = [row for row in estimates.rows if MOTION in row.estimates]
    if not real or not known:
        return []
    shares = sorted(row.estimates[MOTION].mean / real for row in known if row.in_grid)
    base = next((f", untrained {row.estimates[MOTION].mean / real:.0%}" for row in known if row.is_base), "")
    span = f"{shares[0]:.0%} to {shares[-1]:.0%} by rank" if shares else "no rank"
    return [
        Ground("Movement", f"{span}{base} of what the real clips move. More is not better, and less is no steadiness.")
    ]


def _risks(findings: Findings) -> list[str]:
    estimates = findings.estimates
    rows = [row for row in estimates.rows if row.in_grid and row.done]
    out = [*filter(None, [rates_note(estimates)])]
    seeds = sorted({row.done for row in rows})
    others = sorted({row.done for row in estimates.rows if row.done and not row.in_grid and not row.is_base})
    if seeds and seeds[0] < 5:
        text = f"{seeds[0]} training seeds a rank" if seeds[0] > 1 else "One training seed a rank"
        text += " say little of the spread between seeds" if seeds[0] > 1 else " says nothing of the next"
        controls = "; controls have 1, so they ignore seed luck" if others[:1] == [1] and seeds[0] > 1 else ""
        out.append(f"{text}{controls}.")
    still = [row for row in rows if marked(row, findings.plateaus)]
    if still:
        out.append(f"{len(still)} of {len(rows)} ranks were still improving when training ended.")
    for each in findings.reseeds:
        if not each.by_clip or each.score == LOSS or each.score not in estimates.primary.answered:
            continue
        means = [row.estimates[each.score].mean for row in rows if each.score in row.estimates]
        if DIRECTIONS[each.score] != NONE and means and max(means) - min(means) < each.reach:
            out.append(
                f"{capital(plain_name(each.score))}: other sampling noise moves the untrained model by up to "
                f"{each.reach:.2g}, more than all ranks differ ({max(means) - min(means):.2g})."
            )
    return out
