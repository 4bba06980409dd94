"""The figures. Each function draws given data on given axes; `analysis/report.py` writes the files.

In: `Study`, `Estimates`, `Sheet`. Out: marks on matplotlib axes. Colours stay apart for colour-blind
readers and in grey (Okabe and Ito's palette; viridis for the ordered ranks). A figure is WIDTH inches wide,
the text width of a two-column page, with type of 6 to 8 points.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from matplotlib.typing import LineStyleType, RcKeyType
from numpy.typing import NDArray

from analysis.statistics.differences import Difference
from analysis.study.frames import Sheet
from analysis.study.load import Study, Trial
from analysis.study.rows import Estimates, Row, series_of
from analysis.study.scores import DIRECTIONS, HIGHER, LOWER, NONE
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
PANELS = ("kvd[tnv2]", "fvd[tnv2]", "consistency[mnv2]", "motion[absdiff]", "psnr", "heldout_loss")
SENSE = {LOWER: "lower is better", HIGHER: "higher is better", NONE: "compare with real"}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito 2008
MARKERS = "osD^vP"
BASE: Mapping[str, Any] = {"color": "0.25", "linestyle": (0, (5, 2)), "linewidth": 1.0}
REAL: Mapping[str, Any] = {"color": "0.25", "linestyle": (0, (1, 1.5)), "linewidth": 1.3}
LINE_STYLES: tuple[LineStyleType, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4)))
Colour = tuple[float, float, float, float]
SMOOTHING = 20  # a training loss is averaged over this fraction of the steps: steps / SMOOTHING
LABEL_LETTERS = 13  # of a row label of the contact sheet: 0.75 inches of 7-point type
GAP, CLIP_GAP = 2, 10  # pixels between frames and between clips of the contact sheet


def quality_vs_rank(panels: Sequence[Axes], estimates: Estimates) -> list[Line2D]:
    """Six small panels, one score each. Returns the handles of the legend they share."""
    for axes, score in zip(panels, PANELS, strict=True):
        axes.set_title(f"{column_name(score)}\n({SENSE[DIRECTIONS[score]]})")
        if score in estimates.scores.unavailable:
            _not_available(axes, estimates.scores.unavailable[score])
        else:
            quality_panel(axes, score, estimates)
    return _quality_legend(estimates)


def quality_panel(axes: Axes, score: str, estimates: Estimates) -> None:
    """One dot per seed, a line through the means, dashed base, dotted real clips; x is log2 of the rank."""
    adapted = [row for row in estimates.rows if row.in_grid]
    for row in estimates.rows:
        if not row.in_grid and score in row.estimates:
            axes.axhline(row.estimates[score].mean, **line_style(row, estimates))
    if score in estimates.scores.real:
        axes.axhline(estimates.scores.real[score], **REAL)
    for index, series in enumerate(series_of(estimates.rows)):
        rows = [row for row in adapted if row.series == series and score in row.estimates]
        style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "zorder": 3}
        axes.plot([row.key.rank for row in rows], [row.estimates[score].mean for row in rows], **style)
        for row in rows:
            values = row.estimates[score].values
            axes.plot([row.key.rank] * len(values), values, _marker(index), ms=4, mew=0.8, mfc="white", **style)
    rank_axis(axes, sorted({row.key.rank for row in adapted}))


def line_style(row: Row, estimates: Estimates) -> dict[str, Any]:
    """Of a row without a place on the rank axis: the base dashed, controls and the full fine-tune in colour."""
    if row.is_base:
        return dict(BASE)
    beside = [other.name for other in estimates.rows if not other.in_grid and not other.is_base]
    colour = COLOURS[-1 - beside.index(row.name) % len(COLOURS)]
    return {"color": colour, "linestyle": "-.", "linewidth": 1.0}


def paired_differences(panels: Sequence[Axes], found: Sequence[Difference], scores: Sequence[str]) -> None:
    """One panel a score, one line a row of the table: difference to the base and its interval; grey if undecided."""
    rows = list(dict.fromkeys(each.row for each in found))
    for axes, score in zip(panels, scores, strict=True):
        axes.axvline(0, **BASE)
        for each in found:
            if each.score == score:
                colour = {"better": COLOURS[2], "worse": COLOURS[1]}.get(each.verdict, "0.6")
                height = rows.index(each.row)
                axes.plot([each.low, each.high], [height, height], color=colour, linewidth=1.6)
                axes.plot([each.value], [height], "o", color=colour, ms=4)
        axes.set_title(f"{column_name(score)}\n({SENSE[DIRECTIONS[score]]})")
        axes.set_xlabel("difference to the base")
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)


def learning_curves(panels: Sequence[Axes], study: Study, estimates: Estimates) -> list[Line2D]:
    """Left the smoothed training loss, right the held-out loss; colour is the rank, all seeds alike."""
    left, right = panels
    colours = rank_colours(row.key.rank for row in estimates.rows if row.in_grid)
    styles = {name: LINE_STYLES[i % len(LINE_STYLES)] for i, name in enumerate(series_of(estimates.rows))}
    trials = {trial.spec.trial_id: trial for trial in study.trials}
    for row in estimates.rows:
        for trial_id in row.trial_ids if row.in_grid else ():
            style = {"color": colours[row.key.rank], "linestyle": styles[row.series]}
            _curve(left, right, trials[trial_id], style)
    window = max((smoothing_window(len(trial.curve)) for trial in study.trials), default=1)
    left.set_title("training loss" + (f" (mean of {window} steps)" if window > 1 else ""))
    right.set_title("held-out loss (first windows only; step 0 is the base)")
    for axes in panels:
        axes.set_xlabel("optimiser step")
    return _curve_legend(estimates, colours, styles)


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


def smoothed(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Centred moving mean of (S,) over `window` steps, over what there is of it at the ends."""
    if window <= 1:
        return values
    kernel = np.ones(window)
    weight = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.asarray(np.convolve(values, kernel, mode="same") / weight, dtype=np.float64)


def smoothing_window(steps: int) -> int:
    """An odd number of steps, about steps / SMOOTHING; at most `steps`."""
    return max(1, steps // SMOOTHING // 2 * 2 + 1) if steps >= SMOOTHING else 1


def rank_colours(ranks: Iterable[int]) -> dict[int, Colour]:
    """Dark for the smallest rank to light for the largest, never as pale as paper."""
    distinct = sorted(set(ranks))
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, max(len(distinct), 2)))
    return {rank: (float(r), float(g), float(b), 1.0) for rank, (r, g, b, _) in zip(distinct, colours, strict=False)}


def say_above(figure: Figure, text: str) -> None:
    """The banner: what a reader must know before the first number."""
    if text:
        figure.suptitle(text, fontsize=8, color="#A33B00", fontweight="bold", wrap=True)


def _curve(left: Axes, right: Axes, trial: Trial, style: Mapping[str, Any]) -> None:
    steps = trial.curve["step"].to_numpy(dtype=np.float64)
    loss = trial.curve["loss"].to_numpy(dtype=np.float64)
    heldout = trial.curve["heldout_loss"].to_numpy(dtype=np.float64)
    left.plot(steps, smoothed(loss, smoothing_window(len(loss))), linewidth=0.7, **style)
    known = np.isfinite(heldout)
    right.plot(steps[known], heldout[known], marker="o", markersize=2, linewidth=1.0, **style)


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


def _not_available(axes: Axes, reason: str) -> None:
    text = "\n".join(["n/a", *textwrap.wrap(reason, 28)])
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])


def _marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def _quality_legend(estimates: Estimates) -> list[Line2D]:
    handles = []
    for index, series in enumerate(series_of(estimates.rows)):
        colour, name = COLOURS[index % len(COLOURS)], series or "LoRA, mean over seeds"
        handles.append(Line2D([], [], color=colour, marker=_marker(index), ms=4, mfc="white", label=name))
    if any(row.is_base and row.done for row in estimates.rows):
        handles.append(Line2D([], [], **BASE, label="base, no adapter"))
    for row in estimates.rows:
        if not row.in_grid and not row.is_base and row.done:
            handles.append(Line2D([], [], **line_style(row, estimates), label=row.name))
    if any(score in estimates.scores.real for score in PANELS):
        handles.append(Line2D([], [], **REAL, label="real clips"))
    return handles


def _curve_legend(
    estimates: Estimates, colours: Mapping[int, Colour], styles: Mapping[str, LineStyleType]
) -> list[Line2D]:
    handles = [Line2D([], [], color=colour, label=f"rank {rank}") for rank, colour in colours.items()]
    if len(styles) > 1:
        handles += [Line2D([], [], color="0.4", linestyle=style, label=name) for name, style in styles.items()]
    return handles
