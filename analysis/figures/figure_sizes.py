"""Distances against the number of clips they are taken on: the bias of fvd, and that kvd has none.

In: `SizeCurve` records. Out: `sizes_figure`, a row of panels a series.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from analysis.figures.quality import BASE, WIDTH, rank_colours
from analysis.statistics.reliability import SizeCurve
from analysis.study.rows import series_of

LEVEL_SE = 1.96  # standard errors either side of the intercept
END = -0.06  # of the axis: left of it lie the intercepts, beside each other


def sizes_figure(found: Sequence[SizeCurve]) -> Figure | None:
    """x is 1 / n, all clips at the right of infinity; a dot the mean over subsets; a line to the intercept at infinity.

    A dotted line joins the dots where no straight line in 1 / n is to be expected (no more clips than dimensions):
    its intercept is drawn hollow. Bars: 95 % over other clips. None where nothing was computed.
    """
    shown = [each for each in found if each.row.is_base or each.row.in_grid]
    series = series_of(each.row for each in shown)
    kinds = list(dict.fromkeys((each.score, each.dimensions) for each in shown))
    if not series:
        return None
    ranks = rank_colours(each.row.key.rank for each in shown if each.row.in_grid)
    figure = Figure(figsize=(WIDTH, 0.85 + 1.45 * len(series)), layout="constrained")
    grid = figure.subplots(len(series), len(kinds), sharex=True, sharey="col", squeeze=False)
    for name, panels in zip(series, grid, strict=True):
        for (score, dimensions), axes in zip(kinds, panels, strict=True):
            own = [each for each in shown if (each.score, each.dimensions) == (score, dimensions)]
            own = [each for each in own if each.row.is_base or each.row.series == name]
            _panel(axes, own, ranks)
        panels[0].set_ylabel(name.replace(", ", "\n") or "distance to the real clips", fontsize=7)
    for (score, dimensions), axes in zip(kinds, grid[0], strict=True):
        whole = dimensions == max(count for _, count in kinds)
        axes.set_title(f"{score}, {f'all {dimensions} dimensions' if whole else f'{dimensions} principal axes'}")
    for axes in grid[-1]:
        axes.set_xlabel("clips n (scale 1 / n)")
    handles = [Line2D([], [], color=BASE["color"], marker="o", ms=3, label="base")]
    handles = handles if any(each.row.is_base for each in shown) else []
    handles += [Line2D([], [], color=colour, marker="o", ms=3, label=f"rank {rank}") for rank, colour in ranks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), frameon=False)
    return figure


def _panel(axes: Axes, own: Sequence[SizeCurve], colours: dict[int, Any]) -> None:
    sizes = own[0].found.sizes
    right = 1 / sizes[0]
    for index, each in enumerate(own):
        line = each.found
        style = {"color": BASE["color"] if each.row.is_base else colours[each.row.key.rank]}
        axes.plot(1 / sizes, line.scores, "o", ms=2.5, **style)
        if each.straight:
            axes.plot([0, right], [line.value, line.value + line.slope * right], linewidth=0.8, **style)
        else:
            axes.plot(1 / sizes, line.scores, ":", linewidth=0.8, **style)
        place = END * right * (1 + index * 0.6)
        reach = LEVEL_SE * line.standard_error
        axes.plot([place, place], [line.value - reach, line.value + reach], linewidth=0.7, **style)
        axes.plot([place], [line.value], "D", ms=3, mew=0.7, mfc=style["color"] if each.straight else "white", **style)
    axes.axvline(0, color="0.85", linewidth=0.6, zorder=0)
    ticks = sizes[np.unique([0, 1, len(sizes) - 1])]
    axes.xaxis.set_major_locator(FixedLocator([0, *(1 / ticks[::-1])]))
    axes.xaxis.set_major_formatter(FixedFormatter(["∞", *(f"{size:.0f}" for size in ticks[::-1])]))
    axes.xaxis.set_minor_locator(NullLocator())
