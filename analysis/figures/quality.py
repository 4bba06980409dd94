"""Scores against the rank, differences to the base, and the losses during training.

In: `Findings`. Out: one figure per function.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.style import (
    BASE,
    BETTER,
    COLOURS,
    DOWN_UP,
    LINE_STYLES,
    REAL,
    UNDECIDED,
    WIDTH,
    WORSE,
    is_near,
    legend_below,
    rank_axis,
    rank_colours,
    rate_label,
    rate_markers,
    score_title,
    series_marker,
)
from analysis.statistics.findings import Findings
from analysis.statistics.intervals import number
from analysis.study.rows import Estimates, Row
from cinelora.metrics.primary import LOSS, MOTION, PICTURE, STEADINESS, PrimaryScores

ACROSS = 3  # panels
LEFT_RIGHT = "\u2190\u2192"  # to a row far off an axis
EDGE = ("axes fraction", "data")
SMOOTHING = 20  # the training loss is averaged over steps / SMOOTHING steps


def quality_vs_rank(findings: Findings) -> Figure:
    """A panel per score: one marker per seed, a line through the means; x is log2 of the rank."""
    estimates = findings.estimates
    scores = _panels(estimates.primary) if findings.study.generated else (LOSS,)
    down = math.ceil(len(scores) / ACROSS)
    figure = Figure(figsize=(WIDTH, 2.2 * down), layout="constrained")
    panels = figure.subplots(down, ACROSS).flat
    for unused in panels[len(scores) :]:
        unused.remove()
    for axes, score in zip(panels, scores, strict=False):
        axes.set_title(score_title(score))
        if score in estimates.scores.unavailable:
            text = "\n".join(["n/a", *textwrap.wrap(estimates.scores.unavailable[score], 28)])
            axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=7)
            axes.set(xticks=[], yticks=[])
        else:
            _score_panel(axes, score, estimates)
    legend_below(figure, _quality_legend(estimates), 3)
    return figure


def differences(findings: Findings) -> Figure | None:
    """A panel per compared score, a line per row: difference to the base and its interval; grey if undecided."""
    compared = findings.estimates.primary.compared
    shown = [each for each in findings.differences if each.score in compared]
    if not shown:
        return None
    scores = [score for score in compared if any(each.score == score for each in shown)]
    rows = list(dict.fromkeys(each.row for each in shown))
    figure = Figure(figsize=(WIDTH, 0.9 + 0.22 * len(rows)), layout="constrained")
    panels = dict(zip(scores, figure.subplots(1, len(scores), sharey=True, squeeze=False)[0], strict=True))
    for score, axes in panels.items():
        axes.axvline(0, **BASE)
        axes.set_title(score_title(score))
        axes.set_xlabel("difference to the base")
        axes.locator_params(axis="x", nbins=4)
    frozen = {row.full_name for row in findings.estimates.rows if row.is_frozen}
    for each in sorted(shown, key=lambda each: each.row in frozen):  # last, when the axes are known
        axes, height = panels[each.score], rows.index(each.row)
        colour = {"better": BETTER, "worse": WORSE}.get(each.verdict, UNDECIDED)
        if each.row in frozen and not is_near(axes.get_xlim(), each.interval.low, each.interval.high):
            above = bool(each.interval.mean > axes.get_xlim()[1])
            place, align = (float(above), height), ("left", "right")[above]
            text = f"{number(each.interval.mean, '+.3g')} {LEFT_RIGHT[above]}"
            axes.annotate(text, place, xycoords=EDGE, ha=align, va="center", color=colour, fontsize=7)
            continue
        axes.plot([each.interval.low, each.interval.high], [height, height], color=colour, linewidth=1.6)
        axes.plot([each.interval.mean], [height], "o", color=colour, ms=4)
    panels[scores[0]].set_yticks(range(len(rows)), rows)
    panels[scores[0]].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def learning_curves(findings: Findings) -> Figure | None:
    """Left the smoothed training loss, right the held-out loss; the colour is the rank, all seeds alike."""
    estimates, trials = findings.estimates, findings.study.trials
    if all(trial.curve.empty for trial in trials):
        return None
    colours = rank_colours(row.key.rank for row in estimates.rows if row.in_grid)
    styles = {name: LINE_STYLES[index % len(LINE_STYLES)] for index, name in enumerate(estimates.series)}
    handles = [Line2D([], [], color=colour, label=f"rank {rank}") for rank, colour in colours.items()]
    if len(styles) > 1:
        handles += [Line2D([], [], color="0.4", linestyle=style, label=name) for name, style in styles.items()]
    across = 4 if len(styles) > 1 else 6  # the name of a series takes more room than a rank
    size = (WIDTH, 2.75 + 0.16 * math.ceil(len(handles) / across))
    figure = Figure(figsize=size, layout="constrained")
    left, right = figure.subplots(1, 2)
    for row in (each for each in estimates.rows if each.in_grid):
        style: Mapping[str, Any] = {"color": colours[row.key.rank], "linestyle": styles[row.series]}
        for curve in (trial.curve for trial in estimates.trials(row)):
            trained, heldout = curve.dropna(subset="loss"), curve.dropna(subset=LOSS)
            loss = trained["loss"].rolling(smoothing_window(len(curve)), center=True, min_periods=1).mean()
            left.plot(trained["step"], loss, linewidth=0.7, **style)
            right.plot(heldout["step"], heldout[LOSS], marker="o", markersize=2, linewidth=1.0, **style)
    window = max(smoothing_window(len(trial.curve)) for trial in trials)
    left.set_title("training loss" + (f" (mean of {window} steps)" if window > 1 else ""))
    right.set_title("held-out loss (first windows only; step 0 is the base)")
    for axes in (left, right):
        axes.set_xlabel("optimiser step")
    legend_below(figure, handles, across)
    return figure


def _panels(primary: PrimaryScores) -> tuple[str, ...]:
    """The primary scores, and what must be seen beside them."""
    own = (score for score in primary.answered if score != LOSS)
    return tuple(dict.fromkeys((*primary.against_real, *own, *primary.distances, STEADINESS, MOTION, PICTURE, LOSS)))


def smoothing_window(steps: int) -> int:
    """Steps of the moving mean of the training loss: an odd number, about steps / SMOOTHING."""
    return steps // SMOOTHING // 2 * 2 + 1


def _score_panel(axes: Axes, score: str, estimates: Estimates) -> None:
    """Rows without a rank, and the real clips, are horizontal lines."""
    known = [row for row in estimates.rows if score in row.estimates]
    for row in (each for each in known if not each.in_grid and not each.is_frozen):
        axes.axhline(row.estimates[score].mean, **_line_style(row, estimates))
    if score in estimates.scores.real:
        axes.axhline(estimates.scores.real[score], **REAL)
    marks = rate_markers(estimates)
    for index, series in enumerate(estimates.series):
        rows = [row for row in known if row.in_grid and row.series == series]
        style, rates = series_marker(index), estimates.rates(series)
        for pair in pairwise(rows):
            alike = len({row.key.learning_rate for row in pair}) == 1
            line = {"color": style["color"], "linestyle": "-" if alike else ":", "zorder": 3}
            axes.plot([row.key.rank for row in pair], [row.estimates[score].mean for row in pair], **line)
        for row in rows:
            values = row.estimates[score].values
            style |= {"marker": marks[row.key.learning_rate]} if rates else {}
            axes.plot([row.key.rank] * len(values), values, ls="", ms=4, mew=0.8, zorder=3, **style)
    rank_axis(axes, sorted({row.key.rank for row in estimates.rows if row.in_grid}))
    for row in (each for each in known if each.is_frozen):
        _frozen_line(axes, row.estimates[score].mean, _line_style(row, estimates))


def _frozen_line(axes: Axes, value: float, style: Mapping[str, Any]) -> None:
    """A line, or an arrow with its value at the edge where it is far away, so that the ranks stay apart."""
    low, high = axes.get_ylim()
    if is_near((low, high), value, value):
        axes.axhline(value, **style)
        return
    above = bool(value > high)
    room = 0.15 * (high - low)
    axes.set_ylim(low if above else low - room, high + room if above else high)
    place, align = (0.98, float(above)), ("bottom", "top")[above]
    text = f"frozen {number(value)} {DOWN_UP[above]}"
    axes.annotate(text, place, xycoords="axes fraction", ha="right", va=align, color=style["color"], fontsize=7)


def _line_style(row: Row, estimates: Estimates) -> Mapping[str, Any]:
    """Of a row without a place on the rank axis: the base dashed, controls and the full fine-tune in colour."""
    if row.is_base:
        return BASE
    controls = [other.name for other in estimates.rows if not other.in_grid and not other.is_base]
    colour = COLOURS[-1 - controls.index(row.name) % len(COLOURS)]
    return {"color": colour, "linestyle": "-.", "linewidth": 1.0}


def _quality_legend(estimates: Estimates) -> list[Line2D]:
    handles = [
        Line2D([], [], ms=4, label=series or "LoRA, mean over seeds", **series_marker(index))
        for index, series in enumerate(estimates.series)
    ]
    if any(estimates.rates(series) for series in estimates.series):
        handles += [
            Line2D([], [], ls="", color="0.3", mfc="white", marker=mark, ms=4, label=rate_label(rate))
            for rate, mark in rate_markers(estimates).items()
        ]
    for row in sorted((row for row in estimates.rows if row.done and not row.in_grid), key=lambda row: not row.is_base):
        label = "base, no adapter" if row.is_base else row.name
        handles.append(Line2D([], [], label=label, **_line_style(row, estimates)))
    if any(score in estimates.scores.real for score in _panels(estimates.primary)):
        handles.append(Line2D([], [], **REAL, label="real clips"))
    return handles
