"""Similarity of frames 1, 2, 4, ... apart: how fast the clips of each row, and the real clips, change over time.

In: `Findings`. Out: one figure. Where a curve lies above that of the real clips, the row's clips change too little;
where it falls below it far out only, they drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import BASE, COLOURS, LINE_STYLES, REAL, WIDTH, rank_colours
from analysis.statistics.findings import Findings
from analysis.statistics.intervals import crossed_interval
from analysis.study.files import ClipScores
from analysis.study.rows import Estimates, Row
from cinelora.metrics.catalogue import metric
from cinelora.metrics.gaps import sources

LEAST_APART = 0.035  # of two labels, as a share of the height


def consistency_profile(findings: Findings) -> Figure | None:
    """A line per row with its 95 % interval over shots and seeds; None where no trial has two points of a curve."""
    estimates = findings.estimates
    score, clips = estimates.primary.profile, estimates.scores.clips
    rows = [row for row in estimates.rows if score in row.estimates]
    points = sources(metric(score), estimates.study.reference.scores) if score else []
    if not rows or len(points) < 2 or len(clips) < 2:
        return None
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes, labels = figure.subplots(), []
    apart = [metric(point).entry.facts["frames_apart"] for point in points]
    curves: list[tuple[str, Mapping[str, Any], Sequence[ClipScores]]] = [
        ("real clips", {**REAL, "linewidth": 1.8}, [estimates.study.reference.scores])
    ]
    curves += [
        (row.full_name, _style(row, estimates), [trial.scores for trial in estimates.trials(row)]) for row in rows
    ]
    for name, style, scores in curves:
        known = [each for each in scores if all(point in each for point in points)]
        found = [
            crossed_interval(np.stack([each[point].of(clips) for each in known]), estimates.shots) for point in points
        ]
        axes.plot(apart, [each.mean for each in found], **style)
        band = [each.low for each in found], [each.high for each in found]
        axes.fill_between(apart, *band, color=style["color"], alpha=0.1, linewidth=0)
        labels.append((found[-1].mean, name, style["color"]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(apart, [str(each) for each in apart])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="frames apart", ylabel=f"mean similarity of two frames [{metric(score).net}]")
    _labelled(axes, apart[-1], labels)
    return figure


def _labelled(axes: Axes, x: float, labels: Sequence[tuple[float, str, Any]]) -> None:
    """Each name at the end of its line, moved apart where they would overlap."""
    bottom, top = axes.get_ylim()
    step, below = LEAST_APART * (top - bottom), -np.inf
    for height, name, colour in sorted(labels, key=lambda label: label[0]):
        below = max(height, below + step)
        axes.annotate(
            name,
            (x, height),
            (8, 0),
            textcoords="offset points",
            fontsize=7,
            color=colour,
            va="center",
            annotation_clip=False,
        ).set_position((8, (below - height) / (top - bottom) * axes.get_window_extent().height * 72 / axes.figure.dpi))


def _style(row: Row, estimates: Estimates) -> Mapping[str, Any]:
    if row.is_base:
        return BASE
    if row.in_grid:
        colours = rank_colours(each.key.rank for each in estimates.rows if each.in_grid)
        line = LINE_STYLES[estimates.series.index(row.series) % len(LINE_STYLES)]
        return {"color": colours[row.key.rank], "linestyle": line, "linewidth": 1.2}
    controls = [each.full_name for each in estimates.rows if not each.in_grid and not each.is_base]
    return {"color": COLOURS[-1 - controls.index(row.full_name) % len(COLOURS)], "linestyle": "-.", "linewidth": 1.0}
