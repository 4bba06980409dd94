"""The noise floor beside the scores: distances of halves, and rank differences against a grey band of mere noise.

In: `Halves`, `Redraw`, `RankTests`. Out: `floor_figure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.quality import BASE, COLOURS, MARKERS, WIDTH, rank_axis
from analysis.statistics.noise import REAL, Halves, Redraw
from analysis.statistics.rank_tests import RankTests
from analysis.study.rows import Estimates, series_of
from analysis.tables.rank_table import column_name

DISTANCES = ("kvd[tnv2]", "fvd[tnv2]")  # of halves
DIFFERENCES = ("kvd[tnv2]", "consistency[mnv2]", "psnr")  # between ranks
BAND: dict[str, Any] = {"color": "0.85", "linewidth": 0}
CELLS = 6  # across: of two panels or of three
SHIFT = 0.07  # of a rank, between series


def floor_figure(
    estimates: Estimates, found: Sequence[Halves], redrawn: Sequence[Redraw], tests: Sequence[RankTests]
) -> Figure | None:
    """Above distances, below differences; None where neither can be drawn.

    Distances of half of a rank's clips to the other half of the true ones, mean over splits; band: true clips against
    true clips, middle 95 % of the splits. Differences of each rank to the best one, with their interval (Holm); band:
    95 % of the differences that other sampling noise makes of one and the same base.
    """
    series = series_of(estimates.rows)
    distances = [score for score in DISTANCES if any(each.score == score for each in found)]
    tested = {each.score for each in tests if each.pairs}
    floors = [each for each in redrawn if each.score in DIFFERENCES and each.score in tested]
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


def _differences(axes: Axes, floor: Redraw, tests: Sequence[RankTests], series: Sequence[str]) -> None:
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
