"""Findings -> the rank table and the table of further scores, as `Table` records whose cells are text.

In: `Findings`. Out: `Table` for `analysis/tables/markdown_latex.py` and the page. Pure: no files, no clock, so
the same study gives the same bytes. Cells are styled only on a trained base (`analysis/tables/cell_styles.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.statistics import noise, plateau
from analysis.statistics.findings import Findings
from analysis.study.load import Study
from analysis.study.provenance import warning
from analysis.study.rows import Estimate, Row
from analysis.study.scores import (
    CORE,
    DIRECTIONS,
    FURTHER,
    HIGHER,
    NONE,
    TABLE_SCORES,
    TrialScores,
    shown_further,
    shown_optional,
    spec_name,
)
from analysis.tables.captions import BANNER, caption, further_caption, notes
from analysis.tables.cell_styles import PLAIN, CellStyle, cell_styles, fixed, legend
from analysis.votes.results import Result
from cinelora.core.config import seed_text
from cinelora.metrics.primary import LOSS, MOTION, OTHER_LOSS, STEADINESS

NOT_AVAILABLE, NOTHING = "n/a", "-"
REAL = "real clips"
DIGITS = 4  # significant, of the largest number in a column


@dataclass(frozen=True)
class Cell:
    text: str
    seed_range: str = ""  # smallest and largest seed
    style: CellStyle = PLAIN


@dataclass(frozen=True)
class Column:
    """`drop_order`: a narrow terminal drops the columns with the largest first, those with 0 never;
    1: a score that no statement is about, or a setting that a line below the table repeats."""

    name: str
    cells: tuple[Cell, ...]  # one per row; the last is that of the real clips
    direction: str = NONE
    drop_order: int = 0


@dataclass(frozen=True)
class Table:
    title: str
    banner: str  # what must be known before the first number; "" where there is nothing
    columns: tuple[Column, ...]
    caption: str
    legend: str  # what bold, underline and dagger mean; "" where no cell is styled
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # one line per planned trial without result
    further: Table | None = None  # the same rows, other scores

    @property
    def rows(self) -> int:
        """Without the last one, the real clips."""
        return len(self.columns[0].cells) - 1


def rank_table(findings: Findings) -> Table:
    """One row per rank, the base first, the real clips last."""
    study, estimates = findings.study, findings.estimates
    scores, styles = _score_columns(table_scores(estimates.scores), findings)
    remarks = (
        plateau.sentence(estimates, findings.plateaus),
        noise.sentence(findings.halves, findings.reseeds, findings.tests, estimates.primary),
        _votes_note(findings.votes),
    )
    return Table(
        title=f"Rank against quality: {study.name}",
        banner=_banner(study),
        columns=(
            *_setting_columns(findings),
            *_cost_columns(estimates.rows, len(estimates.scores.clips)),
            *scores,
            *_votes(findings),
        ),
        caption=caption(estimates),
        legend=styles,
        notes=(*notes(estimates, study.trained), *filter(None, remarks)),
        missing=missing_lines(study),
        further=further_table(findings),
    )


def further_table(findings: Findings) -> Table | None:
    """The scores of motion, copying, colours and variety that some trial has, in the rows of the rank table."""
    names = shown_further(findings.estimates.scores)
    if not names:
        return None
    scores, styles = _score_columns(names, findings)
    settings = [column for column in _setting_columns(findings, marked=False) if column.name in ("rank", "varies")]
    return Table(
        title=f"Further scores: {findings.study.name}",
        banner=_banner(findings.study),
        columns=(*settings, *scores),
        caption=further_caption(findings.estimates),
        legend=styles,
    )


def table_scores(scores: TrialScores) -> tuple[str, ...]:
    """The fixed columns, those of further nets, then those that no trial could compute."""
    first, *rest = TABLE_SCORES
    other_loss = [OTHER_LOSS] if any(OTHER_LOSS in found for found in scores.values.values()) else []
    rest = [score for score in rest if score in scores.unavailable or any(score in of for of in scores.values.values())]
    return (first, *other_loss, *rest, *shown_optional(scores), *only_unavailable(scores))


def only_unavailable(scores: TrialScores) -> list[str]:
    """The scores that stand in the table only because the trials say why they lack them."""
    return [score for score in scores.unavailable if score not in CORE and score not in FURTHER]


def missing_lines(study: Study) -> tuple[str, ...]:
    """One line per planned trial without result, in table order."""
    return tuple(
        f"{spec_name(each.spec.config)}, seed {seed_text(each.spec.config.seed)} "
        f"(trial {each.spec.trial_id}): {each.reason}"
        for each in study.missing
    )


def column_name(score: str) -> str:
    return {LOSS: "held-out loss", OTHER_LOSS: "other-domain loss"}.get(score, score)


def short_count(count: int | None) -> str:
    """12288 -> 12.3k; NOTHING where it is unknown."""
    if count is None:
        return NOTHING
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{suffix}"
    return str(count)


def decimals(values: list[float]) -> int:
    """Digits behind the point that show DIGITS significant ones of the largest number; 0 to 6."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0]
    return min(6, max(0, DIGITS - 1 - math.floor(math.log10(max(sizes))))) if sizes else 2


def _banner(study: Study) -> str:
    return "; ".join(filter(None, ["" if study.trained else BANNER, warning(study)]))


def _setting_columns(findings: Findings, marked: bool = True) -> list[Column]:
    """`marked`: a mark behind each rank whose training was still improving."""
    rows = findings.estimates.rows
    marks = findings.plateaus if marked else {}

    def rank(row: Row) -> str:
        return (str(row.key.rank) if row.in_grid else row.name) + plateau.marked(row, marks)

    def varies(row: Row) -> str:
        return row.series or ", ".join(f"{name} {text}" for name, text in row.key.other) or NOTHING

    def rate(row: Row) -> str:
        return f"{row.key.learning_rate:g}" if row.key.learning_rate else NOTHING

    columns = [_column("rank", rows, rank, REAL)]
    if any(row.series or row.key.other for row in rows):
        columns.append(_column("varies", rows, varies))
    if any(findings.estimates.rates(series) for series in findings.estimates.series):
        columns.append(_column("learning rate", rows, rate, drop_order=1))
    columns.append(
        _column("alpha", rows, lambda row: f"{row.key.alpha:g}" if row.key.scaling else NOTHING, drop_order=3)
    )
    columns.append(_column("scale", rows, lambda row: f"{row.scale:.3g}" if row.key.scaling else NOTHING, drop_order=5))
    return columns


def _cost_columns(rows: tuple[Row, ...], clips: int) -> list[Column]:
    def number(value: float | None) -> str:
        return NOTHING if value is None else f"{value:.3g}"

    return [
        _column("parameters", rows, lambda row: short_count(row.parameters), drop_order=2),
        _column("adapter MB", rows, lambda row: number(row.adapter_megabytes), drop_order=6),
        _column("s/step", rows, lambda row: number(row.seconds_per_step), drop_order=4),
        _column("seeds", rows, lambda row: f"{row.done}/{row.planned}"),
        _column("clips", rows, lambda row: str(clips) if row.done else "0", str(clips), drop_order=2),
    ]


def _votes(findings: Findings) -> list[Column]:
    """The worth of each row by the votes of people, the interval below it; none without votes."""
    worths = findings.votes.worths if findings.votes else {}
    if not worths:
        return []
    names = [*(row.full_name for row in findings.estimates.rows), REAL]
    cells = tuple(
        Cell(fixed(each.worth, 2), f"{fixed(each.low, 2)}..{fixed(each.high, 2)}") if each else Cell(NOTHING)
        for each in map(worths.get, names)
    )
    return [Column("votes", cells, HIGHER)]


def _votes_note(found: Result | None) -> str:
    if found is None or not found.preferences:
        return ""
    return (
        f"votes: what {found.raters} raters prefer, as log odds against the mean row; below it the 95 % interval over "
        "raters and clips"
    )


def _column(
    name: str, rows: tuple[Row, ...], text: Callable[[Row], str], real: str = NOTHING, drop_order: int = 0
) -> Column:
    return Column(name, (*(Cell(text(row)) for row in rows), Cell(real)), drop_order=drop_order)


def _score_columns(names: Sequence[str], findings: Findings) -> tuple[list[Column], str]:
    """The columns, and the legend of their styles."""
    columns = [_score_column(score, findings) for score in names]
    styled = {
        score: column.name
        for score, column in zip(names, columns, strict=True)
        if any(cell.style != PLAIN for cell in column.cells)
    }
    return columns, legend(findings.estimates, findings.tests, styled) if styled else ""


def _score_column(score: str, findings: Findings) -> Column:
    rows, scores = findings.estimates.rows, findings.estimates.scores
    asked = score in (*findings.estimates.primary.compared, STEADINESS, MOTION)
    if score in scores.unavailable:
        cells = (*(Cell(NOT_AVAILABLE) for _ in rows), Cell(NOTHING))
        return Column(column_name(score), cells, CORE.get(score, NONE), drop_order=0 if asked else 9)
    digits = decimals([row.estimates[score].mean for row in rows if score in row.estimates])
    styles = cell_styles(score, findings.estimates, findings.tests, digits) if findings.study.trained else {}
    cells = tuple(_score_cell(row, row.estimates.get(score), digits, styles.get(row.key, PLAIN)) for row in rows)
    real = Cell(fixed(scores.real[score], digits) if score in scores.real else NOTHING)
    return Column(column_name(score), (*cells, real), DIRECTIONS.get(score, NONE), drop_order=0 if asked else 1)


def _score_cell(row: Row, found: Estimate | None, digits: int, style: CellStyle) -> Cell:
    if found is None:
        return Cell(NOT_AVAILABLE if row.done else NOTHING)
    seed_range = f"{fixed(found.low, digits)}..{fixed(found.high, digits)}" if len(found.values) > 1 else ""
    if len(found.values) < row.done:
        seed_range = f"{seed_range} ({len(found.values)} of {row.done} seeds)".strip()
    return Cell(fixed(found.mean, digits), seed_range, style)
