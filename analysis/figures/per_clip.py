"""Clip by clip: what each held-out clip scores under the base and under each rank.

In: `Findings`. Out: a figure of panels, one marker per clip; the value of a rank is the mean over its seeds.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import BASE, BETTER, WIDTH, WORSE
from analysis.statistics.findings import Findings
from analysis.statistics.pairwise import improvement
from analysis.study.files import Array
from analysis.study.scores import DIRECTIONS, LOWER
from analysis.tables.rank_table import column_name
from cinelora.metrics.primary import PICTURE

MAX_RANKS = 8  # panels across
FEWEST_CLIPS = 3


def per_clip(findings: Findings) -> Figure | None:
    """A row of panels per score (or series), a panel per rank; None without a base, a rank or FEWEST_CLIPS clips.

    Where there are several series, the score is PICTURE. Of more than MAX_RANKS ranks the smallest are shown.
    """
    estimates = findings.estimates
    base, series = estimates.base, estimates.series
    ranks = sorted({row.key.rank for row in estimates.rows if row.in_grid and row.done})[:MAX_RANKS]
    if base is None or len(estimates.scores.clips) < FEWEST_CLIPS or not ranks:
        return None
    scores = estimates.primary.of_clips if len(series) == 1 else (PICTURE,)
    of_base = {score: values for score in scores if (values := estimates.scorers[score](base)) is not None}
    lines = [(name, score) for score in of_base for name in series]
    if not lines:
        return None
    side = WIDTH / max(4, len(ranks))
    figure = Figure(figsize=(WIDTH, 0.25 + side * len(lines)), layout="constrained")
    grid = figure.subplots(len(lines), len(ranks), sharex="row", sharey="row", squeeze=False)
    for (name, score), panels in zip(lines, grid, strict=True):
        rows = {row.key.rank: row for row in estimates.finished(name)}
        for rank, axes in zip(ranks, panels, strict=True):
            trials = estimates.trials(rows[rank]) if rank in rows else []
            known = [values for trial in trials if (values := estimates.scorers[score](trial)) is not None]
            if known:
                _panel(axes, of_base[score], np.mean(known, axis=0), DIRECTIONS[score] == LOWER)
            else:
                axes.set_axis_off()
        panels[0].set_ylabel(column_name(score) if len(series) == 1 else name.replace(", ", "\n"), fontsize=7)
    for rank, axes in zip(ranks, grid[0], strict=True):
        axes.set_title(f"rank {rank}")
    what = "score" if len(series) == 1 else column_name(PICTURE)
    figure.supxlabel(f"{what} of a clip under the base", size=8)
    figure.supylabel(f"{what} of the same clip under the adapter", size=8)
    return figure


def _panel(axes: Axes, before: Array, after: Array, lower: bool) -> None:
    """`before`, `after`: one score of each clip, (N,). `lower`: lower is better."""
    gain = before - after if lower else after - before
    ends = (min(before.min(), after.min()), max(before.max(), after.max()))
    axes.plot(ends, ends, **{**BASE, "linewidth": 0.6})
    for side, colour in ((gain >= 0, BETTER), (gain < 0, WORSE)):
        axes.plot(before[side], after[side], ".", color=colour, ms=3, mew=0, alpha=0.7)
    x, y, horizontal, vertical = (0.04, 0.96, "left", "top") if lower else (0.96, 0.04, "right", "bottom")
    share = improvement(gain, np.zeros_like(gain))
    axes.text(x, y, f"{share:.0%}", ha=horizontal, va=vertical, transform=axes.transAxes, fontsize=7)
    axes.locator_params(nbins=3)
    axes.tick_params(labelsize=6, length=2)
