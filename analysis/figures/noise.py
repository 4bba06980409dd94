"""The noise floor beside the scores: distances of halves, and rank differences against a grey band of mere noise.

In: `Halves`, `Reseed`, `RankTests`. Out: `floor_figure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from analysis.figures.style import BASE, COLOURS, MARKERS, WIDTH, rank_axis, rank_colours
from analysis.statistics.noise import REAL, Halves, Reseed
from analysis.statistics.rank_tests import RankTests
from analysis.statistics.reliability import SizeCurve
from analysis.study.rows import Estimates, series_of
from analysis.tables.rank_table import column_name

DISTANCES = ("kvd[tnv2]", "fvd[tnv2]")  # of halves
DIFFERENCES = ("kvd[tnv2]", "consistency[mnv2]", "psnr")  # between ranks
BAND: dict[str, Any] = {"color": "0.85", "linewidth": 0}
CELLS = 6  # across: of two panels or of three
SHIFT = 0.07  # of a rank, between series


def floor_figure(
    estimates: Estimates, found: Sequence[Halves], reseeds: Sequence[Reseed], tests: Sequence[RankTests]
) -> Figure | None:
    """Above distances, below differences; None where neither can be drawn.

    Distances of half of a rank's clips to the other half of the true ones, mean over splits; band: true clips against
    true clips, middle 95 % of the splits. Differences of each rank to the best one, with their interval (Holm); band:
    95 % of the differences that other sampling noise makes of one and the same base.
    """
    series = series_of(estimates.rows)
    distances = [score for score in DISTANCES if any(each.score == score for each in found)]
    tested = {each.score for each in tests if each.pairs}
    floors = [each for each in reseeds if each.score in DIFFERENCES and each.score in tested]
    down = [count for count in (len(distances), len(floors)) if count]
    if not down:
        return None
    figure = Figure(figsize=(WIDTH, 0.6 + 1.8 * len(down)), layout="constrained")
    grid = figure.add_gridspec(len(down), CELLS)
    panels = [
        figure.add_subplot(grid[line, CELLS // count * place : CELLS // count * (place + 1)])
        for line, count in enumerate(down)
        for place in range(count)
    ]
    for score, axes in zip(distances, panels, strict=False):
        _distances(axes, [each for each in found if each.score == score], series)
    for floor, axes in zip(floors, panels[len(distances) :], strict=True):
        _differences(axes, floor, [each for each in tests if each.score == floor.score and each.pairs], series)
    for axes in panels:
        rank_axis(axes, sorted({row.key.rank for row in estimates.rows if row.in_grid}))
    handles = _legend(series)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
    return figure


def _distances(axes: Axes, own: Sequence[Halves], series: Sequence[str]) -> None:
    for each in own:
        if each.row == REAL:
            axes.axhspan(each.low, each.high, **BAND)
        elif each.rank == 0:
            axes.axhline(each.mean, **BASE)
    for index, name in enumerate(series):
        ranks = [each for each in own if each.rank and each.series == name]
        axes.plot([each.rank for each in ranks], [each.mean for each in ranks], ms=3.5, **_style(index))
    axes.set_title(f"{column_name(own[0].score)} of halves\n({own[0].clips} clips a side)")


def _differences(axes: Axes, floor: Reseed, tests: Sequence[RankTests], series: Sequence[str]) -> None:
    axes.axhspan(-floor.reach, floor.reach, **BAND)
    axes.axhline(0, color="0.5", linewidth=0.6)
    for each in tests:
        index = series.index(each.series)
        style, off = _style(index), 1 + SHIFT * (index - (len(series) - 1) / 2)
        for other in each.pairs.others if each.pairs else ():
            found, place = other.difference, other.rank * off
            axes.plot([place, place], [found.low, found.high], linewidth=0.8, color=style["color"])
            axes.plot([place], [found.mean], ms=3.5, **style)
        if each.pairs:
            axes.plot([each.pairs.best * off], [0], ms=3.5, **{**style, "mfc": style["color"]})
    axes.set_title(f"{column_name(floor.score)}: rank minus best\n(below zero is worse)")


def _style(index: int) -> dict[str, Any]:
    colour = COLOURS[index % len(COLOURS)]
    return {"color": colour, "marker": MARKERS[index % len(MARKERS)], "mfc": "white", "mew": 0.8, "linewidth": 0.8}


def _legend(series: Sequence[str]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], ms=3.5, label=name or "LoRA (filled: the best rank)", **_style(index))
        for index, name in enumerate(series)
    ]
    handles.append(Line2D([], [], **BASE, label="base, no adapter"))
    return [*handles, Patch(**BAND, label="noise floor")]


# ~ Distances against the number of clips they are taken on: the bias of fvd, and that kvd has none.
# ~
# ~ In: `SizeCurve` records. Out: `sizes_figure`, a row of panels a series.

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
