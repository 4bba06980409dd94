"""Clip by clip: what each held-out clip scores under the base and under a rank.

In: `Study`, `Estimates`. Out: `clips_figure`. One dot a clip; a rank's value is the mean over its seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.quality import BASE, COLOURS, WIDTH
from analysis.statistics.pairwise import improvement
from analysis.study.clip_values import Values, clip_values
from analysis.study.load import Study, Trial
from analysis.study.rows import Estimates, Row, series_of
from analysis.study.scores import DIRECTIONS, LOWER
from analysis.tables.rank_table import column_name

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
    trials = {trial.spec.trial_id: trial for trial in study.trials}
    base = next((trials[row.trial_ids[0]] for row in estimates.rows if row.is_base and row.done), None)
    series = series_of(estimates.rows)
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
        rows = {row.key.rank: row for row in estimates.rows if row.in_grid and row.series == name and row.done}
        for rank, axes in zip(ranks, panels, strict=True):
            after = _mean(rows.get(rank), trials, ways[score])
            axes.set_axis_off() if after is None else _panel(axes, before, after, DIRECTIONS[score] == LOWER)
        panels[0].set_ylabel(column_name(score) if len(series) == 1 else name.replace(", ", "\n"), fontsize=7)
    for rank, axes in zip(ranks, grid[0], strict=True):
        axes.set_title(f"rank {rank}")
    what = "score" if len(series) == 1 else column_name(OF_MANY[0])
    figure.supxlabel(f"{what} of a clip under the base", size=8)
    figure.supylabel("of the same clip under the rank, mean over seeds", size=8)
    return figure


def _mean(row: Row | None, trials: dict[str, Trial], of_score: Values) -> Array | None:
    """Mean over the seeds that have the score, (N,)."""
    found = [] if row is None else [of_score(trials[name]) for name in row.trial_ids]
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
