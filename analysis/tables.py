"""Estimates -> the rank table as a `Table` record (cells already text) and as CSV with all digits.

In: `Study` and `Estimates`. Out: `Table` for `analysis/render.py`; CSV text. Pure: no files, no clock,
so the same ledger gives the same bytes. Best cells are marked only on a trained base, among two rows or more.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from analysis.captions import BANNER, caption, notes
from analysis.estimates import Estimate, Estimates, Row, RowKey
from analysis.load import Study
from analysis.scores import (
    CORE,
    DIRECTIONS,
    HIGHER,
    MOTION,
    NONE,
    OTHER_LOSS,
    TABLE_SCORES,
    TrialScores,
    shown_optional,
    spec_name,
)

NOT_AVAILABLE, NOTHING = "n/a", "-"
REAL = "real clips"
MOTION_FLOOR = 0.5  # below this share of the real motion a clip is near frozen: consistency is no merit
CONSISTENCY = tuple(name for name in DIRECTIONS if name.startswith(("consistency[", "image_similarity[")))
DIGITS = 4  # significant, of the largest number in a column


@dataclass(frozen=True)
class Cell:
    text: str
    spread: str = ""  # smallest and largest seed
    best: bool = False


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
    notes: tuple[str, ...]
    missing: tuple[str, ...]


def rank_table(study: Study, estimates: Estimates) -> Table:
    """One row per rank, the base first, the real clips last."""
    rows = estimates.rows
    scores = [_score_column(score, study, estimates) for score in table_scores(estimates.scores)]
    return Table(
        title=f"Rank against quality: {study.name}",
        banner="" if study.trained else BANNER,
        columns=(*_setting_columns(rows), *_cost_columns(rows, len(estimates.scores.clips)), *scores),
        rows=len(rows),
        caption=caption(study, estimates),
        notes=notes(study, estimates.scores, MOTION_FLOOR if study.trained else None),
        missing=missing_lines(study),
    )


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


def rank_csv(estimates: Estimates) -> str:
    """The table with nine digits; per score the mean, smallest, largest and number of seeds."""
    scores = (*TABLE_SCORES, *(score for score in CORE if score not in TABLE_SCORES), *shown_optional(estimates.scores))
    head = ["row", "rank", "alpha", "scale", "scaling", "targets", "learning_rate", "other", "parameters"]
    head += ["adapter_megabytes", "seconds_per_step", "seeds_done", "seeds_planned", "clips"]
    head += [f"{score}{suffix}" for score in scores for suffix in ("", "_min", "_max", "_seeds")]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*head, *_only_unavailable(estimates.scores)])
    absent = [NOT_AVAILABLE] * len(_only_unavailable(estimates.scores))
    for row in estimates.rows:
        cells = [cell for score in scores for cell in _csv_cells(row, score)]
        writer.writerow([*_csv_settings(row, len(estimates.scores.clips)), *cells, *absent])
    real = estimates.scores.real
    cells = [text for score in scores for text in (plain(real[score]) if score in real else "", "", "", "")]
    blank = [""] * 12
    writer.writerow([REAL, *blank, len(estimates.scores.clips), *cells, *([""] * len(absent))])
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


def _setting_columns(rows: tuple[Row, ...]) -> list[Column]:
    series = any(row.series for row in rows)
    base_differs = any(row.key.other for row in rows)
    columns = [_column("rank", rows, _rank_text, REAL)]
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


def _score_column(score: str, study: Study, estimates: Estimates) -> Column:
    rows, real = estimates.rows, estimates.scores.real
    direction = DIRECTIONS.get(score, NONE)
    if score in estimates.scores.unavailable:
        dropped = 0 if score in CORE else 9
        cells = (*(Cell(NOT_AVAILABLE) for _ in rows), Cell(NOTHING))
        return Column(column_name(score), cells, CORE.get(score, NONE), dropped)
    found = [row.estimates.get(score) for row in rows]
    digits = decimals([each.mean for each in found if each])
    best = _best(score, rows, real, digits) if study.trained else frozenset()
    cells = tuple(_score_cell(row, row.estimates.get(score), digits, row.key in best) for row in rows)
    reference = Cell(_fixed(real[score], digits) if score in real else NOTHING)
    return Column(column_name(score), (*cells, reference), direction)


def column_name(score: str) -> str:
    return {"heldout_loss": "held-out loss", OTHER_LOSS: "other-domain loss"}.get(score, score)


def _fixed(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}"  # z: no minus sign before a rounded zero


def _score_cell(row: Row, found: Estimate | None, digits: int, best: bool) -> Cell:
    if found is None:
        return Cell(NOT_AVAILABLE if row.done else NOTHING)
    spread = f"{_fixed(found.low, digits)}..{_fixed(found.high, digits)}" if len(found.values) > 1 else ""
    if len(found.values) < row.done:
        spread = f"{spread} ({len(found.values)} of {row.done} seeds)".strip()
    return Cell(_fixed(found.mean, digits), spread, best)


def _best(score: str, rows: tuple[Row, ...], real: Mapping[str, float], digits: int) -> frozenset[RowKey]:
    """The rows that print the best number; none if alone. Who hardly moves cannot win on consistency."""
    ranked = [row for row in rows if row.is_base or row.in_grid]  # a control is there to compare with
    means = {row.key: row.estimates[score].mean for row in ranked if score in row.estimates}
    able = {key: mean for key, mean in means.items() if math.isfinite(mean)}
    if DIRECTIONS[score] == NONE or len(able) < 2:
        return frozenset()
    if score in CONSISTENCY:
        able = {row.key: able[row.key] for row in rows if row.key in able and not near_frozen(row, real)}
    if not able:
        return frozenset()
    wins = _fixed(max(able.values()) if DIRECTIONS[score] == HIGHER else min(able.values()), digits)
    return frozenset(key for key, mean in able.items() if _fixed(mean, digits) == wins)


def near_frozen(row: Row, real: Mapping[str, float]) -> bool:
    """Whether the row's clips move less than MOTION_FLOOR of what the real clips move."""
    motion = row.estimates.get(MOTION)
    return motion is not None and MOTION in real and motion.mean < MOTION_FLOOR * real[MOTION]


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


def _csv_cells(row: Row, score: str) -> list[object]:
    found = row.estimates.get(score)
    if found is None:
        return [NOT_AVAILABLE if row.done else "", "", "", 0]
    return [plain(found.mean), plain(found.low), plain(found.high), len(found.values)]


def _only_unavailable(scores: TrialScores) -> list[str]:
    return [score for score in scores.unavailable if score not in CORE]
