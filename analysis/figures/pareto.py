"""What a gain costs: quality against parameters, time and adapter size, with the Pareto front.

In: `Findings`. Out: the figure, and `front` for any points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from analysis.figures.style import COLOURS, MARKERS, WIDTH, legend_below
from analysis.statistics.findings import Findings
from analysis.study.costs import HOUR
from analysis.study.rows import Row
from analysis.study.scores import DIRECTIONS, LOWER
from analysis.tables.rank_table import column_name, short_count

MANY = 8  # in a panel with more points only those on the front are labelled
SHORT = 600.0  # worker-seconds: longer trainings are given in hours
FRONT: Mapping[str, Any] = {"color": "0.6", "linewidth": 0.9, "zorder": 1}
FULL, FULL_COLOUR = "full", "0.25"
LABEL_WIDTH, LABEL_HEIGHT = 0.06, 0.09  # of a panel


class Point(NamedTuple):
    """A row in one panel. Gains over the base have their sign changed where lower is better."""

    row: Row
    cost: float
    cheapest: float  # of the seeds
    dearest: float
    gain: float
    low: float
    high: float


def pareto(findings: Findings) -> Figure | None:
    """A point per rank, and for the full fine-tune, but for no control arm and no finished clips, whose cost is
    unknown; None without gains over the base.

    Time is that of training, generating and scoring, times its workers, mean over seeds.
    """
    estimates = findings.estimates
    rows = [row for row in estimates.rows if row.parameters and (row.in_grid or row.key.label == FULL)]
    gains = {score: known for score in estimates.primary.loss_first if (known := _gains(findings, score, rows))}
    if not gains:
        return None
    costs, (styles, handles) = _costs(findings, rows), _styles(rows)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.9 * len(gains)), layout="constrained")
    grid = figure.subplots(len(gains), len(costs), sharex="col", sharey="row", squeeze=False)
    for (score, known), panels in zip(gains.items(), grid, strict=True):
        panels[0].set_ylabel(f"gain over the base,\n{column_name(score)}")
        for axes, of_rows in zip(panels, costs.values(), strict=True):
            paid = [(row, cost) for row, cost in zip(rows, of_rows, strict=True) if cost[0] and row.full_name in known]
            _panel(axes, [Point(row, *cost, *known[row.full_name]) for row, cost in paid], styles)
    for axes, name in zip(grid[-1], costs, strict=True):
        axes.set_xlabel(name)
    legend_below(figure, handles, 4)
    return figure


def front(points: Iterable[tuple[float, float]], spread: float = 0.0) -> list[int]:
    """The points (cost, gain) that no other matches in both and beats in one, by index, cheapest first.

    Costs that differ by at most `spread` are equal.
    """
    known = list(points)
    kept = [
        index
        for index, (cost, gain) in enumerate(known)
        if not any((c <= cost + spread and g > gain) or (c < cost - spread and g >= gain) for c, g in known)
    ]
    return sorted(kept, key=lambda index: (known[index], index))


def _gains(findings: Findings, score: str, rows: Sequence[Row]) -> dict[str, tuple[float, float, float]]:
    """Full name of a row -> gain, low, high."""
    sign = -1.0 if DIRECTIONS[score] == LOWER else 1.0
    names = {row.full_name for row in rows}
    gains = {}
    for each in findings.differences:
        if each.score == score and each.row in names:
            low, high = sorted((sign * each.interval.low, sign * each.interval.high))
            gains[each.row] = (sign * each.interval.mean, low, high)
    return gains


def _costs(findings: Findings, rows: Sequence[Row]) -> dict[str, list[tuple[float, float, float]]]:
    """Axis label -> mean, smallest and largest cost of each row over its seeds; 0 where it is unknown, as the time of
    what was trained elsewhere. Without what is unknown of all."""
    by_name = {row.name: np.array(row.of_a_trial()) * ("train" in row.by_phase) for row in findings.costs.rows}
    unit, size = ("seconds", 1) if max(found.mean() for found in by_name.values()) < SHORT else ("hours", HOUR)
    times = [by_name[row.full_name] / size for row in rows]
    sizes = [[float(row.parameters or 0), row.adapter_megabytes or 0.0] for row in rows]
    costs = {
        "trainable parameters": [(size, size, size) for size, _ in sizes],
        f"worker-{unit} a trial: training,\ngenerating and scoring": [
            (float(each.mean()), float(each.min()), float(each.max())) for each in times
        ],
        "weights to keep, MB": [(size, size, size) for _, size in sizes],
    }
    return {name: of_rows for name, of_rows in costs.items() if any(cost for cost, *_ in of_rows)}


def _panel(axes: Axes, points: Sequence[Point], styles: Mapping[str, tuple[str, str]]) -> None:
    spread = max(each.dearest - each.cheapest for each in points)
    best = [points[index] for index in front(((each.cost, each.gain) for each in points), spread)]
    axes.step([each.cost for each in best], [each.gain for each in best], where="post", **FRONT)
    labelled = best if len(points) > MANY else points
    for each in points:
        colour, marker = styles[each.row.full_name]
        alpha = 0.5 if each in labelled else 0.15
        axes.plot([each.cost] * 2, [each.low, each.high], color=colour, linewidth=0.7, alpha=alpha, zorder=2)
        axes.plot([each.cheapest, each.dearest], [each.gain] * 2, color=colour, linewidth=0.7, alpha=alpha, zorder=2)
        face = colour if each in best else "white"
        axes.plot([each.cost], [each.gain], marker, color=colour, mfc=face, ms=4, mew=0.8, zorder=3)
    costs = [each.cost for each in points]
    if max(costs) > 10 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if max(costs) < 100 * min(costs) else (1.0,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: short_count(round(value)) if value >= 1e3 else f"{value:g}")
    axes.margins(x=0.12)
    _label(axes, labelled, styles)


def _label(axes: Axes, points: Sequence[Point], styles: Mapping[str, tuple[str, str]]) -> None:
    """The rank above its point, the greatest gains first; a label that would lie on another is left out."""
    taken: list[tuple[float, float]] = []
    for each in sorted(points, key=lambda point: -point.gain):
        x, y = axes.transLimits.transform(axes.transScale.transform((each.cost, each.gain)))
        if any(abs(x - other) < LABEL_WIDTH and abs(y - height) < LABEL_HEIGHT for other, height in taken):
            continue
        taken.append((x, y))
        name = FULL if each.row.key.label == FULL else str(each.row.key.rank)
        place = (each.cost, each.gain)
        text = axes.annotate(name, place, (0, 4), textcoords="offset points", fontsize=6.5, ha="center")
        outline = withStroke(linewidth=1.8, foreground="white")
        text.set(color=styles[each.row.full_name][0], path_effects=[outline], zorder=4)


def _styles(rows: Sequence[Row]) -> tuple[dict[str, tuple[str, str]], list[Line2D]]:
    """Full name -> colour by target set, marker by what else varies besides the rank; and the legend."""
    grid = [row for row in rows if row.in_grid]
    rules = [", ".join(part for part in row.series.split(", ") if part != row.key.targets) for row in grid]
    colours = dict(zip(dict.fromkeys(row.key.targets for row in grid), cycle(COLOURS), strict=False))
    markers = dict(zip(dict.fromkeys(rules), cycle(MARKERS), strict=False))
    styles = {row.full_name: (FULL_COLOUR, "X") for row in rows}
    styles |= {row.full_name: (colours[row.key.targets], markers[rule]) for row, rule in zip(grid, rules, strict=True)}
    entries = [(name, colour, "o", colour) for name, colour in colours.items()]
    if len(markers) > 1:
        entries += [(name, "0.4", marker, "white") for name, marker in markers.items()]
    if len(grid) < len(rows):
        entries.append(("full fine-tune", FULL_COLOUR, "X", FULL_COLOUR))
    handles = [Line2D([], [], color=c, marker=m, mfc=face, ls="", ms=4, label=name) for name, c, m, face in entries]
    return styles, [*handles, Line2D([], [], **FRONT, marker="o", ms=4, mfc="0.4", mec="0.4", label="Pareto front")]
