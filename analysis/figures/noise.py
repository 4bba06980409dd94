"""How far noise and the number of clips move a score: the noise floor, and distances on fewer clips.

In: `Findings`. Out: one figure per function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.style import BASE, WIDTH, Colour, legend_below, rank_axis, rank_colours, series_marker
from analysis.statistics.findings import Findings
from analysis.statistics.noise import REAL, Halves, Reseed
from analysis.statistics.rank_tests import RankTests
from analysis.statistics.reliability import SizeCurve
from analysis.study.rows import series_of
from analysis.tables.rank_table import column_name
from cinelora.metrics.primary import STEADINESS

BAND: Mapping[str, Any] = {"color": "0.85", "linewidth": 0}
MOST_PANELS, CELLS = 3, 6  # across; rows of one, two or three panels divide the cells
SHIFT = 0.07  # of a rank, between series
NORMAL_95 = 1.96  # standard errors on either side of the intercept
INTERCEPTS = -0.06  # place of the first intercept on the axis of fvd_vs_n, as a share of its right end


def noise_floor(findings: Findings) -> Figure | None:
    """Distances above (mean over splits), differences below (Holm's intervals); None where neither can be drawn."""
    estimates, series, primary = findings.estimates, findings.estimates.series, findings.estimates.primary
    by_score = {score: [each for each in findings.halves if each.score == score] for score in primary.distances}
    halves = {score: own for score, own in by_score.items() if own}
    tests = [each for each in findings.tests if each.pairs]
    tested = {each.score for each in tests}
    drawn = tested.intersection((*primary.sampled, STEADINESS))
    floors = [each for each in findings.reseeds if each.score in drawn]
    down = [*_rows(len(halves)), *_rows(len(floors))]
    if not down:
        return None
    figure = Figure(figsize=(WIDTH, 0.6 + 1.8 * len(down)), layout="constrained")
    cells: list[Any] = [[f"{line}.{cell * count // CELLS}" for cell in range(CELLS)] for line, count in enumerate(down)]
    panels = list(figure.subplot_mosaic(cells).values())
    for own, axes in zip(halves.values(), panels, strict=False):
        _distances(axes, own, series)
    for floor, axes in zip(floors, panels[len(halves) :], strict=True):
        _differences(axes, floor, [each for each in tests if each.score == floor.score], series)
    for axes in panels:
        rank_axis(axes, sorted({row.key.rank for row in estimates.rows if row.in_grid}))
    handles: list[Line2D | Patch] = [
        Line2D([], [], label=name or "LoRA (filled: the best rank)", **_style(index))
        for index, name in enumerate(series)
    ]
    handles += [Line2D([], [], **BASE, label="base, no adapter"), Patch(**BAND, label="noise floor")]
    legend_below(figure, handles, 4)
    return figure


def _rows(panels: int) -> list[int]:
    """How many panels in each row, as alike as can be."""
    rows = -(-panels // MOST_PANELS)
    return [panels // rows + (row < panels % rows) for row in range(rows)]


def _distances(axes: Axes, own: Sequence[Halves], series: Sequence[str]) -> None:
    for each in own:
        if each.row == REAL:
            axes.axhspan(each.low, each.high, **BAND)
        elif each.rank == 0:
            axes.axhline(each.mean, **BASE)
    for index, name in enumerate(series):
        ranks = [each for each in own if each.rank and each.series == name]
        axes.plot([each.rank for each in ranks], [each.mean for each in ranks], **_style(index))
    axes.set_title(f"{column_name(own[0].score)} between halves\n({own[0].clips} clips each)")


def _differences(axes: Axes, floor: Reseed, tests: Sequence[RankTests], series: Sequence[str]) -> None:
    axes.axhspan(-floor.reach, floor.reach, **BAND)
    axes.axhline(0, color="0.5", linewidth=0.6)
    for each in tests:
        index = series.index(each.series)
        style, shift = _style(index), 1 + SHIFT * (index - (len(series) - 1) / 2)
        for other in each.pairs.others if each.pairs else ():
            difference, place = other.difference, other.rank * shift
            axes.plot([place, place], [difference.low, difference.high], linewidth=0.8, color=style["color"])
            axes.plot([place], [difference.mean], **style)
        if each.pairs:
            axes.plot([each.pairs.best * shift], [0], **{**style, "mfc": style["color"]})
    axes.set_title(f"{column_name(floor.score)}\nrank minus best (below zero is worse)")


def _style(index: int) -> dict[str, Any]:
    return {**series_marker(index), "ms": 3.5, "mew": 0.8, "linewidth": 0.8}


def fvd_vs_n(findings: Findings) -> Figure | None:
    """A row of panels per series; x is 1/n, with infinitely many clips at the left. None where nothing was computed."""
    curves = [each for each in findings.sizes if each.row.is_base or each.row.in_grid]
    series = series_of(each.row for each in curves)
    kinds = list(dict.fromkeys((each.score, each.dimensions) for each in curves))
    if not series:
        return None
    colours = rank_colours(each.row.key.rank for each in curves if each.row.in_grid)
    figure = Figure(figsize=(WIDTH, 0.85 + 1.45 * len(series)), layout="constrained")
    grid = figure.subplots(len(series), len(kinds), sharex=True, sharey="col", squeeze=False)
    for name, panels in zip(series, grid, strict=True):
        of_series = [each for each in curves if each.row.is_base or each.row.series == name]
        for kind, axes in zip(kinds, panels, strict=True):
            _sizes_panel(axes, [each for each in of_series if (each.score, each.dimensions) == kind], colours)
        panels[0].set_ylabel(name.replace(", ", "\n") or "distance to the real clips", fontsize=7)
    most = max(dimensions for _, dimensions in kinds)
    for (score, dimensions), axes in zip(kinds, grid[0], strict=True):
        of = f"all {dimensions} dimensions" if dimensions == most else f"{dimensions} principal axes"
        axes.set_title(f"{score}, {of}")
    for axes in grid[-1]:
        axes.set_xlabel("number of clips n (axis: 1/n)")
    entries = {"base": BASE["color"]} if any(each.row.is_base for each in curves) else {}
    entries |= {f"rank {rank}": colour for rank, colour in colours.items()}
    handles = [Line2D([], [], color=colour, marker="o", ms=3, label=name) for name, colour in entries.items()]
    legend_below(figure, handles, 5)
    return figure


def _sizes_panel(axes: Axes, own: Sequence[SizeCurve], colours: Mapping[int, Colour]) -> None:
    sizes = own[0].found.sizes
    right = 1 / sizes[0]
    for index, each in enumerate(own):
        line = each.found
        colour = BASE["color"] if each.row.is_base else colours[each.row.key.rank]
        axes.plot(1 / sizes, line.scores, "o", ms=2.5, color=colour)
        if each.straight:
            axes.plot([0, right], [line.value, line.value + line.slope * right], linewidth=0.8, color=colour)
        else:
            axes.plot(1 / sizes, line.scores, ":", linewidth=0.8, color=colour)
        place = INTERCEPTS * right * (1 + index * 0.6)  # next to each other, left of infinity
        reach, face = NORMAL_95 * line.standard_error, colour if each.straight else "white"
        axes.errorbar(place, line.value, reach, fmt="D", ms=3, mew=0.7, mfc=face, elinewidth=0.7, color=colour)
    axes.axvline(0, color="0.85", linewidth=0.6, zorder=0)
    ticks = sizes[np.unique([0, 1, len(sizes) - 1])]
    axes.set_xticks([0, *(1 / ticks)], ["∞", *(f"{size:.0f}" for size in ticks)])
