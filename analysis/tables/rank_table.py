"""Estimates -> the rank table as a `Table` record (cells already text) and as CSV with all digits.

In: `Study` and `Estimates`. Out: `Table` for `analysis/tables/formats.py`; CSV text. Pure: no files, no clock,
so the same ledger gives the same bytes. Cells are marked only on a trained base (`analysis/tables/marks.py`).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.statistics.plateau import Plateau, marked, plateaus, sentence
from analysis.statistics.rank_tests import RankTests
from analysis.study.load import COLUMNS, Study, Trial
from analysis.study.provenance import warning
from analysis.study.rows import MOTION_FLOOR, Estimate, Estimates, Row, RowKey
from analysis.study.scores import (
    CORE,
    DIRECTIONS,
    FURTHER,
    NONE,
    OTHER_LOSS,
    TABLE_SCORES,
    TrialScores,
    shown_further,
    shown_optional,
    spec_name,
)
from analysis.tables.captions import BANNER, caption, further_caption, notes
from analysis.tables.marks import UNMARKED, Mark, fixed, legend, marks
from cinelora.core.files import whole_file

NOT_AVAILABLE, NOTHING = "n/a", "-"
REAL = "real clips"
DIGITS = 4  # significant, of the largest number in a column
NO_ENDS: Mapping[RowKey, Plateau] = {}


@dataclass(frozen=True)
class Cell:
    text: str
    spread: str = ""  # smallest and largest seed
    mark: Mark = UNMARKED


@dataclass(frozen=True)
class Column:
    """`rank` is the order in which a narrow terminal drops it: largest first, 0 never."""

    name: str
    cells: tuple[Cell, ...]
    direction: str = NONE
    rank: int = 0


@dataclass(frozen=True)
class Table:
    title: str
    banner: str  # "" where nothing needs saying
    columns: tuple[Column, ...]
    rows: int  # without the last one, the real clips
    caption: str
    marks: str  # what bold, underline and dagger mean; "" where nothing is marked
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    further: Table | None = None  # the same rows, other scores


def rank_table(
    study: Study, estimates: Estimates, tests: Sequence[RankTests] = (), remarks: tuple[str, ...] = ()
) -> Table:
    """One row per rank, the base first, the real clips last; `tests` mark the cells, `remarks` end the notes."""
    rows, ends = estimates.rows, plateaus(estimates)
    improving = tuple(filter(None, [sentence(estimates, ends)]))
    scores, told = _score_columns(table_scores(estimates.scores), study, estimates, tests)
    return Table(
        title=f"Rank against quality: {study.name}",
        banner=_banner(study),
        columns=(*_setting_columns(rows, ends), *_cost_columns(rows, len(estimates.scores.clips)), *scores),
        rows=len(rows),
        caption=caption(study, estimates),
        marks=told,
        notes=(*notes(study, estimates.scores, MOTION_FLOOR if study.trained else None), *improving, *remarks),
        missing=missing_lines(study),
        further=further_table(study, estimates, tests),
    )


def further_table(study: Study, estimates: Estimates, tests: Sequence[RankTests] = ()) -> Table | None:
    """The scores of motion, copying, colours and variety that some trial has, in the rows of the rank table."""
    names, rows = shown_further(estimates.scores), estimates.rows
    if not names:
        return None
    scores, told = _score_columns(names, study, estimates, tests)
    settings = [column for column in _setting_columns(rows) if column.name in ("rank", "varies")]
    title, text = f"Further scores: {study.name}", further_caption(study, estimates.scores)
    return Table(title, _banner(study), (*settings, *scores), len(rows), text, told, (), ())


def _banner(study: Study) -> str:
    """What must be known before the first number."""
    return "; ".join(filter(None, ["" if study.trained else BANNER, warning(study)]))


def _score_columns(
    names: Sequence[str], study: Study, estimates: Estimates, tests: Sequence[RankTests]
) -> tuple[list[Column], str]:
    """The columns, and what their marks mean."""
    columns = [_score_column(score, study, estimates, tests) for score in names]
    marked = {
        score: column.name
        for score, column in zip(names, columns, strict=True)
        if any(cell.mark != UNMARKED for cell in column.cells)
    }
    return columns, legend(estimates, tests, marked) if marked else ""


def table_scores(scores: TrialScores) -> tuple[str, ...]:
    """The fixed columns, those of further nets, then those that no trial could compute and that say so."""
    if any(OTHER_LOSS in found for found in scores.values.values()):
        fixed = (TABLE_SCORES[0], OTHER_LOSS, *TABLE_SCORES[1:])
    else:
        fixed = TABLE_SCORES
    return (*fixed, *shown_optional(scores), *_only_unavailable(scores))


def missing_lines(study: Study) -> tuple[str, ...]:
    """One line per planned trial without result, in table order."""
    return tuple(
        f"{spec_name(each.spec.config)}, seed {each.spec.config.seed} (trial {each.spec.trial_id}): {each.reason}"
        for each in study.missing
    )


def rank_csv(estimates: Estimates, ends: Mapping[RowKey, Plateau] = NO_ENDS) -> str:
    """The table with nine digits; `ends` of training; per score the mean, smallest, largest and number of seeds."""
    scores = (*TABLE_SCORES, *(score for score in CORE if score not in TABLE_SCORES))
    scores += (*shown_optional(estimates.scores), *shown_further(estimates.scores))
    head = ["row", "rank", "alpha", "scale", "scaling", "targets", "learning_rate", "other", "parameters"]
    head += ["adapter_megabytes", "seconds_per_step", "seeds_done", "seeds_planned", "clips"]
    head += ["steps_to_plateau", "still_improving"]
    head += [f"{score}{suffix}" for score in scores for suffix in ("", "_min", "_max", "_seeds")]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*head, *_only_unavailable(estimates.scores)])
    absent = [NOT_AVAILABLE] * len(_only_unavailable(estimates.scores))
    for row in estimates.rows:
        cells = [cell for score in scores for cell in _csv_cells(row, score)]
        writer.writerow(
            [*_csv_settings(row, len(estimates.scores.clips)), *_csv_end(ends.get(row.key)), *cells, *absent]
        )
    real = estimates.scores.real
    cells = [text for score in scores for text in (plain(real[score]) if score in real else "", "", "", "")]
    blank = [""] * 12
    writer.writerow([REAL, *blank, len(estimates.scores.clips), *_csv_end(None), *cells, *([""] * len(absent))])
    return stream.getvalue()


def plain(value: float | None) -> str:
    """Nine digits: stable against the last bits that differ between machines."""
    return "" if value is None else f"{value:.9g}"


def short_count(count: int) -> str:
    """12288 -> 12.3k."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{suffix}"
    return str(count)


def decimals(values: list[float]) -> int:
    """Digits behind the point that show DIGITS significant ones of the largest number; 0 to 6."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0]
    return min(6, max(0, DIGITS - 1 - math.floor(math.log10(max(sizes))))) if sizes else 2


def _setting_columns(rows: tuple[Row, ...], ends: Mapping[RowKey, Plateau] = NO_ENDS) -> list[Column]:
    series = any(row.series for row in rows)
    base_differs = any(row.key.other for row in rows)
    columns = [_column("rank", rows, lambda row: _rank_text(row) + marked(row, ends), REAL)]
    if series or base_differs:
        columns.append(_column("varies", rows, _series_name))
    columns.append(_column("alpha", rows, lambda row: f"{row.key.alpha:g}" if row.key.rank else NOTHING, rank=3))
    columns.append(_column("scale", rows, lambda row: f"{row.scale:.3g}" if row.key.rank else NOTHING, rank=5))
    return columns


def _rank_text(row: Row) -> str:
    return str(row.key.rank) if row.in_grid else row.name


def _series_name(row: Row) -> str:
    return row.series or ", ".join(f"{name} {text}" for name, text in row.key.other) or NOTHING


def _cost_columns(rows: tuple[Row, ...], clips: int) -> list[Column]:
    def parameters(row: Row) -> str:
        return NOTHING if row.parameters is None else short_count(row.parameters)

    def megabytes(row: Row) -> str:
        return NOTHING if row.adapter_megabytes is None else f"{row.adapter_megabytes:.3g}"

    def seconds(row: Row) -> str:
        return NOTHING if row.seconds_per_step is None else f"{row.seconds_per_step:.3g}"

    return [
        _column("parameters", rows, parameters, rank=2),
        _column("adapter MB", rows, megabytes, rank=6),
        _column("s/step", rows, seconds, rank=4),
        _column("seeds", rows, lambda row: f"{row.done}/{row.planned}"),
        _column("clips", rows, lambda row: str(clips) if row.done else "0", str(clips), rank=1),
    ]


def _column(name: str, rows: tuple[Row, ...], text: Callable[[Row], str], real: str = NOTHING, rank: int = 0) -> Column:
    return Column(name, (*(Cell(text(row)) for row in rows), Cell(real)), rank=rank)


def _score_column(score: str, study: Study, estimates: Estimates, tests: Sequence[RankTests]) -> Column:
    rows, real = estimates.rows, estimates.scores.real
    direction = DIRECTIONS.get(score, NONE)
    if score in estimates.scores.unavailable:
        dropped = 0 if score in CORE else 9
        cells = (*(Cell(NOT_AVAILABLE) for _ in rows), Cell(NOTHING))
        return Column(column_name(score), cells, CORE.get(score, NONE), dropped)
    found = [row.estimates.get(score) for row in rows]
    digits = decimals([each.mean for each in found if each])
    given = marks(score, estimates, tests, digits) if study.trained else {}
    cells = tuple(_score_cell(row, row.estimates.get(score), digits, given.get(row.key, UNMARKED)) for row in rows)
    reference = Cell(fixed(real[score], digits) if score in real else NOTHING)
    return Column(column_name(score), (*cells, reference), direction)


def column_name(score: str) -> str:
    return {"heldout_loss": "held-out loss", OTHER_LOSS: "other-domain loss"}.get(score, score)


def _score_cell(row: Row, found: Estimate | None, digits: int, mark: Mark) -> Cell:
    if found is None:
        return Cell(NOT_AVAILABLE if row.done else NOTHING)
    spread = f"{fixed(found.low, digits)}..{fixed(found.high, digits)}" if len(found.values) > 1 else ""
    if len(found.values) < row.done:
        spread = f"{spread} ({len(found.values)} of {row.done} seeds)".strip()
    return Cell(fixed(found.mean, digits), spread, mark)


def _csv_settings(row: Row, clips: int) -> list[object]:
    key = row.key
    other = "; ".join(f"{name}={text}" for name, text in key.other)
    adapter: list[object] = ["", "", "", "", "" if row.is_base else plain(key.learning_rate)]
    if key.rank:
        adapter = [plain(key.alpha), plain(row.scale), key.scaling, key.targets, plain(key.learning_rate)]
    cost: list[object] = ["" if row.parameters is None else row.parameters]
    cost += [plain(row.adapter_megabytes), plain(row.seconds_per_step), row.done, row.planned]
    return [
        row.key.label or ("base" if row.is_base else "lora"),
        key.rank,
        *adapter,
        other,
        *cost,
        clips if row.done else 0,
    ]


def _csv_end(end: Plateau | None) -> list[object]:
    """Empty where unknown."""
    if end is None:
        return ["", ""]
    still = {None: "", True: "yes", False: "no"}[end.still]
    return ["" if end.steps is None else end.steps, still]


def _csv_cells(row: Row, score: str) -> list[object]:
    found = row.estimates.get(score)
    if found is None:
        return [NOT_AVAILABLE if row.done else "", "", "", 0]
    return [plain(found.mean), plain(found.low), plain(found.high), len(found.values)]


def _only_unavailable(scores: TrialScores) -> list[str]:
    return [score for score in scores.unavailable if score not in CORE and score not in FURTHER]


# ~ Every score of every finished trial as one CSV: one line a clip, then one a trial for what it has as a whole.
# ~
# ~ In: `Study`, `TrialScores`. Out: the file, written line by line, since that of a large study fills the memory.
# ~ Where several studies are merged, the first column says which one a line is from.

SET_CLIP = "(set)"  # stands for the clip of a score that a whole trial has
STUDY = "study"


def write_scores(study: Study, scores: TrialScores, path: Path) -> None:
    """Columns COLUMNS, values with nine digits."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*([STUDY] if study.merged else []), *COLUMNS])
        per_clip = {metric for trial in study.trials for metric in trial.scores}
        for trial in study.trials:
            for metric, found in sorted(trial.scores.items()):
                head, values = _head(study, trial), zip(found.ids, found.numbers.tolist(), strict=True)
                writer.writerows((*head, clip, metric, plain(value)) for clip, value in values)
        for trial in study.trials:
            for score, value in sorted(scores.values[trial.spec.trial_id].items()):
                if score not in per_clip:
                    writer.writerow((*_head(study, trial), SET_CLIP, score, plain(value)))


def _head(study: Study, trial: Trial) -> tuple[object, ...]:
    return (study.home(trial.spec.trial_id).name, *trial.head) if study.merged else trial.head
