"""Clip by clip: what each held-out clip scores under the base and under a rank.

In: `Study`, `Estimates`. Out: `clips_figure`. One dot a clip; a rank's value is the mean over its seeds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.style import BASE, COLOURS, WIDTH
from analysis.statistics.pairwise import improvement
from analysis.study.clip_values import Values, clip_values
from analysis.study.frames import Sheet
from analysis.study.load import Study
from analysis.study.rows import Estimates, Row
from analysis.study.scores import DIRECTIONS, LOWER
from analysis.tables.rank_table import column_name

LABEL_LETTERS = 13  # of a row label of the contact sheet: 0.75 inches of 7-point type
GAP, CLIP_GAP = 2, 10  # pixels between frames and between clips of the contact sheet


def contact_sheet(axes: Axes, sheet: Sheet) -> None:
    """All frames as one picture: rows are models, columns are frames, grouped by clip."""
    picture, tops, lefts = mosaic(sheet.frames)
    height, width = sheet.frames.shape[3:5]
    axes.imshow(picture, interpolation="antialiased", aspect="equal")
    axes.set_axis_off()
    for name, top in zip(sheet.rows, tops, strict=True):
        lines = "\n".join(textwrap.wrap(name, LABEL_LETTERS))
        axes.text(-4, top + height / 2, lines, ha="right", va="center", fontsize=7)
    for clip, starts in zip(sheet.clips, lefts, strict=True):
        # captions above the top row: the clip over its frames, then each frame's number
        middle = (starts[0] + starts[-1] + width) / 2
        axes.annotate(
            clip,
            (middle, 0),
            (0, 11),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            annotation_clip=False,
        )
        for number, start in zip(sheet.frame_numbers, starts, strict=True):
            place = (start + width / 2, 0)
            axes.annotate(f"{number}", place, (0, 2), textcoords="offset points", ha="center", fontsize=6, color="0.35")


def mosaic(frames: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[int], list[list[int]]]:
    """(R, C, F, H, W, 3) -> one picture on white, the top of each row, the left of each frame."""
    rows, clips, count, height, width, _ = frames.shape
    clip_width = count * width + (count - 1) * GAP
    tops = [row * (height + GAP) for row in range(rows)]
    lefts = [
        [clip * (clip_width + CLIP_GAP) + frame * (width + GAP) for frame in range(count)] for clip in range(clips)
    ]
    picture = np.full((tops[-1] + height, lefts[-1][-1] + width, 3), 255, dtype=np.uint8)
    for row, clip, frame in np.ndindex(rows, clips, count):
        top, left = tops[row], lefts[clip][frame]
        picture[top : top + height, left : left + width] = frames[row, clip, frame]
    return picture, tops, lefts


Array = NDArray[np.float64]
SCORES = ("heldout_loss", "consistency[mnv2]", "psnr")  # of the only series
OF_MANY = ("psnr",)  # where there are several series: a row of panels each
ACROSS = 8  # panels
BETTER, WORSE = COLOURS[2], COLOURS[1]


def clips_figure(study: Study, estimates: Estimates) -> Figure | None:
    """A row of panels a score (or series), a panel a rank: base across, rank upwards; None without both.

    Dots on the better side of the diagonal are green; the share of clips improved is told, ties half. Of more than
    ACROSS ranks the smallest are shown.
    """
    clips = estimates.scores.clips
    base, series = estimates.base, estimates.series
    ranks = sorted({row.key.rank for row in estimates.rows if row.in_grid and row.done})[:ACROSS]
    if base is None or len(clips) < 3 or not ranks:
        return None
    ways = clip_values(study, clips)
    lines: list[tuple[str, str, Array]] = []
    for score in SCORES if len(series) == 1 else OF_MANY:
        before = ways[score](base)
        lines += [] if before is None else [(name, score, before) for name in series]
    if not lines:
        return None
    side = WIDTH / max(4, len(ranks))
    figure = Figure(figsize=(WIDTH, 0.25 + side * len(lines)), layout="constrained")
    grid = figure.subplots(len(lines), len(ranks), sharex="row", sharey="row", squeeze=False)
    for (name, score, before), panels in zip(lines, grid, strict=True):
        rows = {row.key.rank: row for row in estimates.finished(name)}
        for rank, axes in zip(ranks, panels, strict=True):
            after = _mean(estimates, rows.get(rank), ways[score])
            axes.set_axis_off() if after is None else _panel(axes, before, after, DIRECTIONS[score] == LOWER)
        panels[0].set_ylabel(column_name(score) if len(series) == 1 else name.replace(", ", "\n"), fontsize=7)
    for rank, axes in zip(ranks, grid[0], strict=True):
        axes.set_title(f"rank {rank}")
    what = "score" if len(series) == 1 else column_name(OF_MANY[0])
    figure.supxlabel(f"{what} of a clip under the base", size=8)
    figure.supylabel("of the same clip under the rank, mean over seeds", size=8)
    return figure


def _mean(estimates: Estimates, row: Row | None, of_score: Values) -> Array | None:
    """Mean over the seeds that have the score, (N,)."""
    found = [] if row is None else [of_score(trial) for trial in estimates.trials(row)]
    known: Sequence[Array] = [each for each in found if each is not None]
    return np.mean(known, axis=0) if known else None


def _panel(axes: Axes, before: Array, after: Array, lower: bool) -> None:
    gain = before - after if lower else after - before
    ends = (min(before.min(), after.min()), max(before.max(), after.max()))
    diagonal: dict[str, Any] = {**BASE, "linewidth": 0.6}
    axes.plot(ends, ends, **diagonal)
    for side, colour in ((gain >= 0, BETTER), (gain < 0, WORSE)):
        axes.plot(before[side], after[side], ".", color=colour, ms=3, mew=0, alpha=0.7)
    place = (0.04, 0.96, "left", "top") if lower else (0.96, 0.04, "right", "bottom")
    text = f"{improvement(gain, np.zeros_like(gain)):.0%}"
    axes.text(*place[:2], text, ha=place[2], va=place[3], transform=axes.transAxes, fontsize=7)
    axes.locator_params(nbins=3)
    axes.tick_params(labelsize=6, length=2)
