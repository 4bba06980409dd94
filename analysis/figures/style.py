"""What all figures share: width, fonts, colours of ranks, the rank axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from matplotlib.typing import LineStyleType, RcKeyType

from analysis.study.scores import HIGHER, LOWER, NONE

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
SENSE = {LOWER: "lower is better", HIGHER: "higher is better", NONE: "compare with real"}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito 2008
MARKERS = "osD^vP"
BASE: Mapping[str, Any] = {"color": "0.25", "linestyle": (0, (5, 2)), "linewidth": 1.0}
REAL: Mapping[str, Any] = {"color": "0.25", "linestyle": (0, (1, 1.5)), "linewidth": 1.3}
LINE_STYLES: tuple[LineStyleType, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4)))
Colour = tuple[float, float, float, float]


def rank_colours(ranks: Iterable[int]) -> dict[int, Colour]:
    """Dark for the smallest rank to light for the largest, never as pale as paper."""
    distinct = sorted(set(ranks))
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, max(len(distinct), 2)))
    return {rank: (float(r), float(g), float(b), 1.0) for rank, (r, g, b, _) in zip(distinct, colours, strict=False)}


def say_above(figure: Figure, text: str) -> None:
    """The banner: what a reader must know before the first number."""
    if text:
        figure.suptitle(text, fontsize=8, color="#A33B00", fontweight="bold", wrap=True)


def rank_axis(axes: Axes, ranks: Sequence[int]) -> None:
    """x is log2 of the rank, a tick at each of `ranks`, which are sorted."""
    axes.set_xlabel("rank")
    if not ranks:
        return
    axes.set_xscale("log", base=2)
    axes.set_xlim(ranks[0] / math.sqrt(2), ranks[-1] * math.sqrt(2))
    axes.xaxis.set_major_locator(FixedLocator(ranks))
    axes.xaxis.set_major_formatter(FixedFormatter([str(rank) for rank in ranks]))
    axes.xaxis.set_minor_locator(NullLocator())
