"""What a gain costs: quality against parameters, training time and adapter size, with the Pareto front.

In: `Study`, `Estimates`, `Difference` records. Out: `pareto_figure`, and `front` for any points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.figures.style import COLOURS, MARKERS, WIDTH
from analysis.statistics.differences import Difference
from analysis.study.load import Study
from analysis.study.rows import Estimates, Row, RowKey
from analysis.study.scores import DIRECTIONS, LOWER
from analysis.tables.rank_table import column_name, short_count

SCORES = ("heldout_loss", "kvd[tnv2]")
MANY = 8  # points of a panel from which on only those of the front are named
SHORT = 600.0  # worker-seconds: longer trainings are told in hours
FRONT: Mapping[str, Any] = {"color": "0.6", "linewidth": 0.9, "zorder": 1}
FULL, FULL_COLOUR = "full", "0.25"
Cost = tuple[str, Callable[[Row], float]]
Point = tuple[Row, float, tuple[float, float, float]]  # cost; gain, low, high
ROOM = (0.06, 0.09)  # of a panel, that a name takes


def pareto_figure(study: Study, estimates: Estimates, found: Sequence[Difference]) -> Figure | None:
    """Gain over the base against cost, a point a row with its 95 % interval; None without gains or costs.

    Filled: on the Pareto front of the means, nothing else costs less and gains as much. Rows are the ranks and the
    full fine-tune, no control arm. Time is what training alone took, times its workers, mean over seeds.
    """
    rows = [row for row in estimates.rows if row.done and (row.in_grid or row.key.label == FULL)]
    gains = {score: _gains(rows, found, score) for score in SCORES}
    scores = [score for score, known in gains.items() if known]
    if not scores:
        return None
    costs, styles = _costs(study, rows), _styles(rows)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.9 * len(scores)), layout="constrained")
    grid = figure.subplots(len(scores), len(costs), sharex="col", sharey="row", squeeze=False)
    for score, panels in zip(scores, grid, strict=True):
        panels[0].set_ylabel(f"gain over the base,\n{column_name(score)}")
        for axes, (_, cost) in zip(panels, costs, strict=True):
            known = [(row, cost(row), gain) for row in rows if (gain := gains[score].get(row.key))]
            _panel(axes, [each for each in known if each[1] > 0], styles)  # a full fine-tune has no adapter
    for axes, (name, _) in zip(grid[-1], costs, strict=True):
        axes.set_xlabel(name)
    handles = _legend(rows, styles)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
    return figure


def front(points: Iterable[tuple[float, float]]) -> list[int]:
    """The points (cost, gain) that no other matches in both and beats in one, by index, cheapest first."""
    known = list(points)
    kept = [
        index
        for index, (cost, gain) in enumerate(known)
        if not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in known)
    ]
    return sorted(kept, key=lambda index: (known[index], index))


def _gains(rows: Sequence[Row], found: Sequence[Difference], score: str) -> dict[RowKey, tuple[float, float, float]]:
    """Row -> gain, low, high, larger is better."""
    known = {each.row: each for each in found if each.score == score}
    sign = -1.0 if DIRECTIONS[score] == LOWER else 1.0
    out = {}
    for row in rows:
        if row.full_name in known:
            each = known[row.full_name]
            low, high = sorted((sign * each.low, sign * each.high))
            out[row.key] = (sign * each.value, low, high)
    return out


def _costs(study: Study, rows: Sequence[Row]) -> list[Cost]:
    def seconds(row: Row) -> float:
        found = [study.by_id[name].result for name in row.trial_ids]
        return float(np.mean([each.seconds.get("train", 0.0) * each.world_size for each in found]))

    short = max(map(seconds, rows)) < SHORT
    return [
        ("trainable parameters", lambda row: float(row.parameters or 0)),
        (f"worker-{'seconds' if short else 'hours'} of training", lambda row: seconds(row) / (1 if short else 3600)),
        ("adapter, MB", lambda row: row.adapter_megabytes or 0.0),
    ]


def _panel(axes: Axes, points: Sequence[Point], styles: Mapping[RowKey, Any]) -> None:
    best = front((cost, gain) for _, cost, (gain, _, _) in points)
    axes.step([points[index][1] for index in best], [points[index][2][0] for index in best], where="post", **FRONT)
    for index, (row, cost, (gain, low, high)) in enumerate(points):
        colour, marker = styles[row.key]
        clear = index in best or len(points) <= MANY
        axes.plot([cost, cost], [low, high], color=colour, linewidth=0.7, alpha=0.5 if clear else 0.15, zorder=2)
        face = colour if index in best else "white"
        axes.plot([cost], [gain], marker, color=colour, mfc=face, ms=4, mew=0.8, zorder=3)
    _cost_axis(axes, [cost for _, cost, _ in points])
    _name(axes, [points[index] for index in (best if len(points) > MANY else range(len(points)))], styles)


def _cost_axis(axes: Axes, costs: Sequence[float]) -> None:
    """Logarithmic where costs differ by more than a decade."""
    if max(costs) > 10 * min(costs):
        axes.set_xscale("log")
        subs = (1.0, 2.0, 5.0) if max(costs) < 100 * min(costs) else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: short_count(round(value)) if value >= 1e3 else f"{value:g}")
    )
    axes.margins(x=0.12)


def _name(axes: Axes, points: Sequence[Point], styles: Mapping[RowKey, Any]) -> None:
    """The rank above its point, the greatest gains first; a name that would lie on another is left out."""
    taken: list[tuple[float, float]] = []
    for row, cost, (gain, _, _) in sorted(points, key=lambda point: -point[2][0]):
        x, y = axes.transLimits.transform(axes.transScale.transform((cost, gain)))
        if any(abs(x - other) < ROOM[0] and abs(y - height) < ROOM[1] for other, height in taken):
            continue
        taken.append((x, y))
        name = FULL if row.key.label == FULL else str(row.key.rank)
        text = axes.annotate(name, (cost, gain), (0, 4), textcoords="offset points", fontsize=6.5, ha="center")
        text.set(color=styles[row.key][0], path_effects=[withStroke(linewidth=1.8, foreground="white")], zorder=4)


def _styles(rows: Sequence[Row]) -> dict[RowKey, tuple[str, str]]:
    """Colour by target set, marker by what else varies beside the rank."""
    grid = [row for row in rows if row.in_grid]
    targets = list(dict.fromkeys(row.key.targets for row in grid))
    rules = list(dict.fromkeys(_rule(row) for row in grid))
    return {
        row.key: (
            COLOURS[targets.index(row.key.targets) % len(COLOURS)],
            MARKERS[rules.index(_rule(row)) % len(MARKERS)],
        )
        if row.in_grid
        else (FULL_COLOUR, "X")
        for row in rows
    }


def _rule(row: Row) -> str:
    return ", ".join(part for part in row.series.split(", ") if part != row.key.targets)


def _legend(rows: Sequence[Row], styles: Mapping[RowKey, tuple[str, str]]) -> list[Line2D]:
    grid = [row for row in rows if row.in_grid]
    colours = {row.key.targets: styles[row.key][0] for row in grid}
    markers = {_rule(row): styles[row.key][1] for row in grid}
    handles = [Line2D([], [], color=colour, marker="o", ls="", ms=4, label=name) for name, colour in colours.items()]
    if len(markers) > 1:
        handles += [
            Line2D([], [], color="0.4", marker=marker, mfc="white", ls="", ms=4, label=name)
            for name, marker in markers.items()
        ]
    if any(not row.in_grid for row in rows):
        handles.append(Line2D([], [], color=FULL_COLOUR, marker="X", ls="", ms=4, label="full fine-tune"))
    return [*handles, Line2D([], [], **FRONT, marker="o", ms=4, mfc="0.4", mec="0.4", label="Pareto front")]
