"""What a study may buy: for designs of seeds x held-out clips, the chance of an answer beside its price.

In: designs with their prices, the number of ranks, and how gains vary: of a finished study of the same kind
(`answer.pilot`), else as in the pilot that is shipped. Out: lines to print under a plan; power.csv and power.png in the
study folder. A chance is the least over three ways in which the gain may depend on rank (`shapes`), so it holds
whichever is true. No torch, no ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from analysis.power.simulated import ended
from analysis.power.spreads import Spreads, of_pilot, spreads
from analysis.study.merge import load_studies
from analysis.study.rows import estimate
from analysis.study.scores import DIRECTIONS, LOWER
from analysis.tables.rank_table import column_name
from cinelora.core.cli import UserError, clock, number
from cinelora.core.files import whole_file
from sweeps.looks import Looks

SHIPPED = "a study of a small model on drawn clips (docs/decisions.md, 52); better: answer.pilot=STUDY, a finished one"
MOST_VALUES = 4_000_000  # drawn at a time for rounds: 400 studies of 96 clips take half a second a score


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
        return of_pilot(), SHIPPED
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
    timed = any(offer.wall is not None for offer in offers)
    lines = ["  seeds clips " + f"{unit:>12}" + ("      wall" if timed else "") + ("      price" if price else "")]
    lines[0] += "".join(f"  {column_name(score):>22}" for score in scores)
    for offer in offers:
        text = f"{'*' if offer.own else ' '} {offer.design.seeds:5} {offer.design.clips:5} "
        text += f"{'?' if offer.hours is None else number(offer.hours):>12}"
        if timed:
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
            found += "" if cheapest.hours is None else f", {number(cheapest.hours)} {unit}"
        own = next((f"as planned {named[score, offer]:.0%}; " for offer in offers if offer.own), "")
        lines.append(f"{column_name(score)}: {own}{wanted:.0%} is reached by {found}")
    return lines


def rounds_lines(
    known: Mapping[str, Spreads],
    ranks: int,
    looks: Looks,
    share: float,
    clips: int,
    hours: Callable[[float], float | None],
    unit: str,
    price: float,
) -> list[str]:
    """What a study in rounds is expected to decide and to cost, by score and with all scores that decide; simulated.
    `hours`: of so many seeds of each rank."""
    scores = {score: own for score, own in known.items() if own.gain > 0}
    if not scores or clips < 2:
        return []
    most, planted = looks.schedule[-1], list(shapes(ranks).values())
    count = int(np.clip(MOST_VALUES // (ranks * most * clips), 50, 400))
    cases = {column_name(score): [own] for score, own in scores.items()} | {"all scores": list(scores.values())}
    lines = [
        f"in rounds, {clips} clips and at most {most} seeds of a rank: chance to name the smallest sufficient rank and "
        f"to end with a winner; expected cost, least to most over the three ways ({count} simulations of each)",
        f"  {'decided by':>22}  named  winner  seeds of a rank  {unit:>16}" + (f"  {'price':>16}" if price else ""),
    ]
    for name, own in cases.items() if len(scores) > 1 else list(cases.items())[:1]:
        found = ended(own, planted, looks.schedule, looks.levels, share, clips, count)
        seeds = [pick(each.runs for each in found) / ranks for pick in (min, max)]
        cost = [spent for each in seeds if (spent := hours(each)) is not None]
        text = f"  {name:>22}  {min(each.found for each in found):>5.0%}  {min(each.won for each in found):>6.0%}"
        text += f"  {f'{seeds[0]:.1f} to {seeds[1]:.1f}':>15}  {' to '.join(map(number, cost)) or '?':>16}"
        lines.append(text + (f"  {' to '.join(number(each * price) for each in cost) or '?':>16}" if price else ""))
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
