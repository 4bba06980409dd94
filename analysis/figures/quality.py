"""The figures. Each function draws given data on given axes; `analysis/report.py` writes the files.

In: `Study`, `Estimates`, `Sheet`. Out: marks on matplotlib axes. Colours stay apart for colour-blind
readers and in grey (Okabe and Ito's palette; viridis for the ordered ranks). A figure is WIDTH inches wide,
the text width of a two-column page, with type of 6 to 8 points.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray

from analysis.figures.style import BASE, COLOURS, LINE_STYLES, MARKERS, REAL, SENSE, Colour, rank_axis, rank_colours
from analysis.statistics.differences import Difference
from analysis.study.load import Study, Trial
from analysis.study.rows import Estimates, Row, series_of
from analysis.study.scores import DIRECTIONS
from analysis.tables.rank_table import column_name

PANELS = ("kvd[tnv2]", "fvd[tnv2]", "consistency[mnv2]", "motion[absdiff]", "psnr", "heldout_loss")
SMOOTHING = 20  # a training loss is averaged over this fraction of the steps: steps / SMOOTHING


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
    for row in estimates.rows:
        for trial in estimates.trials(row) if row.in_grid else ():
            style = {"color": colours[row.key.rank], "linestyle": styles[row.series]}
            _curve(left, right, trial, style)
    window = max((smoothing_window(len(trial.curve)) for trial in study.trials), default=1)
    left.set_title("training loss" + (f" (mean of {window} steps)" if window > 1 else ""))
    right.set_title("held-out loss (first windows only; step 0 is the base)")
    for axes in panels:
        axes.set_xlabel("optimiser step")
    return _curve_legend(estimates, colours, styles)


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


def _curve(left: Axes, right: Axes, trial: Trial, style: Mapping[str, Any]) -> None:
    steps = trial.curve["step"].to_numpy(dtype=np.float64)
    loss = trial.curve["loss"].to_numpy(dtype=np.float64)
    heldout = trial.curve["heldout_loss"].to_numpy(dtype=np.float64)
    left.plot(steps, smoothed(loss, smoothing_window(len(loss))), linewidth=0.7, **style)
    known = np.isfinite(heldout)
    right.plot(steps[known], heldout[known], marker="o", markersize=2, linewidth=1.0, **style)


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
