"""What a rank holds: singular values and effective ranks of the updates; truncated against trained adapters.

In: `Findings`. Out: one figure per function, of panels in pairs, one pair per series (and score). One or two pairs are
as wide as one column of a two-column page, more are as wide as the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.typing import LineStyleType, RcKeyType

from analysis.figures.style import BASE, COLOURS, legend_below, rank_axis, rank_colours
from analysis.statistics.findings import Findings
from analysis.statistics.spectra import Spectrum, kinds
from analysis.statistics.truncation import CUT_BETTER, TRAINED_BETTER, Truncated
from analysis.study.rows import Row, RowKey, series_of
from analysis.tables.rank_table import column_name

COLUMN = 3.4  # inches: one column of a two-column page
PAIR_HEIGHT, LEGEND_HEIGHT = 1.55, 0.5
SMALL: dict[RcKeyType, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6.5,
}
FLOOR = 1e-6  # of the largest singular value: less is rounding in float32
QUARTILES = (25, 50, 75)
ROLES: Mapping[str, str] = {  # a layer's name in its module -> what it does; one colour each
    "to_q": "q",
    "to_k": "k",
    "add_k_proj": "k",
    "to_v": "v",
    "add_v_proj": "v",
    "to_out.0": "out",
    "net.0.proj": "ffn in",
    "net.2": "ffn out",
}
COLOUR_OF_ROLE = dict(zip(dict.fromkeys(ROLES.values()), COLOURS, strict=True))
BRANCHES: Mapping[str, LineStyleType] = {"self-attention": "--", "cross-attention": "-", "image branch": ":"}
IN_FULL: Mapping[str, Any] = {"color": "0.8", "linewidth": 2.0, "zorder": 0}
TRAINED: Mapping[str, Any] = {"color": COLOURS[0], "marker": "o", "linestyle": "-"}
TRUNCATED: Mapping[str, Any] = {"color": COLOURS[1], "marker": "s", "linestyle": "--"}
UNCLEAR = "0.55"
Spectra = Mapping[RowKey, Sequence[Spectrum]]


def spectra(findings: Findings) -> Figure | None:
    """Left singular values of each rank, right the effective rank of each kind of layer; None without adapters."""
    rows = [row for row in findings.estimates.rows if row.in_grid and row.key in findings.spectra]
    if not rows:
        return None
    series, ranks = series_of(rows), sorted({row.key.rank for row in rows})
    with matplotlib.rc_context(SMALL):
        figure, panels = paired_panels(len(series))
        for name, (left, right) in zip(series, panels, strict=True):
            own = [row for row in rows if row.series == name]
            _values_panel(left, own, findings.spectra, rank_colours(ranks))
            _effective_panel(right, own, findings.spectra)
            for axes in (left, right):
                rank_axis(axes, ranks)
            left.set_title(name, loc="left")
            left.set_xlabel("index of the singular value")
            right.set_xlabel("trained rank")
        handles = _spectra_legend(kinds([each for row in rows for each in findings.spectra[row.key]]))
        legend_below(figure, handles, 4 if len(series) <= 2 else 5)
        return figure


def truncation(findings: Findings) -> Figure | None:
    """A marker per seed, lines through the means; the two meet at the rank that was truncated. None without one."""
    drawn = [each for each in findings.truncations if each.score in findings.estimates.primary.loss_first]
    cells = list(dict.fromkeys((each.series, each.score) for each in drawn))
    if not cells:
        return None
    with matplotlib.rc_context(SMALL):
        figure, panels = paired_panels(len(cells))
        for (series, score), (left, right) in zip(cells, panels, strict=True):
            own = [each for each in drawn if (each.series, each.score) == (series, score)]
            _scores_panel(left, TRAINED, {each.rank: each.trained for each in own})
            _scores_panel(left, TRUNCATED, {each.rank: each.cut for each in own})
            _differences_panel(right, own)
            left.set_title(", ".join(filter(None, (series, column_name(score)))), loc="left")
            for axes in (left, right):
                rank_axis(axes, [each.rank for each in own])
        source = "/".join(dict.fromkeys(str(each.source_rank) for each in drawn))
        handles = [
            Line2D([], [], **TRAINED, ms=3.5, mfc="white", label="trained at this rank"),
            Line2D([], [], **TRUNCATED, ms=3.5, mfc="white", label=f"rank {source} truncated to this rank"),
            Line2D([], [], color=UNCLEAR, marker="D", ms=3, label="difference (colour: the better)"),
        ]
        legend_below(figure, handles, 2 if len(cells) <= 2 else 5)
        return figure


def paired_panels(count: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure of `count` pairs of panels: up to two below each other, more in two columns."""
    across = 1 if count <= 2 else 2
    lines = math.ceil(count / across)
    size = (COLUMN * across + 0.2 * (across - 1), PAIR_HEIGHT * lines + LEGEND_HEIGHT)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, 2 * across, squeeze=False)
    for unused in grid.flat[2 * count :]:
        unused.remove()
    return figure, [(left, right) for left, right in grid.reshape(-1, 2)[:count]]


def _values_panel(axes: Axes, rows: Sequence[Row], spectra: Spectra, colours: Mapping[int, Any]) -> None:
    """Median and interquartile range over layers and seeds; each curve ends at its rank and is labelled there."""
    for row in rows:
        known = [each.values / each.values[0] for each in spectra[row.key] if each.values[0]]
        if not known:
            continue
        low, middle, high = np.maximum(np.percentile(np.stack(known), QUARTILES, axis=0), FLOOR)
        places, colour = np.arange(1, row.key.rank + 1), colours[row.key.rank]
        axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(places, middle, color=colour, marker="o" if row.key.rank == 1 else "", ms=2.5)
        end = (places[-1], middle[-1])
        name = axes.annotate(str(row.key.rank), end, (-1, -6), textcoords="offset points", ha="right", fontsize=6)
        name.set(color=colour, path_effects=[withStroke(linewidth=1.5, foreground="white")])
    axes.set_yscale("log")
    axes.set_ylabel("share of the largest")


def _effective_panel(axes: Axes, rows: Sequence[Row], spectra: Spectra) -> None:
    """Mean over blocks and seeds; the diagonal is a rank that is used in full."""
    ranks = [row.key.rank for row in rows]
    for kind in kinds([each for row in rows for each in spectra[row.key]]):
        of_kind = [[each.effective_rank for each in spectra[row.key] if each.kind == kind] for row in rows]
        axes.plot(ranks, [np.mean(each) for each in of_kind], marker=".", ms=3, linewidth=0.9, **kind_style(kind))
    axes.plot(ranks, ranks, **IN_FULL)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("effective rank")


def kind_style(kind: str) -> dict[str, Any]:
    """Colour by what the layer does, line by the branch it is in."""
    role, branch = _role_and_branch(kind)
    return {"color": COLOUR_OF_ROLE.get(role, "0.5"), "linestyle": BRANCHES.get(branch, "-")}


def _role_and_branch(kind: str) -> tuple[str, str]:
    """attn2.to_q -> q, cross-attention; "" where unknown."""
    module, _, name = kind.partition(".")
    branch = {"attn1": "self-attention", "attn2": "cross-attention"}.get(module, "")
    return ROLES.get(name, ""), "image branch" if name.startswith("add_") else branch


def _spectra_legend(found: Sequence[str]) -> list[Line2D]:
    seen = {part for kind in found for part in _role_and_branch(kind)}
    handles = [Line2D([], [], color=colour, label=role) for role, colour in COLOUR_OF_ROLE.items() if role in seen]
    branches = {branch: style for branch, style in BRANCHES.items() if branch in seen}
    handles += [Line2D([], [], color="0.3", ls=style, lw=1, label=branch) for branch, style in branches.items()]
    return [*handles, Line2D([], [], **IN_FULL, label="rank used in full")]


def _scores_panel(axes: Axes, style: Mapping[str, Any], values: Mapping[int, Sequence[float]]) -> None:
    """`values`: rank -> one score per seed."""
    known = {rank: found for rank, found in values.items() if found}
    axes.plot(list(known), [np.mean(found) for found in known.values()], **{**style, "marker": ""}, zorder=2)
    for rank, found in known.items():
        axes.plot([rank] * len(found), found, **{**style, "linestyle": ""}, ms=3, mew=0.7, mfc="white", zorder=3)
    axes.set_xlabel("rank")


def _differences_panel(axes: Axes, own: Sequence[Truncated]) -> None:
    """Trained minus truncated with its interval; grey where it includes zero."""
    axes.axhline(0, **BASE)
    for each in own:
        found = each.difference
        if found is None or each.rank == each.source_rank:
            continue
        colour = {CUT_BETTER: TRUNCATED["color"], TRAINED_BETTER: TRAINED["color"]}.get(each.verdict, UNCLEAR)
        axes.plot([each.rank] * 2, [found.low, found.high], color=colour, linewidth=1.4)
        axes.plot([each.rank], [found.mean], "D", color=colour, ms=3)
    axes.set_ylabel("trained \N{MINUS SIGN} truncated")
