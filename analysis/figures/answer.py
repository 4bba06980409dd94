"""The figure that the answer is read from: what each rank gains, and what a larger rank adds.

In: `Findings`. Out: a column per primary score. Top: gain over the untrained model with its 95 % interval; rows without
a place on the rank axis stand at the right. Bottom: each rank minus the smallest, a thin line per seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.style import BASE, COLOURS, DOWN_UP, WIDTH, is_near, legend_below, rate_label, rate_markers
from analysis.statistics.answer import Answer
from analysis.statistics.findings import Findings
from analysis.statistics.intervals import crossed_interval, number
from analysis.study.files import Array
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, LOWER
from cinelora.metrics.primary import MOTION, plain_name

MOST_SEED_LINES = 2  # series; with more, lines of single seeds would hide the means
MARGIN: Mapping[str, Any] = {"color": COLOURS[2], "alpha": 0.13, "linewidth": 0}
OTHERS = "0.35"  # colour of rows without a rank


def answer_figure(findings: Findings) -> Figure | None:
    """None without a base and two ranks."""
    estimates = findings.estimates
    scores = list(dict.fromkeys(answer.score for answer in findings.answers))
    if not scores:
        return None
    ranks = sorted({row.key.rank for row in estimates.rows if row.in_grid and row.done})
    marks = rate_markers(estimates)
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    grid = figure.subplots(2, len(scores), squeeze=False, gridspec_kw={"height_ratios": (1.25, 1)})
    for (top, bottom), score in zip(grid.T, scores, strict=True):
        top.set_title(plain_name(score).replace(" (", "\n("))
        _gains(top, findings, score, ranks, marks)
        _steps(bottom, findings, score, ranks, marks)
        _rank_labels(bottom, estimates, ranks)
        bottom.set_xlim(top.get_xlim())
    grid[0, 0].set_ylabel("gain over the untrained model\n(up is better)")
    grid[1, 0].set_ylabel(f"gain minus that of rank {ranks[0]}")
    legend_below(figure, _legend(findings, marks), 4)
    return figure


def _gains(axes: Axes, findings: Findings, score: str, ranks: Sequence[int], marks: Mapping[float, str]) -> None:
    estimates, sign = findings.estimates, _sign(score)
    known = {each.row: each.interval for each in findings.differences if each.score == score}
    axes.axhline(0, **BASE)
    rows = [row for row in estimates.rows if row.full_name in known]
    others = [row for row in rows if not row.in_grid]
    for row in sorted(rows, key=lambda row: row.is_frozen):  # the last, when the axis is known
        interval = known[row.full_name]
        if row.in_grid:
            index = estimates.series.index(row.series)
            place = ranks.index(row.key.rank) + _shift(index, len(estimates.series))
            colour, mark = COLOURS[index % len(COLOURS)], marks[row.key.learning_rate]
        else:
            place, colour, mark = len(ranks) + 0.4 + others.index(row), OTHERS, "."
        ends = sorted((sign * interval.low, sign * interval.high))
        if row.is_frozen and not is_near(axes.get_ylim(), *ends):
            _far(axes, place, sign * interval.mean)
            continue
        axes.plot([place, place], ends, color=colour, linewidth=1.1)
        axes.plot([place], [sign * interval.mean], mark, color=colour, ms=4.5)
    axes.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
    axes.set_xlim(-0.6, len(ranks) + 0.2 + len(others))
    places = [len(ranks) + 0.4 + index for index in range(len(others))]
    for place, row in zip(places, others, strict=True):
        name = row.full_name.replace("_", " ")
        axes.annotate(
            name, (place, 0), xycoords=("data", "axes fraction"), xytext=(0, -4), textcoords="offset points",
            fontsize=6, color=OTHERS, rotation=40, ha="right", va="top", rotation_mode="anchor", annotation_clip=False,
        )  # fmt: skip


def _far(axes: Axes, place: float, value: float) -> None:
    """An arrow with its value, so that what is far away does not flatten the ranks."""
    above = bool(value > axes.get_ylim()[1])
    text, where = f"{number(value, '+.3g')} {DOWN_UP[above]}", (place, float(above))
    axes.annotate(
        text, where, xycoords=("data", "axes fraction"), xytext=(0, -2 if above else 2), textcoords="offset points",
        fontsize=6, color=OTHERS, rotation=90, ha="center", va="top" if above else "bottom",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip


def _steps(axes: Axes, findings: Findings, score: str, ranks: Sequence[int], marks: Mapping[float, str]) -> None:
    estimates, several = findings.estimates, len(findings.estimates.series) > MOST_SEED_LINES
    for answer in (each for each in findings.answers if each.score == score):
        index = estimates.series.index(answer.series)
        values = {rank: _sign(score) * own for rank, own in estimates.values_by_rank(answer.series, score).items()}
        values = {rank: values[rank] for rank in answer.by_rank}
        rates = {row.key.rank: row.key.learning_rate for row in estimates.finished(answer.series)}
        first, colour = values[min(values)], COLOURS[index % len(COLOURS)]
        places = [ranks.index(rank) + _shift(index, len(estimates.series)) for rank in values]
        steps = [own - first for own in values.values()]
        for seed in range(0 if several else len(first)):
            axes.plot(places, [each[seed].mean() for each in steps], color=colour, linewidth=0.6, alpha=0.55)
        for place, step, rank in zip(places, steps, values, strict=True):
            interval = crossed_interval(step, estimates.shots)
            axes.plot([place, place], [interval.low, interval.high], color=colour, linewidth=1.1)
            axes.plot([place], [interval.mean], marks[rates[rank]], color=colour, ms=4.5)
        axes.plot(places, [each.mean() for each in steps], color=colour, linewidth=1.6)
        if len(estimates.series) == 1 and answer.gained:
            _margin(axes, answer, values, first)
    noise = next((each for each in findings.reseeds if each.score == score and each.by_clip), None)
    if noise is not None:
        place = len(ranks) - 0.25
        axes.errorbar([place], [0], yerr=[noise.reach], color="0.5", capsize=3, linewidth=1.0)
    axes.axhline(0, color="0.75", linewidth=0.8, zorder=0)


def _margin(axes: Axes, answer: Answer, values: Mapping[int, Array], first: Array) -> None:
    """Shaded: within (1 - share) of the best gain."""
    best = max(answer.ranks, key=lambda each: each.gain.mean)
    top = float((values[best.rank] - first).mean())
    axes.axhspan(top - (1 - answer.share) * best.gain.mean, top, **MARGIN)


def _sign(score: str) -> float:
    return -1.0 if DIRECTIONS[score] == LOWER else 1.0


def _shift(index: int, count: int) -> float:
    return 0.0 if count == 1 else 0.5 * (index / (count - 1) - 0.5)


def _rank_labels(axes: Axes, estimates: Estimates, ranks: Sequence[int]) -> None:
    real = estimates.scores.real.get(MOTION)
    labels = [f"{rank}{_motion(estimates, rank, real)}" for rank in ranks]
    axes.set_xticks(range(len(ranks)), labels)
    axes.set_xlabel("rank" + (" (below: motion, % of real)" if real else ""))


def _motion(estimates: Estimates, rank: int, real: float | None) -> str:
    rows = [row for row in estimates.rows if row.in_grid and row.key.rank == rank]
    known = [row.estimates[MOTION].mean for row in rows if MOTION in row.estimates]
    return f"\n{100 * np.mean(known) / real:.0f}" if known and real else ""


def _legend(findings: Findings, marks: Mapping[float, str]) -> list[Line2D | Patch]:
    estimates = findings.estimates
    handles: list[Line2D | Patch] = [Line2D([], [], **BASE, label="untrained model")]
    if len(estimates.series) > 1:
        handles += [
            Line2D([], [], color=COLOURS[index % len(COLOURS)], label=series)
            for index, series in enumerate(estimates.series)
        ]
    if len(marks) > 1:
        handles += [
            Line2D([], [], ls="", color="0.3", marker=mark, ms=4.5, label=rate_label(rate))
            for rate, mark in marks.items()
        ]
    if len(estimates.series) <= MOST_SEED_LINES:
        handles.append(Line2D([], [], color=COLOURS[0], linewidth=0.6, alpha=0.55, label="one training seed"))
    if len(estimates.series) == 1 and any(answer.gained for answer in findings.answers):
        handles.append(Patch(**MARGIN, label=f"keeps {findings.study.share:.0%} of the best gain"))
    if any(each.by_clip for each in findings.reseeds):
        handles.append(Line2D([], [], color="0.5", marker="_", label="95 % of sampling noise"))
    return handles
