"""What all figures share: width, fonts, colours, the rank axis, titles, legends, the line above a figure.

Colours stay apart for colour-blind readers and in grey (Okabe and Ito's palette; viridis for the ordered ranks).
A figure is WIDTH inches wide, the text width of a two-column page, with type of 6 to 8 points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType, RcKeyType

from analysis.study.load import Study
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, HIGHER, LOWER, NONE
from analysis.tables.captions import BANNER
from analysis.tables.rank_table import column_name

WIDTH = 7.0
STYLE: Mapping[RcKeyType, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
}
SENSE = {LOWER: "lower is better", HIGHER: "higher is better", NONE: "compare with real clips"}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito 2008
MARKERS = "osD^vP"
BETTER, WORSE, UNDECIDED = COLOURS[2], COLOURS[1], "0.6"
BASE: Mapping[str, Any] = {"color": "0.25", "linestyle": (0, (5, 2)), "linewidth": 1.0}
REAL: Mapping[str, Any] = {"color": "0.25", "linestyle": (0, (1, 1.5)), "linewidth": 1.3}
LINE_STYLES: tuple[LineStyleType, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4)))
NEAR = 0.5  # of an axis
DOWN_UP = "\u2193\u2191"  # to a row farther off
Colour = tuple[float, float, float, float]  # red, green, blue, opacity, 0 to 1


def is_near(limits: tuple[float, float], low: float, high: float) -> bool:
    """Whether an axis of these limits may stretch by NEAR of its length, no more, to show low to high."""
    slack = NEAR * (limits[1] - limits[0])
    return limits[0] - slack <= low and high <= limits[1] + slack


def rank_colours(ranks: Iterable[int]) -> dict[int, Colour]:
    """Dark for the smallest rank to light for the largest, never as pale as paper."""
    distinct = sorted(set(ranks))
    places = np.linspace(0.0, 0.85, max(len(distinct), 2))
    return {rank: matplotlib.colormaps["viridis"](float(place)) for rank, place in zip(distinct, places, strict=False)}


def rate_label(rate: float) -> str:
    """In a legend; 0: that of adapters from elsewhere."""
    return f"learning rate {rate:g}" if rate else "learning rate unknown"


def rate_markers(estimates: Estimates) -> dict[float, str]:
    """The marker of each learning rate of the ranks."""
    rates = sorted({row.key.learning_rate for row in estimates.rows if row.in_grid and row.done})
    return {rate: MARKERS[index % len(MARKERS)] for index, rate in enumerate(rates)}


def series_marker(index: int) -> dict[str, Any]:
    """Colour and hollow marker of an adapter series, by its place among the series."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "mfc": "white"}


def score_title(score: str) -> str:
    """The score and its direction."""
    return f"{column_name(score)}\n({SENSE[DIRECTIONS[score]]})"


def rank_axis(axes: Axes, ranks: Sequence[int]) -> None:
    """A logarithmic x axis with a tick at each of `ranks`, which are sorted."""
    axes.set_xlabel("rank")
    if not ranks:
        return
    axes.set_xscale("log", base=2)
    axes.set_xlim(ranks[0] / math.sqrt(2), ranks[-1] * math.sqrt(2))
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.set_xticks([], minor=True)


def legend_below(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    """One legend for all panels, in at most `columns` columns."""
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(columns, len(handles))), frameon=False)


def headline(study: Study) -> str:
    """The line above each figure: an untrained base, missing trials; "" for a finished study."""
    done, planned = len(study.trials), len(study.specs)
    parts = [] if study.trained else [BANNER]
    if done < planned:
        parts.append(f"{done} of {planned} trials finished")
    return "   |   ".join(parts)
