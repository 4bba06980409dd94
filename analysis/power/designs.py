"""What a study may buy: for designs of seeds x held-out clips, the chance of an answer beside its price.

In: designs with their prices, the number of ranks, and how gains vary: of a finished study of the same kind
(`answer.pilot`), else as measured in study `quick`. Out: lines to print under a plan; power.csv and power.png in the
study folder. A chance is the least over three ways in which the gain may depend on rank (`shapes`), so it holds
whichever is true. No torch, no ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, MARKERS, STYLE, WIDTH
from analysis.power.chances import Chances, Design, chances, shapes
from analysis.power.spreads import Spreads, of_quick, spreads
from analysis.study.merge import load_studies
from analysis.study.rows import estimate
from analysis.study.scores import DIRECTIONS, LOWER
from analysis.tables.rank_table import column_name
from cinelora.core.cli import UserError, clock
from cinelora.core.files import whole_file

SHIPPED = "study quick, whose model is small and whose clips are drawn; better: answer.pilot=STUDY, a finished one"


@dataclass(frozen=True)
class Offer:
    """A design and its price. `hours`: GPU-hours, or worker-hours without GPUs; `wall`: seconds; None: unknown."""

    design: Design
    hours: float | None
    wall: float | None
    own: bool  # whether the study is planned so


@dataclass(frozen=True)
class Outlook:
    """Chances, 0..1, of one score, offer and shape: the smallest sufficient rank is named; a smaller one is; two
    neighbouring ranks are shown to differ (mean over those that differ)."""

    offer: Offer
    score: str
    shape: str
    named: float
    wrong: float
    told: float


def measured(pilot: str) -> tuple[Mapping[str, Spreads], str]:
    """(score -> how its gains vary, where that was measured). Raises UserError for a pilot that does not show it."""
    if not pilot:
        return of_quick(), SHIPPED
    estimates = estimate(load_studies([Path(pilot)]))
    found: dict[str, Spreads] = {}
    base = estimates.base
    for series, score in product(estimates.series, estimates.primary.answered):
        before = estimates.scorers[score](base) if base is not None and score in estimates.scorers else None
        values = list(estimates.values_by_rank(series, score).values()) if before is not None else []
        if score not in found and before is not None and len(values) > 1 and len(values[0]) > 1:
            sign = -1.0 if DIRECTIONS[score] == LOWER else 1.0
            found[score] = spreads(sign * (np.stack(values) - before))
    if not found:
        raise UserError(f"answer.pilot={pilot}: needs a base and two ranks of two seeds; take another finished study")
    return found, pilot


def power_table(offers: Sequence[Offer], ranks: int, known: Mapping[str, Spreads], share: float) -> list[Outlook]:
    """One per score, offer and shape; without scores on which no rank gained."""
    planted = shapes(ranks)
    lines = []
    for score, own in known.items():
        for offer in offers if own.gain > 0 else ():
            found = chances(own, list(planted.values()), share, offer.design)
            lines += [
                Outlook(offer, score, shape, each.named, each.wrong, _told(each, shares))
                for (shape, shares), each in zip(planted.items(), found, strict=True)
            ]
    return lines


def _told(found: Chances, shares: Sequence[float]) -> float:
    """Mean over the neighbours that differ; 1 where none do, so that there is nothing to tell."""
    differing = [told for told, step in zip(found.told, np.diff(shares), strict=True) if step]
    return float(np.mean(differing)) if differing else 1.0


def power_lines(table: Sequence[Outlook], unit: str, price: float, wanted: float) -> list[str]:
    """The table for a terminal, the planned design marked, and the cheapest design that reaches `wanted` by score."""
    scores, offers = (
        list(dict.fromkeys(each.score for each in table)),
        list(dict.fromkeys(each.offer for each in table)),
    )
    named, told = least(table, "named"), least(table, "told")
    lines = ["  seeds clips " + f"{unit:>12}" + "      wall" + ("      price" if price else "")]
    lines[0] += "".join(f"  {column_name(score):>22}" for score in scores)
    for offer in offers:
        text = f"{'*' if offer.own else ' '} {offer.design.seeds:5} {offer.design.clips:5} "
        text += f"{'?':>12}" if offer.hours is None else f"{offer.hours:>12.4g}"
        text += f"  {'?' if offer.wall is None else clock(offer.wall):>8}"
        if price:
            text += f" {'?':>10}" if offer.hours is None else f" {offer.hours * price:>10,.0f}"
        lines.append(
            text + "".join(f"  {f'{named[score, offer]:.0%} / {told[score, offer]:.0%}':>22}" for score in scores)
        )
    for score in scores:
        enough = [offer for offer in offers if named[score, offer] >= wanted]
        cheapest = min(enough, key=lambda each: (each.hours or 0, each.design.seeds * each.design.clips), default=None)
        found = "none of these designs"
        if cheapest is not None:
            found = f"{cheapest.design.seeds} seeds x {cheapest.design.clips} clips"
            found += "" if cheapest.hours is None else f", {cheapest.hours:.4g} {unit}"
        own = next((f"as planned {named[score, offer]:.0%}; " for offer in offers if offer.own), "")
        lines.append(f"{column_name(score)}: {own}{wanted:.0%} is reached by {found}")
    return lines


def write_power(table: Sequence[Outlook], unit: str, wanted: float, folder: Path) -> list[Path]:
    """power.csv, and power.png (chance against price)."""
    rows = [
        {
            "seeds": each.offer.design.seeds,
            "clips": each.offer.design.clips,
            "hours": each.offer.hours,
            "wall_seconds": each.offer.wall,
            "planned": each.offer.own,
            **{name: getattr(each, name) for name in ("score", "shape", "named", "wrong", "told")},
        }
        for each in table
    ]
    with whole_file(folder / "power.csv") as path:
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    with whole_file(folder / "power.png") as path:
        power_figure(table, unit, wanted).savefig(path, dpi=150, format="png")
    return [folder / "power.csv", folder / "power.png"]


def least(table: Sequence[Outlook], name: str) -> dict[tuple[str, Offer], float]:
    """(score, offer) -> the least over the shapes."""
    found: dict[tuple[str, Offer], float] = {}
    for each in table:
        found[each.score, each.offer] = min(found.get((each.score, each.offer), 1.0), getattr(each, name))
    return found


def power_figure(table: Sequence[Outlook], unit: str, wanted: float) -> Figure:
    """By score, a curve per number of clips, a point per number of seeds. Without prices the axis counts clips."""
    named, scores = least(table, "named"), list(dict.fromkeys(each.score for each in table))
    offers = list(dict.fromkeys(each.offer for each in table))
    priced = all(offer.hours is not None for offer in offers)

    def place(offer: Offer) -> tuple[float, float]:
        return (offer.hours or 0.0) if priced else offer.design.seeds * offer.design.clips, named[score, offer]

    with rc_context(dict(STYLE)):
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for axes, score in zip(panels, scores, strict=True):
            for index, clips in enumerate(sorted({offer.design.clips for offer in offers})):
                own = sorted(
                    (each for each in offers if each.design.clips == clips), key=lambda each: each.design.seeds
                )
                look: dict[str, Any] = {"color": COLOURS[index], "marker": MARKERS[index], "ms": 3.5}
                axes.plot(*zip(*map(place, own), strict=True), label=f"{clips} clips", **look)
                for offer in own:
                    above: dict[str, Any] = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
                    axes.annotate(str(offer.design.seeds), place(offer), fontsize=6, color=COLOURS[index], **above)
            for offer in offers:
                if offer.own:
                    axes.plot(*place(offer), "o", ms=10, mfc="none", color="0.2", label="as planned")
            axes.axhline(wanted, color="0.5", linewidth=0.8, linestyle=(0, (5, 2)))
            axes.set(title=column_name(score), ylim=(0, 1.08), xlabel=unit if priced else "clips sampled per rank")
            axes.set_xlim(left=0)
        panels[0].set_ylabel("chance of naming the\nsmallest sufficient rank")
        panels[0].legend(frameon=False, title="numbers at points: seeds", title_fontsize=6.5, fontsize=6.5, loc="best")
    return figure
